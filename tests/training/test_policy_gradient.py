"""PPO's formulas compared with hand-computed numbers, with numpy, and with bandits whose solution is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.advantages import by_definition
from tltrain.training import policy_gradient as pg

T, F = True, False
JUNK = 77.0
"""Fills positions without a token, which must not be read."""


def tensor(rows: list) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# --- rewards --------------------------------------------------------------------------------------------------------


def test_rewards_by_hand():
    # kl = 0.5. Row 0: -0.5 * (-1 + 1.5) = -0.25; -0.5 * (-2 + 1) = 0.5, plus the score 1.
    # Row 1 has one token: -0.5 * (-0.2 + 0.2) = 0, plus the score -2.
    logprobs = tensor([[-1.0, -2.0, JUNK], [-0.2, JUNK, JUNK]])
    reference = tensor([[-1.5, -1.0, -JUNK], [-0.2, -JUNK, -JUNK]])
    mask = torch.tensor([[T, T, F], [T, F, F]])
    rewards = pg.token_rewards(tensor([1.0, -2.0]), logprobs, reference, mask, kl=0.5, clip=5.0)
    assert rewards.tolist() == [[-0.25, 1.5, 0.0], [-2.0, 0.0, 0.0]]


def test_the_score_is_clipped_and_the_kl_penalty_is_not():
    # -1 * (0 + 10) = -10 on the only token; scores 7 and -7 are cut to 5 and -5.
    logprobs, reference = torch.zeros(2, 1), torch.full((2, 1), -10.0)
    mask = torch.ones(2, 1, dtype=torch.bool)
    rewards = pg.token_rewards(torch.tensor([7.0, -7.0]), logprobs, reference, mask, kl=1.0, clip=5.0)
    assert rewards.tolist() == [[-5.0], [-15.0]]


def test_scores_in_float32_are_added_to_rewards_of_another_dtype():
    logprobs = torch.zeros(1, 2, dtype=torch.bfloat16)
    mask = torch.ones(1, 2, dtype=torch.bool)
    rewards = pg.token_rewards(torch.tensor([1.0]), logprobs, logprobs, mask, kl=0.3, clip=5.0)
    assert rewards.tolist() == [[0.0, 1.0]]


# --- advantages -----------------------------------------------------------------------------------------------------


def test_advantages_by_hand():
    # gamma = lam = 0.5, so gamma * lam = 0.25.
    # Row 0, three tokens:  delta = [0 + .5*2 - 1, 0 + .5*3 - 2, 1 + 0 - 3] = [0, -0.5, -2]
    #   advantage: [-2] last; -0.5 + .25*-2 = -1; 0 + .25*-1 = -0.25.   return = advantage + value.
    # Row 1, two tokens:    delta = [0 + .5*1 - 4, 3 - 1] = [-3.5, 2];   2; -3.5 + .25*2 = -3.
    rewards = tensor([[0.0, 0.0, 1.0], [0.0, 3.0, JUNK]])
    values = tensor([[1.0, 2.0, 3.0], [4.0, 1.0, JUNK]])
    mask = torch.tensor([[T, T, T], [T, T, F]])
    advantages, returns = pg.generalized_advantages(rewards, values, mask, gamma=0.5, lam=0.5)
    assert advantages.tolist() == [[-0.25, -1.0, -2.0], [-3.0, 2.0, 0.0]]
    assert returns.tolist() == [[0.75, 1.0, 1.0], [1.0, 3.0, 0.0]]


NUMBERS = st.floats(-5, 5)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6), min_size=1, max_size=4),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
)
def test_advantages_are_the_weighted_mean_of_k_step_advantages(rows, gamma, lam):
    width = max(map(len, rows))
    mask = torch.tensor([[i < len(row) for i in range(width)] for row in rows])
    padded = tensor([[*row, *[(JUNK, JUNK)] * (width - len(row))] for row in rows])
    advantages, returns = pg.generalized_advantages(padded[..., 0], padded[..., 1], mask, gamma=gamma, lam=lam)
    for found, target, row in zip(advantages.numpy(), returns.numpy(), rows, strict=True):
        rewards, values = np.array(row).T
        expected = by_definition(rewards, values, gamma, lam)
        np.testing.assert_allclose(found[: len(row)], expected, atol=1e-9)
        np.testing.assert_allclose(target[: len(row)], expected + values, atol=1e-9)
        assert not found[len(row) :].any() and not target[len(row) :].any()


def test_with_gamma_and_lam_1_the_return_is_what_is_still_to_come():
    rewards, values = tensor([[1.0, -2.0, 4.0]]), tensor([[5.0, 6.0, 7.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    _, returns = pg.generalized_advantages(rewards, values, mask, gamma=1.0, lam=1.0)
    assert returns.tolist() == [[3.0, 2.0, 4.0]]


# --- losses ---------------------------------------------------------------------------------------------------------


def test_policy_loss_by_hand_clips_only_what_would_gain():
    # clip 0.2. Ratios 1.5, 0.5, 1.1 with advantage 2: -min(3, 2.4) = -2.4 clipped; -min(1, 1.6) = -1; -2.2.
    # The same ratios with advantage -2: max(3, 2.4) = 3; max(1, 1.6) = 1.6 clipped; 2.2.
    ratios = tensor([[1.5, 0.5, 1.1], [1.5, 0.5, 1.1], [1.0, 1.0, 1.0]])
    old = tensor([[-1.0, -2.0, -3.0]] * 3)
    advantages = tensor([[2.0] * 3, [-2.0] * 3, [3.0, JUNK, JUNK]])
    mask = torch.tensor([[T, T, T], [T, T, T], [T, F, F]])
    losses, clipped = pg.policy_loss(old + ratios.log(), old, advantages, mask, clip=0.2)
    expected = tensor([[-2.4, -1.0, -2.2], [3.0, 1.6, 2.2], [-3.0, 0.0, 0.0]])
    assert torch.allclose(losses, expected)
    assert clipped.tolist() == [[T, F, F], [F, T, F], [F, F, F]]


def test_a_clipped_token_has_no_gradient_and_others_push_the_policy():
    logprobs = tensor([[math.log(1.5), math.log(0.5), math.log(1.5), math.log(0.5)]]).requires_grad_()
    advantages, mask = tensor([[2.0, 2.0, -2.0, -2.0]]), torch.ones(1, 4, dtype=torch.bool)
    pg.policy_loss(logprobs, torch.zeros_like(logprobs), advantages, mask, clip=0.2)[0].sum().backward()
    # d loss / d logprob = -advantage * ratio unless clipped
    assert torch.allclose(logprobs.grad, tensor([[0.0, -1.0, 3.0, 0.0]]))


def test_at_ratio_1_the_gradient_is_that_of_minus_advantage_times_logprob():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    tokens, advantages = torch.tensor([[0, 4, 2], [1, 1, 3]]), torch.randn(2, 3, dtype=torch.float64)
    mask = torch.tensor([[T, T, T], [T, T, F]])
    logprobs = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    losses, clipped = pg.policy_loss(logprobs, logprobs.detach(), advantages, mask, clip=0.2)
    (found,) = torch.autograd.grad(losses.sum(), logits)
    # d logprob of the token / d logits = onehot - softmax
    onehot = torch.nn.functional.one_hot(tokens, 5).double()
    expected = -(advantages * mask).unsqueeze(-1) * (onehot - logits.detach().softmax(-1))
    assert torch.allclose(found, expected, atol=1e-12)
    assert not clipped.any()


def test_what_stands_where_there_is_no_token_gives_no_nan():
    wild = torch.tensor([[0.0, 1e4, math.inf]], requires_grad=True)
    mask = torch.tensor([[T, F, F]])
    losses, clipped = pg.policy_loss(wild, torch.zeros(1, 3), torch.ones(1, 3), mask, clip=0.2)
    assert losses.tolist() == [[-1.0, 0.0, 0.0]] and not clipped[0, 1:].any()
    losses.sum().backward()
    assert wild.grad.tolist() == [[-1.0, 0.0, 0.0]]


def test_value_loss_by_hand():
    # clip 0.2, old 0, return 1.
    # value 0.5: clamped to 0.2; max(0.25, 0.64) / 2 = 0.32, clipped. value 0.1: 0.81 / 2.
    # value -1: clamped to -0.2; max(4, 1.44) / 2 = 2. value 1: exact, but clamped to 0.2: 0.32, clipped.
    values, mask = tensor([[0.5, 0.1, -1.0, 1.0, JUNK]]), torch.tensor([[T, T, T, T, F]])
    old, returns = tensor([[0.0, 0.0, 0.0, 0.0, JUNK]]), tensor([[1.0, 1.0, 1.0, 1.0, -JUNK]])
    losses, clipped = pg.value_loss(values, old, returns, mask, clip=0.2)
    assert torch.allclose(losses, tensor([[0.32, 0.405, 2.0, 0.32, 0.0]]))
    assert clipped.tolist() == [[T, F, F, T, F]]


def test_value_loss_pulls_towards_the_return_unless_clipped():
    values = tensor([[0.5, 0.1, -1.0]]).requires_grad_()
    mask, old, returns = torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 3), torch.ones(1, 3)
    pg.value_loss(values, old, returns, mask, clip=0.2)[0].sum().backward()
    assert torch.allclose(values.grad, tensor([[0.0, -0.9, -2.0]]))  # value - return unless clipped


def test_entropy_by_hand():
    # log 4 for four equal ones; 0.5 log 2 + 2 * 0.25 log 4 = 1.5 log 2; 0 if all mass is on one.
    logits = torch.stack([torch.zeros(4), tensor([0.5, 0.25, 0.25, 1e-300]).log(), tensor([800.0, 0.0, 0.0, 0.0])])
    expected = [math.log(4), 1.5 * math.log(2), 0.0]
    assert pg.entropy(logits).tolist() == pytest.approx(expected, abs=1e-9)


# --- bandits whose solution is known --------------------------------------------------------------------------------

REWARDS = tensor([-1.0, 0.2, 1.0])
REFERENCE = tensor([0.6, 0.3, 0.1])


def pull(logits: torch.Tensor, kl: float, arms: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the loss of responses of one token each, `arms` [M], weighted by the share of each arm, `weights` [M].

    The advantage is the token's reward minus the mean, as a trained critic would give it.
    """
    mask = torch.ones(len(arms), 1, dtype=torch.bool)
    logprobs = logits.log_softmax(-1)[arms].unsqueeze(1)
    old, reference = logprobs.detach(), REFERENCE.log()[arms].unsqueeze(1)
    rewards = pg.token_rewards(REWARDS[arms], old, reference, mask, kl=kl, clip=5.0)
    mean = (weights * rewards[:, 0]).sum().expand_as(rewards)
    advantages, _ = pg.generalized_advantages(rewards, mean, mask, gamma=1.0, lam=0.95)
    losses, _ = pg.policy_loss(logprobs, old, advantages, mask, clip=0.2)
    return (weights * losses[:, 0]).sum()


def test_without_kl_the_best_of_three_arms_is_found_by_sampling():
    generator = torch.Generator().manual_seed(0)
    logits = REFERENCE.log().clone().requires_grad_()
    optimizer = torch.optim.SGD([logits], lr=0.5)
    for _ in range(200):
        arms = torch.multinomial(logits.detach().softmax(-1), 16, replacement=True, generator=generator)
        optimizer.zero_grad()
        pull(logits, 0.0, arms, torch.full((16,), 1 / 16, dtype=torch.float64)).backward()
        optimizer.step()
    assert logits.softmax(-1)[2] > 0.95


@pytest.mark.parametrize("kl", [0.3, 1.0])
def test_with_kl_the_policy_becomes_the_reference_tilted_by_the_reward(kl):
    # max over pi of E[reward] - kl * KL(pi | reference) has the solution pi ~ reference * exp(reward / kl).
    expected = REFERENCE * (REWARDS / kl).exp()
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=2 / kl)
    for _ in range(1000):  # the expectation over all arms has no noise: the tolerance is for the remaining distance
        optimizer.zero_grad()
        pull(logits, kl, torch.arange(3), logits.detach().softmax(-1)).backward()
        optimizer.step()
    assert torch.allclose(logits.softmax(-1), expected / expected.sum(), atol=1e-4)


# --- the mean of a step -----------------------------------------------------------------------------------------------


def test_a_mean_over_responses_weighs_each_by_itself():
    # Two responses: 1 + 2 + 3 over three tokens, and 10 over one. Tokens: 16 / 4 = 4; responses: (2 + 10) / 2 = 6.
    losses, mask = tensor([[1.0, 2.0, 3.0], [10.0, 0.0, 0.0]]), torch.tensor([[T, T, T], [T, F, F]])
    assert pg.reduce_losses(losses, mask, "tokens").item() / 4 == 4
    assert pg.reduce_losses(losses, mask, "responses").item() / 2 == 6
    none = torch.zeros(0, 1)
    assert (
        pg.reduce_losses(none, none.bool(), "responses").item()
        == pg.reduce_losses(none, none.bool(), "tokens").item()
        == 0
    )
