"""The configuration's schemas: one dataclass per node, so a misspelt key or a wrong type fails before anything loads.

Each key has a meaning and a range (`keys`), which checks and documentation read. The values are in `conf/`;
`tltrain.entry.checks` checks what schemas cannot express. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tltrain.config.choices import (
    Algorithm,
    CriticInit,
    Device,
    ExportDtype,
    Gguf,
    KeyTokens,
    Level,
    LimitField,
    LossMean,
    MaeRule,
    Mask,
    Matching,
    Mode,
    Names,
    OnError,
    OnKlLimit,
    OpenText,
    Packing,
    Planned,
    PromptTruncation,
    Prune,
    Quantization,
    Rollout,
    Rule,
    Scoring,
    Split,
    Strategy,
    SupervisedPacking,
    TooLongAnswer,
    ToolSet,
    TrackingMode,
    Truncation,
    WordsBeforeCall,
    Write,
)
from tltrain.config.export import ExportStage
from tltrain.config.groups import (
    Cache,
    Config,
    Endpoint,
    Format,
    Hardware,
    Lora,
    Model,
    ModelIrm,
    Paths,
    Report,
    Source,
    SweepSizes,
    Tracking,
    WandbTracking,
    Weighting,
)
from tltrain.config.keys import Bounds, Key, key, keys_of
from tltrain.config.readers import (
    Benchmark,
    BfclBenchmark,
    BfclConversations,
    Conversations,
    Data,
    FileBenchmark,
    FileData,
    GeneralBenchmark,
    PythonToolsConversations,
    RotbenchBenchmark,
    RotbenchData,
    ToolEyesConversations,
    ToolworldBenchmark,
    ToolworldConversations,
    ToolworldData,
    ToolworldTurns,
)
from tltrain.config.rewards import ConversationReward, Reward
from tltrain.config.stages import (
    AnalyzeStage,
    CacheStage,
    CertifyStage,
    ChatStage,
    CheckStage,
    DemoSizes,
    DemoStage,
    EvalStage,
    GateStage,
    InspectStage,
    MaeStage,
    PipelineStage,
    PlanStage,
    PredictStage,
    ReportStage,
)
from tltrain.config.training import AlgorithmArguments, Critic, IrmStage, SupervisedStage

__all__ = [
    "CHOICES",
    "CONF_DIR",
    "DOORS",
    "SCHEMAS",
    "STAGES",
    "Algorithm",
    "AlgorithmArguments",
    "AnalyzeStage",
    "Benchmark",
    "BfclBenchmark",
    "BfclConversations",
    "Bounds",
    "Cache",
    "CacheStage",
    "CertifyStage",
    "ChatStage",
    "CheckStage",
    "Config",
    "ConversationReward",
    "Conversations",
    "Critic",
    "CriticInit",
    "Data",
    "DemoSizes",
    "DemoStage",
    "Device",
    "Endpoint",
    "EvalStage",
    "ExportDtype",
    "ExportStage",
    "FileBenchmark",
    "FileData",
    "Format",
    "GateStage",
    "GeneralBenchmark",
    "Gguf",
    "Hardware",
    "InspectStage",
    "IrmStage",
    "Key",
    "KeyTokens",
    "Level",
    "LimitField",
    "Lora",
    "LossMean",
    "MaeRule",
    "MaeStage",
    "Mask",
    "Matching",
    "Mode",
    "Model",
    "ModelIrm",
    "Names",
    "OnError",
    "OnKlLimit",
    "OpenText",
    "Packing",
    "Paths",
    "PipelineStage",
    "PlanStage",
    "Planned",
    "PredictStage",
    "PromptTruncation",
    "Prune",
    "PythonToolsConversations",
    "Quantization",
    "Report",
    "ReportStage",
    "Reward",
    "Rollout",
    "RotbenchBenchmark",
    "RotbenchData",
    "Rule",
    "Scoring",
    "Source",
    "Split",
    "Strategy",
    "SupervisedPacking",
    "SupervisedStage",
    "SweepSizes",
    "TooLongAnswer",
    "ToolEyesConversations",
    "ToolSet",
    "ToolworldBenchmark",
    "ToolworldConversations",
    "ToolworldData",
    "ToolworldTurns",
    "Tracking",
    "TrackingMode",
    "Truncation",
    "WandbTracking",
    "Weighting",
    "WordsBeforeCall",
    "Write",
    "key",
    "keys_of",
    "merged",
    "plain",
    "register",
    "stage_module",
    "stage_schema",
]

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF_DIR = next(
    folder for folder in (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf") if folder.is_dir()
)
"""`conf/` inside an installed wheel, else beside the package in a checkout."""

SCHEMAS: dict[str, type] = {
    "schema/stage/demo": DemoStage,
    "schema/stage/mae": MaeStage,
    "schema/stage/supervised": SupervisedStage,
    "schema/stage/irm": IrmStage,
    "schema/stage/eval": EvalStage,
    "schema/stage/predict": PredictStage,
    "schema/stage/chat": ChatStage,
    "schema/stage/certify": CertifyStage,
    "schema/stage/export": ExportStage,
    "schema/stage/inspect": InspectStage,
    "schema/stage/check": CheckStage,
    "schema/stage/analyze": AnalyzeStage,
    "schema/stage/pipeline": PipelineStage,
    "schema/stage/gate": GateStage,
    "schema/stage/plan": PlanStage,
    "schema/stage/cache": CacheStage,
    "schema/stage/report": ReportStage,
    "schema/model": Model,
    "schema/format": Format,
    "schema/data": Data,
    "schema/data/file": FileData,
    "schema/data/rotbench": RotbenchData,
    "schema/data/toolworld": ToolworldData,
    "schema/benchmark": Benchmark,
    "schema/benchmark/bfcl": BfclBenchmark,
    "schema/benchmark/bfcl_multi": BfclConversations,
    "schema/benchmark/file": FileBenchmark,
    "schema/benchmark/general": GeneralBenchmark,
    "schema/benchmark/python_tools": PythonToolsConversations,
    "schema/benchmark/rotbench": RotbenchBenchmark,
    "schema/benchmark/tooleyes": ToolEyesConversations,
    "schema/benchmark/toolworld": ToolworldBenchmark,
    "schema/benchmark/toolworld_multi": ToolworldConversations,
    "schema/benchmark/toolworld_turns": ToolworldTurns,
    "schema/source": Source,
    "schema/source/endpoint": Endpoint,
    "schema/hardware": Hardware,
    "schema/tracking": Tracking,
    "schema/tracking/wandb": WandbTracking,
    "schema/reward": Reward,
    "schema/weighting": Weighting,
    "schema/config": Config,
}
DOORS: dict[str, tuple[str, ...]] = {
    "data": ("cfg", "seed", "report", "folder", "record", "number", "notes"),
    "benchmark": ("cfg", "seed", "folder", "record", "number", "notes"),
    "source": ("cfg", "folder", "samples"),
    "tracking": ("cfg", "folder"),
    "mae": ("answer", "is_error"),
    "format": (),
    "weighting": ("turn", "log_probs", "w_max", "key_tokens"),
    "reward": ("sample", "response", "grade", "ended", "matching", "conversation", "golden"),
}
"""Groups whose choices name a function, built in (`name`) or any other (`_target_`), which determines their keys.
The values are the parameters that the program provides, so they are not keys (`tltrain.runtime.targets`)."""
CHOICES = tuple(group for group in DOORS if group != "mae")
"""Those of `DOORS` with a single choice; `mae` has two rules, each a table of patterns or a function."""
STAGES = {
    "demo": "demo",
    "mae": "mae",
    "sft": "supervised",
    "pkt": "supervised",
    "eval": "eval",
    "predict": "predict",
    "chat": "chat",
    "certify": "certify",
    "export": "export",
    "irm": "irm",
    "check": "check",
    "inspect": "inspect",
    "analyze": "analyze",
    "pipeline": "pipeline",
    "gate": "gate",
    "plan": "plan",
    "cache": "cache",
    "report": "report",
}
"""Name of a stage -> its module in `tltrain.stages`, which is also the name of its schema in `SCHEMAS`."""


def plain(node: DictConfig, resolve: bool = True, enum_to_str: bool = False) -> dict[str, Any]:
    """Return a part of the configuration as plain values; `resolve` replaces each reference by its value."""
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(node, resolve=resolve, enum_to_str=enum_to_str)
    return cast(dict[str, Any], values)  # a DictConfig gives a dict, and our keys are strings


def merged(*nodes: Any) -> DictConfig:
    """Merge parts of the configuration into one; later ones take precedence."""
    from omegaconf import DictConfig, OmegaConf

    return cast(DictConfig, OmegaConf.merge(*nodes))  # only lists merge into a list


def stage_module(name: str) -> str:
    """Return the dotted name of the module whose `run(cfg, folder)` is the stage."""
    return f"tltrain.stages.{STAGES[name]}"


def stage_schema(name: str) -> type:
    """Return the schema of the stage with this name; raise KeyError if there is none."""
    return SCHEMAS[f"schema/stage/{STAGES[name]}"]


@cache
def register() -> None:
    """Put the schemas where the files in `conf/` name them in their defaults lists, once per process."""
    from hydra.core.config_store import ConfigStore  # not above, since most importers need only the names
    from omegaconf import DictConfig, OmegaConf

    store = ConfigStore.instance()
    for place, schema in SCHEMAS.items():
        node = OmegaConf.structured(schema)
        group, _, name = place.rpartition("/")
        if place.split("/")[1] in CHOICES:  # further keys belong to the named function: `entry.choices`
            OmegaConf.set_struct(node, False)
        for each in fields(schema):
            nested = isinstance(each.default_factory, type) or each.default_factory is MISSING
            if not nested and isinstance(node[each.name], DictConfig):  # its keys belong to a library, or are data
                OmegaConf.set_struct(node[each.name], False)
        store.store(group=group, name=name, node=node, provider="tltrain")
