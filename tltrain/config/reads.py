"""Which groups a stage reads. Any group may be chosen, since sweeps share them, but keys that it does not read may not
be set.

`READS` is the only place that defines this; the check of the command line, `--help` and the documentation's reference
read it.
"""

from __future__ import annotations

from collections.abc import Mapping

_MODEL = ("model", "!model.demo", "!model.sweep", "!model.conversation_rl", "!model.sizes")
_TRAINING = (*_MODEL, "data", "hardware", "mae", "tracking")
_DEVICE = ("hardware", "!hardware.args", "!hardware.deepspeed", "!hardware.fsdp")
_ASKING = (*_MODEL, "!model.args", "!model.irm", "format", *_DEVICE, "source")

READS: Mapping[str, tuple[str, ...]] = {
    "demo": (*_MODEL, "format", "hardware", "mae", "reward", "tracking", "data.holdout", "data.error_rate"),
    "mae": ("data", "!data.holdout", "mae", "tracking"),
    "sft": (*_TRAINING, "!model.irm", "format", "weighting"),
    "pkt": (*_TRAINING, "!model.irm", "format", "weighting"),
    "irm": (*_TRAINING, "!model.args", "format", "reward"),
    "eval": (*_ASKING, "benchmark", "mae", "reward", "tracking"),
    "predict": (*_ASKING, "data.path"),
    "chat": (*_ASKING, "mae"),
    "check": ("data", "!data.holdout", "!data.on_error", "mae", "model.path"),
    "certify": ("data", *_MODEL, "!model.args", "!model.irm", "format", *_DEVICE, "mae"),
    "export": ("data", *_MODEL, "!model.args", "!model.irm", "format", *_DEVICE, "mae"),
    "inspect": ("data", "!data.holdout", *_MODEL, "!model.args", "!model.irm", "format", "mae", "weighting"),
    "analyze": ("data", "!data.holdout", *_MODEL, "!model.args", "!model.irm", "format", *_DEVICE, "mae"),
    "pipeline": (*_TRAINING, "format", "weighting", "reward", "source"),
    "gate": (*_TRAINING, "format", "weighting", "reward", "source"),
    "plan": ("data", "model", "!model.demo", "!model.sweep", "!model.conversation_rl", "format", "hardware", "mae"),
    "cache": (),
    "report": ("tracking",),
}
"""Stage -> the groups that it reads, or single keys of a group; `!` marks keys that it does not read.

`data.path` of stage=predict is the stage's own key, whatever the reader. Keys that every stage accepts are not listed:
`seed`, `cache`, `paths`, `report` and `EVERYWHERE`.
"""
EVERYWHERE = ("hardware.threads",)
"""Keys that describe the machine, not the work."""
GROUPS = ("model", "format", "data", "weighting", "benchmark", "source", "hardware", "tracking", "mae", "reward")
"""The groups that some stages read and others do not."""
MODEL_ITSELF = ("general", "toolworld_turns")
"""Benchmarks that read the local model itself instead of asking a source for calls."""
INSTEAD = {
    ("pipeline", "benchmark"): "its benchmarks do: stage.benchmarks=[{name: NAME, KEY: VALUE}]",
    ("gate", "benchmark"): "it asks about conversations of data.path, stage.holdout; stage=eval does",
    ("demo", "data"): "it trains on generated data, stage.train_size; stage=sft, stage=pkt, … do",
    ("demo", "benchmark"): "it asks generated questions, stage.test_size; stage=eval does",
}
"""What is read instead, by stage and group."""


def reads(stage: str, key: str) -> bool:
    """Return whether a stage reads a key such as `data.path`, judged by the key's name alone."""
    if key.partition(".")[0] not in GROUPS or key in EVERYWHERE:
        return True
    stated = [each for each in READS[stage] if _within(key, each.removeprefix("!"))]
    return bool(stated) and not max(stated, key=lambda each: each.count(".")).startswith("!")


def readers(key: str) -> list[str]:
    """Return the stages that read a key."""
    return [stage for stage in READS if reads(stage, key)]


def groups_of(stage: str) -> list[str]:
    """Return the groups and keys that a stage reads, from `READS`, without the entries that begin with `!`."""
    return [each for each in READS[stage] if not each.startswith("!")]


def own_keys(stage: str, group: str) -> list[str]:
    """Return the keys of a group that the stage itself reads, whatever the choice: `data.path` in stage=predict."""
    if group in READS[stage]:
        return []
    return [each.removeprefix(f"{group}.") for each in READS[stage] if each.startswith(f"{group}.")]


def _within(key: str, node: str) -> bool:
    return key == node or key.startswith(f"{node}.")
