"""Trajectories that begin alike, laid out as one tree of token runs: what they share is computed once.

Trajectories are compared token by token, so that the same tool documentation, instructions, queries and first calls are
all found. Where two of them go apart the run is split. A position of the tree predicts one token alone: trajectories
that expect different tokens at the same place part one token earlier, each with its own copy of that token. A loss over
one label a position therefore serves trees as it serves chains.

A tree is one row of a batch. Rows are shuffled, so the trajectories of a tree are always learned in one optimizer step,
and a step holds as many turns as its trees happen to have; it still follows the mean over all of them. Fewer, larger
steps are why a sample a trajectory stays the default: a learning rate and `gradient_accumulation_steps` that suit one
layout need not suit the other, however exact both are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from tltrain.tokens.layout import Run, Target

LEAST_SHARED = 0.25
"""Share of a trajectory's tokens that must stand in the tree it joins: for less, a larger batch is no good deal."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a tree may become.

    Attributes:
        trajectories: at most so many in one tree.
        tokens: at most so many. One trajectory that is longer makes a tree by itself.
        dense_until: length of a sequence, in tokens, at which attention with a dense mask costs as much as the rest of
            the model; infinite where attention skips what the mask hides.
    """

    trajectories: int
    tokens: int
    dense_until: float = math.inf

    def pays(self, tree: int, whole: int, shared: int) -> bool:
        """Whether a trajectory is computed faster in the tree than by itself.

        A sequence of n tokens costs n (1 + n / dense_until) with a dense mask. Without one the upper triangle is
        skipped: n (1 + n / 2 dense_until).

        Args:
            tree: tokens in the tree so far. whole: tokens of the trajectory. shared: how many of them are in the tree.
        """
        new = whole - shared
        added = new * (1 + (2 * tree + new) / self.dense_until)
        return shared >= LEAST_SHARED * whole and added < whole * (1 + whole / (2 * self.dense_until))


@dataclass(frozen=True, slots=True)
class _Path:
    """A chain of runs in one piece: ids [T]; targets, whose offsets count from the beginning; and keys [T], which are
    equal where two paths have the same token and expect the same one, or none.
    """

    ids: list[int]
    targets: list[Target]
    keys: np.ndarray

    @classmethod
    def of(cls, chain: Sequence[Run]) -> _Path:
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
    """Length of the common beginning."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


def _ordered(keys: np.ndarray) -> bytes:
    """The keys as a string of bytes that compares as they do."""
    return keys.astype(">i8").tobytes()


def groups(chains: Sequence[Sequence[Run]], limits: Limits) -> list[list[int]]:
    """Which chains go into one tree: their numbers, each once; a group stands where its first chain stood.

    In the order of their tokens those that share most are neighbours, so that what a chain shares with a tree is what
    it shares with the one put in before it.
    """
    keys = [_Path.of(chain).keys for chain in chains]
    found: list[list[int]] = []
    tokens, last = 0, -1
    for number in sorted(range(len(chains)), key=lambda at: _ordered(keys[at])):
        whole, shared = len(keys[number]), _shared(keys[last], keys[number]) if found else 0
        new = whole - shared
        room = bool(found) and len(found[-1]) < limits.trajectories and tokens + new <= limits.tokens
        if room and limits.pays(tokens, whole, shared):
            found[-1].append(number)
            tokens += new
        else:
            found.append([number])
            tokens = whole
        last = number
    return sorted(found, key=min)


def tree(chains: Sequence[Sequence[Run]]) -> list[Run]:
    """The chains as one forest of runs, depth first.

    Each target keeps its weight and its turn; turns are numbered on through the chains, in the order given.
    """
    if len(chains) == 1:
        return list(chains[0])
    paths, first = [], 0
    for chain in chains:
        path = _Path.of(chain)
        targets = [target._replace(turn=first + target.turn) for target in path.targets]
        first = max((target.turn + 1 for target in targets), default=first)
        paths.append(_Path(path.ids, targets, path.keys))
    paths.sort(key=lambda path: _ordered(path.keys))
    runs: list[Run] = []
    waiting = [(branch, 0, -1) for branch in reversed(_branches(paths, 0))]
    while waiting:
        branch, start, parent = waiting.pop()
        end = _shared(branch[0].keys, branch[-1].keys)  # as they are sorted, the others share it too
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
    """The paths that go beyond position `at`, by the key there; the paths are sorted."""
    onward = (path for path in paths if len(path.ids) > at)
    return [list(branch) for _, branch in groupby(onward, key=lambda path: path.keys[at])]
