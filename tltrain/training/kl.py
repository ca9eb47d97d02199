"""Control of the policy's KL divergence from the reference."""

from __future__ import annotations

from dataclasses import dataclass

from tltrain.config import OnKlLimit


@dataclass
class KlControl:
    """The coefficient of the KL penalty, and a limit on the KL divergence itself.

    Attributes:
        coefficient: coefficient of the penalty; `adapt` changes it.
        limit: limit in nats on the KL, summed over a response's tokens and averaged over responses; None: no limit.
        action: above the limit, `stop` the training or `adapt` the coefficient: multiply it by 1.5 after each step
            above the limit, and divide it by 1.5, down to its initial value, after each step below two thirds of the
            limit (like the adaptive penalty of Schulman et al. 2017).
    """

    coefficient: float
    limit: float | None = None
    action: OnKlLimit | str = OnKlLimit.stop

    FACTOR = 1.5

    def __post_init__(self) -> None:
        self.least = self.coefficient

    def update(self, kl: float, step: int) -> str | None:
        """Update the coefficient from a step's KL; return the reason if the training must stop, else None."""
        if self.limit is None:
            return None
        if self.action == "adapt":
            if kl > self.limit:
                self.coefficient *= self.FACTOR
            elif kl < self.limit / self.FACTOR:
                self.coefficient = max(self.coefficient / self.FACTOR, self.least)
        elif kl > self.limit:
            return f"kl {kl:.3f} exceeds stage.kl_limit={self.limit} at step {step}"
        return None
