"""Runs of stages on a model of a few thousand weights and a few trajectories, and helpers to read them."""

from __future__ import annotations

from tests.support.command_line import Ran
from tltrain.grading import Grade, Outcome
from tltrain.training import reward_function

SMALL = (
    "model=tiny",
    "hardware.bf16=false",
    "model.random.hidden_size=32",
    "model.random.intermediate_size=64",
    "model.random.num_hidden_layers=2",
    "model.random.num_attention_heads=4",
    "model.random.num_key_value_heads=2",
)
TRAINED = (
    "stage=pkt",
    *SMALL,
    "format=qwen3",
    "data.size=8",
    "data.holdout=0.2",
    "stage.args.max_steps=1",
    "stage.args.gradient_accumulation_steps=1",
)
"""A training run in a native format, the one in tests/stages/test_native_formats.py, so that all tests share it."""
SHORT = ("stage.max_new_tokens=4", "stage.too_long_answer=keep")  # no golden call is that short
FEW = ("data.size=12", "data.holdout=0.2", *SHORT, "stage.eval_size=3", "stage.args.max_steps=2")
ALGORITHMS = {
    "ppo": (
        "stage.args.per_device_train_batch_size=2",
        "stage.args.gradient_accumulation_steps=2",
        "stage.critic.init=random",  # all these calls earn -2: a critic initialized to that would learn nothing
    ),
    "rloo": ("stage.algorithm=rloo", "stage.args.per_device_train_batch_size=4"),
    "grpo": ("stage.algorithm=grpo", "stage.args.per_device_train_batch_size=4"),
}


def steps(ran: Ran) -> list[dict]:
    return [entry for entry in ran.lines("history.jsonl") if "loss" in entry]


def weights(ran: Ran) -> bytes:
    return (ran.folder / "model" / "model.safetensors").read_bytes()


def last_line(ran: Ran) -> str:
    """Return the error line, and check that no traceback precedes it."""
    assert "Traceback" not in ran.err
    return ran.err.splitlines()[-1]


def reward_letters(
    judge: reward_function.RewardFunction, sample, response: str, ended: bool = True
) -> reward_function.GradedResponse:
    """Return 1 for responses that begin with a letter, else -1: random weights produce both, -1 more often."""
    return reward_function.GradedResponse(
        sample, response, Grade(Outcome.CORRECT, ""), 1.0 if response[:1].isalpha() else -1.0
    )
