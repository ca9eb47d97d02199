"""PPO stops on rewards and losses that are not finite, KL beyond its limit, and a critic of another shape."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForTokenClassification

from tests.support.ppo_trainers import steps, trainer_of, trees_of
from tltrain.errors import TltrainError
from tltrain.grading import Grade, Outcome
from tltrain.training.kl import KlControl
from tltrain.training.reward_function import GradedResponse


def test_a_reward_that_is_no_number_names_step_sample_and_checkpoint(tmp_path, policy, critic, reference, encoder):
    calls: list[str] = []

    def breaks(sample, response: str, ended: bool) -> GradedResponse:
        calls.append(sample.id)
        bad = len(calls) == 7  # in the second step of 5 prompts each
        return GradedResponse(sample, response, Grade(Outcome.CORRECT, ""), math.nan if bad else 1.0)

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
    assert trainer.stopped == f"kl {first:.3f} exceeds stage.kl_limit={first / 2} at step 1"


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
        assert kl.update(value, 1) is None
        found.append(kl.coefficient)
    assert found == pytest.approx([0.3, 0.45, 0.45, 0.3, 0.2, 0.2])
    for unlimited in (KlControl(0.2), KlControl(0.2, None, "adapt")):
        assert (unlimited.update(1e9, 1), unlimited.coefficient) == (None, 0.2)


@pytest.mark.parametrize(("name", "size"), [("vocab_size", 100), ("max_position_embeddings", 64)])
def test_a_critic_of_another_shape_is_refused_in_one_line(tmp_path, policy, reference, encoder, sizes, name, size):
    other = LlamaForTokenClassification(LlamaConfig(**{**sizes, name: size}, num_labels=1))
    with pytest.raises(TltrainError) as stop:
        trainer_of(tmp_path, (policy, other, reference), encoder, trees_of(encoder))
    wanted = getattr(policy.config, name)
    assert str(stop.value).startswith(f"stage.critic.path: the critic has {name} {size}, the policy {wanted}: ")
    assert "\n" not in str(stop.value)
