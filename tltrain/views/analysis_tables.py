"""The tables of `stage=analyze`, for the terminal and `analysis.md` (pictures: `analysis_plots`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tltrain.evaluation.analysis import CONDITIONS, PARTS, Group
from tltrain.evaluation.intervals import Interval
from tltrain.views import tables

MOST_KINDS = 3  # maximum kinds of error named in a row

Tokens = Mapping[str, Mapping[str, Interval]]
Calls = Mapping[str, Mapping[str, Interval]]


@dataclass(frozen=True)
class ResultTable:
    """A table with a note on how to read it, and the picture that belongs to it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""
    picture: str = ""


def markdown(heading: str, shown: Sequence[ResultTable]) -> str:
    """Render all tables as one page of Markdown."""
    parts = [f"# {heading}\n"]
    for table in shown:
        rows = [[str(cell).replace("|", "\\|") for cell in row] for row in (table.columns, *table.rows)]
        parts.append(tables.markdown(table.title, rows[0], rows[1:]))
        parts += [f"{table.note}\n"] if table.note else []
        parts += [f"![{table.title}]({table.picture})\n"] if table.picture else []
    return "\n".join(parts)


def percent(estimate: Interval | None) -> str:
    return _shown(estimate, ".1f", ".0f")


def nats(estimate: Interval | None) -> str:
    return _shown(estimate, ".3f", ".2f")


def _shown(estimate: Interval | None, digits: str, of_ends: str) -> str:
    if estimate is None:
        return "-"
    value = format(estimate.value, digits)
    return value if not estimate.has_ends else f"{value} [{estimate.low:{of_ends}}, {estimate.high:{of_ends}}]"


def errors(groups: Mapping[str, Mapping[str, Group]], rule: str, seed: int) -> ResultTable:
    """Tabulate training calls that were answered with an error, one row per group of trajectories.

    Args:
        groups: the grouping key (`""` for all trajectories) -> its values -> the group.
    """
    rows = []
    for key, values in groups.items():
        for value, group in values.items():
            shares = group.shares(seed)
            most = ", ".join(f"{kind.replace('_', ' ')} {n}" for kind, n in group.kinds.most_common(MOST_KINDS))
            rows.append(
                [
                    f"{key} {value}".strip()[:60],
                    len(group.calls),
                    sum(group.calls),
                    sum(group.errors),
                    percent(shares.get("calls")),
                    percent(shares.get("answered")),
                    most,
                ]
            )
    return ResultTable(
        "Training calls answered with an error",
        ["of", "trajectories", "calls", "errors", "% of calls", "% of answered", "most frequent"],
        rows,
        f"Errors by the rule `{rule}`. Calls are those that standard SFT learns; the last call of a trajectory has no "
        "answer. In brackets: 95 % intervals by bootstrap over trajectories, if there are enough of them.",
        "data_errors.png" if any(group.kinds for values in groups.values() for group in values.values()) else "",
    )


def kinds(group: Group) -> ResultTable:
    """Tabulate the kinds of error in all training calls."""
    total, failed = sum(group.calls), sum(group.errors)
    return ResultTable(
        "Kinds of error in training calls",
        ["kind", "calls", "% of calls", "% of errors"],
        [
            [kind.replace("_", " "), n, f"{100 * n / total:.1f}", f"{100 * n / failed:.1f}"]
            for kind, n in group.kinds.most_common()
        ],
    )


def tokens(models: Mapping[str, Tokens]) -> ResultTable:
    """Tabulate accuracy and loss by part of a call; within a part, one row per model."""
    rows = [
        [
            PARTS[part],
            *([model] if len(models) > 1 else []),
            found[part]["accuracy"].n,
            percent(found[part]["accuracy"]),
            nats(found[part]["loss"]),
        ]
        for part in PARTS
        for model, found in models.items()
        if part in found
    ]
    return ResultTable(
        "Tokens of recorded calls, each predicted from the preceding tokens",
        ["tokens", *(["model"] if len(models) > 1 else []), "number", "% right", "loss, nats"],
        rows,
        "A token is right if it is the model's most likely one. Key tokens are those that PKT weights: the first of "
        "the tool's name, and those at which it diverges from the names of other tools on offer.",
        "key_tokens.png",
    )


def calls(models: Mapping[str, Calls]) -> ResultTable:
    """Tabulate how often a call is right, given that its key tokens are right or wrong."""
    rows = [
        [
            CONDITIONS[asked],
            *([model] if len(models) > 1 else []),
            found[asked]["call"].n,
            percent(found[asked]["call"]),
            percent(found[asked]["others"]),
        ]
        for asked in CONDITIONS
        for model, found in models.items()
        if asked in found
    ]
    return ResultTable(
        "Whole calls, given their key tokens",
        ["calls", *(["model"] if len(models) > 1 else []), "number", "% entirely right", "% with all others right"],
        rows,
        "Entirely right: every token is the most likely one, so greedy decoding writes exactly this call; without its "
        "key tokens no call is. All others: every token that is not a key token, given the preceding recorded tokens. "
        "The end token is not counted: an answer is read up to the end of its call.",
        "calls.png",
    )


def predictions(counts: Mapping[str, Mapping[str, int]]) -> list[ResultTable]:
    """Tabulate predicted calls by row of the reward table, one column per result, in tables of only a few columns."""
    names, shown = list(counts), []
    for start in range(0, len(names), tables.SIDE_BY_SIDE):
        columns = names[start : start + tables.SIDE_BY_SIDE]
        totals = {name: sum(counts[name].values()) for name in columns}
        rows: list[list[object]] = [
            [
                row.replace("_", " "),
                *(f"{counts[name][row]} ({counts[name][row] / totals[name]:.1%})" for name in columns),
            ]
            for row in counts[columns[0]]
            if any(counts[name][row] for name in columns)
        ]
        rows.append(["all", *(totals[name] for name in columns)])
        last = start + tables.SIDE_BY_SIDE >= len(names)
        title = "Predicted calls by kind" + (f", {start + 1} to {start + len(columns)}" if start else "")
        shown.append(ResultTable(title, ["kind", *columns], rows, picture="prediction_kinds.png" if last else ""))
    return shown
