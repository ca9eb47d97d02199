"""Merge the arguments of a library's trainer from all places of the configuration that set them.

The stages construct the library's object from the result and the plan reads it too, so that a plan matches training.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from tltrain.config import merged, plain

SUPERVISED_ARGUMENTS = "trl.SFTConfig"
IRM_ARGUMENTS = {
    "ppo": "transformers.TrainingArguments",
    "rloo": "trl.RLOOConfig",
    "grpo": "trl.GRPOConfig",
    "rejection": SUPERVISED_ARGUMENTS,
}
"""The libraries' argument classes by `stage.algorithm`."""

DEFAULTS: dict[str, Any] = {
    "logging_steps": 1,
    "save_strategy": "no",
    "logging_nan_inf_filter": False,  # would hide divergence
    "ddp_find_unused_parameters": False,  # there are none
    "activation_checkpointing": False,  # TRL's default is True, which costs a small model a third
}
"""Defaults that differ from the library's."""

ALIASES = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
"""Older argument names of transformers, which it ignores wherever the newer name is set."""

WEIGHT = 0.02
"""Magnitude of a typical weight: the standard deviation with which most models are initialized."""
SIGNIFICANT_BITS = {"bfloat16": 8, "float16": 11}
"""Significant bits of the 16-bit dtypes."""


def library_class(stage: DictConfig) -> str:
    """Return the name of the argument class of the trainer of `stage`."""
    return IRM_ARGUMENTS[_trained_by(stage)] if stage.name == "irm" else SUPERVISED_ARGUMENTS


def _trained_by(stage: DictConfig) -> str:
    """Return the algorithm whose trainer stage=irm uses; for whole conversations it is always ours."""
    return "ppo" if stage.rollout.name == "conversation" else stage.algorithm.name


def sources(cfg: DictConfig) -> list[DictConfig]:
    """Return the configuration nodes that set arguments for the trainer of `cfg.stage`; later nodes win."""
    stage = cfg.stage
    if stage.name == "irm" and stage.algorithm.name == "rejection":
        chosen = [cfg.model.args, cfg.hardware.args, stage.algorithm_args.get("rejection")]  # as stage=sft
    elif stage.name == "irm":
        chosen = [cfg.model.irm.get("args"), cfg.hardware.args, stage.algorithm_args.get(_trained_by(stage))]
    else:
        chosen = [cfg.model.args, cfg.hardware.args]
    return [node for node in (*chosen, stage.args) if node is not None]


def configured_arguments(cfg: DictConfig) -> dict[str, Any]:
    """Return the arguments that the configuration sets for the trainer of `cfg.stage`, under their newer names."""
    return plain(merged(*map(_renamed, sources(cfg))))


def trainer_arguments(cfg: DictConfig) -> dict[str, Any]:
    """Return `configured_arguments` on top of `DEFAULTS`; None selects the default if there is one."""
    chosen = configured_arguments(cfg)
    defaults = dict(DEFAULTS)
    if cfg.stage.name != "irm" and "per_device_train_batch_size" in chosen:
        # The library's default of 8 would pad long trajectories to the longest.
        defaults["per_device_eval_batch_size"] = chosen["per_device_train_batch_size"]
    return defaults | {name: value for name, value in chosen.items() if value is not None or name not in defaults}


def float32_copy(cfg: DictConfig, processes: int) -> bool:
    """Return whether the engine keeps a float32 copy of the weights, as DeepSpeed and FSDP do."""
    return bool(cfg.hardware.deepspeed or (cfg.hardware.fsdp and processes > 1))


def lost_updates(cfg: DictConfig, learning_rate: float, *, float32_copy: bool) -> str | None:
    """Explain in one line why 16-bit weights, updated in place, would hardly change; None if they do change.

    An Adam step changes a weight by about the learning rate, and a typical weight has the magnitude `WEIGHT`. A change
    below half the distance to the next number with p significant bits, about weight / 2^p / 2, is rounded away.
    Adapters are float32.
    """
    bits = SIGNIFICANT_BITS.get(cfg.model.dtype)
    if bits is None or float32_copy or cfg.model.lora.r is not None:
        return None
    rates = {"stage.args.learning_rate": learning_rate}
    if cfg.stage.name == "irm" and cfg.stage.algorithm.name == "ppo":
        rates["stage.critic.learning_rate"] = cfg.stage.critic.learning_rate
    small = [f"{name}={rate:g}" for name, rate in rates.items() if rate < WEIGHT / 2**bits / 2]
    if not small:
        return None
    return f"{' and '.join(small)}: {cfg.model.dtype} weights would lose most updates to rounding"


def _renamed(node: DictConfig) -> dict[str, Any]:
    """Return the node's resolved values; a newer name overrides an older one, as in the library."""
    values = plain(node)
    older = {ALIASES[name]: values.pop(name) for name in list(values) if name in ALIASES}
    return older | {name: value for name, value in values.items() if value is not None or name not in older}
