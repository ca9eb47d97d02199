"""The layout shared by all training samples: a forest of token *runs* whose positions carry *targets*.

A sample with a single turn is a chain with targets at its end. A whole trajectory is a chain with targets along the
way: since attention is causal, one forward pass gives every turn's loss, provided that the last target of a turn is
the end token although the input continues with the tool's answer. A target therefore names the expected token
explicitly, instead of being the input shifted by one. Trajectories with a common prefix form a tree with branches
(`prefix_tree`); a chain is a tree with one branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Target(NamedTuple):
    """A token to predict from the hidden state at position `offset` of its run; -1 is the parent's last position."""

    offset: int
    token: int
    weight: float
    key: bool
    turn: int


class Run(NamedTuple):
    """Consecutive input tokens that follow the end of the run with index `parent` (-1: the run is a root).

    `opens_turn` marks the words that prompt the assistant, `"\\nAssistant:"` in the TL format.
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
        position_ids: [T] distance of each token from the root along its branch.
        reach: [T] index after the last token that descends from each token; T throughout a chain. Token q attends to
            token k if k <= q < reach[k].
        positions: [N] indices of the hidden states that predict the targets, ascending in a chain.
        targets: [N] token ids to predict.
        weights: [N] weights of the targets in the loss.
        keys: [N] 1 if the target is a key token, else 0.
        turns: [N] index in `trajectory.actions` of the action that each target belongs to; in a tree the numbering
            continues from one trajectory to the next.
    """

    input_ids: list[int]
    position_ids: list[int]
    reach: list[int]
    positions: list[int]
    targets: list[int]
    weights: list[float]
    keys: list[int]
    turns: list[int]


class Branch(NamedTuple):
    """A response in the context of its prompt.

    Attributes:
        prompt, response: token ids. The last token of the response is predicted and not fed in.
        shared: number of the prompt's first tokens that it has in common with the branch before (its prompt and the
            tokens of its response that are fed in), at most `len(prompt) - 1`, so that each position predicts one
            token.
        learned: whether each token of the response is a target; None: all are.
    """

    prompt: Sequence[int]
    response: Sequence[int]
    shared: int = 0
    learned: Sequence[bool] | None = None


def branch_runs(branches: Sequence[Branch]) -> list[Run]:
    """Return the forest of runs in which each branch shares its first tokens with the one before.

    A response's targets stand together, in its order, before those of later branches; `Target.turn` is the number of
    the branch.
    """
    tokens = [[*own.prompt, *own.response[:-1]] for own in branches]
    runs: list[Run] = []
    # Branches from `first` to `end` have their first `depth` tokens in the runs that end with `parent`.
    waiting = [(0, len(branches), 0, -1)] if branches else []
    while waiting:
        first, end, depth, parent = waiting.pop()
        until = min((own.shared for own in branches[first + 1 : end]), default=len(tokens[first]))
        if until > depth or end - first == 1:
            runs.append(Run(tokens[first][depth:until], parent, _targets(branches[first], first, depth, until)))
            depth, parent = until, len(runs) - 1
        if end - first == 1:
            continue
        starts = [first, *(m for m in range(first + 1, end) if branches[m].shared == depth)]
        groups = zip(starts, [*starts[1:], end], strict=True)
        waiting += reversed([(start, after, depth, parent) for start, after in groups])
    return runs


def _targets(branch: Branch, number: int, start: int, end: int) -> list[Target]:
    """Return the targets that are predicted from the positions `start` to `end` of a branch's tokens."""
    first = len(branch.prompt) - 1
    return [
        Target(first + k - start, token, 1.0, False, number)
        for k, token in enumerate(branch.response)
        if start <= first + k < end and (branch.learned is None or branch.learned[k])
    ]


def flatten(runs: Sequence[Run]) -> Layout:
    """Flatten a forest of runs into one sequence.

    Args:
        runs: in depth-first order: each run is directly followed by all of its descendants.

    Raises:
        ValueError: the runs are not in depth-first order.
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
            raise ValueError(f"run {number} is not in depth-first order")
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
    behind = list(ends)  # the end of each run, extended below to the end of its descendants
    for number in reversed(range(len(runs))):
        if (parent := runs[number].parent) >= 0:
            behind[parent] = max(behind[parent], behind[number])
    for number, run in enumerate(runs):
        layout.reach.extend([behind[number]] * len(run.ids))
    return layout
