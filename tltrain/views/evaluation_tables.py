"""The tables of stage=eval, for the terminal and `table.md`, all made from the content of `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tltrain.evaluation.metrics import CONVERSATION, METRICS, SINGLE_TURN
from tltrain.evaluation.predictions import SUPERFLUOUS
from tltrain.evaluation.scoring import first_scoring
from tltrain.runtime import runs, terminal
from tltrain.views import tables

Numbers = Mapping[str, float]
"""A percentage as returned by `Percentage.to_json`."""

PublishedTable = tuple[str, list[str], list[list[str]]]
"""Title, columns and rows of a table with this run next to the paper's numbers."""


def percent(numbers: Numbers) -> str:
    """Format a percentage with its interval: `40.0 [31, 49]`."""
    return f"{numbers['percent']:.1f} [{numbers['low']:.0f}, {numbers['high']:.0f}]"


def write_published(folder: Path, published: Sequence[PublishedTable]) -> None:
    """Write `table.md` if the paper has numbers for a set."""
    if published:
        runs.write_lines(folder / "table.md", [tables.markdown(*table) for table in published])


def show_published(published: Sequence[PublishedTable]) -> None:
    """Print the same tables."""
    for title, columns, rows in published:
        terminal.table(title, columns, rows)


# --- one call per sample --------------------------------------------------------------------------------------------


def published_single_turn(metrics: Mapping[str, Any]) -> list[PublishedTable]:
    """Return a table for each set that the paper has numbers for: this run by scoring, then the paper's rows."""
    published = []
    for name, details in metrics["details"].items():
        scorings = {kind: numbers["all"] for kind, numbers in details["scoring"].items()}
        if not scorings:
            continue
        theirs = tables.published(name, next(iter(scorings.values()))["ts"]["n"])
        ours = [
            [
                "this run" + (f" ({kind})" if len(scorings) > 1 else ""),
                *(f"{numbers[metric]['percent']:.2f}" for metric in SINGLE_TURN),
            ]
            for kind, numbers in scorings.items()
        ]
        if theirs:
            published.append((f"{name} beside the paper, %", ["who", "TS", "PI", "CF"], ours + theirs))
    return published


def show_single_turn(metrics: Mapping[str, Any], preferred_scoring: str) -> None:
    """Print the share of right answers overall, by scenario and by seen and unseen queries, and the kinds of error."""
    has_official_check = any("ast" in details for details in metrics["details"].values())
    rows = [
        row
        for name, details in metrics["details"].items()
        for row in _single_turn_rows(name, details, preferred_scoring, has_official_check)
    ]
    columns = ["benchmark", "n", "TS", "PI", "CF", *(["BFCL's AST"] if has_official_check else [])]
    if rows:
        terminal.table("Evaluation, % of samples [95 % interval]", columns, rows)
    show_abstention(metrics)
    tables.print_kinds({name: _kinds(details) for name, details in metrics["details"].items()})


def show_abstention(metrics: Mapping[str, Any]) -> None:
    """Print the share of questions without a right call that are answered without a call, and the opposite error:
    questions that need a call but are answered in words. Print nothing if there are no questions of the first kind.
    """
    rows: list[list[object]] = []
    for name, details in metrics["details"].items():
        if "abstention" in details:
            found, scenarios = details["abstention"]["all"], details["abstention"]["by_scenario"]
            groups = [(f"  {key}", numbers) for key, numbers in scenarios.items()] if len(scenarios) > 1 else []
            shown = [[label, each["n"], percent(each), ""] for label, each in [(name, found), *groups]]
            shown[0][-1] = details.get("no_call", "")
            rows += shown
        elif "no_call" in details:
            rows.append([name, "", "", details["no_call"]])
    if any("abstention" in details for details in metrics["details"].values()):
        columns = ["benchmark", "n", "abstention", "a call asked for, answered in words"]
        terminal.table("No call is right: answered without one, % [95 % interval]", columns, rows)


def _kinds(details: Mapping[str, Any]) -> dict[str, int]:
    """Return the answers in each row of the reward table, and the superfluous calls of answers that may have some."""
    superfluous = {SUPERFLUOUS: details["calls"]["superfluous"]} if "calls" in details else {}
    return {**details["rows"], **superfluous}


def _single_turn_rows(
    name: str, details: Mapping[str, Any], preferred_scoring: str, has_official_check: bool
) -> list[list[object]]:
    """Return the rows of one set: for each scoring all samples, then groups of them."""
    rows = []
    for kind, numbers in details["scoring"].items():
        label = f" ({kind})" if len(details["scoring"]) > 1 else ""
        is_first = kind == first_scoring(details["scoring"], preferred_scoring)
        row = _single_turn_row(name + label, numbers["all"])
        if has_official_check:
            row.append(percent(details["ast"]) if is_first and "ast" in details else "")
        rows.append(row)
        seen = {f"{key} queries": value for key, value in sorted(numbers["by_seen"].items())}
        for groups in (seen, numbers["by_scenario"] if is_first else {}):
            rows += [_single_turn_row(f"  {key}{label}", value) for key, value in groups.items() if len(groups) > 1]
    return rows


def _single_turn_row(label: str, numbers: Mapping[str, Numbers]) -> list[object]:
    return [label, numbers["ts"]["n"], *(percent(numbers[metric]) for metric in SINGLE_TURN)]


def show_robustness(metrics: Mapping[str, Any]) -> None:
    """Print the drop from RoTBench's clean level to the worst one."""
    rows = [
        [
            f"{turn} turn, {metric.upper()}",
            f"{drop['clean']:.1f}",
            f"{drop['worst']:.1f} ({drop['level']})",
            f"{drop['drop']:.1f} [{drop['low']:.1f}, {drop['high']:.1f}]",
        ]
        for turn, drops in metrics["robustness"].items()
        for metric, drop in drops.items()
    ]
    if rows:
        columns = ["", "clean", "worst level", "drop [95 % interval, over queries]"]
        terminal.table("Robustness: from clean to the worst level, %", columns, rows)


# --- conversations --------------------------------------------------------------------------------------------------


def conversation_numbers(metrics: Mapping[str, Any], name: str) -> dict[str, str]:
    """Format each number of a set of conversations with its interval, for the top of `transcripts.html`."""
    numbers = metrics["details"][name]["all"]
    unit = {"de": "calls", "ce": "calls"}
    percents = {
        f"{METRICS[metric].name}, % of {unit.get(metric, 'all')}": percent(numbers[metric])
        for metric in CONVERSATION
        if metric in numbers
    }
    return percents | {"conversations": str(metrics[f"{name}/n"]), "calls": str(metrics[f"{name}/calls"])}


def published_conversations(metrics: Mapping[str, Any], name: str) -> list[PublishedTable]:
    """Return this run next to the paper's rows, if it has numbers for the set."""
    theirs = tables.published_multi(name, metrics[f"{name}/n"])
    ours = ["this run", *(f"{metrics[f'{name}/{metric}']:.2f}" for metric in CONVERSATION[:3])]
    return [(f"{name} beside the paper, %", ["who", "DE", "CE", "VA"], [ours, *theirs])] if theirs else []


def show_conversations(metrics: Mapping[str, Any], name: str) -> None:
    """Print the numbers overall and by scenario, how conversations ended, and the errors of calls."""
    details = metrics["details"][name]
    measured = [metric for metric in CONVERSATION if metric in details["all"]]
    rows = [_conversation_row(name, details["all"], measured)]
    if len(details["by_scenario"]) > 1:
        rows += [_conversation_row(f"  {key}", value, measured) for key, value in details["by_scenario"].items()]
    terminal.table(
        "Conversations: DE and CE in % of calls, the others in % of conversations [95 % interval]",
        ["benchmark", "n", "calls", *(METRICS[metric].name for metric in measured)],
        rows,
    )
    counts = [(f"ended by: {end}", count) for end, count in details["ended"].items()]
    for metric, kinds in (("DE", details["contradictions"]), ("CE", details["errors"])):
        counts += [(f"{metric}: {kind.replace('_', ' ')}", count) for kind, count in kinds.items()]
    terminal.table(
        "How conversations ended, and errors of calls",
        ["kind", "count"],
        [[kind, count] for kind, count in counts if count],
    )


def _conversation_row(label: str, numbers: Mapping[str, Numbers], measured: Sequence[str]) -> list[object]:
    return [label, numbers["va"]["n"], numbers["de"]["n"], *(percent(numbers[metric]) for metric in measured)]


# --- comparison, general ability ------------------------------------------------------------------------------------


def show_comparison(metrics: Mapping[str, Any]) -> None:
    """Print B - A in every metric, and both results' calls by kind of error."""
    for letter, path in zip("AB", metrics["compare"], strict=True):
        terminal.console.print(f"{letter}: {path}", markup=False)
    rows = [
        [
            f"{name} {level.upper() if len(level) == 2 else level}",
            numbers["n"],
            *(f"{numbers[side]:.2f}" for side in "ab"),
            f"{numbers['difference']:+.2f} [{numbers['low']:+.2f}, {numbers['high']:+.2f}]",
            f"{numbers['p']:.4f}",
        ]
        for name, details in metrics["details"].items()
        for level, numbers in details["levels"].items()
    ]
    terminal.table("B - A on the same samples [95 % interval]", ["", "n", "A", "B", "B - A", "p"], rows)
    kinds = {
        f"{name} {letter.upper()}": counts
        for name, details in metrics["details"].items()
        for letter, counts in details["rows"].items()
    }
    if kinds:
        tables.print_kinds(kinds)


def show_general(details: Mapping[str, Any], members: set[str]) -> None:
    """Print lm-eval's numbers of the requested tasks, without the members of groups."""
    rows = [
        [
            name,
            metric,
            measured["n"],
            f"{numbers['value']:.4f}",
            f"± {numbers['stderr']:.4f}" if "stderr" in numbers else "",
        ]
        for name, measured in details.items()
        if name not in members
        for metric, numbers in measured["metrics"].items()
    ]
    terminal.table("General ability (lm-eval)", ["task", "metric", "n", "value", "standard error"], rows)
