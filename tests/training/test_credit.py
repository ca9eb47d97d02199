"""Advantages of whole conversations against numbers computed by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tltrain.errors import TltrainError
from tltrain.training.credit import discounted_return, group_advantages, turn_advantages


def test_turn_advantages_by_hand():
    rewards, values = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.5, 1.0, 1.5])
    advantages, returns = turn_advantages(rewards, values, gamma=0.5, lam=0.5)
    # delta: 1 + 0.5 * 1 - 0.5 = 1;  0 + 0.5 * 1.5 - 1 = -0.25;  2 - 1.5 = 0.5
    # advantage: 0.5;  -0.25 + 0.25 * 0.5 = -0.125;  1 + 0.25 * -0.125 = 0.96875
    assert advantages.tolist() == [0.96875, -0.125, 0.5]
    assert returns.tolist() == [1.46875, 0.875, 2.0]


def test_without_discount_a_turn_returns_all_rewards_that_follow():
    rewards, values = torch.tensor([0.1, -0.5, 3.0]), torch.tensor([7.0, -1.0, 2.0])
    advantages, returns = turn_advantages(rewards, values, gamma=1, lam=1)
    assert returns.tolist() == pytest.approx([2.6, 2.5, 3.0], abs=1e-6)
    assert advantages.tolist() == pytest.approx([-4.4, 3.5, 1.0], abs=1e-6)


def test_with_lam_0_a_turn_is_compared_with_the_value_that_follows():
    rewards, values = torch.tensor([0.0, 4.0]), torch.tensor([1.0, 3.0])
    advantages, _ = turn_advantages(rewards, values, gamma=1, lam=0)
    assert advantages.tolist() == [2.0, 1.0]


def test_no_turns():
    empty = torch.tensor([])
    advantages, returns = turn_advantages(empty, empty, gamma=1, lam=0.95)
    assert advantages.shape == returns.shape == (0,)
    assert discounted_return(empty, 0.9).item() == 0
    assert group_advantages(empty, torch.tensor([], dtype=torch.long), "leave_one_out").shape == (0,)


def test_discounted_return_by_hand():
    assert discounted_return(torch.tensor([1.0, 2.0, 4.0]), 0.5).item() == 3.0
    assert discounted_return(torch.tensor([1.0, 2.0, 4.0]), 1.0).item() == 7.0


def test_leave_one_out_by_hand():
    returns, groups = torch.tensor([1.0, 5.0, 4.0, 1.0]), torch.tensor([7, 2, 7, 7])
    advantages = group_advantages(returns, groups, "leave_one_out")
    assert advantages.tolist() == [-1.5, 0.0, 3.0, -1.5]  # 1 - 5/2; alone; 4 - 2/2; 1 - 5/2


def test_standardized_by_hand():
    returns, groups = torch.tensor([1.0, 3.0, 9.0, 2.0, 2.0]), torch.tensor([0, 0, 1, 2, 2])
    advantages = group_advantages(returns, groups, "standardized")
    # mean 2, standard deviation sqrt(2): 1 / (1.41421 + 0.0001); alone; equal returns
    assert advantages.tolist() == pytest.approx([-0.7070568, 0.7070568, 0, 0, 0], abs=1e-6)


def test_unknown_baseline():
    with pytest.raises(TltrainError, match="expected one of leave_one_out, standardized, found mean"):
        group_advantages(torch.zeros(2), torch.zeros(2), "mean")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-4, 4, width=32)), min_size=1, max_size=12))
def test_advantages_of_a_group_sum_to_zero_and_shifting_its_returns_changes_nothing(rows):
    groups, returns = torch.tensor([g for g, _ in rows]), torch.tensor([r for _, r in rows], dtype=torch.float64)
    for baseline in ("leave_one_out", "standardized"):
        advantages = group_advantages(returns, groups, baseline)
        for group in set(groups.tolist()):
            assert advantages[groups == group].sum().item() == pytest.approx(0, abs=1e-6)
        shifted = group_advantages(returns + 3.0 * groups, groups, baseline)
        torch.testing.assert_close(shifted, advantages, atol=1e-6, rtol=1e-6)
