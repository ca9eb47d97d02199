"""Pack trajectories into training samples: input tokens, targets and the weight of each target."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from omegaconf import DictConfig

from tltrain.config import KeyTokens, SupervisedPacking, Truncation
from tltrain.errors import TltrainError
from tltrain.runtime.shares import share
from tltrain.tokens import prefix_tree, weighting
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Layout, Run, flatten
from tltrain.tokens.prefix_tree import Limits
from tltrain.tokens.weighting import Weigh
from tltrain.trajectory import Trajectory


@dataclass
class PackingReport:
    """Counts of the packing for `metrics.json`.

    `given` trajectories produced `chains`, one for each turn or trajectory, before any was left out. The turns of
    `branching` trajectories have more than one context, so these produce several chains.

    With `prefix_tree` and `auto`: the number of `trajectories` trained on, their `tokens_apart` in one sample per
    trajectory, and their `tokens_in_trees`.
    """

    packing: str = ""
    given: int = 0
    chains: int = 0
    branching: int = 0
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
        """Describe what was left out or truncated, one line each with its share."""
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
"""`packing=auto` uses trees if they reduce the number of tokens to less than this share."""


@dataclass(frozen=True)
class PackingSettings:
    """How trajectories become training samples.

    Attributes:
        packing: `trajectory`, one sample per trajectory with all its turns; `turn`, one sample per turn, as in the
            released code; `prefix_tree`, one sample for trajectories with a common prefix; `auto`, `prefix_tree` or
            `trajectory`, depending on the number of tokens.
        w_max: largest weight of a key token (PKT); None gives all tokens the same weight.
        max_length: length limit of a sample in tokens.
        truncation: what to do with a longer sample: drop its oldest turns (tools and query stay), stop, or skip it.
        limits: size limits of a tree; None allows 16 trajectories.
        key_tokens: the tokens that get the weight of a key token.
        seed: seed of the random tokens, see `Encoder.runs`.
        weigh: another weighting than PKT, used instead of `w_max` and `key_tokens`.
        branches: whether the model can process trees. If so, a trajectory whose turns have different contexts is one
            sample; if not, each of its contexts is one.
    """

    packing: SupervisedPacking | str = SupervisedPacking.trajectory
    w_max: float | None = None
    max_length: int = sys.maxsize
    truncation: Truncation | str = Truncation.drop_oldest_turns
    limits: Limits | None = None
    key_tokens: KeyTokens | str = KeyTokens.paper
    seed: int = 0
    branches: bool = False
    weigh: Weigh | None = None

    @classmethod
    def from_config(
        cls, cfg: DictConfig, max_length: int, limits: Limits | None = None, branches: bool = False
    ) -> PackingSettings:
        """Read the settings from the configuration of a run of `stage=sft` or `stage=pkt`."""
        stage = cfg.stage
        return cls(
            stage.packing.name,
            stage.w_max,
            max_length,
            stage.truncation.name,
            limits,
            stage.key_tokens.name,
            cfg.seed,
            branches,
            weighting.configured(cfg.weighting, stage.w_max, stage.key_tokens.name).weigh,
        )


def pack(
    trajectories: Iterable[Trajectory], encoder: Encoder, settings: PackingSettings, report: PackingReport
) -> Iterator[Layout]:
    """Yield the trajectories' training samples and count them in `report`.

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
    """Yield one chain per turn or per trajectory, each within `max_length`."""
    packing, truncation = SupervisedPacking(settings.packing), Truncation(settings.truncation)
    max_length = settings.max_length
    for trajectory in trajectories:
        contexts = encoder.chains(trajectory, settings.w_max, settings.key_tokens, settings.seed, settings.weigh)
        report.branching += len(contexts) > 1
        if packing == "turn":
            chains = [chain for runs in contexts for chain in _turn_chains(runs)]
        else:
            chains = [_without_tail(runs) for runs in contexts]
        report.given += 1
        report.chains += sum(map(bool, chains))
        if not any(chains):
            report.nothing_to_learn += 1
        if packing == "trajectory" and settings.branches and len(chains) > 1:
            branched = prefix_tree.tree([chain for chain in chains if chain])
            if _length(branched) <= max_length:
                yield branched
                continue
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
    """Return the chains as trees, or unchanged if `packing` is `auto` and the trees would share too little."""
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
    """Return the chain up to its last run with targets."""
    last = max((i for i, run in enumerate(runs) if run.targets), default=-1)
    return runs[: last + 1]


def _turn_chains(runs: list[Run]) -> list[list[Run]]:
    """Return one chain per turn with targets: the runs before it as history, and targets only on the turn itself."""
    return [[*(run._replace(targets=[]) for run in runs[:i]), run] for i, run in enumerate(runs) if run.targets]


def fit(chain: list[Run], max_length: int) -> list[Run] | None:
    """Return the chain, truncated to `max_length` tokens if it is longer.

    A truncated chain keeps everything before its first turn (tools, query) and as many of the newest turns as fit. It
    is cut where a turn begins, so that no answer loses its call. Return None if not even the last turn fits.
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
