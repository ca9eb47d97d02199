"""Draw the pictures in a run's folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE = "#0072b2", "#d55e00"  # colour-blind readers can tell them apart (Okabe and Ito)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, completely or not at all, and close it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        figure.savefig(part, dpi=150, format="png")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
        plt.close(figure)


def bar_chart(path: Path, values: Mapping[str, float], title: str, unit: str) -> None:
    """Draw horizontal bars with their numbers, the largest on top."""
    names = list(values)
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.35 * len(names)), layout="constrained")
    bars = axes.barh([name.replace("_", " ") for name in names], list(values.values()), color=BLUE)
    axes.bar_label(bars, padding=3)
    axes.invert_yaxis()
    axes.set(title=title, xlabel=unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
    save(figure, path)


def loss_curves(path: Path, curves: Mapping[str, list[tuple[float, float]]], title: str) -> None:
    """Draw one line per name through (step, value) points."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (name, points), colour, style in zip(curves.items(), (BLUE, ORANGE, "black"), ("-", "--", ":"), strict=False):
        axes.plot(*zip(*points, strict=True), label=name, color=colour, linestyle=style)
    axes.set(title=title, xlabel="optimizer step", ylabel="loss (nats per token)")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)
    save(figure, path)


GRADE_COLOURS = (
    "#cccccc",
    "#999999",
    "#666666",
    "#f0e442",
    "#cc79a7",
    "#d55e00",
    "#e69f00",
    "#56b4e9",
    "#009e73",
)  # worst to best (Okabe and Ito)
HATCHES = ("||", "..", "oo", "++", "xx", "//", "\\\\", "--", "")


def reward_curves(
    path: Path, steps: Sequence[float], rewards: Sequence[float], shares: Mapping[str, Sequence[float]], title: str
) -> None:
    """Draw the mean reward over steps, and below it the stacked shares of grades (0 to 1) from worst to best."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 6), sharex=True, layout="constrained")
    _smoothed(top, steps, rewards, BLUE, "step")
    top.set(title=title, ylabel="reward")
    top.legend(frameon=False)
    areas = bottom.stackplot(steps, *shares.values(), labels=[name.replace("_", " ") for name in shares])
    for area, colour, hatch in zip(areas, GRADE_COLOURS, HATCHES, strict=False):
        area.set(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0)
    bottom.set(xlabel="optimizer step", ylabel="share of sampled calls", ylim=(0, 1))
    bottom.margins(x=0)
    handles, labels = bottom.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", frameon=False)
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def conversation_curves(
    path: Path, steps: Sequence[float], rewards: Sequence[float], shares: Mapping[str, Sequence[float]], title: str
) -> None:
    """Draw the mean reward of conversations over steps, and below it shares (0 to 1) as lines."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 6), sharex=True, layout="constrained")
    _smoothed(top, steps, rewards, BLUE, "step")
    top.set(title=title, ylabel="reward")
    top.legend(frameon=False)
    for (name, numbers), colour in zip(shares.items(), GRADE_COLOURS[::-1], strict=False):
        bottom.plot(steps, numbers, color=colour, label=name.replace("_", " "))
    bottom.set(xlabel="optimizer step", ylabel="share", ylim=(0, 1))
    bottom.margins(x=0)
    figure.legend(loc="outside right center", frameon=False)
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _smoothed(axes: Axes, steps: Sequence[float], numbers: Sequence[float], colour: str, label: str) -> None:
    """Plot numbers over steps, and their moving mean over a tenth of the steps."""
    window = max(len(numbers) // 10, 1)
    axes.plot(steps, numbers, color=colour, alpha=0.35 if window > 1 else 1.0, label=label)
    if window > 1:
        means = [
            sum(part) / len(part) for i in range(len(numbers)) for part in [numbers[max(i - window + 1, 0) : i + 1]]
        ]
        axes.plot(steps, means, color=colour, label=f"mean of {window} steps")
