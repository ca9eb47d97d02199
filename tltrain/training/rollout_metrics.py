"""Accumulate the metrics of PPO steps between two logs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any, get_args

import torch

from tltrain.environments.loop import Ended
from tltrain.grades import Outcome
from tltrain.training.conversation_reward import OWN, PARTS
from tltrain.training.reward_function import GRADES, SHARES

REWARD_PARTS = tuple(f"reward/{part}" for part in (*PARTS, OWN))
"""Names of the parts of a conversation's reward."""
ENDS = tuple(f"conversation/{end.replace(' ', '_')}" for end in get_args(Ended))
"""Names of the shares of conversations by how they ended."""
DOCUMENTATION_ERRORS = (
    Outcome.FORMAT_ERROR,
    Outcome.WORDS_BEFORE_CALL,
    Outcome.TOOL_HALLUCINATION,
    Outcome.PARAMETERS,
)
CALL_ERRORS = (*(f"error/{outcome.value}" for outcome in DOCUMENTATION_ERRORS), "error/tool")
"""Names of the shares of calls that contradict the documentation, or that a tool answered with an error."""


class RolloutMetrics:
    """Sums since the last log, kept on the device on which they are computed."""

    OVER_SAMPLES = ("reward", "kl", "response_length", "ended", *SHARES, *GRADES)
    OVER_COMPARED_TOKENS = ("sampling_logprob_difference",)
    MAXIMA = ("sampling_logprob_difference_max",)
    OVER_ITEMS = ("policy_loss", "value_loss")
    """Averaged over the same items as the loss: response tokens or responses."""
    OVER_TOKENS = (
        "policy_clip_fraction",
        "value_clip_fraction",
        "entropy",
        "value",
        "advantage",
    )
    SECONDS = ("seconds_generation", "seconds_scoring", "seconds_update")
    PARTS = tuple(f"seconds_{part}" for part in ("prefill", "reference", "policy", "critic", "backward", "optimizer"))
    """Parts of generation (prefill) and of the update (all others)."""
    OVER_COUNTS: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Further means: the name of a count -> the sums that are divided by it."""
    COUNTS = (
        "samples",
        "tokens",
        "compared_tokens",
        "items",
        "prompt_tokens",
        "update_tokens",
        "update_padding",
        "returns",
        "returns_squared",
        "error",
        "error_squared",
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set every sum to zero."""
        self.values: dict[str, float | torch.Tensor] = dict.fromkeys(
            [
                *self.OVER_SAMPLES,
                *self.OVER_COMPARED_TOKENS,
                *self.MAXIMA,
                *self.OVER_ITEMS,
                *self.OVER_TOKENS,
                *self.SECONDS,
                *self.PARTS,
                *self.COUNTS,
                *self.OVER_COUNTS,
                *chain.from_iterable(self.OVER_COUNTS.values()),
            ],
            0.0,
        )

    def add(self, **numbers: float | torch.Tensor) -> None:
        """Add each number to the sum of that name."""
        for name, number in numbers.items():
            self.values[name] = self.values[name] + number

    def update_max(self, **numbers: float | torch.Tensor) -> None:
        """Update the maximum of each non-negative number."""
        for name, number in numbers.items():
            self.values[name] = max(float(self.values[name]), float(number))

    def reduce_and_reset(self, accelerator: Any) -> dict[str, float]:
        """Return the metrics over all processes and reset the sums."""
        device = accelerator.device
        total = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=device) for v in self.values.values()])
        processes = accelerator.num_processes
        largest = accelerator.gather(total).view(processes, -1).amax(dim=0).tolist()
        maxima = {name: number for name, number in zip(self.values, largest, strict=True) if name in self.MAXIMA}
        sums = dict(zip(self.values, accelerator.reduce(total, reduction="sum").tolist(), strict=True))
        self.reset()
        tokens, seconds = sums["tokens"], {name: sums[name] / processes for name in (*self.SECONDS, *self.PARTS)}
        logs = {name: sums[name] / tokens for name in self.OVER_TOKENS if tokens}
        logs |= {name: sums[name] / sums["items"] for name in self.OVER_ITEMS if tokens}
        if sums["samples"]:  # none in a later PPO epoch
            logs |= {name: sums[name] / sums["samples"] for name in self.OVER_SAMPLES}
            compared = max(sums["compared_tokens"], 1)
            logs |= {name: sums[name] / compared for name in self.OVER_COMPARED_TOKENS} | maxima
        for count, names in self.OVER_COUNTS.items():
            logs |= {name: sums[name] / sums[count] for name in names if sums[count]}
        spread = sums["returns_squared"] - sums["returns"] ** 2 / max(tokens, 1)
        error = sums["error_squared"] - sums["error"] ** 2 / max(tokens, 1)
        whole = sum(seconds[name] for name in self.SECONDS)
        return logs | {
            "explained_variance": 1 - error / spread if spread > 0 else math.nan,
            "samples": sums["samples"],
            "response_tokens": sums["response_length"],
            "tokens_per_second": (sums["prompt_tokens"] + sums["response_length"]) / whole,
            "update_padding": sums["update_padding"] / max(sums["update_tokens"], 1),
            "seconds": whole,
            **seconds,
        }


class ConversationMetrics(RolloutMetrics):
    """The same for whole conversations: an answer of the policy is a sample, and a reward is that of a conversation."""

    OVER_SAMPLES = ("response_length", "ended")
    PARTS = (*(name for name in RolloutMetrics.PARTS if name != "seconds_prefill"), "seconds_sampling")
    OVER_COUNTS = MappingProxyType(
        {
            "learned": ("kl",),  # answers in conversations that no failure of the environment ended
            "usable": ("reward", *REWARD_PARTS),  # conversations that no such failure ended
            "conversations": ("turns", *ENDS),
            "checked": ("success",),
            "calls": (*CALL_ERRORS, "trailing_text"),
        }
    )

    def reduce_and_reset(self, accelerator: Any) -> dict[str, float]:
        """Return the metrics over all processes and reset the sums."""
        count = torch.tensor([float(self.values["conversations"])], device=accelerator.device)
        return super().reduce_and_reset(accelerator) | {"conversations": accelerator.reduce(count).item()}
