"""stage=inspect: trajectories as the trainer sees them.

    python -m tltrain stage=inspect data=rotbench data.path=FOLDER stage.limit=1

What is only read is dim; targets are coloured by weight, key tokens underlined; a turn that MAE leaves out is struck
through; `⏎` marks the end token that closes a turn. Writes the same as `inspect.html`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from tltrain import models, runs, terminal
from tltrain.data import trajectories
from tltrain.data.reading import ReadReport
from tltrain.formats import tl
from tltrain.stages import mae
from tltrain.stages.supervised import CORPUS, corpus
from tltrain.tokens import Encoder
from tltrain.trajectory import Trajectory

END = "⏎"
READ, LEFT_OUT, PLAIN, KEY = "dim", "dim red strike", "green", "bold underline"


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage into `folder`; returns what it wrote to `metrics.json`."""
    read, judged = ReadReport(), mae.MaeReport()
    items = []
    for item in mae.apply(trajectories(cfg.data, cfg.seed, read), mae.rule_of(cfg), judged):
        items.append(item)
        if len(items) == max(cfg.stage.limit, CORPUS if cfg.model.random else 0):
            break
    path = models.resolve(cfg.model, cfg.cache.dir, lambda: corpus(items))
    encoder = Encoder(models.load_tokenizer(path, cfg.model))
    recorder = Console(
        record=True,
        file=terminal.console.file,
        highlight=False,
        soft_wrap=True,
        force_terminal=terminal.console.is_terminal,
    )
    for item in items[: cfg.stage.limit]:
        recorder.rule(item.id)
        recorder.print(picture(item, encoder, cfg.stage.w_max))
    recorder.print(
        Text.assemble(
            ("read", READ),
            "  ",
            ("target", PLAIN),
            "  ",
            ("key token", _key_style(9)),
            "  ",
            ("left out by MAE", LEFT_OUT),
            f"  {END} end of a turn",
        )
    )
    with runs.writing(folder / "inspect.html") as file:
        file.write(recorder.export_html())
    metrics = {"shown": min(cfg.stage.limit, len(items)), "base_model": path, **mae.read_metrics(read, folder)}
    runs.finish(folder, cfg, metrics)
    terminal.console.print(f"Written to {folder / 'inspect.html'}", markup=False)
    return metrics


def picture(trajectory: Trajectory, encoder: Encoder, w_max: float | None) -> Text:
    """The trajectory's text, each token in the style of what the trainer makes of it."""
    out = Text()
    for piece, run_ in zip(tl.segments(trajectory), encoder.runs(trajectory, w_max), strict=True):
        if not run_.targets:
            out.append(piece.text, READ if piece.turn is None else LEFT_OUT)
            continue
        encoded = encoder.encode([piece.text])[0]
        at = 0
        for target, (start, end) in zip(run_.targets, encoded.spans, strict=False):
            style = _key_style(target.weight) if target.key else PLAIN
            out.append(piece.text[at:start], READ)
            out.append(piece.text[max(at, start) : end], style)
            at = max(at, end)
        last = run_.targets[-1]
        out.append(END, _key_style(last.weight) if last.key else PLAIN)
        keys = [target.weight for target in run_.targets if target.key]
        if keys:
            out.append(f"  [{len(keys)} key of {len(run_.targets)}, weight {keys[0]:.2g}]", "italic cyan")
    return out


def _key_style(weight: float) -> str:
    """Warmer the more a key token counts."""
    colour = "yellow" if weight < 3 else "dark_orange" if weight < 6 else "red"
    return f"{KEY} {colour}"
