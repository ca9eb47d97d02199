"""PPO with an adapter, and training that is stopped and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.ppo_trainers import steps, trainer_of, trees_of, weights
from tltrain.training.actor_critic import ValueHead
from tltrain.training.checkpoints import COMPLETE, last_checkpoint
from tltrain.training.kl import KlControl
from tltrain.training.ppo import PPOTrainer, Settings


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
    """Return (an uninterrupted run of four steps, one stopped after `at` and resumed from its last checkpoint)."""
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


def assert_same(whole: PPOTrainer, second: PPOTrainer) -> None:
    assert torch.equal(weights(whole.model), weights(second.model))
    logs = [[{k: v for k, v in entry.items() if "second" not in k} for entry in steps(t)] for t in (whole, second)]
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


def test_a_stopped_run_with_a_shared_critic_goes_on_as_if_it_had_not_been(tmp_path, policy, reference, encoder):
    def make(folder: Path, **words) -> PPOTrainer:
        words = {"max_steps": 4, "optim": "adamw_torch", "learning_rate": 1e-2, **words}
        settings = Settings(critic_learning_rate=1e-2, value_coefficient=0.1)
        models = (policy, ValueHead(policy.config.hidden_size), reference)
        return trainer_of(folder, models, encoder, trees_of(encoder), settings=settings, **words)

    whole, second = resumed(tmp_path, make, 2)
    assert_same(whole, second)
    assert weights(whole.model.critic).abs().max() > 1e-3
    costs = [trainer.costs() for trainer in (whole, second)]
    assert costs[1].pop("processor_seconds") > 0 and costs[0].pop("processor_seconds") > 0
    assert costs[0] == costs[1] == {"updates": 4, "target_tokens": 100, "sampled_calls": 20, "sampled_tokens": 100}
