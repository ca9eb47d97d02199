"""The arguments that a training gives its library: one merge of every place where the configuration sets them.

The stages build the library's object from it, and the plan reads it, so that a plan is of what would be trained.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from tltrain.config import merged, plain

SUPERVISED_ARGUMENTS = "trl.SFTConfig"
IRM_ARGUMENTS = {"ppo": "transformers.TrainingArguments", "rloo": "trl.RLOOConfig", "grpo": "trl.GRPOConfig"}
"""The libraries' classes of arguments, by `stage.algorithm`."""

DEFAULTS: dict[str, Any] = {
    "logging_steps": 1,
    "save_strategy": "no",
    "logging_nan_inf_filter": False,  # it would hide that a training has diverged
    "ddp_find_unused_parameters": False,  # there are none
    "activation_checkpointing": False,  # TRL's default is True, which costs a small model a third
}
"""Our defaults, where they differ from a library's."""

ALIASES = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
"""transformers' older names of arguments, which it ignores where the newer name is set anywhere."""

WEIGHT = 0.02
"""Size of a typical weight: the spread that most models are initialized with."""
SIGNIFICANT_BITS = {"bfloat16": 8, "float16": 11}
"""Of the 16-bit dtypes."""


def library_class(stage: DictConfig) -> str:
    """The name of the class of arguments that the trainer of `stage` takes."""
    return IRM_ARGUMENTS[stage.algorithm.name] if stage.name == "irm" else SUPERVISED_ARGUMENTS


def sources(cfg: DictConfig) -> list[DictConfig]:
    """The nodes of the configuration that set arguments for the trainer of `cfg.stage`; a later one wins."""
    stage = cfg.stage
    if stage.name == "irm":
        chosen = [cfg.model.irm.get("args"), cfg.hardware.args, stage.algorithm_args.get(stage.algorithm.name)]
    else:
        chosen = [cfg.model.args, cfg.hardware.args]
    return [node for node in (*chosen, stage.args) if node is not None]


def configured_arguments(cfg: DictConfig) -> dict[str, Any]:
    """What the configuration sets for the trainer of `cfg.stage`, under the newer of two names."""
    return plain(merged(*map(_renamed, sources(cfg))))


def trainer_arguments(cfg: DictConfig) -> dict[str, Any]:
    """`configured_arguments` above our defaults; None is the default where we have one."""
    chosen = configured_arguments(cfg)
    defaults = dict(DEFAULTS)
    if cfg.stage.name != "irm" and "per_device_train_batch_size" in chosen:
        # The library's default of 8 would pad long trajectories to the longest.
        defaults["per_device_eval_batch_size"] = chosen["per_device_train_batch_size"]
    return defaults | {name: value for name, value in chosen.items() if value is not None or name not in defaults}


def float32_copy(cfg: DictConfig, processes: int) -> bool:
    """Whether the engine keeps float32 weights beside those it computes with, as DeepSpeed and FSDP do."""
    return bool(cfg.hardware.deepspeed or (cfg.hardware.fsdp and processes > 1))


def lost_updates(cfg: DictConfig, learning_rate: float, *, float32_copy: bool) -> str | None:
    """In one line why weights that are trained as they are kept, in 16 bits, would hardly change; None if they change.

    An Adam step is about as long as the learning rate, and a weight about `WEIGHT`. What is less than half the distance
    to the next number of p significant bits, about weight / 2^p / 2, is rounded away. Adapters are float32.
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
    """The node's values, resolved; an older name gives way to a newer one beside it, as in the library."""
    values = plain(node)
    older = {ALIASES[name]: values.pop(name) for name in list(values) if name in ALIASES}
    return older | {name: value for name, value in values.items() if value is not None or name not in older}
