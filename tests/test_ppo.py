"""The PPO trainer against one update worked out prompt by prompt, its guards, its checkpoints, and that it learns."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments
from transformers.models.llama.modeling_llama import LlamaForTokenClassification

from tltrain.errors import TltrainError
from tltrain.grading import Grade, Outcome
from tltrain.prompts import PromptReport, PromptTree, prompt_trees
from tltrain.tokens import Encoder
from tltrain.training import rollout
from tltrain.training.checkpoints import COMPLETE, last_checkpoint
from tltrain.training.judging import GRADES, Judged
from tltrain.training.kl import KlControl
from tltrain.training.ppo import PPOTrainer, RolloutSampler, Settings
from tltrain.training.rollout import Sampling

from .test_policy_gradient import by_definition
from .test_rollout import NEVER, OTHER, PAD, SIZES
from .test_tokens import TRAJECTORY

SCORES = {"t#1": 1.0, "t#2": -2.0, "t#3": 0.5, "o#1": 7.0, "o#2": -0.25}
"""What every response to a prompt earns; 7 is clipped to 5."""


@pytest.fixture
def encoder(byte_level) -> Encoder:
    return Encoder(byte_level)


@pytest.fixture
def sizes(byte_level) -> dict:
    return {**SIZES, "vocab_size": len(byte_level)}


def new_policy(sizes: dict, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**sizes))


@pytest.fixture
def policy(sizes) -> LlamaForCausalLM:
    return new_policy(sizes, 0)


@pytest.fixture
def critic(sizes) -> LlamaForTokenClassification:
    torch.manual_seed(1)
    return LlamaForTokenClassification(LlamaConfig(**sizes, num_labels=1, classifier_dropout=0.0))


@pytest.fixture
def reference(policy) -> LlamaForCausalLM:
    """Near the policy, but not the same."""
    torch.manual_seed(2)
    near = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in near.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return near


def trees_of(encoder: Encoder, packing: str = "trajectory") -> list[PromptTree]:
    items = [TRAJECTORY, replace(OTHER, id="o")]
    return list(
        prompt_trees(items, encoder, packing=packing, max_length=10**6, truncation="error", report=PromptReport())
    )


def judge(sample, response: str) -> Judged:
    return Judged(sample, response, Grade(Outcome.CORRECT, ""), SCORES[sample.id])


def trainer_of(
    folder: Path,
    models: tuple,
    encoder: Encoder,
    trees: Sequence[PromptTree],
    *,
    kl: KlControl | None = None,
    settings: Settings = Settings(),  # noqa: B008
    sampling: Sampling = Sampling(5, 0.7, NEVER, PAD),  # noqa: B008
    judge: Callable[..., Judged] = judge,
    on_samples: Callable = lambda step, judged: None,
    **args,
) -> PPOTrainer:
    """PPO on copies of (policy, critic, reference), an SGD step of 0.1 without clipping unless told otherwise."""
    chosen = {
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.1,
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
    }
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to=[],
        logging_steps=1,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        **(chosen | args),
    )
    policy, critic, reference = map(copy.deepcopy, models)
    return PPOTrainer(
        policy,
        critic,
        reference,
        arguments,
        trees,
        encoder=encoder,
        judge=judge,
        kl=kl or KlControl(0.3),
        settings=settings,
        sampling=sampling,
        on_samples=on_samples,
    )


@pytest.fixture
def sampled():
    """The responses of every call of `rollout.sample`, as they come."""
    seen: list[list[list[list[int]]]] = []
    draw = rollout.sample

    def record(*args):
        seen.append(draw(*args))
        return seen[-1]

    with mock.patch.object(rollout, "sample", record):
        yield seen


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).clone()


def steps(trainer: PPOTrainer) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


# --- one update, worked out otherwise -------------------------------------------------------------------------------


def alone(model, prompt: list[int], response: list[int]) -> torch.Tensor:
    """The model's output before each token of the response, on this prompt and response only."""
    return model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]


def by_hand(
    models: tuple, pairs: list[tuple[list[int], list[int], float]], kl: float, rates: tuple[float, float], epochs: int
) -> list[dict[str, float]]:
    """SGD on (policy, critic) in place, a response after the other, in the order of the paper; what each epoch logs.

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
    (responses,) = sampled  # one rollout, whatever the epochs
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
    if epochs > 1:  # the policy has left the one that sampled
        assert expected[1]["policy_loss"] != pytest.approx(expected[0]["policy_loss"], abs=1e-2)
        assert max(entry["policy_clip_fraction"] for entry in expected) > 0
        assert max(entry["value_clip_fraction"] for entry in expected) > 0


def test_the_split_into_micro_batches_does_not_change_the_update(tmp_path, policy, critic, reference, encoder, sampled):
    models, trees = (policy, critic, reference), trees_of(encoder, "turn")[:4]
    trainer_of(tmp_path, models, encoder, trees, per_device_train_batch_size=4).train()
    end = sampled[0][0][0][1]  # the first response is now over after two tokens
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


def test_gradients_of_policy_and_critic_are_clipped_apart(tmp_path, policy, critic, reference, encoder):
    settings = Settings(critic_learning_rate=0.2)
    words = {"settings": settings, "max_grad_norm": 0.01, "learning_rate": 0.1}
    trainer = trainer_of(tmp_path, (policy, critic, reference), encoder, trees_of(encoder), **words)
    trainer.train()
    for name, before, rate in (("policy", policy, 0.1), ("critic", critic, 0.2)):
        moved = weights(getattr(trainer.model, name)) - weights(before)
        assert moved.norm().item() == pytest.approx(rate * 0.01, rel=1e-2), name  # an SGD step of a clipped gradient
    assert steps(trainer)[0]["grad_norm"] > 0.01  # before it was clipped


# --- rollouts -------------------------------------------------------------------------------------------------------


def test_at_first_the_policy_is_its_own_reference(tmp_path, policy, critic, encoder):
    trainer = trainer_of(tmp_path, (policy, critic, policy), encoder, trees_of(encoder), max_steps=2)
    trainer.train()
    first, second = steps(trainer)
    assert first["kl"] == pytest.approx(0, abs=1e-5)
    assert abs(second["kl"]) > 1e-3
    assert first["policy_clip_fraction"] == second["policy_clip_fraction"] == 0  # one PPO epoch: the ratio is 1


def test_rollouts_are_made_once_for_all_ppo_epochs(tmp_path, policy, critic, reference, encoder, sampled):
    asked: list[tuple[int, list[str]]] = []
    trainer = trainer_of(
        tmp_path,
        (policy, critic, reference),
        encoder,
        trees_of(encoder, "turn")[:4],
        settings=Settings(ppo_epochs=2),
        on_samples=lambda step, judged: asked.append((step, sorted(one.sample.id for one in judged))),
        max_steps=8,
    )
    trainer.train()
    assert len(sampled) == 4
    assert [step for step, _ in asked] == [1, 3, 5, 7]
    everything = ["o#1", "t#1", "t#2", "t#3"]
    assert [sorted(asked[i][1] + asked[i + 1][1]) for i in (0, 2)] == [everything] * 2  # each prompt once an epoch
    assert [entry["samples"] for entry in steps(trainer)] == [2, 0] * 4
    assert all(("reward" in entry) == (entry["samples"] > 0) for entry in steps(trainer))
    assert all(math.isfinite(entry["tokens_per_second"]) for entry in steps(trainer))


def test_every_step_draws_anew_and_every_run_the_same(tmp_path, policy, critic, reference, encoder, sampled):
    still = {"learning_rate": 0.0, "settings": Settings(critic_learning_rate=0.0), "max_steps": 3}
    for _ in range(2):
        trainer_of(tmp_path, (policy, critic, reference), encoder, trees_of(encoder)[:1], **still).train()
    assert sampled[:3] == sampled[3:]
    assert sampled[0] != sampled[1] != sampled[2]


def test_indices_come_in_another_order_each_epoch_and_each_rollouts_again():
    sampler = RolloutSampler(6, 2, 3, seed=0)
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert len(epochs[-1]) == len(sampler) == 18 and list(sampler) == epochs[-1]
        for start in (0, 6, 12):
            pair = epochs[-1][start : start + 2]
            assert epochs[-1][start : start + 6] == pair * 3
        assert sorted(epochs[-1]) == sorted([*range(6)] * 3)
    assert epochs[0] != epochs[1] != epochs[2]


def test_with_repeats_the_last_rollout_is_as_large_as_the_others():
    for count, size, repeats in ((5, 2, 2), (3, 4, 3), (1, 4, 2)):
        sampler = RolloutSampler(count, size, repeats, seed=0)
        found = list(sampler)
        assert len(found) == len(sampler)
        rollouts = [found[start : start + size] for start in range(0, len(found), size)]
        assert all(len(own) == size for own in rollouts)
        assert all(own == rollouts[i - i % repeats] for i, own in enumerate(rollouts))
        assert set(found) == set(range(count)) and len(rollouts) == -(-count // size) * repeats


def test_without_repeats_each_prompt_comes_once_an_epoch():
    sampler = RolloutSampler(5, 2, 1, seed=0)
    assert sorted(sampler) == [*range(5)] and len(sampler) == 5


@pytest.mark.parametrize(("batch", "accumulation"), [(2, 1), (1, 2)])
def test_prompts_that_do_not_divide_into_rollouts_are_all_asked_and_learned_from(
    tmp_path, policy, critic, reference, encoder, sampled, batch, accumulation
):
    asked: list[tuple[int, set[str]]] = []
    trainer = trainer_of(
        tmp_path,
        (policy, critic, reference),
        encoder,
        trees_of(encoder, "turn")[:3],
        settings=Settings(ppo_epochs=2),
        on_samples=lambda step, judged: asked.append((step, {one.sample.id for one in judged})),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=-1,
        num_train_epochs=2,
    )
    trainer.train()
    assert trainer.state.global_step == 8 and [step for step, _ in asked] == [1, 3, 5, 7]
    for i in (0, 2):
        assert asked[i][1] | asked[i + 1][1] == {"t#1", "t#2", "t#3"}


def test_what_is_logged_of_a_rollout(tmp_path, policy, critic, reference, encoder, sampled):
    outcomes = dict(zip(SCORES, ["correct", "format_error", "wrong_value", "correct", "correct"], strict=True))

    def graded(sample, response: str) -> Judged:
        return Judged(sample, response, Grade(Outcome(outcomes[sample.id]), ""), SCORES[sample.id])

    shown: list[Judged] = []
    trees = trees_of(encoder)
    end = rollout.sample(policy, trees, Sampling(5, None, NEVER, PAD))[0][0][2]
    sampling = Sampling(5, None, end, PAD)
    trainer = trainer_of(
        tmp_path,
        (policy, critic, reference),
        encoder,
        trees,
        sampling=sampling,
        judge=graded,
        on_samples=lambda step, judged: shown.extend(judged),
    )
    trainer.train()
    (entry,) = steps(trainer)
    responses = [tokens for own in sampled[-1] for tokens in own]
    assert entry["reward"] == pytest.approx((1 - 2 + 0.5 + 7 - 0.25) / 5)  # as judged, before it is clipped
    shares = {"grade/correct": 0.6, "grade/format_error": 0.2, "grade/wrong_value": 0.2}
    assert {name: entry[name] for name in GRADES} == pytest.approx(dict.fromkeys(GRADES, 0.0) | shares)
    assert entry["response_length"] == sum(map(len, responses)) / 5
    assert entry["response_tokens"] == sum(map(len, responses)) < 25
    assert entry["ended"] == sum(tokens[-1] == end for tokens in responses) / 5 > 0
    parts = [entry[f"seconds_{part}"] for part in ("generation", "scoring", "update")]
    assert min(parts) > 0 and entry["seconds"] == pytest.approx(sum(parts))
    prompt_tokens = sum(end for tree in trees for end in tree.ends)
    assert entry["tokens_per_second"] == pytest.approx((prompt_tokens + entry["response_tokens"]) / entry["seconds"])
    assert 0 < entry["entropy"] < math.log(policy.config.vocab_size)
    assert sorted(encoder.decode(tokens) for tokens in responses) == sorted(one.response for one in shown)
    assert json.dumps(entry)


# --- guards ---------------------------------------------------------------------------------------------------------


def test_a_reward_that_is_no_number_names_step_sample_and_checkpoint(tmp_path, policy, critic, reference, encoder):
    calls: list[str] = []

    def breaks(sample, response: str) -> Judged:
        calls.append(sample.id)
        bad = len(calls) == 7  # in the second step of 5 prompts each
        return Judged(sample, response, Grade(Outcome.CORRECT, ""), math.nan if bad else 1.0)

    words = {"judge": breaks, "max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    trainer = trainer_of(tmp_path, (policy, critic, reference), encoder, trees_of(encoder), **words)
    with pytest.raises(TltrainError) as stop:
        trainer.train()
    message = str(stop.value)
    assert message.startswith(f"step 2: the reward of {calls[6]} is nan; the last checkpoint is ")
    assert str(tmp_path / "checkpoint-1") in message and "\n" not in message


def test_a_loss_that_is_no_number_stops_and_says_there_is_no_checkpoint(tmp_path, policy, critic, reference, encoder):
    with torch.no_grad():
        critic.score.weight[0, 0] = math.inf
    trainer = trainer_of(tmp_path, (policy, critic, reference), encoder, trees_of(encoder))
    with pytest.raises(TltrainError, match=r"step 1: .*(nan|inf).*the last checkpoint is none; lower stage"):
        trainer.train()


def test_kl_beyond_its_limit_stops(tmp_path, policy, critic, reference, encoder):
    models, trees = (policy, critic, reference), trees_of(encoder)
    free = trainer_of(tmp_path, models, encoder, trees, kl=KlControl(0.3, 1e6), max_steps=3)
    free.train()
    assert (free.stopped, free.state.global_step) == (None, 3)
    first = steps(free)[0]["kl"]
    assert first > 0
    trainer = trainer_of(tmp_path, models, encoder, trees, kl=KlControl(0.3, first / 2), max_steps=3)
    trainer.train()
    assert trainer.state.global_step == 1
    assert trainer.stopped == f"kl {first:.3f} is beyond stage.kl_limit={first / 2} at step 1"


def test_kl_beyond_its_limit_raises_the_coefficient(tmp_path, policy, critic, reference, encoder):
    models, trees = (policy, critic, reference), trees_of(encoder)
    kl = KlControl(0.2, 0.0, "adapt")
    trainer = trainer_of(tmp_path, models, encoder, trees, kl=kl, learning_rate=0.0, max_steps=3)
    trainer.train()
    assert trainer.stopped is None and all(entry["kl"] > 0 for entry in steps(trainer))
    assert [entry["kl_coefficient"] for entry in steps(trainer)] == pytest.approx([0.2, 0.3, 0.45])


def test_the_coefficient_comes_down_again_but_not_below_where_it_began():
    kl = KlControl(0.2, 3.0, "adapt")
    found = []
    for value in (3.1, 3.1, 2.5, 1.9, 1.9, -1.0):  # 2 is two thirds of the limit
        assert kl.heed(value, 1) is None
        found.append(kl.coefficient)
    assert found == pytest.approx([0.3, 0.45, 0.45, 0.3, 0.2, 0.2])
    for unlimited in (KlControl(0.2), KlControl(0.2, None, "adapt")):
        assert (unlimited.heed(1e9, 1), unlimited.coefficient) == (None, 0.2)


@pytest.mark.parametrize(("name", "size"), [("vocab_size", 100), ("max_position_embeddings", 64)])
def test_a_critic_of_another_shape_is_refused_in_one_line(tmp_path, policy, reference, encoder, sizes, name, size):
    other = LlamaForTokenClassification(LlamaConfig(**{**sizes, name: size}, num_labels=1))
    with pytest.raises(TltrainError) as stop:
        trainer_of(tmp_path, (policy, other, reference), encoder, trees_of(encoder))
    wanted = getattr(policy.config, name)
    assert str(stop.value).startswith(f"stage.critic.path: the critic has {name} {size}, the policy {wanted}: ")
    assert "\n" not in str(stop.value)


# --- LoRA -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def adapted(policy):
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    return peft.get_peft_model(policy, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))


def test_with_lora_the_reference_is_the_policy_without_its_adapter(tmp_path, adapted, critic, encoder):
    settings = Settings(critic_learning_rate=0.1)
    trainer = trainer_of(
        tmp_path, (adapted, critic, None), encoder, trees_of(encoder), settings=settings, learning_rate=1.0, max_steps=2
    )
    trainer.train()
    assert trainer.reference is None
    first, second = steps(trainer)
    assert first["kl"] == pytest.approx(0, abs=1e-5) and abs(second["kl"]) > 1e-3
    before = dict(adapted.named_parameters())
    changed = {name for name, own in trainer.model.policy.named_parameters() if not torch.equal(own, before[name])}
    assert changed == {name for name in before if "lora_" in name} != set()
    assert not torch.equal(weights(trainer.model.critic), weights(critic))


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_the_last_checkpoint_is_the_newest_whole_one(tmp_path):
    assert last_checkpoint(tmp_path) is None
    assert last_checkpoint(tmp_path / "none") is None
    for step in (2, 9, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_checkpoint(tmp_path) is None
    for step in (2, 9, 10):
        (tmp_path / f"checkpoint-{step}" / COMPLETE).write_text("{}")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def resumed(folder: Path, make: Callable[..., PPOTrainer], at: int) -> tuple[PPOTrainer, PPOTrainer]:
    """(a whole run of four steps, one stopped after `at` and begun anew from its last checkpoint)."""
    whole = make(folder / "whole")
    whole.train()
    halves = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
    first = make(folder / "halves", **halves, max_steps=at)
    first.train()
    left = sorted(path.name for path in (folder / "halves").iterdir())
    assert left == [f"checkpoint-{at}"]
    second = make(folder / "halves", **halves)
    second.train(str(last_checkpoint(folder / "halves")))
    return whole, second


TIMES = ("seconds", "tokens_per_second", "seconds_generation", "seconds_scoring", "seconds_update")


def assert_same(whole: PPOTrainer, second: PPOTrainer) -> None:
    assert torch.equal(weights(whole.model), weights(second.model))
    logs = [[{k: v for k, v in entry.items() if k not in TIMES} for entry in steps(t)] for t in (whole, second)]
    assert logs[0] == logs[1] and len(logs[0]) == 4


@pytest.mark.parametrize(("epochs", "at"), [(1, 2), (2, 1)])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path, policy, critic, reference, encoder, epochs, at):
    settings = Settings(ppo_epochs=epochs, critic_learning_rate=1e-3)

    def make(folder: Path, **words) -> PPOTrainer:
        words = {"max_steps": 4, "optim": "adamw_torch", "learning_rate": 1e-3, **words}
        torch.manual_seed(5)
        trees = trees_of(encoder, "turn")[:4]
        kl = KlControl(0.3, 0.0, "adapt")
        return trainer_of(folder, (policy, critic, reference), encoder, trees, kl=kl, settings=settings, **words)

    assert_same(*resumed(tmp_path, make, at))


def test_a_stopped_run_with_lora_goes_on_as_if_it_had_not_been(tmp_path, adapted, critic, encoder):
    def make(folder: Path, **words) -> PPOTrainer:
        words = {"max_steps": 4, "optim": "adamw_torch", "learning_rate": 1e-2, **words}
        return trainer_of(folder, (adapted, critic, None), encoder, trees_of(encoder, "turn")[:4], **words)

    whole, second = resumed(tmp_path, make, 2)
    assert_same(whole, second)
    assert abs(steps(whole)[-1]["kl"]) > 1e-4


# --- learning -------------------------------------------------------------------------------------------------------


def test_it_learns_what_pays(tmp_path, sizes, encoder):
    """A response earns 1 if it begins with a lower-case letter, else -1: about a third does so at first."""
    plain = {**sizes, "initializer_range": 0.02}
    policy = new_policy(plain, 0)
    torch.manual_seed(1)
    critic = LlamaForTokenClassification(LlamaConfig(**plain, num_labels=1, classifier_dropout=0.0))

    def letters(sample, response: str) -> Judged:
        right = response[:1].islower() and response[:1].isascii()
        return Judged(sample, response, Grade(Outcome.CORRECT, ""), 1.0 if right else -1.0)

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
