"""Measure a model's loss on recorded calls, right and failing ones: the evaluation behind `benchmark=toolworld_turns`.

Greedy answers hide how likely a wrong call has become. Here the model is given everything before a recorded call, and
the call's loss is measured, for calls without a mistake and for calls that failed. For each failing call, the golden
call in its place is measured too, after the same history.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tltrain.evaluation import analysis
from tltrain.evaluation.analysis import KEY_PARTS, TurnScore
from tltrain.evaluation.intervals import Interval
from tltrain.trajectory import Message, Trajectory, actions


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A recorded call under teacher forcing.

    Attributes:
        id, task: identity and task of its trajectory.
        turn: index among the trajectory's actions.
        tool: the called tool.
        open_text: whether the call asks or answers the user, in free words (`ask_to_user`, `finish`).
        mistake: the kind of its mistake; None for a golden call.
        failed: whether the tool answered with an error.
        loss: negative log-likelihood of the whole call in nats, end token included.
        tokens: number of its tokens.
        keys, keys_right: number of its key tokens, and of those that are the likeliest.
        keys_loss: loss of its key tokens in nats.
        golden_loss: for a failing call, the loss of the golden call after the same history; otherwise None.
    """

    id: str
    task: str
    turn: int
    tool: str
    open_text: bool
    mistake: str | None
    failed: bool
    loss: float
    tokens: int
    keys: int
    keys_right: int
    keys_loss: float
    golden_loss: float | None = None


def limited(trajectories: Iterable[Trajectory], size: int) -> list[Trajectory]:
    """Return the first trajectories with `size` calls in total; further calls of the last one are not learned."""
    found: list[Trajectory] = []
    left = size
    for trajectory in trajectories:
        if left <= 0:
            break
        calls = len(actions(trajectory.messages))
        found.append(trajectory if calls <= left else _with_learned(trajectory, range(left)))
        left -= calls
    return found


def alternatives(trajectory: Trajectory) -> Iterator[Trajectory]:
    """Yield for each failing call the trajectory up to it with the golden call in its place.

    Only the golden call is learned. It is the next call without a mistake: wrong calls precede the one they replace.
    """
    done, errors, failed = actions(trajectory.messages), trajectory.meta["errors"], trajectory.meta["failed"]
    for turn, action in enumerate(done):
        if not (failed[turn] and errors[turn] is not None and action.learn):
            continue
        golden = next(after.call for after, kind in zip(done[turn:], errors[turn:], strict=True) if kind is None)
        assert golden is not None  # toolworld's assistant only calls
        shorter = replace(trajectory, messages=(*trajectory.messages[: action.at], Message.calling(golden)))
        yield _with_learned(shorter, [turn])


def _with_learned(trajectory: Trajectory, turns: Sequence[int]) -> Trajectory:
    """Return the trajectory with only these calls as targets; each message has one call."""
    at = {action.at: turn in turns for turn, action in enumerate(actions(trajectory.messages))}
    messages = tuple(
        message.with_learn(message.learn and at[number]) if number in at else message
        for number, message in enumerate(trajectory.messages)
    )
    return replace(trajectory, messages=messages)


def recorded(
    trajectory: Trajectory,
    scores: Iterable[TurnScore],
    golden: Mapping[int, TurnScore],
    open_text: Sequence[str],
) -> Iterator[RecordedCall]:
    """Yield the recorded calls of a trajectory from their scores.

    Args:
        golden: index of a failing call -> score of the golden call in its place.
        open_text: names of the tools whose arguments are free text.
    """
    done, errors, failed = actions(trajectory.messages), trajectory.meta["errors"], trajectory.meta["failed"]
    for score in scores:
        call = done[score.turn].call
        assert call is not None  # only calls are scored
        keys = [at for at, part in enumerate(score.parts) if part in KEY_PARTS]
        yield RecordedCall(
            id=trajectory.id,
            task=str(trajectory.meta["task"]),
            turn=score.turn,
            tool=call.name,
            open_text=call.name in open_text,
            mistake=errors[score.turn],
            failed=bool(failed[score.turn]),
            loss=sum(score.nll),
            tokens=len(score.nll),
            keys=len(keys),
            keys_right=sum(score.right[at] for at in keys),
            keys_loss=sum(score.nll[at] for at in keys),
            golden_loss=sum(golden[score.turn].nll) if score.turn in golden else None,
        )


MEASURES = {
    "golden_loss": "nats per token of calls without a mistake",
    "failing_loss": "nats per token of failing calls",
    "key_accuracy": "% of the key tokens of calls without a mistake that are the likeliest",
    "key_loss": "nats per key token of calls without a mistake",
    "margin": "nats by which a failing call is less likely than the golden call in its place",
    "preferred": "% of failing calls that are less likely than the golden call in their place",
}
"""The numbers of `measure`, in words. Calls that ask or answer the user are left out, since their words are free."""


def measure(calls: Sequence[RecordedCall], seed: int = 0) -> dict[str, Interval]:
    """Return `MEASURES` of the recorded calls, with intervals from resampled trajectories."""
    golden = [call for call in calls if call.mistake is None and not call.open_text]
    failing = [call for call in calls if call.mistake is not None and call.failed]
    paired = [call for call in failing if call.golden_loss is not None]
    numbers = list(dict.fromkeys(call.id for call in calls))

    def sums(members: Sequence[RecordedCall], value: Any, of: Any) -> tuple[list[float], list[float]]:
        """Sum both over each trajectory; a trajectory without such a call has zeros."""
        totals = {name: [0.0, 0.0] for name in numbers}
        for call in members:
            totals[call.id][0] += value(call)
            totals[call.id][1] += of(call)
        return [total[0] for total in totals.values()], [total[1] for total in totals.values()]

    shares = {
        "key_accuracy": sums(golden, lambda call: call.keys_right, lambda call: call.keys),
        "preferred": sums(paired, lambda call: call.golden_loss < call.loss, lambda call: 1),
    }
    means = {
        "golden_loss": sums(golden, lambda call: call.loss, lambda call: call.tokens),
        "failing_loss": sums(failing, lambda call: call.loss, lambda call: call.tokens),
        "key_loss": sums(golden, lambda call: call.keys_loss, lambda call: call.keys),
        "margin": sums(paired, lambda call: call.loss - call.golden_loss, lambda call: 1),
    }
    found = analysis.ratios(means, seed) | analysis.ratios(shares, seed, 100)
    return {name: found[name] for name in MEASURES if name in found}
