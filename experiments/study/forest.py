"""The picture: differences of hypotheses and secondary measures with their intervals, readable on light and dark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.study.design import Study

INK, SHOWN, OTHER = "#7b818a", "#2f81d8", "#7b818a"
"""Text and lines, effects that are shown, others: each readable on white and on GitHub's dark background."""
SECONDARY = ("mean", "mean_confusable", "va", "success")
"""Measures of the hypotheses' arms that the picture shows besides the hypotheses' own."""


def entries(summary: Mapping[str, Any], study: Study) -> list[tuple[str, Mapping[str, Any], bool, bool]]:
    """What is drawn, from the top: label, comparison, whether it is confirmatory, whether it is shown."""
    found = []
    for name, one in summary["hypotheses"].items():
        shown = one["verdict"].startswith("shown")
        own = study.hypotheses[name]
        for measure, part in one["measures"].items():
            found.append((f"{one['title']}: {study.measures[measure].title}", part, True, shown))
        for part in summary["secondary"]:
            pair = (part["arm"], part["baseline"]) == (own.arm, own.baseline)
            if pair and part["measure"] in SECONDARY and part["measure"] not in one["measures"]:
                found.append((study.measures[part["measure"]].title, part, False, False))
    return found


def draw(summary: Mapping[str, Any], study: Study, file: Path) -> None:
    """Draw the forest plot as SVG; the same numbers give the same bytes."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "study", "svg.fonttype": "path", "font.size": 9}):
        from matplotlib.figure import Figure

        drawn = entries(summary, study)
        figure = Figure(figsize=(8, 1.1 + 0.32 * len(drawn)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, linewidth=0.8)
        for place, (_, part, confirmatory, shown) in enumerate(drawn):
            colour = SHOWN if shown else OTHER
            if part["question_low"] is not None:
                axes.plot([part["question_low"], part["question_high"]], [place] * 2, color=colour, lw=5, alpha=0.35)
            if part["low"] is not None:
                axes.plot([part["low"], part["high"]], [place] * 2, color=colour, lw=1.6, solid_capstyle="butt")
            axes.plot(
                part["value"], place, marker="s" if confirmatory else "o", ms=6 if confirmatory else 4, color=colour,
                mfc=colour if confirmatory else "none",
            )  # fmt: skip
        labels = [label if confirmatory else f"    {label}" for label, _, confirmatory, _ in drawn]
        axes.set_yticks(range(len(drawn)), labels, color=INK)
        for tick, (_, _, confirmatory, _) in zip(axes.get_yticklabels(), drawn, strict=True):
            tick.set_fontweight("bold" if confirmatory else "normal")
        axes.set_ylim(len(drawn) - 0.4, -0.6)
        axes.tick_params(colors=INK, length=0)
        axes.set_xlabel("points: ← worse than the baseline, better →", color=INK)
        figure.supxlabel(
            "line: 95 % over seeds (t); band: 95 % over questions; filled square: hypothesis, circle: secondary",
            color=INK,
            fontsize=8,
        )
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(INK)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
