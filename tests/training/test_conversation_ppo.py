"""The update over whole conversations: credit by hand, rows, and what a step learns."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments
from transformers.models.llama.modeling_llama import LlamaForTokenClassification

from tests.support.environment_samples import Room, tasks
from tests.support.ppo_trainers import new_policy, steps, weights
from tests.support.small_rollouts import NEVER, PAD, SIZES
from tltrain.environments.loop import Conversation, ConversationSettings
from tltrain.errors import TltrainError
from tltrain.runtime import distributed
from tltrain.tokens.encoder import Encoder
from tltrain.training import conversation_ppo
from tltrain.training.actor_critic import Models, NoCritic
from tltrain.training.conversation_ppo import ConversationPPO, RewardedTurn, rows_of
from tltrain.training.conversation_reward import TurnReward, usable
from tltrain.training.conversation_rollout import Conversations, SampledTurn, World
from tltrain.training.kl import KlControl
from tltrain.training.ppo import Settings
from tltrain.training.reward_function import RewardSignal
from tltrain.training.rollout import Sampling
from tltrain.trajectory import Sample

SAMPLING = Sampling(5, 0.9, NEVER, PAD)


# --- credit ---------------------------------------------------------------------------------------------------------


def test_advantages_of_two_conversations_by_hand():
    # gamma 0.5, lambda 0.5. First: delta = (1 + 0.5 * 4 - 2, 3 - 4) = (1, -1), advantages (1 - 0.25, -1).
    # Second, of one turn: 5 - 1.
    found = conversation_ppo.spread(
        torch.tensor([1.0, 3.0, 5.0]), torch.tensor([2.0, 4.0, 1.0]), torch.tensor([0, 0, 1]), gamma=0.5, lam=0.5
    )
    assert [each.tolist() for each in found] == [[0.75, -1.0, 4.0], [2.75, 3.0, 5.0]]


def test_conversations_of_a_task_are_compared_by_hand():
    # Task 0: returns 1 + 2, 0 and 3; task 1: a conversation alone.
    rewards = torch.tensor([1.0, 2.0, 0.0, 3.0, 9.0])
    found = conversation_ppo.compared(
        rewards, torch.tensor([0, 0, 1, 2, 3]), torch.tensor([0, 0, 0, 0, 1]), "leave_one_out"
    )
    assert found.tolist() == [1.5, 1.5, -3.0, 1.5, 0.0]
    nothing = torch.zeros(0)
    assert conversation_ppo.compared(nothing, nothing.long(), nothing.long(), "standardized").tolist() == []


def turn(prompt: Sequence[int], response: Sequence[int], conversation: int = 0) -> RewardedTurn:
    sampled = SampledTurn(Sample("s#1", (), (), ()), list(prompt), list(response), [0.0] * len(response))
    return RewardedTurn(sampled, 0.0, None, conversation)


def test_rows_by_packing():
    first = [turn([1, 2], [3, 4]), turn([1, 2, 3, 9], [5])]
    second = [turn([1, 2], [6, 7], 1)]
    (row,) = rows_of([[first, second]], "trajectory")
    assert [(branch.shared, list(branch.response)) for branch in row] == [(0, [3, 4]), (3, [5]), (1, [6, 7])]
    assert [[branch.shared for branch in row] for row in rows_of([[first, second]], "turn")] == [[0], [0], [0]]
    assert rows_of([[], [[]]], "trajectory") == []


# --- the trainer ------------------------------------------------------------------------------------------------------


def price(conversation: Conversation) -> tuple[TurnReward, ...]:
    """Return rewards that differ by turn and conversation, and depend on little else."""
    texts = {at: message.text for at, message in enumerate(conversation.messages) if message.role == "assistant"}
    return tuple(TurnReward(at, {"documentation": sum(map(ord, text)) % 7 / 7 - 0.5}) for at, text in texts.items())


@pytest.fixture
def encoder(byte_level) -> Encoder:
    return Encoder(byte_level)


@pytest.fixture
def models(byte_level) -> Models:
    sizes = {**SIZES, "vocab_size": len(byte_level)}
    policy = new_policy(sizes, 0)
    torch.manual_seed(1)
    critic = LlamaForTokenClassification(LlamaConfig(**sizes, num_labels=1, classifier_dropout=0.0))
    reference: LlamaForCausalLM = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return Models(policy, critic, reference)


def trainer_of(folder, models, encoder, *, price=price, kl=0.3, on_samples=lambda *_: None, args=None, **given):
    asked = Conversations(World(tasks(4), Room, ConversationSettings(max_turns=3)), SAMPLING, encoder)
    arguments = {
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.1,
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "logging_steps": 1,
    }
    quiet = {"report_to": [], "disable_tqdm": True, "dataloader_pin_memory": False, "remove_unused_columns": False}
    return ConversationPPO(
        copy.deepcopy(models),
        TrainingArguments(output_dir=str(folder), use_cpu=True, bf16=False, **quiet, **(arguments | (args or {}))),
        replace(asked, **given),
        reward=RewardSignal(price, KlControl(kl), on_samples),
        settings=Settings(value_coefficient=0.0 if given.get("baseline") else 1.0),
    )


def test_a_step_is_the_same_however_conversations_are_packed_and_split(tmp_path, models, encoder):
    found = {}
    for name, given, args in (
        ("rows", {}, {}),
        ("turns", {"packing": "turn"}, {}),
        ("split", {}, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}),
    ):
        trainer = trainer_of(tmp_path, models, encoder, args=args, **given)
        trainer.train()
        found[name] = [weights(trainer.model.policy), weights(trainer.model.critic)], steps(trainer)[0]
    for name in ("turns", "split"):
        for one, other, before in zip(found[name][0], found["rows"][0], (models.policy, models.critic), strict=True):
            assert not torch.equal(other, weights(before)) and torch.allclose(one, other, atol=1e-5)
        for metric in ("reward", "kl", "policy_loss", "value_loss", "turns", "success", "entropy"):
            assert found[name][1][metric] == pytest.approx(found["rows"][1][metric], abs=1e-4), metric


def test_a_task_that_two_processes_take_in_a_step_is_talked_about_differently(tmp_path, models, encoder, monkeypatch):
    """With `ppo_epochs`, a rollout is filled up with tasks from the beginning, which other processes may hold too."""
    found = {}
    for rank, before in ((0, [[["t0"]], [["t0"]]]), (1, [[["t0"]], [["t0"]]]), (None, None)):
        batches = [tasks(1)] if before else [tasks(1), tasks(1)]
        with pytest.MonkeyPatch.context() as patch:
            if before:
                patch.setattr(distributed, "gather", lambda value, before=before: before)
                patch.setattr(distributed, "rank", lambda rank=rank: rank)
            trainer = trainer_of(tmp_path, models, encoder)
            found[rank] = [batch["targets"].tolist() for batch in trainer._roll_out(batches)]
    assert found[None] == [*found[0], *found[1]] and found[0] != found[1]


def test_the_critic_starts_at_the_mean_return_that_it_will_learn(models, encoder):
    asked = Conversations(World(tasks(2), Broken, ConversationSettings(max_turns=3)), SAMPLING, encoder)

    def judge(conversation):  # 1, 2, 9 in the three turns; the conversation that its environment broke says nothing
        assert conversation.task.id == "t0" or not usable(conversation)
        return tuple(TurnReward(at, {"outcome": price}) for at, price in ((1, 1.0), (3, 2.0), (5, 9.0)))

    def mean(**given):
        own = Settings(**({"reward_clip": math.inf} | given))
        return conversation_ppo.mean_return(models.policy, asked, judge, bf16=False, seed=0, settings=own)

    assert mean() == pytest.approx((12 + 11 + 9) / 3)
    assert mean(gamma=0.5) == pytest.approx((1 + 1 + 2.25 + 2 + 4.5 + 9) / 3)
    assert mean(reward_clip=4.0) == pytest.approx((7 + 6 + 4) / 3)


def test_what_is_logged_of_conversations(tmp_path, models, encoder):
    shown = []
    trainer = trainer_of(tmp_path, models, encoder, on_samples=lambda step, rewarded: shown.extend(rewarded))
    trainer.train()
    (entry,) = steps(trainer)
    assert len(shown) == 2 and entry["conversations"] == 2 and entry["samples"] == 6
    assert entry["reward"] == pytest.approx(sum(one.reward for one in shown) / 2) == entry["reward/documentation"]
    assert (entry["turns"], entry["conversation/turn_limit"], entry["success"]) == (3, 1, 0)
    assert entry["error/format_error"] + entry["error/tool_hallucination"] + entry["error/parameters"] <= 1
    assert entry["sampling_logprob_difference_max"] < 1e-4 and entry["response_tokens"] == 30
    assert 0 < entry["seconds_sampling"] <= entry["seconds_generation"] and "seconds_prefill" not in entry


def test_context_has_no_logits_and_so_no_gradient_no_kl_and_no_value(tmp_path, models, encoder):
    """Only the positions that predict sampled tokens reach the heads, in the policy and in the reference."""
    trainer = trainer_of(tmp_path, models, encoder)
    read: dict[str, list[int]] = {"policy": [], "reference": []}
    for name, model in (("policy", trainer.model.policy), ("reference", trainer.reference)):
        head = model.get_output_embeddings()
        head.register_forward_pre_hook(lambda _, given, name=name: read[name].append(given[0].shape[-2]))
    kept: list[dict] = []
    micro_batch = trainer._micro_batch
    trainer._micro_batch = lambda rewarded: kept.append(micro_batch(rewarded)) or kept[-1]
    trainer.train()
    sampled = len(kept[0]["targets"])
    assert sampled == 30 and read["policy"][-1] == read["reference"][-1] == sampled
    # The loss as a function of logits at every position: those of context have none.
    batch, width = kept[0], models.policy.config.vocab_size
    torch.manual_seed(0)
    logits = torch.randn(*batch["input_ids"].shape, width, requires_grad=True)
    logprobs = logits[batch["keep"]].log_softmax(-1).gather(1, batch["targets"][:, None])[:, 0]
    (logprobs[batch["index"]] * batch["advantages"])[batch["mask"]].sum().backward()
    assert (logits.grad[~batch["keep"]] == 0).all() and (logits.grad[batch["keep"]] != 0).any()
    context = (~batch["keep"]).sum() - (batch["input_ids"].numel() - batch["real"].sum())
    assert context > sampled  # prompts and answers of tools


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_conversations_about_a_task_are_compared_without_a_critic(tmp_path, models, encoder, algorithm):
    group = {"group_size": 3, "baseline": conversation_ppo.BASELINES[algorithm]}
    own = Models(models.policy, NoCritic(), models.reference)
    trainer = trainer_of(tmp_path, own, encoder, **group)
    trainer.train()
    assert steps(trainer)[0]["conversations"] == 6
    assert not torch.equal(weights(trainer.model.policy), weights(models.policy))
    trainer._save(str(tmp_path / "saved"))
    assert not (tmp_path / "saved" / "critic").exists()
    # Equal rewards teach nothing.
    level = trainer_of(
        tmp_path,
        own,
        encoder,
        price=lambda conversation: (TurnReward(1, {"outcome": 1.0}),),
        kl=0.0,
        **group,
    )
    level.train()
    assert torch.equal(weights(level.model.policy), weights(models.policy))


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_the_penalty_counts_as_much_as_its_coefficient_says(tmp_path, models, encoder, algorithm):
    """Also where all rewards of a group are equal, so that their standard deviation is 0."""
    found = []
    for kl in (0.3, 0.03):
        trainer = trainer_of(
            tmp_path,
            Models(models.policy, NoCritic(), models.reference),
            encoder,
            price=lambda conversation: (TurnReward(1, {"outcome": 1.0}),),
            kl=kl,
            group_size=2,
            baseline=conversation_ppo.BASELINES[algorithm],
        )
        trainer.train()
        found.append(weights(trainer.model.policy) - weights(models.policy))
    assert found[0].abs().max() > 1e-4
    assert torch.allclose(found[0], 10 * found[1], rtol=1e-2, atol=1e-5)


def test_a_policy_that_is_not_finite_is_told_before_training_too(models, encoder):
    asked = Conversations(World(tasks(1), Room, ConversationSettings(max_turns=3)), SAMPLING, encoder)
    with torch.no_grad():
        models.policy.lm_head.weight.fill_(math.nan)
    with pytest.raises(TltrainError, match="the policy's probabilities are not finite at t0#1 before training"):
        conversation_ppo.mean_return(models.policy, asked, price, bf16=False, seed=0, settings=Settings())


class Broken(Room):
    """A room whose tools fail in the conversation about `t1`."""

    def reset(self, task):
        if task.id == "t1":
            raise RuntimeError("out of order")
        return super().reset(task)


def test_an_environment_that_fails_costs_its_conversation_alone(tmp_path, models, encoder):
    world = World(tasks(2), Broken, ConversationSettings(max_turns=3))
    trainer = trainer_of(tmp_path, models, encoder, world=world)
    trainer.train()
    (entry,) = steps(trainer)
    assert (entry["conversations"], entry["samples"], entry["conversation/environment_error"]) == (2, 3, 0.5)
    costs = trainer.costs()
    assert (costs["conversations"], costs["environment_errors"]) == (2, 1)
    nothing = trainer_of(tmp_path, models, encoder, world=replace(world, tasks=tasks(2)[1:]))
    nothing.train()
    assert torch.equal(weights(nothing.model.policy), weights(models.policy))


class Unchecked(Room):
    """A room in which the outcome of the conversation about `t1` cannot be determined."""

    def reset(self, task):
        self.task = task
        return super().reset(task)

    def outcome(self):
        if self.task.id == "t1":
            raise RuntimeError("out of order")
        return super().outcome()


def test_kl_and_reward_are_means_over_what_is_learned(tmp_path, models, encoder):
    found = []
    for named in (tasks(2)[:1], tasks(2)):  # t1 is held and not learned
        world = World(named, Unchecked, ConversationSettings(max_turns=3))
        trainer = trainer_of(tmp_path, models, encoder, world=world)
        trainer.train()
        found.append(steps(trainer)[0])
    assert [entry["samples"] for entry in found] == [3, 6]
    for name in ("kl", "reward", "reward/documentation"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-3), name
