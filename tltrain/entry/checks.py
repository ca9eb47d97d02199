"""Check what the configuration's schemas cannot express, before a stage loads anything."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tltrain import config
from tltrain.config import Key, reads
from tltrain.data import nearby
from tltrain.entry import choices, formats
from tltrain.entry.arguments import LLAMA_CONFIG, check_arguments, check_bounds, library_fields
from tltrain.entry.command_line_errors import wrong_type
from tltrain.errors import TltrainError, suggestion
from tltrain.models import sizes
from tltrain.runtime import memory, runs, targets
from tltrain.runtime.resolver import resolve
from tltrain.tokens import weighting
from tltrain.training.arguments import configured_arguments, library_class


def check_run(cfg: DictConfig) -> None:
    """Run `check` for a user's command, and check that the stage reads every key on the command line."""
    check(cfg)
    choices.refuse_unread(cfg)
    if cfg.stage.name == "eval":
        check_isolation(cfg.benchmark)


TYPES = {dict: "a mapping", list: "a list", str: "a text", type(None): "null"}
"""Names, for messages, of the types of values without a schema."""
READS_DATA = ("check", "mae", "sft", "pkt", "irm", "inspect", "pipeline", "gate", "certify")
"""Stages that need trajectories to begin."""


def check_places(cfg: DictConfig) -> None:
    """Raise a TltrainError if a file or folder that the stage needs is missing or cannot be created.

    This covers the paths of a single run, before libraries are loaded for it.
    """
    if not Path(cfg.cache.dir).exists() and (why := runs.obstacle(Path(cfg.cache.dir))) is not None:
        raise TltrainError(f"cache.dir={cfg.cache.dir} cannot be created: {why}")
    if cfg.stage.name in READS_DATA:
        from tltrain import data

        data.check_place(cfg.data)
    if cfg.certify and cfg.stage.name in ("sft", "pkt", "irm"):
        _check_certifiable(cfg)


def _check_certifiable(cfg: DictConfig) -> None:
    """Raise a TltrainError where a training that is asked for a certificate would leave what cannot be served here."""
    why = resolve("tltrain.serving.server:obstacle")()
    if why is None and cfg.model.lora.r and not cfg.model.lora.merge:
        why = "an adapter without its base model is not served: model.lora.merge=true"
    if why is not None:
        raise TltrainError(f"certify={cfg.certify}: {why}, or leave certify out and serve the model elsewhere")


def check(cfg: DictConfig) -> None:
    """Check what the schemas cannot express, before a stage loads anything; `++key=value` evades only the schemas.

    This also gives each choice the keys that its function reads, and no others (`choices.bind`).
    """
    if cfg.stage.name not in config.STAGES:
        raise TltrainError(f"stage.name: expected the name of a stage, found {cfg.stage.name}")
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise TltrainError(f"{error.full_key}: {wrong_type(str(error).splitlines()[0])}") from error
    _check_schemas(cfg)
    choices.bind(cfg)
    choices.check_given(cfg)
    check_node(cfg, config.Config)  # first, since a stage's keys may take their values from the model's
    check_node(cfg.stage, config.stage_schema(cfg.stage.name), "stage")
    for name, rule in cfg.mae.items():
        check_type(rule, (dict,), f"mae.{name}")
    for name in cfg.model.random or ():
        if name not in (fields := library_fields(LLAMA_CONFIG)):
            raise TltrainError(f"model.random.{name}: LlamaConfig has no such argument{suggestion(name, fields)}")
    _check_sizes(cfg)
    formats.check(cfg)
    _check_weighting(cfg)
    _check_loss(cfg)
    _check_rollout(cfg)
    if cfg.model.path is not None:
        check_model_path(cfg.model.path)
    for path in cfg.stage.get("models") or ():
        check_model_path(path, "stage.models")
    checkpoint = OmegaConf.select(cfg, "stage.args.resume_from_checkpoint")
    if checkpoint is not None and not Path(checkpoint).is_dir():
        raise TltrainError(f"stage.args.resume_from_checkpoint={checkpoint}: there is no such folder")


def check_isolation(benchmark: DictConfig) -> None:
    """Raise a TltrainError if this machine cannot isolate a benchmark's tools as `benchmark.isolation` requires."""
    if benchmark.get("multi"):
        from tltrain.environments import registry

        registry.World(benchmark).isolation()


def _check_weighting(cfg: DictConfig) -> None:
    """Raise a TltrainError if a stage reads a weighting of the wrong kind, or one that ignores `stage.w_max`."""
    if "weighting" in reads.groups_of(cfg.stage.name):
        weighting.check(cfg.weighting, cfg.stage.w_max if cfg.stage.get("pkt", True) else None)


def _check_sizes(cfg: DictConfig) -> None:
    """Raise a TltrainError if the sizes of a model are out of range, or random weights would not fit in memory."""
    model = cfg.model
    sizes.check(model.sizes, "model.sizes.")
    if model.random is None or model.path is not None:
        return
    sizes.check_random(model.random)
    weights, room = sizes.of_llama(model.random), memory.of_machine()
    if cfg.stage.name != "plan" and 4 * weights > room:
        raise TltrainError(
            f"model.random: {weights:.2g} weights in float32 take {4 * weights / 2**30:.1f} GiB, but this machine has "
            f"{room / 2**30:.1f}: reduce hidden_size, num_hidden_layers or vocab_size"
        )


def _check_loss(cfg: DictConfig) -> None:
    """Raise a TltrainError if two keys contradict each other about the loss of GRPO."""
    stage = cfg.stage
    if stage.name != "irm" or stage.algorithm.name != "grpo" or stage.loss_mean.name == "tokens":
        return
    chosen = configured_arguments(cfg).get("loss_type")
    if chosen not in (None, "grpo"):
        raise TltrainError(
            f"stage.loss_mean=responses means TRL's loss_type=grpo, but stage.args.loss_type={chosen} is another loss: "
            "leave one of them out"
        )


def _check_rollout(cfg: DictConfig) -> None:
    """Raise a TltrainError where whole conversations cannot be sampled and priced as configured."""
    stage = cfg.stage
    if stage.name != "irm":
        return
    from tltrain.entry import chosen_benchmarks
    from tltrain.training import pricing

    if stage.rollout.name == "call":
        if pricing.of_conversations(cfg.reward):
            pricing.configured(cfg.reward, stage.matching)  # its error says what does
        return
    where = "stage.rollout=conversation"
    if stage.algorithm.name == "rejection":
        raise TltrainError(f"{where}: stage.algorithm=rejection samples single calls; ppo, rloo and grpo conversations")
    if stage.algorithm.name != "ppo" and not stage.do_sample:
        raise TltrainError(f"{where}: {stage.algorithm.name} compares sampled conversations: stage.do_sample=true")
    if stage.algorithm.name != "ppo" and stage.group_size == 1:
        raise TltrainError(
            f"{where}: {stage.algorithm.name} compares conversations: stage.group_size=2 or more, or ppo"
        )
    pricing.configured_for_conversations(cfg.reward, stage.matching)
    name, environment = chosen_benchmarks.environment(cfg)
    check_node(environment, choices.schema_of("benchmark", environment), f"{chosen_benchmarks.ENVIRONMENT}, {name}")
    check_isolation(environment)


def check_node(node: DictConfig, schema: type, where: str = "", besides: Collection[str] = (targets.TARGET,)) -> None:
    """Raise a TltrainError unless all keys in and below a node belong to the schema and are within their bounds.

    Args:
        where: the node's own key; empty at the root.
        besides: further keys that are allowed there.
    """
    known, defaults = config.keys_of(schema), {each.name: each.default for each in fields(schema)}
    for name in map(str, node):
        key = f"{where}.{name}" if where else name
        if name in besides:
            continue
        if name not in known:
            raise TltrainError(f"{key}: no such key{suggestion(name, known)}")
        if not OmegaConf.is_missing(node, name) and not (node[name] == "" == defaults[name]):  # the user's own default
            _check_value(node, known[name], node[name], key)


def _check_value(node: DictConfig, known: Key, value: Any, key: str) -> None:
    if known.types:
        check_type(value, known.types, key)
    if value is None and (not known.among or None in known.among):
        return
    if isinstance(value, str) and not value.strip():
        raise TltrainError(f"{key}: expected a value, found nothing; leave the key out to get its default")
    if known.bounds or (isinstance(value, int | float) and not isinstance(value, bool)):
        check_bounds(value, known.bounds, key, known.hint)  # keys of the user's own readers have no bounds but infinity
    if known.among and value not in known.among:
        words = ", ".join(str(each).lower() for each in known.among)
        raise TltrainError(f"{key}: expected one of {words}, found {'null' if value is None else value}")
    if key in config.CHOICES and isinstance(value, DictConfig):
        check_node(value, choices.schema_of(key, value), key, (targets.TARGET, *reads.own_keys(node.stage.name, key)))
        return
    if known.schema is not None:
        check_node(value, known.schema, key)
    if known.library is not None:
        library = library_class(node) if known.library == "algorithm" else known.library
        check_arguments(config.plain(value), key, library)


def check_type(value: Any, types: Collection[type], key: str) -> None:
    """Raise a TltrainError unless `value`, the value of `key`, has one of these types of `TYPES`."""
    kind = dict if isinstance(value, DictConfig) else list if isinstance(value, ListConfig) else type(value)
    if kind not in types:
        expected = " or ".join(TYPES[each] for each in types)
        hint = "; {} sets nothing" if value is None and dict in types else ""
        raise TltrainError(f"{key}: expected {expected}, found {'null' if value is None else value}{hint}")


def check_model_path(path: str, key: str = "model.path") -> None:
    """Raise a TltrainError unless `path`, the value of `key`, is a folder with a model or could be a hub id."""
    if Path(path).is_dir():
        if not any((Path(path) / name).is_file() for name in ("config.json", "adapter_config.json")):
            inside = Path(path) / "model"
            hint = f"did you mean {inside}?" if (inside / "config.json").is_file() else "it has no config.json"
            raise TltrainError(f"{key}={path} is not a model folder: {hint}")
        sizes.check_folder(Path(path), key)
    elif path.startswith((".", "/", "~")) or path.count("/") > 1 or nearby.windows_hint(path):
        raise TltrainError(f"{key}={path}: there is no such folder{nearby.file_hint(path)}")


def _check_schemas(cfg: DictConfig) -> None:
    """Raise a TltrainError if a choice from the user's own folder (`--config-dir`) names no schema."""
    places = {
        node: f"schema/{node}" for node in ("model", "format", "data", "benchmark", "source", "hardware", "tracking")
    }
    for node, place in (places | {"stage": f"schema/stage/{config.STAGES[cfg.stage.name]}"}).items():
        if not set(config.keys_of(config.SCHEMAS[place])) <= set(cfg[node]):
            raise TltrainError(
                f"{node}: the chosen file has no schema, so nothing checks its keys: begin it with "
                f"`defaults: [/{place}@_here_]`"
            )
