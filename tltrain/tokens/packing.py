"""Conversations as token ids: what is fed in, what is to be predicted where, and how much each prediction counts.

Text that comes from tools and users is tokenized as text: the name of a special token in it stays a string of
characters.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from omegaconf import DictConfig

from tltrain.config import SupervisedPacking, Truncation
from tltrain.errors import TltrainError
from tltrain.runtime.shares import share
from tltrain.tokens import prefix_tree
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Layout, Run, flatten
from tltrain.tokens.prefix_tree import Limits
from tltrain.trajectory import Trajectory


@dataclass
class PackingReport:
    """What became of the trajectories: counts for `metrics.json`.

    `given` trajectories made `chains`, a turn or a trajectory each, before any was left out.

    What `prefix_tree` and `auto` measured: `trajectories` that are learned from, `tokens_apart` in samples of one
    trajectory each, `tokens_in_trees`.
    """

    packing: str = ""
    given: int = 0
    chains: int = 0
    samples: int = 0
    turns: int = 0
    tokens: int = 0
    trajectories: int = 0
    tokens_apart: int = 0
    tokens_in_trees: int = 0
    nothing_to_learn: int = 0
    truncated: int = 0
    turns_truncated: int = 0
    too_long: int = 0

    def losses(self, max_length: int) -> list[str]:
        """What was left out, a line each, with its share."""
        lines = []
        if self.nothing_to_learn:
            lines.append(f"{share(self.nothing_to_learn, self.given)} trajectories have no turn to learn")
        if self.too_long:
            lines.append(
                f"{share(self.too_long, self.chains)} samples are longer than {max_length} tokens and left out"
            )
        if self.truncated:
            lines.append(
                f"{share(self.truncated, self.chains)} samples are longer than {max_length} tokens and lose their "
                f"oldest turns: {share(self.turns_truncated, self.turns + self.turns_truncated)} turns to learn"
            )
        return lines


AUTO = 0.7
"""`packing=auto` lays trees out where they leave less than this share of the tokens."""


@dataclass(frozen=True)
class PackingSettings:
    """How trajectories become training samples.

    Attributes:
        packing: `trajectory`, one sample with all its turns; `turn`, one sample a turn, as released; `prefix_tree`, one
            sample for trajectories that begin alike; `auto`, `prefix_tree` or `trajectory` by the tokens they make.
        w_max: the largest weight of a key token (PKT); None weighs all tokens alike.
        max_length: longest sample in tokens.
        truncation: what to do with a longer one: drop its oldest turns (tools and query stay), stop, or skip it.
        limits: of a tree; None lets it hold 16 trajectories.
    """

    packing: SupervisedPacking | str = SupervisedPacking.trajectory
    w_max: float | None = None
    max_length: int = sys.maxsize
    truncation: Truncation | str = Truncation.drop_oldest_turns
    limits: Limits | None = None

    @classmethod
    def of_stage(cls, stage: DictConfig, max_length: int, limits: Limits | None = None) -> PackingSettings:
        """As `stage=sft` or `stage=pkt` configures it."""
        return cls(stage.packing.name, stage.w_max, max_length, stage.truncation.name, limits)


def pack(
    trajectories: Iterable[Trajectory], encoder: Encoder, settings: PackingSettings, report: PackingReport
) -> Iterator[Layout]:
    """Training samples of the trajectories, counted in `report`.

    Raises:
        TltrainError: a trajectory is too long and `settings.truncation` is `error`.
    """
    packing = SupervisedPacking(settings.packing)
    samples: Iterable[list[Run]] = _chains(trajectories, encoder, settings, report)
    report.packing = packing
    if packing in ("prefix_tree", "auto"):
        samples = _trees(list(samples), packing, settings.limits or Limits(16, settings.max_length), report)
    for runs in samples:
        layout = flatten(runs)
        report.samples += 1
        report.turns += len(_turns(runs))
        report.tokens += len(layout.input_ids)
        yield layout


def _chains(
    trajectories: Iterable[Trajectory],
    encoder: Encoder,
    settings: PackingSettings,
    report: PackingReport,
) -> Iterator[list[Run]]:
    """A chain a turn or a trajectory, each within `max_length`."""
    packing, truncation = SupervisedPacking(settings.packing), Truncation(settings.truncation)
    max_length = settings.max_length
    for trajectory in trajectories:
        runs = encoder.runs(trajectory, settings.w_max)
        chains = _turn_chains(runs) if packing == "turn" else [_without_tail(runs)]
        report.given += 1
        report.chains += sum(map(bool, chains))
        if not any(chains):
            report.nothing_to_learn += 1
        for chain in filter(None, chains):
            fitted = fit(chain, max_length)
            if fitted is not chain:
                if truncation == "error":
                    raise TltrainError(
                        f"trajectory {trajectory.id} has {_length(chain)} tokens, more than {max_length}: "
                        "raise stage.args.max_length, or choose stage.truncation=drop_oldest_turns or skip"
                    )
                if truncation == "skip" or fitted is None:
                    report.too_long += 1
                    continue
                report.truncated += 1
                report.turns_truncated += len(_turns(chain) - _turns(fitted))
            yield fitted


def _trees(
    chains: list[list[Run]], packing: SupervisedPacking, limits: Limits, report: PackingReport
) -> list[list[Run]]:
    """The chains in trees, or by themselves where `packing` is `auto` and the trees would share too little."""
    trees = [prefix_tree.tree([chains[at] for at in group]) for group in prefix_tree.groups(chains, limits)]
    report.trajectories = len(chains)
    report.tokens_apart, report.tokens_in_trees = sum(map(_length, chains)), sum(map(_length, trees))
    if packing == "auto":
        shared = report.tokens_in_trees < AUTO * report.tokens_apart
        report.packing = "prefix_tree" if shared else "trajectory"
        return trees if shared else chains
    return trees


def _turns(runs: Iterable[Run]) -> set[int]:
    return {target.turn for run in runs for target in run.targets}


def _length(runs: Iterable[Run]) -> int:
    return sum(len(run.ids) for run in runs)


def _without_tail(runs: list[Run]) -> list[Run]:
    """The chain up to its last run with targets; what follows teaches nothing."""
    last = max((i for i, run in enumerate(runs) if run.targets), default=-1)
    return runs[: last + 1]


def _turn_chains(runs: list[Run]) -> list[list[Run]]:
    """One chain a learnable turn: everything before it as history, targets on it alone."""
    return [[*(run._replace(targets=[]) for run in runs[:i]), run] for i, run in enumerate(runs) if run.targets]


def fit(chain: list[Run], max_length: int) -> list[Run] | None:
    """The chain if it is short enough; else what stands before its first turn (tools, query) and as many of its newest
    turns as fit; None where not even the last one does. It is cut where a turn begins: no answer without its call.
    """
    if _length(chain) <= max_length:
        return chain
    starts = [i for i, run in enumerate(chain) if run.opens_turn]
    opening = chain[: starts[0]]
    for start in starts[1:]:
        kept = [*opening, *chain[start:]]
        if _length(kept) <= max_length:
            return [run._replace(parent=i - 1) for i, run in enumerate(kept)]
    return None
