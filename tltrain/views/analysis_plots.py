"""Draw the pictures of `stage=analyze`."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tltrain.evaluation.analysis import CONDITIONS, PARTS, Group
from tltrain.evaluation.intervals import Interval
from tltrain.views.plots import BLUE, GRADE_COLOURS, HATCHES, ORANGE, save

MODEL_COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")  # Okabe and Ito
MODEL_STYLES = [(colour, hatch) for hatch in ("", "////", "....") for colour in MODEL_COLOURS]
KIND_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#999999")
KIND_HATCHES = ("", "//", "..", "xx", "\\\\", "--", "oo", "")
SHORT = 34  # maximum characters in a label


def errors(path: Path, groups: Mapping[str, Mapping[str, Group]], rule: str) -> None:
    """Draw for each group of trajectories the share of its training calls that failed, by kind of error."""
    bars = {
        f"{key}: {value}" if key else "all": group for key, values in groups.items() for value, group in values.items()
    }
    everything = sum((group.kinds for group in groups[""].values()), Counter())
    named = [kind for kind, _ in everything.most_common()]
    shown, rest = (named, []) if len(named) <= len(KIND_COLOURS) else (named[:7], named[7:])
    shares = {kind: [100 * group.kinds[kind] / max(sum(group.calls), 1) for group in bars.values()] for kind in shown}
    if rest:
        shares["other kinds"] = [
            100 * sum(group.kinds[kind] for kind in rest) / max(sum(group.calls), 1) for group in bars.values()
        ]
    labels = [f"{_short(name)} ({sum(group.calls)})" for name, group in bars.items()]
    _stacked(path, labels, shares, KIND_COLOURS, KIND_HATCHES, f"Training calls answered with an error (rule: {rule})")


def predictions(path: Path, outcomes: Mapping[str, Mapping[str, int]]) -> None:
    """Draw one bar per result: its calls, grouped by where they first go wrong, worst on the left."""
    names = next(iter(outcomes.values()))
    shares = {
        name: [100 * counts[name] / max(sum(counts.values()), 1) for counts in outcomes.values()] for name in names
    }
    labels = [f"{_short(name)} ({sum(counts.values())})" for name, counts in outcomes.items()]
    _stacked(path, labels, shares, GRADE_COLOURS, HATCHES, "Predicted calls, by where they first go wrong")


def _stacked(
    path: Path,
    labels: Sequence[str],
    shares: Mapping[str, Sequence[float]],
    colours: Sequence[str],
    hatches: Sequence[str],
    title: str,
) -> None:
    """Draw stacked horizontal bars in percent; labels end with the number of calls in brackets."""
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.4 * len(labels)), layout="constrained")
    left = [0.0] * len(labels)
    for (name, values), colour, hatch in zip(shares.items(), colours, hatches, strict=False):
        axes.barh(
            range(len(labels)),
            values,
            left=left,
            label=name.replace("_", " "),
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.5,
        )
        left = [a + b for a, b in zip(left, values, strict=True)]
    for row, total in enumerate(left):
        if total < 99.95:  # a bar that reaches 100 % needs no label
            axes.text(total, row, f" {total:.1f} %", va="center")
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set(xlabel="% of calls (number of calls in brackets)", xlim=(0, 100 if max(left) > 99 else 1.15 * max(left)))
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.legend(loc="outside right upper", frameon=False)
    save(figure, path)


def tokens(path: Path, models: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> None:
    """Draw accuracy (top) and loss (bottom) by part of a call, key tokens on the left."""
    parts = [part for part in PARTS if part != "all" and any(part in found for found in models.values())]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(_width(10, models), 7), sharex=True, layout="constrained")
    for axes, what, unit in ((top, "accuracy", "% right"), (bottom, "loss", "loss (nats per token)")):
        _grouped(axes, parts, {name: {part: found[part][what] for part in found} for name, found in models.items()})
        axes.set_ylabel(unit)
        last_key = max(i for i, part in enumerate(parts) if part in ("first", "distinguishing", "key"))
        axes.axvline(last_key + 0.5, color="#999999", linewidth=1, linestyle=":")
    top.set_ylim(0, 105)
    bottom.set_xticks(range(len(parts)), [textwrap.fill(PARTS[part], 14) for part in parts], fontsize="small")
    figure.suptitle("Tokens of recorded calls, each predicted from the preceding tokens")
    _legend(figure, top, models)
    save(figure, path)


def calls(path: Path, models: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> None:
    """Draw how often a whole call, and all of its other tokens, are right, given right or wrong key tokens."""
    asked = [name for name in CONDITIONS if any(name in found for found in models.values())]
    figure, both = plt.subplots(1, 2, figsize=(_width(11, models), 4.5), sharey=True, layout="constrained")
    for axes, what, title in zip(
        both,
        ("call", "others"),
        ("the whole call is right", "all tokens but the key tokens are right"),
        strict=True,
    ):
        _grouped(axes, asked, {name: {one: found[one][what] for one in found} for name, found in models.items()})
        axes.set_title(title, fontsize="medium")
        axes.set_xticks(
            range(len(asked)),
            [textwrap.fill(CONDITIONS[name], 14) for name in asked],
            fontsize="small",
        )
    highest = max(
        one[what].high if one[what].has_ends else one[what].value
        for found in models.values()
        for one in found.values()
        for what in one
    )
    both[0].set(ylabel="% of calls", ylim=(0, min(1.15 * highest + 1, 105)))
    figure.suptitle("Recorded calls, given their key tokens")
    _legend(figure, both[0], models)
    save(figure, path)


def _width(inches: float, models: Mapping[str, object]) -> float:
    """Return the figure's width, which grows beyond six bars side by side."""
    return inches + max(len(models) - 6, 0)


def _grouped(axes: Axes, places: Sequence[str], models: Mapping[str, Mapping[str, Interval]]) -> None:
    """Draw grouped bars with 95 % intervals: one group per place, one bar per model."""
    width = 0.8 / len(models)
    for number, (name, found) in enumerate(models.items()):
        colour, hatch = MODEL_STYLES[number % len(MODEL_STYLES)]
        at = [(i, found[place]) for i, place in enumerate(places) if place in found]
        values = [estimate.value for _, estimate in at]
        below = [max(one.value - one.low, 0) if one.has_ends else 0 for _, one in at]
        above = [max(one.high - one.value, 0) if one.has_ends else 0 for _, one in at]
        axes.bar(
            [i + (number + 0.5) * width - 0.4 for i, _ in at],
            values,
            width,
            label=_short(name),
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0,
            yerr=[below, above],
            capsize=2,
            ecolor="black",
            error_kw={"linewidth": 1},
        )
        for i, estimate in at:
            if estimate.value == 0:  # a zero has no visible bar, but differs from missing tokens
                axes.text(i + (number + 0.5) * width - 0.4, 0, "0", ha="center", va="bottom", fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, axes: Axes, models: Mapping[str, object]) -> None:
    if len(models) > 1:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(models), 3), frameon=False)


def _short(text: str) -> str:
    return text if len(text) <= SHORT else "…" + text[1 - SHORT :]
