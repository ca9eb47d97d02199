"""What determines a stage's result: its key in the cache, and what a resumed run must share with its start.

Every key of the configuration counts unless `EXEMPTIONS` gives a reason why it cannot matter. If a key names a file or
folder, its content counts instead of its name. The result also depends on the code that the stage can reach, library
versions, the base model of an adapter, and the package that a base model or a benchmark comes from.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tltrain import config
from tltrain.errors import TltrainError
from tltrain.formats import error_rule
from tltrain.models import packages
from tltrain.runtime import fingerprints, json_files, redact, source_digest, targets

SUPERVISED = ("sft", "pkt")
TRAINED = (*SUPERVISED, "irm")
CACHED = ("mae", *TRAINED, "eval")
"""The stages whose results are cached."""

Values = Mapping[str, Any]
"""The whole configuration as plain values with references resolved."""


class Exemption(NamedTuple):
    """A key or section that cannot change the result of some stages, and why; `applies` restricts it by value."""

    stages: tuple[str, ...]
    key: str
    reason: str
    applies: Callable[[Values], bool] = lambda values: True


def _rule_is_not(name: str) -> Callable[[Values], bool]:
    def applies(values: Values) -> bool:
        rule = values["stage"]["rule"]
        judged_by = config.Rule.paper if rule == config.MaeRule.random else rule
        return not values["stage"].get("mae", True) or judged_by != name

    return applies


EXEMPTIONS = (
    Exemption(CACHED, "tracking", "records what a stage does"),
    Exemption(CACHED, "report", "belongs to stage=report and to sweeps"),
    Exemption(CACHED, "cache", "says where results are kept"),
    Exemption(CACHED, "paths", "data.path and benchmark.path, which take their values from it, count"),
    Exemption(CACHED, "overwrite", "says whether a folder may be written to"),
    Exemption(CACHED, "certify", "is about what follows a finished training run"),
    Exemption(CACHED, "certify_timeout", "is about what follows a finished training run"),
    Exemption(CACHED, "hardware.threads", "is a property of the machine, like its number of cores"),
    Exemption(CACHED, "hardware.node_rank", "says which of the machines this is"),
    Exemption(CACHED, "hardware.rendezvous", "says where the machines meet"),
    Exemption(CACHED, "model.sizes", "belongs to stage=plan"),
    Exemption(CACHED, "model.demo", "stage=demo copies these sizes to keys that count"),
    Exemption(CACHED, "model.sweep", "experiments copy these sizes to keys that count"),
    *(
        Exemption(CACHED, f"mae.{name}", "stage.rule chooses another rule, or no rule is asked", _rule_is_not(name))
        for name in map(str, config.Rule)
    ),
    Exemption(("mae",), "data.holdout", "all trajectories are judged; the stages that train hold some out"),
    Exemption(("mae",), "model", "no model is read"),
    Exemption(("mae",), "format", "no model is read"),
    Exemption(("mae",), "hardware", "nothing is computed on a device"),
    Exemption(("mae", *TRAINED), "benchmark", "no benchmark is asked"),
    Exemption(("mae", *TRAINED), "source", "the model that is trained answers"),
    Exemption(("mae", *SUPERVISED), "reward", "no call earns a reward"),
    Exemption(("mae", "irm", "eval"), "weighting", "no token is weighed"),
    Exemption(SUPERVISED, "model.irm", "belongs to stage=irm"),
    Exemption(
        ("irm",),
        "model.args",
        "belongs to stage=sft and stage=pkt, and to stage.algorithm=rejection",
        lambda values: str(values["stage"]["algorithm"]) != "rejection",
    ),
    Exemption(TRAINED, "stage.resume", "a resumed run ends like one that was not stopped"),
    Exemption(TRAINED, "stage.keep_checkpoints", "is about what remains besides the result"),
    Exemption(
        ("eval",),
        "data",
        "is read only for the tokenizer of a model with random weights, and this model has a path",
        lambda values: values["model"]["path"] is not None,
    ),
    Exemption(("eval",), "model.args", "nothing is trained"),
    Exemption(("eval",), "model.irm", "nothing is trained"),
    Exemption(("eval",), "source.api_key_env", "names a secret, which does not determine the answers"),
)
"""All exemptions; there is no other list."""

FILE_ARGUMENTS = ("resume_from_checkpoint", "deepspeed", "fsdp_config", "accelerator_config", "chat_template_path")
"""Arguments of the libraries that may name a file or folder."""
ARGUMENTS = (
    *("model.args", "model.irm.args", "hardware.args", "stage.args"),
    *(f"stage.algorithm_args.{name.name}" for name in config.Algorithm),
)
BENCHMARKS = ("benchmark", "stage.environment")
"""Nodes with the keys of a benchmark."""
PATHS = (
    *("data.path", "model.path", "model.hub", "source.tokenizer"),
    *(f"{node}.{name}" for node in BENCHMARKS for name in ("path", "module", "user", "include_path")),
    *("stage.critic.path", "stage.predictions", "stage.compare"),
    *(f"{node}.{name}" for node in ARGUMENTS for name in FILE_ARGUMENTS),
)
"""Keys whose values may name files or folders."""
ADAPTER = "adapter_config.json"
"""peft's file that names an adapter's base model."""


def key(values: Values, made: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return everything that determines the result of the stage that `values` configures.

    Args:
        made: folder of a cache entry -> its fingerprint, which replaces paths into the folder.

    Raises:
        TltrainError: a folder to be read contains no files.
        OSError: a file or folder cannot be read.
    """
    stage = values["stage"]["name"]
    counting = _counting(values, made)
    found: dict[str, Any] = {
        "configuration": redact.container(counting),
        "code": source_digest.digest((config.stage_module(stage), "tltrain.entry.launch"), counting),
    }
    if stage != "mae":  # the later stages read data that mae has judged
        found["versions"] = dict(fingerprints.versions())
        found["base_model"] = base_model(values["model"])
    if stage == "eval":
        found["benchmark_package"] = benchmark_package(values["benchmark"])
    return found


def _environment(values: Values) -> dict[str, Any]:
    """Return all keys of the benchmark that `stage.environment` names and changes, and its package."""
    from omegaconf import OmegaConf

    from tltrain.entry import chosen_benchmarks

    _, node = chosen_benchmarks.environment(OmegaConf.create(dict(values)))
    asked = config.plain(node, enum_to_str=True)
    return {**asked, "package": benchmark_package(asked)}


def configuration(values: Values, made: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the keys that count, with the content of files and folders instead of their names.

    Secrets are removed after that: they do not determine a result, and a digest of a short one could be reversed.
    """
    return redact.container(_counting(values, made))


def _counting(values: Values, made: Mapping[str, str] | None = None) -> dict[str, Any]:
    counting = copy.deepcopy(dict(values))
    if values["stage"]["name"] == "irm" and str(values["stage"]["rollout"]) == config.Rollout.conversation:
        counting["stage"]["environment"] = _environment(values)
    for rule in (counting.get("mae") or {}).values():
        if "tables" in rule and (tables := error_rule.tables_file(rule)).is_file():
            rule["tables"] = fingerprints.of_file(tables)
    for exemption in EXEMPTIONS:
        if values["stage"]["name"] in exemption.stages and exemption.applies(values):
            node, name = _node(counting, exemption.key)
            node.pop(name, None)
    for where, node in _with_target(counting):
        if (file := targets.file_of(node, where)) is not None:  # a user's own function
            node["code"] = fingerprints.of_path(file)
    for path in PATHS:
        node, name = _node(counting, path)
        if name in node:
            try:
                node[name] = _contents(node[name], made or {})
            except TltrainError as error:
                raise TltrainError(f"{path}={error}") from error
    return counting


def _with_target(values: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the nodes that name a function by `_target_`, at any depth, with their keys."""
    if isinstance(values, dict):
        if isinstance(values.get(targets.TARGET), str):
            yield where, values
        for name, node in values.items():
            yield from _with_target(node, f"{where}.{name}" if where else name)


def exemption_reason(values: Values, name: str) -> str | None:
    """Return why a key does not count for the stage that `values` configures; None if it counts."""
    return next(
        (
            exemption.reason
            for exemption in EXEMPTIONS
            if values["stage"]["name"] in exemption.stages
            and (name == exemption.key or name.startswith(f"{exemption.key}."))
            and exemption.applies(values)
        ),
        None,
    )


def differences(before: Values, after: Values) -> list[str]:
    """Return the keys in which two configurations differ."""
    left, right = dict(_leaves(before)), dict(_leaves(after))
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def _leaves(values: Values, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{name}.")
        elif value != {}:
            yield f"{above}{name}", value


def _node(values: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Return the mapping that contains a key (an empty one if there is none) and the key's last component."""
    *above, name = path.split(".")
    node: Any = values
    for word in above:
        node = node.get(word) if isinstance(node, dict) else None
    return (node if isinstance(node, dict) else {}), name


# --- files ------------------------------------------------------------------------------------------------------------


def _contents(value: Any, made: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_contents(item, made) for item in value]
    return content(value, made) if isinstance(value, str) else value


def content(path: str, made: Mapping[str, str] | None = None) -> str:
    """Return what replaces a path: its cache entry's fingerprint, or its content's digest; a hub id is unchanged.

    An adapter's digest covers its own content and that of its base model.
    """
    if not path or not Path(path).exists():
        return path
    made, real = made or {}, Path(path).resolve()
    for folder, name in made.items():
        if real.is_relative_to(folder):
            return f"{name}/{real.relative_to(folder).as_posix()}"
    digest = fingerprints.of_path(real)
    base = _base_of_adapter(real)
    if base is None:
        return digest
    seen = {**made, str(real): digest}  # ends a cycle of adapters
    return fingerprints.fingerprint([digest, content(base, seen)])


def _base_of_adapter(folder: Path) -> str | None:
    try:
        base = json_files.read_object(folder / ADAPTER)["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):  # loading the adapter reports the error
        return None
    return base if isinstance(base, str) else None


# --- packages ---------------------------------------------------------------------------------------------------------


def base_model(model: Values) -> str | None:
    """Return a digest of the file that a base model is converted from; None if it is not from a package."""
    weights = packages.weights(model["package"]) if model["path"] is None else None
    return None if weights is None else fingerprints.of_file(weights)


def benchmark_package(benchmark: Values) -> dict[str, Any]:
    """Return the versions, and for BFCL the content, of the package that runs or scores a benchmark."""
    if benchmark["name"] == "general":
        return dict(fingerprints.versions(("lm_eval", "datasets", "evaluate")))
    if benchmark["name"] != "bfcl":
        return {}
    from tltrain.data import bfcl  # imported here, so that only this stage's digest has it

    folder = bfcl.folder(benchmark["path"]).resolve()
    package = folder.parent if folder.parent.name == bfcl.PACKAGE else folder  # its simulators answer conversations
    spec = importlib.util.find_spec(bfcl.PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    checkers = [Path(place).resolve() / "eval_checker" for place in places]
    return {
        "version": fingerprints.version("bfcl-eval"),
        "content": fingerprints.of_path(package),
        "checker": [
            fingerprints.of_path(place) for place in checkers if place.is_dir() and package not in place.parents
        ],
    }
