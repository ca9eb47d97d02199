"""What is counted during the steps of PPO, and the numbers that are logged of it."""

from __future__ import annotations

import math
from typing import Any

import torch

from tltrain.training.reward_function import GRADES


class RolloutMetrics:
    """Sums over what has happened since the last log, on the device where they arise."""

    OVER_SAMPLES = ("reward", "kl", "response_length", "ended", *GRADES)
    OVER_TOKENS = (
        "policy_loss",
        "value_loss",
        "policy_clip_fraction",
        "value_clip_fraction",
        "entropy",
        "value",
        "advantage",
    )
    SECONDS = ("seconds_generation", "seconds_scoring", "seconds_update")
    COUNTS = ("samples", "tokens", "prompt_tokens", "returns", "returns_squared", "error", "error_squared")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set every sum to zero."""
        self.values: dict[str, float | torch.Tensor] = dict.fromkeys(
            [*self.OVER_SAMPLES, *self.OVER_TOKENS, *self.SECONDS, *self.COUNTS], 0.0
        )

    def add(self, **numbers: float | torch.Tensor) -> None:
        for name, number in numbers.items():
            self.values[name] = self.values[name] + number

    def take(self, accelerator: Any) -> dict[str, float]:
        """What is logged, over all processes; what it needs is forgotten."""
        device = accelerator.device
        total = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=device) for v in self.values.values()])
        processes = accelerator.num_processes
        sums = dict(zip(self.values, accelerator.reduce(total, reduction="sum").tolist(), strict=True))
        self.reset()
        tokens, seconds = sums["tokens"], {name: sums[name] / processes for name in self.SECONDS}
        logs = {name: sums[name] / tokens for name in self.OVER_TOKENS if tokens}
        if sums["samples"]:  # none in a later PPO epoch
            logs |= {name: sums[name] / sums["samples"] for name in self.OVER_SAMPLES}
        spread = sums["returns_squared"] - sums["returns"] ** 2 / tokens
        error = sums["error_squared"] - sums["error"] ** 2 / tokens
        whole = sum(seconds.values())
        return logs | {
            "explained_variance": 1 - error / spread if spread > 0 else math.nan,
            "samples": sums["samples"],
            "response_tokens": sums["response_length"],
            "tokens_per_second": (sums["prompt_tokens"] + sums["response_length"]) / whole,
            "seconds": whole,
            **seconds,
        }
