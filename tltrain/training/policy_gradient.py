"""The mathematics of IRM's PPO (the paper, IRM; Schulman et al. 2017), as pure functions.

Shapes: M sampled responses of at most R tokens. `mask` is True on the tokens of a response, which are at the beginning
of its row; all other positions are ignored, and results are 0 there. All functions work elementwise or along rows, so a
batch can be split by responses, and sums over tokens add up.
"""

from __future__ import annotations

import torch


def token_rewards(
    scores: torch.Tensor,
    logprobs: torch.Tensor,
    reference: torch.Tensor,
    mask: torch.Tensor,
    *,
    kl: float,
    clip: float,
) -> torch.Tensor:
    """Return the reward of each token, [M, R]: `-kl * (logprob - reference)`, plus the score on the last token.

    Args:
        scores: [M] reward of each response, clipped to [-clip, clip].
        logprobs: [M, R] of each token under the policy that sampled it. reference: [M, R] under the reference.
    """
    rewards = torch.where(mask, -kl * (logprobs - reference), 0.0)
    last = (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)  # a response without tokens keeps nothing, see the mask
    return torch.where(
        mask, rewards.scatter_add(1, last, scores.clamp(-clip, clip).to(rewards.dtype).unsqueeze(1)), 0.0
    )


def generalized_advantages(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, *, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return advantages and returns, [M, R] each (Schulman et al. 2016, equation 16).

        delta_t = reward_t + gamma * value_(t+1) - value_t         with value 0 after the last token
        advantage_t = sum over k of (gamma * lam)^k * delta_(t+k)
        return_t = advantage_t + value_t

    Args:
        rewards: [M, R] reward of each token.
        values: [M, R] the critic's value before each token.
    """
    values = torch.where(mask, values, 0.0)
    following = torch.nn.functional.pad(values[:, 1:], (0, 1))
    delta = torch.where(mask, rewards + gamma * following - values, 0.0)
    advantages = torch.zeros_like(delta)
    running = delta.new_zeros(len(delta))
    for t in reversed(range(delta.shape[1])):
        running = delta[:, t] + gamma * lam * running
        advantages[:, t] = running
    return advantages, torch.where(mask, advantages + values, 0.0)


def policy_loss(
    logprobs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, *, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return PPO's negated clipped surrogate for each token, [M, R], and where the clipped term is larger, [M, R] bool.

        ratio = exp(logprob - old)
        loss = max(-advantage * ratio, -advantage * clamp(ratio, 1 - clip, 1 + clip))

    Args:
        old: [M, R] log-probabilities under the policy that sampled the response. advantages: [M, R], without gradient.
    """
    ratio = torch.exp(torch.where(mask, logprobs - old, 0.0))
    free, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return torch.where(mask, torch.maximum(free, clipped), 0.0), mask & (clipped > free)


def value_loss(
    values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor, *, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the clipped value loss of each token, [M, R], and where the clipped term is larger, [M, R] bool.

        loss = 0.5 * max((value - return)^2, (clamp(value, old - clip, old + clip) - return)^2)

    Args:
        old: [M, R] values when the response was sampled. returns: [M, R], without gradient.
    """
    free = (values - returns).square()
    clipped = (torch.clamp(values, old - clip, old + clip) - returns).square()
    return torch.where(mask, 0.5 * torch.maximum(free, clipped), 0.0), mask & (clipped > free)


def reduce_losses(losses: torch.Tensor, mask: torch.Tensor, mean: str) -> torch.Tensor:
    """Return a micro-batch's contribution to the loss of its step, a scalar.

    The sum of all contributions, divided by the step's number of tokens or responses, is the loss.

    Args:
        losses: [M, R], 0 outside of the mask.
        mean: `tokens`, the sum over all tokens; `responses`, the sum over responses of each response's mean over tokens
            (equivalent to the released code, which takes one response per process and the mean over processes).
    """
    if mean == "responses":
        return (losses.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).sum()
    return losses.sum()


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return the entropy in nats, [...], of the distributions over the last dimension of logits [..., V]."""
    logprobs = torch.log_softmax(logits, dim=-1)
    return -(logprobs.exp() * logprobs).sum(dim=-1)
