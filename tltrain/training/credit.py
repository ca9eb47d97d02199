"""Credit for whole conversations: which of the model's turns made its conversation better than expected.

A turn is one answer of the model, with the call that it makes; T of them make a conversation. All tokens of a turn
share its advantage. Messages of tools and users are not turns and have no advantage.
"""

from __future__ import annotations

import torch

from tltrain.errors import TltrainError
from tltrain.training.policy_gradient import generalized_advantages

EPSILON = 1e-4
"""Added to the standard deviation of a group's returns, as GRPO implementations do."""

BASELINES = ("leave_one_out", "standardized")


def turn_advantages(
    rewards: torch.Tensor, values: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return advantages and returns, [T] each: generalized advantage estimation over the turns of one conversation.

    The discount is per turn, not per token: a long answer does not move the conversation's outcome further away.

    Args:
        rewards: [T] reward of each turn.
        values: [T] the critic's value before each turn; 0 follows the last one.
    """
    advantages, returns = generalized_advantages(
        rewards.unsqueeze(0),
        values.unsqueeze(0),
        torch.ones_like(rewards, dtype=torch.bool).unsqueeze(0),
        gamma=gamma,
        lam=lam,
    )
    return advantages[0], returns[0]


def discounted_return(rewards: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return the sum of `gamma`^t times the reward of turn t = 0, 1, ..., a scalar; 0 without turns.

    Args:
        rewards: [T] reward of each turn.
    """
    return (rewards * gamma ** torch.arange(len(rewards), device=rewards.device, dtype=rewards.dtype)).sum()


def group_advantages(returns: torch.Tensor, groups: torch.Tensor, baseline: str) -> torch.Tensor:
    """Return the advantage of each of N conversations over the others of its group, [N].

        leave_one_out   return - mean return of the other conversations (RLOO; Ahmadian et al. 2024)
        standardized    (return - mean) / (standard deviation + `EPSILON`), of the group (GRPO; Shao et al. 2024)

    The standard deviation has n - 1 in its denominator. A conversation that is alone in its group has nothing to be
    compared with; its advantage is 0.

    Args:
        returns: [N] return of each conversation.
        groups: [N] integers; conversations about the same task have the same number.

    Raises:
        TltrainError: there is no such baseline.
    """
    if baseline not in BASELINES:
        raise TltrainError(f"baseline: expected one of {', '.join(BASELINES)}, found {baseline}")
    _, group = groups.unique(return_inverse=True)  # [N] position of the group
    amount = int(group.max()) + 1 if len(group) else 0
    size = returns.new_zeros(amount).index_add(0, group, torch.ones_like(returns))
    mean = returns.new_zeros(amount).index_add(0, group, returns) / size
    centered = returns - mean[group]
    alone = size[group] < 2
    others = (size[group] - 1).clamp(min=1)
    if baseline == "leave_one_out":  # return - (sum - return) / (n - 1) = (return - mean) * n / (n - 1)
        return torch.where(alone, 0.0, centered * size[group] / others)
    variance = returns.new_zeros(amount).index_add(0, group, centered.square())[group] / others
    return torch.where(alone, 0.0, centered / (variance.sqrt() + EPSILON))
