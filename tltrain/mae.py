"""MAE, mitigate adverse effects: which calls of a trajectory may be learned (TL-Training, arXiv 2412.15495).

A call whose tool answered with an error must not be learned, but stays in the history of later calls. What counts as
an error is a `Rule` (`formats.tool_errors`), data in `conf/mae/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import Enum

from tltrain.formats.tool_errors import Rule, error_kind
from tltrain.trajectory import Message, Trajectory, actions


class Verdict(Enum):
    """What MAE says of one action of the assistant; the values are the words of `metrics.json`."""

    KEPT = "kept"
    ERROR = "dropped_error"
    NO_ANSWER = "dropped_no_answer"


def verdicts(trajectory: Trajectory, rule: Rule | None) -> list[tuple[Verdict, str | None]]:
    """One verdict for each of the trajectory's `actions`, with the kind of error where it is `ERROR`.

    Each call is judged by its own answer: it is kept unless `rule` finds an error there. A call without an answer is
    dropped where the user or the assistant goes on, with MAE and without (`rule=None`), as released; it is kept where
    the conversation ends. A message of plain text is judged in the same way by what a tool says right after it.
    """
    messages = trajectory.messages
    last = max((at for at, message in enumerate(messages) if message.role != "tool"), default=-1)
    found: list[tuple[Verdict, str | None]] = []
    for action in actions(messages):
        if action.answer is not None:
            answer = messages[action.answer]
            kind = error_kind(answer.text, rule, answer.is_error) if rule else None
            found.append((Verdict.ERROR if kind else Verdict.KEPT, kind))
        else:
            found.append((Verdict.NO_ANSWER if action.at < last else Verdict.KEPT, None))
    return found


def learnable(trajectory: Trajectory, rule: Rule | None) -> list[bool]:
    """For each of the trajectory's `actions` whether it may be learned: kept by MAE, and not history only already."""
    judged = zip(actions(trajectory.messages), verdicts(trajectory, rule), strict=True)
    return [action.learn and verdict is Verdict.KEPT for action, (verdict, _) in judged]


def apply(trajectory: Trajectory, rule: Rule | None) -> Trajectory:
    """The same trajectory with `learn` set on what its assistant did; no message is taken out.

    The text and thought beside calls may be learned while at least one of the calls is kept.
    """
    kept = iter([verdict is Verdict.KEPT for verdict, _ in verdicts(trajectory, rule)])
    messages = tuple(
        _marked(message, kept) if message.role == "assistant" else message for message in trajectory.messages
    )
    return replace(trajectory, messages=messages)


def _marked(message: Message, kept: Iterator[bool]) -> Message:
    """The assistant message with the next of `kept` applied to each of its actions."""
    flags = [next(kept) for _ in message.calls or [None]]
    calls = tuple(replace(made, learn=made.learn and flag) for made, flag in zip(message.calls, flags, strict=False))
    return replace(message, calls=calls, learn=message.learn and any(flags))
