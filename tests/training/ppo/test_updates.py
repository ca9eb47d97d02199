"""PPO's updates equal those computed prompt by prompt, and they learn what is rewarded."""

from __future__ import annotations

import copy
from unittest import mock

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForTokenClassification

from tests.support.advantages import by_definition
from tests.support.ppo_trainers import SCORES, new_policy, steps, trainer_of, trees_of, weights
from tests.support.small_rollouts import NEVER, PAD
from tltrain.config import LossMean
from tltrain.grading import Grade, Outcome
from tltrain.training.kl import KlControl
from tltrain.training.ppo import RolloutSampler, Settings
from tltrain.training.reward_function import GradedResponse
from tltrain.training.rollout import Sampling


def alone(model, prompt: list[int], response: list[int]) -> torch.Tensor:
    """Return the model's output before each token of the response, on this prompt and response only."""
    return model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]


def by_hand(
    models: tuple, pairs: list[tuple[list[int], list[int], float]], kl: float, rates: tuple[float, float], epochs: int
) -> list[dict[str, float]]:
    """Apply SGD to (policy, critic) in place, one response at a time, in the paper's order; return each epoch's logs.

    Args:
        pairs: (prompt, response, score), sampled at temperature 0.7.
    """
    policy, critic, reference = models
    logs, fixed = [], []
    with torch.no_grad():
        for prompt, response, score in pairs:
            at = (range(len(response)), response)
            old, start = ((alone(m, prompt, response) / 0.7).log_softmax(-1)[at] for m in (policy, reference))
            values = alone(critic, prompt, response)[:, 0]
            rewards = (-kl * (old - start)).numpy()
            rewards[-1] += np.clip(score, -5, 5)
            advantages = torch.tensor(by_definition(rewards, values.numpy(), 1.0, 0.95), dtype=torch.float32)
            fixed.append((old, start, values, advantages, advantages + values))
    count = sum(len(response) for _, response, _ in pairs)
    for _ in range(epochs):
        totals = dict.fromkeys(["policy_loss", "value_loss", "policy_clip_fraction", "value_clip_fraction"], 0.0)
        loss, returns, errors = torch.zeros(()), [], []
        for (prompt, response, _), (old, _, old_values, advantages, target) in zip(pairs, fixed, strict=True):
            logprobs = (alone(policy, prompt, response) / 0.7).log_softmax(-1)[range(len(response)), response]
            values = alone(critic, prompt, response)[:, 0]
            ratio = (logprobs - old).exp()
            free, kept = advantages * ratio, advantages * ratio.clamp(0.8, 1.2)
            own, near = (values - target) ** 2, (old_values + (values - old_values).clamp(-0.2, 0.2) - target) ** 2
            policy_loss, value_loss = -torch.minimum(free, kept).sum(), 0.5 * torch.maximum(own, near).sum()
            loss = loss + (policy_loss + value_loss) / count
            totals["policy_loss"] += policy_loss.item() / count
            totals["value_loss"] += value_loss.item() / count
            totals["policy_clip_fraction"] += (kept < free).sum().item() / count
            totals["value_clip_fraction"] += (near > own).sum().item() / count
            returns.append(target)
            errors.append(target - values.detach())
        unexplained = torch.cat(errors).var(correction=0) / torch.cat(returns).var(correction=0)
        logs.append(totals | {"loss": loss.item(), "explained_variance": 1 - unexplained.item()})
        for model, rate in zip((policy, critic), rates, strict=True):
            gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter -= rate * gradient
    logs[0]["kl"] = sum((old - start).sum().item() for old, start, *_ in fixed) / len(pairs)
    return logs


@pytest.mark.parametrize("packing", ["trajectory", "turn"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_updates_are_those_worked_out_prompt_by_prompt(
    tmp_path, policy, critic, reference, encoder, sampled, packing, epochs
):
    models, trees = (policy, critic, reference), trees_of(encoder, packing)
    settings = Settings(ppo_epochs=epochs, critic_learning_rate=0.02)
    trainer = trainer_of(
        tmp_path,
        models,
        encoder,
        trees,
        settings=settings,
        max_steps=epochs,
        learning_rate=0.05,
        per_device_train_batch_size=len(trees),
    )
    trainer.train()
    (responses,) = sampled  # one rollout, independent of the epochs
    order = list(trainer._get_train_sampler())[: len(trees)]
    pairs = [
        (list(tree.ids[:end]), response, SCORES[sample.id])
        for tree, own in zip([trees[i] for i in order], responses, strict=True)
        for end, sample, response in zip(tree.ends, tree.samples, own, strict=True)
    ]
    assert len(pairs) == 5
    before = weights(policy), weights(critic)
    expected = by_hand(models, pairs, 0.3, (0.05, 0.02), epochs)  # moves policy and critic
    for name, model, start in (("policy", policy, before[0]), ("critic", critic, before[1])):
        found = weights(getattr(trainer.model, name))
        moved = (weights(model) - start).abs().max()
        assert moved > 1e-3
        assert (found - weights(model)).abs().max() < 1e-4 * moved  # float32 through a chain of differently split sums
    assert len(steps(trainer)) == epochs
    for found, wanted in zip(steps(trainer), expected, strict=True):
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=2e-4)
    if epochs > 1:  # the policy differs from the one that sampled
        assert expected[1]["policy_loss"] != pytest.approx(expected[0]["policy_loss"], abs=1e-2)
        assert max(entry["policy_clip_fraction"] for entry in expected) > 0
        assert max(entry["value_clip_fraction"] for entry in expected) > 0


@pytest.mark.parametrize("split", [1, 2, 4])
def test_a_mean_over_responses_updates_as_released(tmp_path, policy, critic, reference, encoder, sampled, split):
    """The released update: one response per process, the mean over its tokens, then the mean over processes."""
    trees = trees_of(encoder, "turn")[:4]
    end = new_responses(tmp_path, (policy, critic, reference), encoder, trees, sampled)
    after = {}
    for mean in ("tokens", "responses"):
        trainer = trainer_of(
            tmp_path,
            (policy, critic, reference),
            encoder,
            trees,
            settings=Settings(critic_learning_rate=0.02, loss_mean=LossMean(mean)),
            sampling=Sampling(5, 0.7, end, PAD),
            learning_rate=0.05,
            per_device_train_batch_size=4 // split,
            gradient_accumulation_steps=split,
        )
        trainer.train()
        after[mean] = weights(trainer.model)
    assert len({len(own[0]) for own in sampled[-1]}) > 1  # responses of several lengths
    order = list(trainer._get_train_sampler())
    expected = torch.zeros_like(after["responses"])
    start = torch.cat([weights(policy), weights(critic)])
    for at, (response,) in zip(order, sampled[-1], strict=True):
        alone_models = tuple(copy.deepcopy((policy, critic, reference)))
        sample = trees[at].samples[0]
        by_hand(alone_models, [(list(trees[at].ids), response, SCORES[sample.id])], 0.3, (0.05, 0.02), 1)
        expected += (torch.cat([weights(alone_models[0]), weights(alone_models[1])]) - start) / 4
    moved = expected.abs().max()
    assert moved > 1e-3
    assert (after["responses"] - start - expected).abs().max() < 1e-4 * moved
    assert (after["tokens"] - start - expected).abs().max() > 0.02 * moved
    (entry,) = steps(trainer)
    assert entry["loss"] == pytest.approx(entry["policy_loss"] + entry["value_loss"], abs=1e-5)


def new_responses(folder, models, encoder, trees, sampled) -> int:
    """Return a token that some responses of a first rollout contain in the middle, as the end token."""
    trainer_of(folder, models, encoder, trees, per_device_train_batch_size=4).train()
    return sampled[0][0][0][1]


def test_the_split_into_micro_batches_does_not_change_the_update(tmp_path, policy, critic, reference, encoder, sampled):
    models, trees = (policy, critic, reference), trees_of(encoder, "turn")[:4]
    trainer_of(tmp_path, models, encoder, trees, per_device_train_batch_size=4).train()
    end = sampled[0][0][0][1]  # the first response now ends after two tokens
    after = []
    for size in (4, 2, 1):
        split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        words = {"settings": Settings(critic_learning_rate=0.1), "sampling": Sampling(5, 0.7, end, PAD)}
        trainer = trainer_of(tmp_path, models, encoder, trees, **words, **split)
        trainer.train()
        after.append(weights(trainer.model))
    assert sampled[1] == sampled[2] == sampled[3] and len({len(own[0]) for own in sampled[1]}) > 1
    moved = (after[0] - torch.cat([weights(policy), weights(critic)])).abs().max()
    assert moved > 0.01
    for other in after[1:]:
        assert (other - after[0]).abs().max() < 1e-5 * moved


def test_sampling_in_parts_does_not_change_a_greedy_update(tmp_path, policy, critic, reference, encoder, sampled):
    models, trees = (policy, critic, reference), trees_of(encoder, "turn")[:4] + trees_of(encoder)[:1]
    after = []
    for limit, prompts in ((None, [7]), (3, [3, 1, 3]), (1, [1, 1, 1, 1, 3])):
        sampled.clear()
        settings = Settings(generation_batch_size=limit)
        greedy = Sampling(5, None, NEVER, PAD)
        with mock.patch.object(RolloutSampler, "__iter__", lambda self: iter(range(5))):
            size = {"per_device_train_batch_size": 5}
            trainer = trainer_of(tmp_path, models, encoder, trees, settings=settings, sampling=greedy, **size)
            trainer.train()
        assert [sum(len(own) for own in part) for part in sampled] == prompts
        after.append(weights(trainer.model))
    assert torch.allclose(after[1], after[0], atol=1e-6) and torch.allclose(after[2], after[0], atol=1e-6)


def test_each_learning_rate_reaches_its_own_model_only(tmp_path, policy, critic, reference, encoder):
    for rate, critic_rate in ((0.0, 0.1), (0.1, 0.0)):
        trainer = trainer_of(
            tmp_path,
            (policy, critic, reference),
            encoder,
            trees_of(encoder),
            settings=Settings(critic_learning_rate=critic_rate),
            learning_rate=rate,
            optim="adamw_torch",
            weight_decay=0.1,
            max_steps=2,
        )
        trainer.train()
        for name, before, own in (("policy", policy, rate), ("critic", critic, critic_rate)):
            assert torch.equal(weights(getattr(trainer.model, name)), weights(before)) == (own == 0), name
        assert torch.equal(weights(trainer.reference), weights(reference))
        assert trainer.state.log_history[0]["learning_rate"] == rate


def test_gradients_of_policy_and_critic_are_clipped_separately(tmp_path, policy, critic, reference, encoder):
    settings = Settings(critic_learning_rate=0.2)
    words = {"settings": settings, "max_grad_norm": 0.01, "learning_rate": 0.1}
    trainer = trainer_of(tmp_path, (policy, critic, reference), encoder, trees_of(encoder), **words)
    trainer.train()
    for name, before, rate in (("policy", policy, 0.1), ("critic", critic, 0.2)):
        moved = weights(getattr(trainer.model, name)) - weights(before)
        assert moved.norm().item() == pytest.approx(rate * 0.01, rel=1e-2), name  # an SGD step of a clipped gradient
    assert steps(trainer)[0]["grad_norm"] > 0.01  # before clipping


def test_ppo_learns_what_is_rewarded(tmp_path, sizes, encoder):
    """A response earns 1 if it begins with a lower-case letter, else -1; at first about a third do."""
    plain = {**sizes, "initializer_range": 0.02}
    policy = new_policy(plain, 0)
    torch.manual_seed(1)
    critic = LlamaForTokenClassification(LlamaConfig(**plain, num_labels=1, classifier_dropout=0.0))

    def letters(sample, response: str, ended: bool) -> GradedResponse:
        right = response[:1].islower() and response[:1].isascii()
        return GradedResponse(sample, response, Grade(Outcome.CORRECT, ""), 1.0 if right else -1.0)

    trainer = trainer_of(
        tmp_path,
        (policy, critic, policy),
        encoder,
        trees_of(encoder) * 4,
        kl=KlControl(0.02),
        settings=Settings(critic_learning_rate=2e-2),
        sampling=Sampling(2, 1.0, encoder.eos_id, PAD),
        judge=letters,
        max_steps=25,
        per_device_train_batch_size=8,
        learning_rate=2e-2,
        optim="adamw_torch",
        max_grad_norm=1.0,
    )
    trainer.train()
    rewards = [entry["reward"] for entry in steps(trainer)]
    assert np.mean(rewards[:5]) < 0
    assert np.mean(rewards[-5:]) > 0.6
