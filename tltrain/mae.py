"""MAE, mitigating adverse effects: decide which calls of a trajectory are trained on (TL-Training, arXiv 2412.15495).

A call whose tool answered with an error is no training target, but stays in the history of later calls. A `Rule`
(`formats.tool_errors`), read from `conf/mae/`, defines what counts as an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import Enum

from tltrain.formats.tool_errors import Rule, error_kind
from tltrain.trajectory import Message, Trajectory, actions


class Verdict(Enum):
    """MAE's verdict on one action of the assistant; the values are the keys of `metrics.json`."""

    KEPT = "kept"
    ERROR = "dropped_error"
    NO_ANSWER = "dropped_no_answer"
    RANDOM = "dropped_at_random"  # only in a control (`data.mae_controls`)


Judgement = tuple[Verdict, str | None]
"""A verdict, and for `ERROR` also the kind of error."""


def verdicts(trajectory: Trajectory, rule: Rule | None) -> list[Judgement]:
    """Return a verdict for each of the trajectory's `actions`, and for `ERROR` also the kind of error.

    Each call is judged by its own answer and kept unless `rule` finds an error in it. A call without an answer is kept
    if the conversation ends with it. If the user or the assistant continues after it, it is dropped, with MAE and
    without (`rule=None`), as in the released code. A message of plain text is judged in the same way by the tool
    message that directly follows it.
    """
    messages = trajectory.messages
    last = max((at for at, message in enumerate(messages) if message.role != "tool"), default=-1)
    found: list[Judgement] = []
    for action in actions(messages):
        if action.answer is not None:
            answer = messages[action.answer]
            kind = error_kind(answer.text, rule, answer.is_error) if rule else None
            found.append((Verdict.ERROR if kind else Verdict.KEPT, kind))
        else:
            found.append((Verdict.NO_ANSWER if action.at < last else Verdict.KEPT, None))
    return found


def learnable(trajectory: Trajectory, rule: Rule | None) -> list[bool]:
    """Return for each of the trajectory's `actions` whether it is a training target: kept by MAE, with `learn` set."""
    judged = zip(actions(trajectory.messages), verdicts(trajectory, rule), strict=True)
    return [action.learn and verdict is Verdict.KEPT for action, (verdict, _) in judged]


def apply(trajectory: Trajectory, rule: Rule | None) -> Trajectory:
    """Return the trajectory with `learn` cleared on everything that MAE drops; no message is removed."""
    return marked(trajectory, verdicts(trajectory, rule))


def marked(trajectory: Trajectory, judgements: Iterable[Judgement]) -> Trajectory:
    """Return the trajectory with `learn` cleared on each of its `actions` that is not kept.

    Text and thought beside calls keep `learn` as long as at least one of the calls is kept.
    """
    kept = iter([verdict is Verdict.KEPT for verdict, _ in judgements])
    messages = tuple(
        _marked_message(message, kept) if message.role == "assistant" else message for message in trajectory.messages
    )
    return replace(trajectory, messages=messages)


def whole_messages(trajectory: Trajectory) -> Trajectory:
    """Return the trajectory with `learn` cleared on every message that has a call without `learn`."""
    messages = tuple(
        message if all(made.learn for made in message.calls) else message.with_learn(False)
        for message in trajectory.messages
    )
    return replace(trajectory, messages=messages)


def _marked_message(message: Message, kept: Iterator[bool]) -> Message:
    """Return the assistant message with one flag, consumed from `kept`, applied to each of its actions."""
    flags = [next(kept) for _ in message.calls or [None]]
    calls = tuple(replace(made, learn=made.learn and flag) for made, flag in zip(message.calls, flags, strict=False))
    return replace(message, calls=calls, learn=message.learn and any(flags))
