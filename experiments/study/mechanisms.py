"""What stands behind each hypothesis' number (exploratory): how conversations end, which mistakes, PPO's own reward.

The table has numbers alone, of the baseline and the arm in the same seeds; what they mean is said in the documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from experiments.study import histories, markdown
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
    return markdown.table(title, ["", *(f"`{baseline}` → `{arm}`" for baseline, arm in pairs)], lines)


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
    for one in summary["changed"]:
        if (one["baseline"], one["arm"]) == (baseline, arm) and one["set"] in SETS:
            where = SETS[one["set"]]
            for grade, mistake in MISTAKES.items():
                shares = (100 * one[side].get(grade, 0) / one["asked"] for side in ("before", "after"))
                yield f"{where}: {mistake}, %", _change(shares)
            yield f"{where}: mean reward of the answers", _change(one["reward"], 2)
    rewards = [part["reward"] for part in summary["ppo"] if part["arm"] == arm and "reward" in part]
    if len(rewards) == histories.PARTS:
        yield (
            f"PPO: reward of a sampled call, first → last of {histories.PARTS} parts",
            _change([rewards[0], rewards[-1]], 2),
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
