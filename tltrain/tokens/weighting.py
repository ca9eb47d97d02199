"""Token weighting, chosen by `weighting=`: how much each target token of a turn counts in the loss.

A weighting is a function of one of two kinds, distinguished by the parameter `turn` or `log_probs`; its other
parameters are the keys of the choice:

    (turn) -> weights         once, while the data is tokenized: PKT, a regular expression
    (log_probs) -> factors    at every step, from the tokens' log-probabilities: DFT

The loss of a turn is sum(weight * factor * nll) / sum(weight); weights or factors that a weighting does not give are 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from tltrain import pkt
from tltrain.config import KeyTokens, key
from tltrain.errors import TltrainError
from tltrain.runtime import targets
from tltrain.trajectory import Call, Tool

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Turn:
    """The N target tokens of a turn.

    Attributes:
        tokens: [N] their ids, the end token last.
        calls: the calls that the turn makes; empty in plain text.
        tools: the tools on offer.
        keys: positions of the paper's key tokens.
        name: positions of the called tools' names.
        draw: text that seeds random numbers: the seed, the trajectory and the turn.
        located: returns the turn's text, and each token's character range in it.
    """

    tokens: Sequence[int]
    calls: tuple[Call, ...]
    tools: tuple[Tool, ...]
    keys: frozenset[int]
    name: Collection[int]
    draw: str
    located: Callable[[], tuple[str, Sequence[tuple[int, int]]]]

    @cached_property
    def _located(self) -> tuple[str, Sequence[tuple[int, int]]]:
        return self.located()

    @property
    def text(self) -> str:
        """The turn as text, without its end token."""
        return self._located[0]

    @property
    def spans(self) -> Sequence[tuple[int, int]]:
        """[N] character range of each token in `text`; empty for the end token."""
        return self._located[1]


Weigh = Callable[[Turn], Sequence[float]]
Factors = Callable[["torch.Tensor"], "torch.Tensor"]


def pkt_weights(turn: Turn, w_max: float | None, key_tokens: KeyTokens | str = KeyTokens.paper) -> list[float]:
    """Return PKT's weights (`tltrain.pkt`); all 1 if `w_max` is None, which is standard SFT."""
    if w_max is None:
        return [1.0] * len(turn.tokens)
    heavy = pkt.weighed_positions(str(key_tokens), len(turn.tokens), turn.keys, turn.name, turn.draw)
    return pkt.token_weights(len(turn.tokens), turn.keys, w_max, heavy)


@dataclass
class Pattern:
    """Give one weight to the tokens that a regular expression matches, and 1 to the others."""

    pattern: str = key("???", "regular expression; tokens with any character of a match get the weight")
    weight: float = key(9.0, "weight of these tokens; every other token has 1", above=0, most=1_000_000)

    def __post_init__(self) -> None:
        try:
            self._pattern = re.compile(self.pattern)
        except re.error as error:
            raise TltrainError(
                f"weighting.pattern={self.pattern}: expected a regular expression, found: {error}"
            ) from None

    def __call__(self, turn: Turn) -> list[float]:
        found = [match.span() for match in self._pattern.finditer(turn.text)]
        return [
            self.weight if any(begin < last and first < end for first, last in found) else 1.0
            for begin, end in turn.spans
        ]


def dft(log_probs: torch.Tensor) -> torch.Tensor:
    """Return the model's own probability of each token: dynamic fine-tuning (DFT, arXiv 2508.05629).

    No gradient flows through `log_probs`. The gradient of p * -log p with p held constant is that of -p, so a token
    that the model considers unlikely does not dominate the step.
    """
    return log_probs.exp()


WEIGHTINGS: dict[str, Callable[..., Any]] = {"pkt": pkt_weights, "dft": dft, "pattern": Pattern}
"""Weightings by the name of their choice."""


@dataclass(frozen=True)
class Weighting:
    """A resolved choice of `weighting`: `weigh` for turns, or `factors` for each step."""

    name: str
    weigh: Weigh | None = None
    factors: Factors | None = None


def configured(weighting: DictConfig, w_max: float | None, key_tokens: KeyTokens | str) -> Weighting:
    """Return the weighting that a choice names.

    Raises:
        TltrainError: the function does not exist, one of its keys is wrong, or it is of neither kind.
    """
    check(weighting, w_max)
    function = targets.named(weighting, WEIGHTINGS, "weighting")
    name = str(weighting.get(targets.TARGET) or weighting.get("name"))
    bound = targets.bound(weighting, function, "weighting")
    if "log_probs" in targets.called_with(function):
        return Weighting(name, factors=partial(_factors, bound, name))
    return Weighting(name, weigh=partial(_weights, bound, name, w_max, key_tokens))


def check(weighting: DictConfig, w_max: float | None) -> None:
    """Raise a TltrainError if a weighting is of neither kind, or ignores a `stage.w_max` that is set."""
    function = targets.named(weighting, WEIGHTINGS, "weighting")
    wanted = targets.called_with(function)
    name = weighting.get("name")
    if not {"turn", "log_probs"} & set(wanted):
        raise TltrainError(
            f"weighting.{targets.TARGET}={weighting.get(targets.TARGET)}: expected a function of turn or of log_probs, "
            f"found {_seen(function, wanted)}"
        )
    if weighting.get(targets.TARGET) is None:
        targets.bound(weighting, function, "weighting")  # checks the keys of built-in weightings; others may be slow
    if w_max is not None and "w_max" not in wanted:
        raise TltrainError(
            f"weighting={name} does not read stage.w_max: choose stage=sft, or stage.w_max=null (in a pipeline "
            "stage.pkt=false)"
        )


def _seen(function: Callable[..., Any], wanted: Collection[str]) -> str:
    """Describe the object found where a function of turn was expected."""
    if isinstance(function, type) and not wanted:
        return "a class without a method __call__(self, turn)"
    return f"the parameters {', '.join(wanted) or 'none'}"


def _weights(
    bound: Callable[..., Any], name: str, w_max: float | None, key_tokens: KeyTokens | str, turn: Turn
) -> list[float]:
    with targets.explained(f"weighting {name}, turn {turn.draw}"):
        found = bound(turn=turn, w_max=w_max, key_tokens=key_tokens)
        if found is None:
            raise TltrainError(
                f"weighting {name}: expected a weight for each of {len(turn.tokens)} tokens of the turn (the end token "
                "too), found None: does the function return them?"
            )
        weights = [float(weight) for weight in found]
    if len(weights) != len(turn.tokens):
        raise TltrainError(
            f"weighting {name}: expected a weight for each of {len(turn.tokens)} tokens of the turn (the end token "
            f"too), found {len(weights)}"
        )
    if wrong := [weight for weight in weights if not math.isfinite(weight) or weight < 0]:
        raise TltrainError(f"weighting {name}: expected weights of 0 or more, found {wrong[0]}")
    if not any(weights):
        raise TltrainError(f"weighting {name}: expected a weight above 0 in each turn, found none in turn {turn.draw}")
    return weights


def _factors(bound: Callable[..., Any], name: str, log_probs: torch.Tensor) -> torch.Tensor:
    with targets.explained(f"weighting {name}"):
        found = bound(log_probs=log_probs)
    shape = getattr(found, "shape", None)
    if shape is None or tuple(shape) != tuple(log_probs.shape):
        seen = type(found).__name__ if shape is None else f"a tensor of shape {list(shape)}"
        raise TltrainError(f"weighting {name}: expected a tensor of shape {list(log_probs.shape)}, found {seen}")
    return found.detach()
