"""Optimizations of a step do not change it: the same loss and gradients on the same responses."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import nn

from tests.support.ppo_trainers import SCORES, steps, trainer_of, trees_of, weights
from tests.support.small_rollouts import NEVER, PAD
from tltrain.tokens.prompts import PromptTree
from tltrain.training import rollout, update_batches
from tltrain.training.actor_critic import ValueHead
from tltrain.training.kl import KlControl
from tltrain.training.ppo import Settings
from tltrain.training.rollout import Sampling

SPLIT = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
PARTS = ("prefill", "reference", "policy", "critic", "backward", "optimizer")


@pytest.fixture
def recorded(policy, encoder):
    """Make every rollout return the same responses, of several lengths."""
    trees = trees_of(encoder)
    end = rollout.sample(policy, trees, Sampling(5, None, NEVER, PAD))[0][0][2]
    fixed = dict(
        zip((tree.ids for tree in trees), rollout.sample(policy, trees, Sampling(5, None, end, PAD)), strict=True)
    )

    def replay(model, trees, sampling, logprobs, timed):
        logprobs += [[0.0] * len(tokens) for tree in trees for tokens in fixed[tree.ids]]
        return [fixed[tree.ids] for tree in trees]

    with mock.patch.object(rollout, "sample", replay):
        yield fixed


def test_the_head_is_applied_where_response_tokens_are_predicted(
    tmp_path, policy, critic, reference, encoder, recorded
):
    rows: list[int] = []
    split = {"per_device_train_batch_size": len(trees_of(encoder)), "gradient_accumulation_steps": 1}
    trainer = trainer_of(tmp_path, (policy, critic, reference), encoder, trees_of(encoder), **split)
    for model in (trainer.model.policy, trainer.reference):
        model.lm_head.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].numel() // 32))
    trainer.train()
    assert rows == [sum(len(own) for responses in recorded.values() for own in responses)] * 2


def test_the_share_of_padding_is_logged(tmp_path, policy, critic, reference, encoder, recorded):
    trees = trees_of(encoder)
    split = {"per_device_train_batch_size": len(trees), "gradient_accumulation_steps": 1}
    trainer = trainer_of(tmp_path, (policy, critic, reference), encoder, trees, **split)
    trainer.train()
    lengths = [len(update_batches.layout(tree, recorded[tree.ids]).input_ids) for tree in trees]
    assert len(set(lengths)) > 1
    whole = len(trees) * max(lengths)
    assert steps(trainer)[0]["update_padding"] == pytest.approx(1 - sum(lengths) / whole)


def test_without_a_penalty_nothing_asks_the_reference(tmp_path, policy, critic, reference, encoder, recorded):
    after = []
    for limit in (None, 1e9):  # a limit needs the divergence
        words = {"kl": KlControl(0.0, limit), **SPLIT}
        trainer = trainer_of(tmp_path, (policy, critic, reference), encoder, trees_of(encoder), **words)
        if limit is None:
            trainer.reference = None
        trainer.train()
        after.append(weights(trainer.model))
        assert ("kl" in steps(trainer)[0]) == (limit is not None)
    assert torch.equal(*after)


def test_prefilled_caches_are_those_of_each_prompt_alone(policy, encoder):
    trees = [*trees_of(encoder), PromptTree((5,), (1,), (None,))]
    owners = [(b, end) for b, tree in enumerate(trees) for end in tree.ends]
    width = max(end for _, end in owners)
    with torch.no_grad():
        cache = rollout.shared_cache(policy, trees, owners, width)
        for row, (b, end) in enumerate(owners):
            if end == 1:
                continue
            alone = policy(torch.tensor([trees[b].ids[: end - 1]]), use_cache=True).past_key_values
            for layer, expected in enumerate(alone.layers):
                for name in ("keys", "values"):
                    states = getattr(cache.layers[layer], name)[row, :, width - end :]
                    assert torch.allclose(states, getattr(expected, name)[0], atol=1e-5)


def test_every_part_of_a_step_is_timed(tmp_path, policy, critic, reference, encoder):
    trainer = trainer_of(tmp_path, (policy, critic, reference), encoder, trees_of(encoder), max_grad_norm=1.0, **SPLIT)
    trainer.train()
    (entry,) = steps(trainer)
    times = {part: entry[f"seconds_{part}"] for part in PARTS}
    assert min(times.values()) > 0
    assert times.pop("prefill") < entry["seconds_generation"]
    assert 0.5 * entry["seconds_update"] < sum(times.values()) < entry["seconds_update"]


def test_a_shared_critic_reads_the_hidden_states_of_the_policy(tmp_path, policy, reference, encoder, recorded):
    """An SGD step by hand, from a head that is not 0, so that the value loss reaches the body."""
    head = ValueHead(policy.config.hidden_size)
    nn.init.normal_(head.score.weight)
    trees = trees_of(encoder)
    settings = Settings(critic_learning_rate=0.1, value_coefficient=0.5)
    after = {}
    for rate, coefficient in ((0.1, 0.5), (0.1, 0.0)):
        settings = Settings(critic_learning_rate=rate, value_coefficient=coefficient)
        trainer = trainer_of(tmp_path, (policy, head, reference), encoder, trees, settings=settings, **SPLIT)
        trainer.train()
        after[coefficient] = weights(trainer.model.policy)
        values = expected_values(policy, head, trees, recorded)
        assert steps(trainer)[0]["value"] == pytest.approx(values.mean().item(), rel=1e-4)
        assert steps(trainer)[0]["loss"] == pytest.approx(
            steps(trainer)[0]["policy_loss"] + coefficient * steps(trainer)[0]["value_loss"], rel=1e-5
        )
        moved = not torch.equal(weights(trainer.model.critic), weights(head))
        assert moved == (coefficient > 0)
    assert (after[0.5] - after[0.0]).abs().max() > 1e-3
    assert len(SCORES) == sum(len(tree.ends) for tree in trees)


def expected_values(policy, head, trees, recorded) -> torch.Tensor:
    values = []
    with torch.no_grad():
        for tree in trees:
            for end, response in zip(tree.ends, recorded[tree.ids], strict=True):
                ids = torch.tensor([[*tree.ids[:end], *response]])
                states = policy.model(ids).last_hidden_state[0, end - 1 : -1]
                values.append(head(states))
    return torch.cat(values)
