"""Find keys that another value of the same configuration leaves unread, such as sizes of random weights when
`model.path` is set, or IRM's settings with `stage.irm=false`.

`tltrain.config.reads` and `tltrain.entry.choices` know what a stage or a choice never reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tltrain.config import reads
from tltrain.formats.families import TL_NAMES

OF_PLAN = {"supervised": "sft, pkt", "rl": "irm", "eval": "eval"}
"""Node of stage=plan -> the values of `stage.of` that read it."""
BASE = "base"
"""The entry of `stage.models` that stands for the model that `model=...` configures."""
ENDPOINT_READS = ("model.bos", "model.trust_remote_code")
"""Keys of the model that source=endpoint reads: for its prompts, and for `source.tokenizer`."""


def why(cfg: DictConfig, key: str) -> str | None:
    """Return why a run would not read `key`, and what would make it; None if it reads the key."""
    group = key.partition(".")[0]
    reasons = {
        "model": _of_model,
        "hardware": _of_hardware,
        "stage": _of_stage,
        "reward": _of_reward,
        "source": _of_source,
        "certify": _of_certify,
        "certify_timeout": _of_certify,
    }
    return reasons[group](cfg, key) if group in reasons else None


def asks_model(cfg: DictConfig) -> bool:
    """Return whether the local model answers in stage=eval or stage=predict."""
    if _asked(cfg) is not None:
        return False
    return cfg.source.name == "model" or (cfg.stage.name == "eval" and cfg.benchmark.name in reads.MODEL_ITSELF)


def analyzed(stage: DictConfig, words: Sequence[str]) -> tuple[bool, list[str]]:
    """Return whether stage=analyze analyses the dataset, and which models it scores on it.

    Args:
        words: the overrides on the command line; a group not among them has only its default, which nobody asked for.
    """
    keys = [word.lstrip("+~").partition("=")[0] for word in words]
    data = any(key.partition(".")[0] == "data" for key in keys)
    model = any(key in ("model", "model.path") for key in keys)
    models = list(stage.models) or ([BASE] if model or not (data or stage.results) else [])
    return data or bool(models), models


ASKING = ("eval", "predict", "chat")
"""Stages that ask who `source=` chooses."""
WITH_IRM = ("pipeline", "gate")
"""Stages that train with IRM where `stage.irm=true`."""
OF_GATES_TRAINING = ("stage.sft", "stage.irm", "stage.w_max", "stage.key_tokens", "stage.supervised.", "stage.rl.")
"""Keys of stage=gate that nothing reads where `stage.new` names the model."""
CERTIFYING = ("sft", "pkt", "irm", "certify")
"""Stages that may serve a model."""


def _of_certify(cfg: DictConfig, key: str) -> str | None:
    if cfg.stage.name == "certify" and key == "certify" and cfg.certify == 0:
        return "stage=certify asks nothing with certify=0; give certify=N, or leave it out"
    if cfg.stage.name in CERTIFYING or cfg.certify == 0 or (key, cfg.stage.name) == ("certify_timeout", "export"):
        return None
    return f"stage={cfg.stage.name} serves no model; stage=certify model.path=FOLDER does"


def _without_model(cfg: DictConfig) -> str | None:
    """Return why the stage loads no model, and what would make it; None if it loads one."""
    if cfg.stage.name == "analyze" and not analyzed(cfg.stage, _words())[1]:
        return "no model is analysed; model=NAME, model.path=FOLDER or stage.models=[FOLDER] adds one"
    if cfg.stage.name not in ASKING or asks_model(cfg):
        return None
    if (asked := _asked(cfg)) is not None:
        return f"nothing is asked with {asked}, so no model is read; leave one of the two out"
    return f"source={cfg.source.name} reads no such key; source=model does"


def _words() -> Sequence[str]:
    return [] if HydraConfig.instance().cfg is None else HydraConfig.get().overrides.task


def _of_hardware(cfg: DictConfig, key: str) -> str | None:
    return None if key in reads.EVERYWHERE else _without_model(cfg)


def _of_model(cfg: DictConfig, key: str) -> str | None:
    model = cfg.model
    if (reason := _without_model(cfg)) is not None:
        asked = None if cfg.stage.name == "analyze" else _asked(cfg)
        endpoint = cfg.stage.name != "analyze" and asked is None and cfg.source.name == "endpoint"
        reads_raw = asked == "stage.predictions" and cfg.format.name not in TL_NAMES  # by the model's tokenizer
        if not reads_raw and not (endpoint and key in ENDPOINT_READS):
            return reason
    if model.path is not None and key.startswith(("model.random", "model.hub", "model.package", "model.sizes")):
        return "model.path is used instead, with its own sizes; leave one of the two out"
    if key.startswith("model.lora.") and model.lora.r is None:
        return "without model.lora.r no adapter is trained; model.lora.r=8 trains one"
    if key.startswith("model.irm") and cfg.stage.name in WITH_IRM and not cfg.stage.irm:
        return "stage.irm=false reads no such key; stage.irm=true does"
    return None


def _of_source(cfg: DictConfig, key: str) -> str | None:
    asked = _asked(cfg) if cfg.stage.name == "eval" else None
    return None if asked is None else f"nothing is asked with {asked}; leave one of the two out"


def _of_stage(cfg: DictConfig, key: str) -> str | None:
    stage = cfg.stage
    if key in ("stage.names", "stage.temperature") and stage.name in ASKING:
        if (asked := _asked(cfg) if stage.name == "eval" else None) is not None:
            return f"nothing is asked with {asked}; leave one of the two out"
        if stage.name == "eval" and cfg.benchmark.name == "general":
            return "lm-eval runs benchmark=general as its tasks define; leave one of the two out"
        if cfg.source.name != "model":
            instead = "use source.temperature" if cfg.source.name == "endpoint" else "source=model does"
            return f"source={cfg.source.name} reads no such key; {instead if 'temp' in key else 'source=model does'}"
    if stage.name in WITH_IRM and key.startswith("stage.rl.") and not stage.irm:
        return "stage.irm=false reads no such key; stage.irm=true does"
    if stage.name == "gate" and stage.new is not None and key.startswith(OF_GATES_TRAINING):
        return "nothing is trained with stage.new; leave one of the two out"
    if stage.name == "pipeline":
        if key.removeprefix("stage.").removeprefix("supervised.") in ("w_max", "key_tokens") and not stage.pkt:
            return "stage.pkt=false reads no such key; stage.pkt=true does"
    elif key == "stage.key_tokens" and stage.w_max is None:
        return "stage.w_max=null reads no such key, since every token has weight 1; stage.w_max=9 does"
    if key == "stage.private" and stage.name == "export" and stage.hub is None:
        return "without stage.hub nothing is pushed; stage.hub=OWNER/NAME does"
    if stage.name == "plan":
        node = key.split(".")[1]
        if node in OF_PLAN and stage.of.name not in OF_PLAN[node].split(", "):
            return f"stage.of={stage.of.name} reads no such key; stage.of={OF_PLAN[node].replace(', ', ' or ')} does"
    return None


def _of_reward(cfg: DictConfig, key: str) -> str | None:
    if cfg.stage.name in WITH_IRM and not cfg.stage.irm:
        return "stage.irm=false reads no such key; stage.irm=true does"
    return None


def _asked(cfg: DictConfig) -> str | None:
    """Return the key that makes stage=eval score or compare existing answers; None if it asks, or refuses to ask."""
    if cfg.stage.get("compare"):
        return "stage.compare"
    scorable = cfg.benchmark.name not in reads.MODEL_ITSELF and not cfg.benchmark.get("multi")
    return "stage.predictions" if cfg.stage.get("predictions") is not None and scorable else None
