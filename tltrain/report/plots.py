"""Pictures a run leaves in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BLUE, ORANGE = "#0072b2", "#d55e00"  # told apart by colour-blind readers too (Okabe and Ito)


def bar_chart(path: Path, values: Mapping[str, float], title: str, unit: str) -> None:
    """Horizontal bars, the largest on top, each with its number."""
    names = list(values)
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.35 * len(names)), layout="constrained")
    bars = axes.barh([name.replace("_", " ") for name in names], list(values.values()), color=BLUE)
    axes.bar_label(bars, padding=3)
    axes.invert_yaxis()
    axes.set(title=title, xlabel=unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def loss_curves(path: Path, curves: Mapping[str, list[tuple[float, float]]], title: str) -> None:
    """One line a name over (step, value) points."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (name, points), colour, style in zip(curves.items(), (BLUE, ORANGE, "black"), ("-", "--", ":"), strict=False):
        axes.plot(*zip(*points, strict=True), label=name, color=colour, linestyle=style)
    axes.set(title=title, xlabel="optimizer step", ylabel="loss (nats per token)")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
