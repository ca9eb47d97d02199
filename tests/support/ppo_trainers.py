"""PPO trainers on models of a few hundred weights, and values that their tests inspect."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from tests.support.small_rollouts import NEVER, PAD
from tests.support.trajectories import OTHER, TRAJECTORY
from tltrain.grading import Grade, Outcome
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.prompts import PromptReport, PromptTree, prompt_trees
from tltrain.training.actor_critic import Models
from tltrain.training.kl import KlControl
from tltrain.training.ppo import PPOTrainer, Settings
from tltrain.training.reward_function import GradedResponse, RewardSignal
from tltrain.training.rollout import Prompts, Sampling

SCORES = {"t#1": 1.0, "t#2": -2.0, "t#3": 0.5, "o#1": 7.0, "o#2": -0.25}
"""The reward of every response to a prompt; 7 is clipped to 5."""


def new_policy(sizes: dict, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**sizes))


def trees_of(encoder: Encoder, packing: str = "trajectory") -> list[PromptTree]:
    items = [TRAJECTORY, replace(OTHER, id="o")]
    return list(
        prompt_trees(items, encoder, packing=packing, max_length=10**6, truncation="error", report=PromptReport())
    )


def judge(sample, response: str, ended: bool = True) -> GradedResponse:
    return GradedResponse(sample, response, Grade(Outcome.CORRECT, ""), SCORES[sample.id], ended)


def trainer_of(
    folder: Path,
    models: tuple,
    encoder: Encoder,
    trees: Sequence[PromptTree],
    *,
    kl: KlControl | None = None,
    settings: Settings = Settings(),  # noqa: B008
    sampling: Sampling = Sampling(5, 0.7, NEVER, PAD),  # noqa: B008
    judge: Callable[..., GradedResponse] = judge,
    on_samples: Callable = lambda step, judged: None,
    **args,
) -> PPOTrainer:
    """Make a PPO trainer on copies of (policy, critic, reference), by default with SGD steps of 0.1 and no clipping."""
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
    return PPOTrainer(
        Models(*map(copy.deepcopy, models)),
        arguments,
        Prompts(trees, sampling, encoder),
        reward=RewardSignal(judge, kl or KlControl(0.3), on_samples),
        settings=settings,
    )


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).clone()


def steps(trainer: PPOTrainer) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]
