"""Controls for MAE: other ways to decide which calls are learned, for comparison with the paper's rule.

`by_truth` leaves out the calls that the data itself records as wrong, which excludes a rule's mistakes. `RandomDrop`
leaves out as many calls as the rule does, but randomly chosen right ones: the cost of learning from fewer calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from tltrain import mae
from tltrain.errors import TltrainError
from tltrain.formats.tool_errors import Rule
from tltrain.mae import Judgement, Verdict
from tltrain.trajectory import Trajectory, actions


def by_truth(trajectory: Trajectory, field: str) -> list[Judgement]:
    """Return MAE's verdicts by the trajectory's own record of which calls went wrong.

    Args:
        field: the entry of `meta` with one value per action: `failed`, whether the tool answered with an error, or
            `errors`, the kind of the call's mistake or None, whether or not the tool noticed it.

    Raises:
        TltrainError: the trajectory has no such record.
    """
    found = mae.verdicts(trajectory, None)
    truth = _truth(trajectory, field)
    if len(truth) != len(found):
        raise TltrainError(
            f"stage.rule={field}: trajectory {trajectory.id} has {len(found)} calls, but meta.{field} {len(truth)}"
        )
    return [
        (Verdict.ERROR, wrong if isinstance(wrong, str) else field) if wrong else judgement
        for wrong, judgement in zip(truth, found, strict=True)
    ]


def _truth(trajectory: Trajectory, field: str) -> Sequence[Any]:
    truth = trajectory.meta.get(field)
    if not isinstance(truth, list | tuple):
        raise TltrainError(
            f"stage.rule={field}: trajectory {trajectory.id} does not say which calls went wrong (meta.{field}): only "
            "data=toolworld, or a train.jsonl made of it, does; stage.rule=paper judges by the tools' answers"
        )
    return truth


class RandomDrop:
    """MAE's verdicts with errors swapped for right calls: errors are learned and as many right calls are left out.

    The calls to leave out are drawn from the same trajectory. A trajectory with fewer right calls than errors loses all
    of its right calls, and later trajectories make up the difference, so the totals agree over the whole data set.

    Attributes:
        owed: the number of calls that are still to be left out.
    """

    def __init__(self, rule: Rule, seed: int) -> None:
        self.rule, self.seed = rule, seed
        self.owed = 0
        self._seen = 0

    def __call__(self, trajectory: Trajectory) -> list[Judgement]:
        """Return the verdicts of the next trajectory."""
        found = mae.verdicts(trajectory, self.rule)
        learn = [action.learn for action in actions(trajectory.messages)]
        right = [at for at, (verdict, _) in enumerate(found) if learn[at] and verdict is Verdict.KEPT]
        wrong = [at for at, (verdict, _) in enumerate(found) if verdict is Verdict.ERROR]
        self.owed += sum(learn[at] for at in wrong)
        count = min(self.owed, len(right))
        dropped = set(Random(f"drop/{self.seed}/{self._seen}/{trajectory.id}").sample(right, count))
        self.owed -= count
        self._seen += 1
        return [
            (Verdict.RANDOM if at in dropped else Verdict.KEPT if at in wrong else verdict, None)
            for at, (verdict, _) in enumerate(found)
        ]
