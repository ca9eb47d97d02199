"""The one layout of everything that is trained: a forest of token *runs* with *targets* hung on their positions.

One turn a sample is a chain with targets at its end. A whole trajectory is a chain with targets along the way:
attention is causal, so one forward gives every turn's loss, if the last target of a turn is the end token although the
input goes on with the tool's answer. A target therefore says itself which token is expected; it is not the input
shifted by one. Trajectories that begin alike are a tree with branches (`prefix_tree`), of which a chain is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Target(NamedTuple):
    """A token to predict; `offset` is the position in its run whose hidden state predicts it, -1 the parent's last."""

    offset: int
    token: int
    weight: float
    key: bool
    turn: int


class Run(NamedTuple):
    """Consecutive input tokens that go on where the run numbered `parent` ends (-1: the beginning).

    `opens_turn` marks the words after which the assistant speaks, in the TL format `"\\nAssistant:"`.
    """

    ids: list[int]
    parent: int
    targets: list[Target]
    opens_turn: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """A forest of runs, flattened into one sequence of T tokens with N targets.

    Attributes:
        input_ids: [T] token ids.
        position_ids: [T] distance of each token from the root along its own branch.
        reach: [T] the index behind the last token that descends from each; T throughout a chain. Token q sees token k
            if k <= q < reach[k].
        positions: [N] indices into the sequence whose hidden states predict the targets, ascending in a chain.
        targets: [N] token ids to predict. weights: [N]. keys: [N], 1 where the token is a key token.
        turns: [N] the number of the `trajectory.actions` each target belongs to; in a tree numbered on through its
            trajectories.
    """

    input_ids: list[int]
    position_ids: list[int]
    reach: list[int]
    positions: list[int]
    targets: list[int]
    weights: list[float]
    keys: list[int]
    turns: list[int]


def flatten(runs: Sequence[Run]) -> Layout:
    """Lay a forest of runs out as one sequence.

    Args:
        runs: depth first: parents before children, and behind each run all that descends from it.
    """
    starts: list[int] = []
    ends: list[int] = []
    depths: list[int] = []
    last: list[int] = []
    path: list[int] = []
    layout = Layout([], [], [], [], [], [], [], [])
    for number, run in enumerate(runs):
        while path and path[-1] != run.parent:
            path.pop()
        if run.parent >= 0 and not path:
            raise ValueError(f"run {number} does not stand depth first")
        path.append(number)
        depth = depths[run.parent] + len(runs[run.parent].ids) if run.parent >= 0 else 0
        starts.append(len(layout.input_ids))
        depths.append(depth)
        layout.input_ids.extend(run.ids)
        layout.position_ids.extend(range(depth, depth + len(run.ids)))
        ends.append(len(layout.input_ids))
        last.append(ends[-1] - 1 if run.ids or run.parent < 0 else last[run.parent])
        for target in run.targets:
            layout.positions.append(starts[-1] + target.offset if target.offset >= 0 else last[run.parent])
            layout.targets.append(target.token)
            layout.weights.append(target.weight)
            layout.keys.append(int(target.key))
            layout.turns.append(target.turn)
    behind = list(ends)  # each run's end, and then that of its descendants
    for number in reversed(range(len(runs))):
        if (parent := runs[number].parent) >= 0:
            behind[parent] = max(behind[parent], behind[number])
    for number, run in enumerate(runs):
        layout.reach.extend([behind[number]] * len(run.ids))
    return layout
