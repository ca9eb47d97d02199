"""What to do when the policy has gone far from the reference."""

from __future__ import annotations

from dataclasses import dataclass

from tltrain.config import OnKlLimit


@dataclass
class KlControl:
    """The coefficient of the KL penalty, and a limit on the KL divergence itself.

    Attributes:
        coefficient: of the penalty; `adapt` changes it.
        limit: of the mean over responses of the KL summed over a response's tokens, in nats; None: no limit.
        action: beyond the limit `stop` the training, or `adapt` the coefficient: half as much again after each step
            beyond the limit, back towards where it began once below two thirds of it (as the adaptive penalty of
            Schulman et al. 2017).
    """

    coefficient: float
    limit: float | None = None
    action: OnKlLimit | str = OnKlLimit.stop

    FACTOR = 1.5

    def __post_init__(self) -> None:
        self.least = self.coefficient

    def update(self, kl: float, step: int) -> str | None:
        """Take a step's KL into account; why the training is to stop, if it is."""
        if self.limit is None:
            return None
        if self.action == "adapt":
            if kl > self.limit:
                self.coefficient *= self.FACTOR
            elif kl < self.limit / self.FACTOR:
                self.coefficient = max(self.coefficient / self.FACTOR, self.least)
        elif kl > self.limit:
            return f"kl {kl:.3f} is beyond stage.kl_limit={self.limit} at step {step}"
        return None
