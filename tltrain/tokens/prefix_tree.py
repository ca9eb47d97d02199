"""Lay out trajectories with a common prefix as one tree of token runs, so that the prefix is computed once.

Trajectories are compared token by token, so that tool documentation, instructions, queries and first calls can all be
shared. A run is split where two trajectories diverge. Each position of the tree predicts a single token: trajectories
that expect different tokens at the same position branch one token earlier, each with its own copy of that token. A
loss with one label per position therefore works for trees as for chains.

A tree is one row of a batch. Rows are shuffled, so the trajectories of a tree always share an optimizer step, and the
number of turns in a step varies with its trees; the loss is still the mean over all of them. Steps become fewer and
larger, which is why one sample per trajectory remains the default: both layouts give exact losses, but a learning rate
and `gradient_accumulation_steps` that suit one need not suit the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from tltrain.tokens.layout import Run, Target

LEAST_SHARED = 0.25
"""Least share of a trajectory's tokens that a tree must already hold: a smaller saving is not worth a larger batch."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Size limits of a tree.

    Attributes:
        trajectories: maximum number of trajectories in a tree.
        tokens: maximum number of tokens in a tree. A longer trajectory forms a tree by itself.
        dense_until: sequence length, in tokens, at which attention with a dense mask costs as much as the rest of the
            model; infinite if attention skips masked positions.
    """

    trajectories: int
    tokens: int
    dense_until: float = math.inf

    def saves_time(self, tree: int, whole: int, shared: int) -> bool:
        """Return whether a trajectory is computed faster within the tree than by itself.

        A sequence of n tokens costs n (1 + n / dense_until) with a dense mask. Without one the upper triangle is
        skipped, and the cost is n (1 + n / 2 dense_until).

        Args:
            tree: tokens in the tree so far.
            whole: tokens of the trajectory.
            shared: tokens of the trajectory that are already in the tree.
        """
        new = whole - shared
        added = new * (1 + (2 * tree + new) / self.dense_until)
        return shared >= LEAST_SHARED * whole and added < whole * (1 + whole / (2 * self.dense_until))


@dataclass(frozen=True, slots=True)
class _Path:
    """A chain of runs, concatenated.

    `ids` [T] are its tokens. The targets' offsets count from its beginning. `keys` [T] of two paths are equal where
    both have the same token and the same expected token, or none.
    """

    ids: list[int]
    targets: list[Target]
    keys: np.ndarray

    @classmethod
    def from_chain(cls, chain: Sequence[Run]) -> _Path:
        ids: list[int] = []
        targets: list[Target] = []
        for run in chain:
            targets += [target._replace(offset=len(ids) + target.offset) for target in run.targets]
            ids += run.ids
        keys = np.array(ids, dtype=np.int64) << 32
        for target in targets:
            keys[target.offset] += target.token + 1
        return cls(ids, targets, keys)


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    """Return the length of the common prefix."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


def _ordered(keys: np.ndarray) -> bytes:
    """Return the keys as bytes with the same sort order."""
    return keys.astype(">i8").tobytes()


def groups(chains: Sequence[Sequence[Run]], limits: Limits) -> list[list[int]]:
    """Partition the chains into trees and return their indices by tree, ordered by each tree's first chain.

    In lexicographic order of tokens, the chains with the longest common prefixes are neighbours. The tokens that a
    chain shares with a tree are therefore those that it shares with the chain added before it.
    """
    keys = [_Path.from_chain(chain).keys for chain in chains]
    found: list[list[int]] = []
    tokens, last = 0, -1
    for number in sorted(range(len(chains)), key=lambda at: _ordered(keys[at])):
        whole, shared = len(keys[number]), _shared(keys[last], keys[number]) if found else 0
        new = whole - shared
        room = bool(found) and len(found[-1]) < limits.trajectories and tokens + new <= limits.tokens
        if room and limits.saves_time(tokens, whole, shared):
            found[-1].append(number)
            tokens += new
        else:
            found.append([number])
            tokens = whole
        last = number
    return sorted(found, key=min)


def tree(chains: Sequence[Sequence[Run]]) -> list[Run]:
    """Merge the chains into one forest of runs in depth-first order.

    Each target keeps its weight and its turn; the numbering of turns continues from chain to chain in the given order.
    """
    if len(chains) == 1:
        return list(chains[0])
    paths, first = [], 0
    for chain in chains:
        path = _Path.from_chain(chain)
        targets = [target._replace(turn=first + target.turn) for target in path.targets]
        first = max((target.turn + 1 for target in targets), default=first)
        paths.append(_Path(path.ids, targets, path.keys))
    paths.sort(key=lambda path: _ordered(path.keys))
    runs: list[Run] = []
    waiting = [(branch, 0, -1) for branch in reversed(_branches(paths, 0))]
    while waiting:
        branch, start, parent = waiting.pop()
        end = _shared(branch[0].keys, branch[-1].keys)  # the paths are sorted: those between share it too
        hung = [
            target._replace(offset=target.offset - start)
            for path in branch
            for target in path.targets
            if start <= target.offset < end
        ]
        runs.append(Run(branch[0].ids[start:end], parent, hung))
        number = len(runs) - 1
        waiting += [(onward, end, number) for onward in reversed(_branches(branch, end))]
    return runs


def _branches(paths: Sequence[_Path], at: int) -> list[list[_Path]]:
    """Group the sorted paths that extend beyond position `at` by their key there."""
    onward = (path for path in paths if len(path.ids) > at)
    return [list(branch) for _, branch in groupby(onward, key=lambda path: path.keys[at])]
