"""The keys that choices read: those of the function that each choice names (`tltrain.runtime.targets`).

A key that the chosen function does not read has no effect. If the user typed it, or the file of the choice sets it,
that is an error that names the choices that read it. If another file set it (an experiment, for a choice that was not
selected), it is dropped with one log line. Nothing here loads torch.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tltrain import config
from tltrain.config import reads
from tltrain.entry import unread
from tltrain.entry.command_line_errors import wrong_type
from tltrain.errors import TltrainError, suggestion
from tltrain.runtime import own_code, targets
from tltrain.runtime.resolver import resolve

log = logging.getLogger(__name__)

_SHOWN = 4
"""Most choices that a message names."""
_REFERENCE = re.compile(r"\b(" + "|".join(reads.GROUPS) + r")\.([\w.]+)")


# --- the keys of a choice ---------------------------------------------------------------------------------------------


def schema_of(group: str, node: DictConfig) -> type:
    """Return the dataclass of the keys that the function named by `node` reads, including those of its group.

    Raises:
        TltrainError: there is no such function.
    """
    function = targets.named(node, _functions(group, node), group)
    conversations = group == "benchmark" and node.get("multi")
    common = config.Conversations if conversations else config.SCHEMAS[f"schema/{group}"]
    return targets.schema_of(function, common, config.DOORS[group])


def check_given(cfg: DictConfig) -> None:
    """Raise a TltrainError if a user's function that the stage reads needs a key that is not set."""
    for group in config.CHOICES:
        if group in reads.groups_of(cfg.stage.name) and cfg[group].get(targets.TARGET) is not None:
            targets.check_given(cfg[group], targets.named(cfg[group], {}, group), group)


def _functions(group: str, node: DictConfig) -> Mapping[str, Callable]:
    """Return our functions of a group by name; they are imported here since `--help` needs none of them."""
    if group == "data":
        from tltrain.data import READERS

        return READERS
    if group == "source":
        from tltrain.sources import SOURCES

        return SOURCES
    if group == "reward":
        from tltrain.training.pricing import REWARDS

        return REWARDS
    if group == "format":
        from tltrain.formats.own import FORMATS

        return FORMATS
    if group == "weighting":
        from tltrain.tokens.weighting import WEIGHTINGS

        return WEIGHTINGS
    if group == "tracking":
        from tltrain.tracking import TRACKERS

        return TRACKERS
    if node.get("multi"):
        from tltrain.environments import registry

        if node.get(targets.TARGET) is None:
            registry.check_name(node)  # its error explains that multi=true rules the name out
        return registry.ENVIRONMENTS
    from tltrain.evaluation.benchmarks import LOADERS

    return LOADERS | {
        "general": resolve("tltrain.stages.evaluations.general:task_manager"),
        "toolworld_turns": resolve("tltrain.stages.evaluations.recorded_turns:turns"),
    }


def bind(cfg: DictConfig) -> None:
    """Give each choice exactly the keys that its function reads, with defaults for keys that are not set.

    Raises:
        TltrainError: the user set a key for this choice that is not read, or a value has the wrong type.
    """
    for name, rule in cfg.mae.items():
        if OmegaConf.is_dict(rule) and rule.get(targets.TARGET) is not None:
            cfg.mae[name] = _bound_rule(str(name), rule)
    for group in config.CHOICES:
        own = reads.own_keys(cfg.stage.name, group)
        keys = {*config.keys_of(schema_of(group, cfg[group])), targets.TARGET, *own}
        for name in [str(name) for name in cfg[group] if name not in keys]:
            _leave_out(cfg, group, name)
            with open_dict(cfg[group]):
                del cfg[group][name]
        own_values = {name: cfg[group][name] for name in own if name in cfg[group]}
        if OmegaConf.get_type(cfg[group]) is not schema_of(group, cfg[group]):
            cfg[group] = bound(group, OmegaConf.masked_copy(cfg[group], [n for n in cfg[group] if n not in own_values]))
            cfg[group].update(own_values)


@dataclass
class Rule:
    """The schema of an error rule that is a function: it has only the function's own keys."""


def _bound_rule(name: str, node: DictConfig) -> DictConfig:
    """Return the node of an error rule that names a function, with the defaults of its keys."""
    where = f"mae.{name}"
    function = targets.named(node, {}, where)
    schema = targets.schema_of(function, Rule, config.DOORS["mae"])
    known = config.keys_of(schema)
    if "answer" not in targets.called_with(function):
        raise TltrainError(f"{where}.{targets.TARGET}={node[targets.TARGET]}: expected a function of answer")
    for key in map(str, node):
        if key not in known and key != targets.TARGET:
            raise TltrainError(f"{where}.{key}: no such key{suggestion(key, known)}")
    found = _merged(where, schema, OmegaConf.masked_copy(node, list(node)))
    targets.check_given(found, function, where)
    return found


def _merged(where: str, schema: type, node: DictConfig) -> DictConfig:
    """Return a node with the defaults and types of a schema; raise TltrainError for a value of another type."""
    whole = OmegaConf.structured(schema)
    OmegaConf.set_struct(whole, False)
    try:
        return config.merged(whole, node)
    except OmegaConfBaseException as error:
        raise TltrainError(f"{where}.{error.full_key}: {wrong_type(str(error).splitlines()[0])}") from error


def bound(group: str, node: DictConfig, choice: str | None = None) -> DictConfig:
    """Return a node with all keys that its function reads, with defaults for keys that are not set.

    Args:
        choice: the name of its file, for messages.

    Raises:
        TltrainError: the function does not read a key, or a value has the wrong type.
    """
    schema = schema_of(group, node)
    for name in map(str, node):
        if name not in config.keys_of(schema) and name != targets.TARGET:
            raise TltrainError(why_unread(group, choice or node.name, name, config.keys_of(schema)))
    return _merged(group, schema, node)


# --- keys that are not read -------------------------------------------------------------------------------------------


def _leave_out(cfg: DictConfig, group: str, name: str) -> None:
    """Log that a key is dropped, or raise a TltrainError if it was set for this choice."""
    choice = _chosen(cfg, group)
    typed = _typed(f"{group}.{name}")
    stated = not typed and name in _stated(group, choice)
    where = f"{group}/{choice}.yaml: " if stated else ""
    try:
        line = why_unread(group, choice, name, config.keys_of(schema_of(group, cfg[group])))
    except TltrainError as error:
        raise TltrainError(f"{where}{error}") from error
    if typed or stated:
        raise TltrainError(f"{where}{line}")
    _say_dropped(line)


def why_unread(group: str, choice: str, name: str, keys: Iterable[str]) -> str:
    """Return the message about a key that a choice does not read, with the choices that read it.

    Args:
        keys: the keys that the choice reads.

    Raises:
        TltrainError: no choice reads the key.
    """
    found = {other: config.keys_of(schema) for other, schema in schemas(group).items()}
    having = [other for other, known in found.items() if name in known]
    others = [f"{group}={other}" for other in sorted(having, key=lambda other: other != "auto")]  # auto reads most
    if not others:
        known = dict.fromkeys([*keys, *(each for known in found.values() for each in known)])
        raise TltrainError(f"{group}.{name}: no such key{suggestion(name, known)}")
    return f"{group}.{name}: {group}={choice} reads no such key; {_do(others)}"


def _do(others: list[str]) -> str:
    """Say which choices read a key: `data=irm, data=openai, … do`."""
    shown = [*others[:_SHOWN], *(["…"] if len(others) > _SHOWN else [])]
    return f"{', '.join(shown)} {'do' if len(others) > 1 else 'does'}"


@cache
def _say_dropped(line: str) -> None:
    """Log a dropped key once per process, since all jobs of a sweep drop the same."""
    log.warning("%s: dropped", line)


def _typed(key: str) -> bool:
    return any(name == key or name.startswith(f"{key}.") for name in typed_keys())


def typed_keys() -> list[str]:
    """Return the keys that the command line or a sweep sets, without choices."""
    if HydraConfig.instance().cfg is None:
        return []
    words = [word for word in HydraConfig.get().overrides.task if not word.startswith("~")]
    keys = [word.lstrip("+").partition("=")[0] for word in words]
    return [key for key in keys if "." in key or key in ("certify", "certify_timeout")]


def _chosen(cfg: DictConfig, group: str) -> str:
    """Return the name of the chosen file."""
    choice = None if HydraConfig.instance().cfg is None else HydraConfig.get().runtime.choices.get(group)
    return choice or str(cfg[group].name)


# --- what a stage does not read ---------------------------------------------------------------------------------------


def refuse_unread(cfg: DictConfig) -> None:
    """Raise a TltrainError if the command line sets a key that the stage or its algorithm does not read.

    A sweep may set a key that another value leaves unread, since other jobs may read it.
    """
    stage = cfg.stage.name
    referred = None
    sweep = HydraConfig.instance().cfg is not None and HydraConfig.get().mode is RunMode.MULTIRUN
    for key in typed_keys():
        group = key.partition(".")[0]
        if not sweep:
            if group == "stage":
                _check_only(cfg, key, config.stage_schema(stage))
            elif group in config.CHOICES:
                _check_only(cfg, key, schema_of(group, cfg[group]))
            if (why := unread.why(cfg, key)) is not None:
                raise TltrainError(f"{key}: {why}")
        if reads.reads(stage, key) or (group == "data" and _tokenizer_of_data(cfg)):
            continue
        referred = references(cfg) if referred is None else referred
        if any(key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.") for other in referred):
            continue
        instead = reads.INSTEAD.get((stage, group))
        instead = instead or _do([f"stage={name}" for name in reads.readers(key)])
        raise TltrainError(f"{key}: stage={stage} reads no such key; {instead}")


def _tokenizer_of_data(cfg: DictConfig) -> bool:
    """Return whether the model's tokenizer is trained on the data, so that a stage that asks the model reads it."""
    model = cfg.model
    asked = cfg.stage.name in unread.ASKING and unread.asks_model(cfg)
    return asked and model.random is not None and model.path is None


def references(cfg: DictConfig) -> set[str]:
    """Return the keys of groups that values refer to, such as `${benchmark.size}`."""
    return {
        f"{group}.{key}"
        for text in _texts(OmegaConf.to_container(cfg, resolve=False))
        for group, key in _REFERENCE.findall(text)
    }


def _texts(value: Any) -> Iterator[str]:
    """Yield the interpolations in a tree of values."""
    if isinstance(value, str) and "${" in value:
        yield value
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(below)


def _check_only(cfg: DictConfig, key: str, schema: type) -> None:
    """Raise a TltrainError if a sibling key, such as the algorithm, leaves a key of the group's `schema` unread."""
    where, *names = key.split(".")
    node = cfg[where]
    for name in names:
        known = config.keys_of(schema).get(name)
        if known is None:
            return
        given = {other: getattr(node[other], "name", str(node[other]).lower()) for other in known.only}
        if given and not any(given[other] in values for other, values in known.only.items()):
            chosen = " with ".join(f"{where}.{other}={value}" for other, value in given.items())
            would = " or ".join(f"{where}.{other}={each}" for other, values in known.only.items() for each in values)
            raise TltrainError(f"{key}: {chosen} reads no such key; {would} does")
        if known.schema is None:
            return
        node, schema, where = node[name], known.schema, f"{where}.{name}"


# --- the files of choices ---------------------------------------------------------------------------------------------


def names_of(group: str) -> list[str]:
    """Return the choices of a group in all folders of the search path."""
    return sorted({file.stem for folder in folders() for file in (folder / group).glob("*.yaml")})


def schemas(group: str) -> dict[str, type]:
    """Return the schema of each choice, without choices whose file or function cannot be loaded."""
    found = {}
    for choice in names_of(group):
        try:
            found[choice] = schema_of(group, OmegaConf.create({"name": None} | _stated(group, choice)))
        except (TltrainError, OmegaConfBaseException, YAMLError):
            continue
    return found


def folders() -> list[Path]:
    """Return the folders of this run's choices, ours first."""
    return [config.CONF_DIR, *own_code.of_run()]


def _stated(group: str, choice: str) -> dict[str, Any]:
    """Return the keys that the file of a choice sets, including those of the choices it inherits from."""
    file = next((file for folder in folders() if (file := folder / group / f"{choice}.yaml").is_file()), None)
    if file is None:
        return {}
    stated = config.plain(config.merged(OmegaConf.load(file)), resolve=False)
    inherited = [
        other for other in stated.pop("defaults", []) if isinstance(other, str) and not other.startswith(("/", "_"))
    ]
    return {key: value for other in inherited for key, value in _stated(group, other).items()} | stated
