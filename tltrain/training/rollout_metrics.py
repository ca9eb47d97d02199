"""Accumulate the metrics of PPO steps between two logs."""

from __future__ import annotations

import math
from typing import Any

import torch

from tltrain.training.reward_function import GRADES, SHARES


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
