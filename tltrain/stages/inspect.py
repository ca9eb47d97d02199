"""stage=inspect: trajectories as the trainer sees them.

    python -m tltrain stage=inspect data=rotbench data.path=FOLDER stage.limit=1

What is only read is dim; targets are coloured by weight, key tokens underlined; a turn that MAE leaves out is struck
through; `⏎` marks the end token that closes a turn. Writes the same as `inspect.html`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from tltrain.data import trajectories
from tltrain.data.judged import MaeReport, judged_trajectories, rule_of
from tltrain.data.reading import ReadReport
from tltrain.formats import tl
from tltrain.models import loading
from tltrain.models.loading import CORPUS, corpus
from tltrain.runtime import runs, terminal
from tltrain.stages import mae
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Target
from tltrain.trajectory import Trajectory

END = "⏎"
PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>What the trainer sees</title>'
    '<body style="background: {background}; color: {foreground}">'
    '<pre style="font-family: monospace; white-space: pre-wrap; overflow-wrap: anywhere">{code}</pre></body></html>'
)
READ, LEFT_OUT, PLAIN, KEY, NOTE = "dim", "red strike", "green", "bold underline", "italic cyan"


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage into `folder`; returns what it wrote to `metrics.json`."""
    read, judged = ReadReport(), MaeReport()
    items = []
    for item in judged_trajectories(trajectories(cfg.data, cfg.seed, read), rule_of(cfg), judged):
        items.append(item)
        if len(items) == max(cfg.stage.limit, CORPUS if cfg.model.random else 0):
            break
    path = loading.resolve(cfg.model, cfg.cache.dir, lambda: corpus(items))
    encoder = Encoder(loading.load_tokenizer(path, cfg.model))
    recorder = Console(
        record=True,
        file=terminal.console.file,
        highlight=False,
        soft_wrap=True,
        force_terminal=terminal.console.is_terminal,
    )
    for item in items[: cfg.stage.limit]:
        recorder.rule(Text(item.id))
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
        file.write(recorder.export_html(inline_styles=True, code_format=PAGE))
    metrics = {"shown": min(cfg.stage.limit, len(items)), "base_model": path, **mae.read_metrics(read, folder)}
    runs.finish(folder, cfg, metrics)
    terminal.console.print(f"Written to {folder / 'inspect.html'}", markup=False)
    return metrics


def picture(trajectory: Trajectory, encoder: Encoder, w_max: float | None) -> Text:
    """The trajectory's text, each token in the style of what the trainer makes of it."""
    out = Text()
    for piece, run_ in zip(tl.segments(trajectory), encoder.runs(trajectory, w_max), strict=True):
        if run_.targets:
            _append_turn(out, piece.text, run_.targets, encoder)
        elif piece.turn is not None:
            out.append(piece.text, LEFT_OUT)
            out.append("  [left out]", NOTE)
        else:
            out.append(piece.text, READ)
    return out


def _append_turn(out: Text, text: str, targets: Sequence[Target], encoder: Encoder) -> None:
    """A turn that is learned: its tokens, its end, and in brackets what is key in it."""
    at, keys = 0, []
    for target, (start, end) in zip(targets, encoder.encode([text])[0].spans, strict=False):
        token = text[max(at, start) : end]  # tokens that share a character (bytes of one letter) show it once
        out.append(text[at:start], READ)
        out.append(token, _key_style(target.weight) if target.key else PLAIN)
        at = max(at, end)
        keys += [token] if target.key else []
    out.append(END, _key_style(targets[-1].weight) if targets[-1].key else PLAIN)
    if keys:
        weight = max(target.weight for target in targets)
        out.append(f"  [{len(keys)} key of {len(targets)}: {' '.join(map(repr, keys))}, weight {weight:.2g}]", NOTE)


def _key_style(weight: float) -> str:
    """Warmer the more a key token counts."""
    colour = "yellow" if weight < 3 else "dark_orange" if weight < 6 else "red"
    return f"{KEY} {colour}"
