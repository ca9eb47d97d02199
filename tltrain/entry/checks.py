"""What the shape of the configuration cannot say, checked before a stage loads anything."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tltrain import config
from tltrain.entry.arguments import LLAMA_CONFIG, check_arguments, library_fields, suggestion
from tltrain.errors import TltrainError
from tltrain.training.arguments import IRM_ARGUMENTS, SUPERVISED_ARGUMENTS

LEAST = {
    "stage.w_max": 1,
    "stage.tree_size": 1,
    "stage.train_size": 1,
    "stage.test_size": 1,
    "stage.max_new_tokens": 1,
    "stage.batch_size": 1,
    "stage.irm_steps": 1,
    "stage.limit": 1,
    "stage.max_prompt_length": 1,
    "stage.kl": 0,
    "stage.kl_limit": 0,
    "stage.gamma": 0,
    "stage.lam": 0,
    "stage.clip": 0,
    "stage.value_clip": 0,
    "stage.reward_clip": 0,
    "stage.ppo_epochs": 1,
    "stage.generation_batch_size": 1,
    "stage.eval_size": 0,
    "stage.eval_batch_size": 1,
    "stage.samples_every": 1,
    "stage.samples": 0,
    "stage.args.per_device_train_batch_size": 1,
    "stage.args.gradient_accumulation_steps": 1,
    "stage.args.max_length": 1,
    "stage.older_than_days": 0,
    "stage.memory_gb": 0.001,
    "stage.processes": 1,
    "stage.length": 1,
    "stage.tokens": 1,
    "stage.target_share": 0,
    "stage.calls": 1,
    "stage.response": 1,
    "stage.flops": 1,
    "stage.bandwidth": 1,
    "data.limit": 1,
    "data.size": 0,
    "benchmark.limit": 1,
    "benchmark.size": 0,
    "source.concurrency": 1,
    "source.timeout": 1,
    "source.retries": 0,
    "source.temperature": 0,
    "benchmark.max_turns": 1,
    "benchmark.parallel": 1,
    "benchmark.max_output": 1,
    "benchmark.time_limit": 0.1,
    "benchmark.memory_limit": 64,
    "benchmark.fewshot": 0,
    "hardware.threads": 1,
    "tracking.rows": 0,
    "tracking.timeout": 1,
    "tracking.finish_timeout": 0,
    "model.lora.r": 1,
    "model.lora.alpha": 0,
    "model.lora.dropout": 0,
    "hardware.processes": 1,
    "hardware.nodes": 1,
    "hardware.node_rank": 0,
}
"""The least value of numbers that have one."""


def check(cfg: DictConfig) -> None:
    """What the schemas cannot say, before a stage loads anything; `++key=value` passes by the schemas, not by this."""
    stage = config.STAGES.get(cfg.stage.name, cfg.stage.name)
    if f"schema/stage/{stage}" not in config.SCHEMAS:
        raise TltrainError(f"stage.name: expected the name of a stage, found {cfg.stage.name}")
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise TltrainError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    _check_keys(cfg.stage, config.SCHEMAS[f"schema/stage/{stage}"], "stage")
    _check_keys(cfg, config.Config, "")
    _check_keys(cfg.cache, config.Cache, "cache")
    _check_keys(cfg.paths, config.Paths, "paths")
    _check_keys(cfg.report, config.Report, "report")
    _check_keys(cfg.model.demo, config.DemoStage, "model.demo")
    for node in ("model", "data", "benchmark", "source", "hardware", "tracking"):
        _check_keys(cfg[node], config.SCHEMAS[f"schema/{node}"], node)
    _check_keys(cfg.model.lora, config.Lora, "model.lora")
    if cfg.model.lora.quantize not in (None, "4bit", "8bit"):
        raise TltrainError(f"model.lora.quantize: expected 4bit, 8bit or null, found {cfg.model.lora.quantize}")
    _check_arguments(cfg)
    for name in cfg.model.random or ():
        if name not in (fields := library_fields(LLAMA_CONFIG)):
            raise TltrainError(f"model.random.{name}: LlamaConfig has no such argument{suggestion(name, fields)}")
    if cfg.model.path is not None:
        check_model_path(cfg.model.path)
    for path in cfg.stage.get("models") or ():
        check_model_path(path, "stage.models")
    checkpoint = OmegaConf.select(cfg, "stage.args.resume_from_checkpoint")
    if checkpoint is not None and not Path(checkpoint).is_dir():
        raise TltrainError(f"stage.args.resume_from_checkpoint={checkpoint}: there is no such folder")
    if not 0 <= cfg.data.holdout < 1:
        raise TltrainError(f"data.holdout: expected a share from 0 to below 1, found {cfg.data.holdout}")
    if not 0 <= cfg.data.error_rate < 1:
        raise TltrainError(f"data.error_rate: expected a share from 0 to below 1, found {cfg.data.error_rate}")
    for key, least in LEAST.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and not value >= least:  # so put, NaN is refused too
            raise TltrainError(f"{key}: expected {least} or more, found {value}")


def _check_arguments(cfg: DictConfig) -> None:
    """Every argument that is passed on to a library, and `model.irm`."""
    _check_keys(cfg.model.irm, {"critic_learning_rate", "args"}, "model.irm")
    irm = cfg.stage.name == "irm"
    nodes = {"model.args": SUPERVISED_ARGUMENTS, "model.irm.args": "transformers.TrainingArguments"}
    nodes["hardware.args"] = "transformers.TrainingArguments"
    nodes["stage.args"] = IRM_ARGUMENTS[cfg.stage.algorithm.name] if irm else SUPERVISED_ARGUMENTS
    if irm:
        _check_keys(cfg.stage.critic, config.Critic, "stage.critic")
        _check_keys(cfg.stage.algorithm_args, IRM_ARGUMENTS, "stage.algorithm_args")
        nodes |= {f"stage.algorithm_args.{name}": kind for name, kind in IRM_ARGUMENTS.items()}
        if not cfg.stage.temperature > 0:
            raise TltrainError(
                f"stage.temperature: expected a number above 0, found {cfg.stage.temperature}; greedy sampling is "
                "stage.do_sample=false"
            )
        for key in ("gamma", "lam"):
            if cfg.stage[key] > 1:
                raise TltrainError(f"stage.{key}: expected a number from 0 to 1, found {cfg.stage[key]}")
    for where, kind in nodes.items():
        node = OmegaConf.select(cfg, where)
        if node is not None:
            check_arguments(OmegaConf.to_container(node, resolve=True), where, kind)


def check_model_path(path: str, key: str = "model.path") -> None:
    """Raise a TltrainError unless `path`, which `key` gives, is a folder with a model, or may be a hub id."""
    if Path(path).is_dir():
        if not any((Path(path) / name).is_file() for name in ("config.json", "adapter_config.json")):
            inside = Path(path) / "model"
            hint = f"did you mean {inside}?" if (inside / "config.json").is_file() else "it has no config.json"
            raise TltrainError(f"{key}={path} is not a model folder: {hint}")
    elif path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise TltrainError(f"{key}={path}: there is no such folder")


def _check_keys(node: DictConfig, schema: type | Collection[str], where: str) -> None:
    known = schema.__dataclass_fields__ if isinstance(schema, type) else schema
    for key in node:
        if key not in known:
            raise TltrainError(f"{where}.{key}".lstrip(".") + f": no such key{suggestion(str(key), known)}")
