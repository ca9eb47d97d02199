"""What makes a step fast does not change it: the same loss and gradients on the same responses."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import nn

from tests.support.ppo_trainers import SCORES, steps, trainer_of, trees_of, weights
from tests.support.small_rollouts import NEVER, PAD
from tltrain.inference import forest_attention
from tltrain.tokens.prompts import PromptTree
from tltrain.training import rollout
from tltrain.training.actor_critic import ActorCritic, ValueHead
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


@pytest.mark.parametrize("packing", ["trajectory", "turn"])
def test_trees_computed_together_update_as_apart(tmp_path, policy, critic, reference, encoder, recorded, packing):
    if packing == "turn":
        recorded |= {
            tree.ids[:end]: [own]
            for tree, responses in zip(trees_of(encoder), list(recorded.values()), strict=True)
            for end, own in zip(tree.ends, responses, strict=True)
        }
    trees = trees_of(encoder, packing)
    assert len({len(own) for responses in recorded.values() for own in responses}) > 1
    found, passes, logs = [], [], []
    for limit in (0, 1, 10**6):  # apart, padded; one tree in a pass; all in one pass
        settings = Settings(critic_learning_rate=0.1, update_tokens=limit)
        split = SPLIT | {"gradient_accumulation_steps": len(trees)}
        if not limit:  # all of them as rows of one padded batch
            split = {"per_device_train_batch_size": len(trees), "gradient_accumulation_steps": 1}
        trainer = trainer_of(tmp_path, (policy, critic, reference), encoder, trees, settings=settings, **split)
        trainer._together = limit > 0
        with mock.patch.object(ActorCritic, "forward", autospec=True, side_effect=ActorCritic.forward) as forward:
            trainer.train()
        found.append(weights(trainer.model))
        passes.append(forward.call_count)
        logs.append(steps(trainer)[0])
    assert passes == [1, len(trees), 1]
    moved = (found[0] - torch.cat([weights(policy), weights(critic)])).abs().max()
    assert moved > 0.01
    for other, log in zip(found[1:], logs[1:], strict=True):
        assert (other - found[0]).abs().max() < 1e-5 * moved
        for name in ("loss", "policy_loss", "value_loss", "kl", "entropy", "explained_variance"):
            assert log[name] == pytest.approx(logs[0][name], rel=1e-5, abs=1e-6), name
    assert logs[0]["update_padding"] > 0 and logs[1]["update_padding"] == logs[2]["update_padding"] == 0


def test_the_head_is_applied_where_response_tokens_are_predicted(
    tmp_path, policy, critic, reference, encoder, recorded
):
    rows: list[int] = []
    words = {"settings": Settings(update_tokens=10**6), **SPLIT}
    trainer = trainer_of(tmp_path, (policy, critic, reference), encoder, trees_of(encoder), **words)
    for model in (trainer.model.policy, trainer.reference):
        model.lm_head.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].numel() // 32))
    trainer.train()
    assert rows == [sum(len(own) for responses in recorded.values() for own in responses)] * 2


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
        caches = [rollout.shared_cache(policy, trees, owners, width, together) for together in (True, False)]
        for row, (b, end) in enumerate(owners):
            if end == 1:
                continue
            alone = policy(torch.tensor([trees[b].ids[: end - 1]]), use_cache=True).past_key_values
            for layer, expected in enumerate(alone.layers):
                for cache in caches:
                    for name in ("keys", "values"):
                        states = getattr(cache.layers[layer], name)[row, :, width - end :]
                        assert torch.allclose(states, getattr(expected, name)[0], atol=1e-5)


def test_models_that_do_not_pass_segments_on_are_computed_apart(policy):
    assert forest_attention.supports(policy)

    class Other(type(policy)):
        def forward(self, input_ids, position_ids=None, use_cache=None):
            return super().forward(input_ids, position_ids=position_ids, use_cache=use_cache)

    assert not forest_attention.supports(Other(policy.config))


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
