"""MAE, mitigate adverse effects: which calls of a trajectory may be learned (TL-Training, arXiv 2412.15495).

A call whose tool answered with an error must not be learned, but stays in the history of later calls. What counts as
an error is a `Rule` (`formats.tool_errors`), data in `conf/mae/`.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from itertools import zip_longest

from tltrain.formats.tool_errors import Rule, error_kind
from tltrain.trajectory import Trajectory


class Verdict(Enum):
    """What MAE says of one assistant message; the values are the words of `metrics.json`."""

    KEPT = "kept"
    ERROR = "dropped_error"
    NO_ANSWER = "dropped_no_answer"


def verdicts(trajectory: Trajectory, rule: Rule | None) -> list[tuple[Verdict, str | None]]:
    """One verdict for each assistant message, in order, with the kind of error where it is `ERROR`.

    A message before a tool's answer is kept unless `rule` finds an error in the answer; before anything else it is
    dropped, with MAE and without (`rule=None`), as released; the last message of a trajectory is kept.
    """
    found: list[tuple[Verdict, str | None]] = []
    for message, following in zip_longest(trajectory.messages, trajectory.messages[1:]):
        if message.role != "assistant":
            continue
        if following is None:
            found.append((Verdict.KEPT, None))
        elif following.role != "tool":
            found.append((Verdict.NO_ANSWER, None))
        else:
            kind = error_kind(following.content, rule) if rule else None
            found.append((Verdict.ERROR if kind else Verdict.KEPT, kind))
    return found


def learnable(trajectory: Trajectory, rule: Rule | None) -> list[bool]:
    """For each assistant message whether it may be learned: kept by MAE, and not history only to begin with."""
    turns = (message for message in trajectory.messages if message.role == "assistant")
    return [
        turn.learn and verdict is Verdict.KEPT
        for turn, (verdict, _) in zip(turns, verdicts(trajectory, rule), strict=True)
    ]


def apply(trajectory: Trajectory, rule: Rule | None) -> Trajectory:
    """The same trajectory with `learn` set on its assistant messages; no message is taken out."""
    flags = iter(learnable(trajectory, rule))
    messages = tuple(
        replace(message, learn=next(flags)) if message.role == "assistant" else message
        for message in trajectory.messages
    )
    return replace(trajectory, messages=messages)
