"""Which groups a stage reads: any may be chosen, since sweeps share them; keys that it does not read may not be set.

`READS` is the one place that says so: the check of the command line, `--help` and the reference of the documentation
read it.
"""

from __future__ import annotations

from collections.abc import Mapping

_MODEL = ("model", "!model.demo", "!model.sweep", "!model.sizes")
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
    "check": ("data", "!data.holdout", "!data.on_error", "mae", "model.path"),
    "certify": ("data", *_MODEL, "!model.args", "!model.irm", "format", *_DEVICE, "mae"),
    "export": ("data", *_MODEL, "!model.args", "!model.irm", "format", *_DEVICE, "mae"),
    "inspect": ("data", "!data.holdout", *_MODEL, "!model.args", "!model.irm", "format", "mae", "weighting"),
    "analyze": ("data", "!data.holdout", *_MODEL, "!model.args", "!model.irm", "format", *_DEVICE, "mae"),
    "pipeline": (*_TRAINING, "format", "weighting", "reward", "source"),
    "plan": ("data", "model", "!model.demo", "!model.sweep", "format", "hardware", "mae"),
    "cache": (),
    "report": ("tracking",),
}
"""Stage -> the groups that it reads, or single keys of one; `!` before what it does not read of a group.

`data.path` of stage=predict is the stage's own key, whatever the reader. Not here, since each stage may be told: what
all stages share (`seed`, `cache`, `paths`, `report`), and `EVERYWHERE`.
"""
EVERYWHERE = ("hardware.threads",)
"""Keys that are a property of the machine and not of what is done on it."""
GROUPS = ("model", "format", "data", "weighting", "benchmark", "source", "hardware", "tracking", "mae", "reward")
"""The groups that some stages read and others do not."""
MODEL_ITSELF = ("general", "toolworld_turns")
"""Benchmarks that read the local model itself instead of asking a source for calls."""
INSTEAD = {
    ("pipeline", "benchmark"): "its benchmarks do: stage.benchmarks=[{name: NAME, KEY: VALUE}]",
    ("demo", "data"): "it trains on generated data, stage.train_size; stage=sft, stage=pkt, … do",
    ("demo", "benchmark"): "it asks generated questions, stage.test_size; stage=eval does",
}
"""What is read instead, by stage and group."""


def reads(stage: str, key: str) -> bool:
    """Whether a stage reads a key such as `data.path`, as far as its name alone says it."""
    if key.partition(".")[0] not in GROUPS or key in EVERYWHERE:
        return True
    stated = [each for each in READS[stage] if _within(key, each.removeprefix("!"))]
    return bool(stated) and not max(stated, key=lambda each: each.count(".")).startswith("!")


def readers(key: str) -> list[str]:
    """The stages that read a key."""
    return [stage for stage in READS if reads(stage, key)]


def groups_of(stage: str) -> list[str]:
    """What a stage reads, as `READS` has it, without what it leaves out of a group."""
    return [each for each in READS[stage] if not each.startswith("!")]


def own_keys(stage: str, group: str) -> list[str]:
    """Keys of a group that the stage reads itself, whatever is chosen: `path` of `data` for stage=predict."""
    if group in READS[stage]:
        return []
    return [each.removeprefix(f"{group}.") for each in READS[stage] if each.startswith(f"{group}.")]


def _within(key: str, node: str) -> bool:
    return key == node or key.startswith(f"{node}.")
