"""What stands behind each hypothesis' number: mistakes, ends of conversations, PPO's own reward; controls and remedies.

The tables have numbers alone, of the baseline and the arm in the same seeds; what they mean is said in the documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from experiments.study import histories, markdown
from experiments.study.design import Study
from experiments.study.summary import Summary
from tltrain.evaluation.recorded_calls import MEASURES

LIMIT = "turn limit"
"""How a conversation ended that never came to an answer."""
MISTAKES = {"wrong_tool": "a wrong tool", "tool_hallucination": "a name that is not on offer"}
RECORDED = ("golden_loss", "key_loss", "key_accuracy", "preferred")
SETS = {"questions": "standard tools", "confusable": "confusable tools"}


def mechanisms(summary: Summary | None, title: str = "") -> list[str]:
    """The table: a line for each number, a column for each hypothesis; nothing as long as no row stands."""
    pairs = [(one["baseline"], one["arm"]) for one in (summary["hypotheses"] if summary else {}).values()]
    columns = [dict(_numbers(summary, *pair)) if summary and _stand(summary, pair) else {} for pair in pairs]
    names = list(dict.fromkeys(name for column in columns for name in column))
    lines = [[name, *(column.get(name, "") for column in columns)] for name in sorted(names, key=_place)]
    return markdown.table(title, ["", *(_arrow(*pair) for pair in pairs)], lines)


def controls(summary: Summary | None, study: Study, title: str = "") -> list[str]:
    """The table of pairs that are no hypothesis: a line for each, with the hypotheses' measures and its mistakes."""
    if summary is None:
        return []
    names = list(dict.fromkeys(name for one in study.hypotheses.values() for name in one.measures))
    lines = []
    for arm, baseline in study.secondary:
        if not _stand(summary, (arm, baseline)):
            continue
        found = {
            one["measure"]: one for one in summary["secondary"] if (one["baseline"], one["arm"]) == (baseline, arm)
        }
        mistakes: dict[str, list[str]] = {name: [] for name in SETS}
        for name, _, change in _mistakes(summary, baseline, arm):
            mistakes[name].append(change)
        lines.append(
            [
                _arrow(baseline, arm),
                str(max((len(one["differences"]) for one in found.values()), default=0)),
                *(markdown.difference(found[name]) if name in found else "" for name in names),
                *("; ".join(changes) for changes in mistakes.values()),
            ]
        )
    heads = ["", "seeds", *(study.measures[name].title for name in names)]
    heads += [f"{where}: {', then '.join(MISTAKES.values())}, %" for where in SETS.values()]
    return markdown.table(title, heads, lines)


def _arrow(baseline: str, arm: str) -> str:
    return f"`{baseline}` → `{arm}`"


def _stand(summary: Summary, pair: Iterable[str]) -> bool:
    return all(arm in summary["arms"] for arm in pair)


def _numbers(summary: Summary, baseline: str, arm: str) -> Iterator[tuple[str, str]]:
    """What is measured, and its numbers."""
    both = [summary["arms"][name] for name in (baseline, arm)]
    if both[0]["seeds"] == both[1]["seeds"]:  # otherwise they are means over other seeds, which do not compare
        ends = [one["ends"] for one in both]
        if all(ends):
            yield "conversations that reach the limit of calls, %", _change(map(_stopped, ends))
            yield "conversations with the task solved, %", _change(map(_solved, ends))
        metrics = [one["metrics"] for one in both]
        for name in RECORDED:
            values = [one.get(f"recorded/{name}") for one in metrics]
            if None not in values:
                yield f"recorded calls: {MEASURES[name]}", _change(values, 1 if MEASURES[name][0] == "%" else 3)
    for name, mistake, change in _mistakes(summary, baseline, arm):
        yield f"{SETS[name]}: {mistake}, %", change
    for one in _changed(summary, baseline, arm):
        yield f"{SETS[one['set']]}: mean reward of the answers", _change(one["reward"], 2)
    rewards = [part["reward"] for part in summary["ppo"] if part["arm"] == arm and "reward" in part]
    if len(rewards) == histories.PARTS:
        yield (
            f"PPO: reward of a sampled call, first → last of {histories.PARTS} parts",
            _change([rewards[0], rewards[-1]], 2),
        )


def _changed(summary: Summary, baseline: str, arm: str) -> list[Mapping[str, Any]]:
    """What became of the baseline's answers, in each of `SETS` that both were asked."""
    pair = baseline, arm
    return [one for one in summary["changed"] if (one["baseline"], one["arm"]) == pair and one["set"] in SETS]


def _mistakes(summary: Summary, baseline: str, arm: str) -> Iterator[tuple[str, str, str]]:
    """Set, mistake and its share of the answers, in the baseline and in the arm."""
    for one in _changed(summary, baseline, arm):
        for grade, mistake in MISTAKES.items():
            yield (
                one["set"],
                mistake,
                _change(100 * one[side].get(grade, 0) / one["asked"] for side in ("before", "after")),
            )


def _place(name: str) -> int:
    """Where a line stands: conversations, single calls, recorded calls, PPO."""
    heads = ("conversations", *SETS.values(), "recorded calls", "PPO")
    return next(place for place, head in enumerate(heads) if name.startswith(head))


def _share(ends: Mapping[str, Any], number: int) -> float:
    return 100 * number / sum(own["conversations"] for own in ends.values())


def _stopped(ends: Mapping[str, Any]) -> float:
    return _share(ends, ends.get(LIMIT, {}).get("conversations", 0))


def _solved(ends: Mapping[str, Any]) -> float:
    return _share(ends, sum(own["success"] for own in ends.values()))


def _change(values: Iterable[Any], digits: int = 1) -> str:
    return " → ".join(f"{value:.{digits}f}" for value in values)
