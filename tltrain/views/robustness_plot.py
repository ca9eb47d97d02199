"""Draw `robustness.png`: RoTBench's metrics over its levels of noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt

from tltrain.views.plots import BLUE, ORANGE, save

LINES = {"ts": ("TS", BLUE, "o-"), "pi": ("PI", ORANGE, "s--"), "cf": ("CF", "#009e73", "^:")}

Curve = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Level -> `ts`, `pi`, `cf` -> `percent`, `low`, `high`."""


def curves(path: Path, turns: Mapping[str, Curve], title: str) -> None:
    """Draw one panel per turn, with one line per metric over the levels in order, with 95 % intervals."""
    figure, panels = plt.subplots(
        1, len(turns), figsize=(1.5 + 4.5 * len(turns), 4), sharey=True, squeeze=False, layout="constrained"
    )
    highest = max(metric["high"] for levels in turns.values() for found in levels.values() for metric in found.values())
    for axes, (turn, levels) in zip(panels[0], turns.items(), strict=True):
        for number, (key, (name, colour, style)) in enumerate(LINES.items()):
            metrics = [found[key] for found in levels.values()]
            values = [metric["percent"] for metric in metrics]
            below = [max(metric["percent"] - metric["low"], 0) for metric in metrics]
            above = [max(metric["high"] - metric["percent"], 0) for metric in metrics]
            places = [i + 0.06 * (number - 1) for i in range(len(levels))]  # intervals side by side, not overlapping
            axes.errorbar(places, values, [below, above], fmt=style, color=colour, capsize=3, label=name)
        axes.set_xticks(range(len(levels)), list(levels))
        axes.set(
            title=f"{turn} turn", xlabel="noise in the tools' documentation", ylim=(0, min(1.1 * highest + 1, 102))
        )
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("% of samples")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.suptitle(title)
    save(figure, path)
