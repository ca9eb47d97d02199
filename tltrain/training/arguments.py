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


def _renamed(node: DictConfig) -> dict[str, Any]:
    """The node's values, resolved; an older name gives way to a newer one beside it, as in the library."""
    values = plain(node)
    older = {ALIASES[name]: values.pop(name) for name in list(values) if name in ALIASES}
    return older | {name: value for name, value in values.items() if value is not None or name not in older}
