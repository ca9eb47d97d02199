"""Refuse what a format cannot do, or a model trained in another format, in one line before anything is loaded."""

from __future__ import annotations

import re
from datetime import date

from omegaconf import DictConfig

from tltrain.config import Names
from tltrain.config.reads import MODEL_ITSELF
from tltrain.entry.unread import ASKING
from tltrain.errors import TltrainError
from tltrain.formats import own
from tltrain.formats.families import AUTO, FAMILIES, TL_NAMES
from tltrain.models import trained_format

NO_THOUGHTS = "stage.learn_thoughts=false: answers in the TL format have no thoughts; a native format has them"
_READ_NONE = ("mae", "check", "cache", "report")
"""Stages that neither train nor ask a model."""


def check(cfg: DictConfig) -> None:
    """Raise a TltrainError if the configuration asks for something that its format does not support."""
    chosen = cfg.format.name
    _check_date(cfg.format.date)
    if chosen in TL_NAMES and cfg.format.options:
        raise TltrainError(f"format.options: format={chosen} has no chat template of the model; format=native does")
    if own.is_own(cfg.format) and cfg.format.options:
        raise TltrainError(f"format.options: format={chosen} has no chat template of the model; format=native does")
    if chosen in TL_NAMES and cfg.stage.name == "irm" and not cfg.stage.get("learn_thoughts", True):
        raise TltrainError(NO_THOUGHTS)
    if cfg.stage.name in _READ_NONE:
        return
    _check_trained(cfg)
    if chosen in TL_NAMES:
        return
    if own.is_own(cfg.format) and (what := _not_in_own(cfg)) is not None:
        raise TltrainError(f"format={chosen}: {what} works only with the package's own formats so far")
    if (what := _not_yet(cfg)) is not None:
        raise TltrainError(f"format={chosen}: {what}")
    if cfg.model.bos != "auto" and not own.is_own(cfg.format):
        raise TltrainError(
            f"model.bos: with format={chosen} the chat template decides about the BOS token; format=tl reads model.bos"
        )


def _check_trained(cfg: DictConfig) -> None:
    """Raise a TltrainError if a model's folder says that it was trained in another format than the chosen one.

    Models that are compared or only measured each have their own format, and the default `tl` is not a choice then.
    """
    path, chosen = cfg.model.path, cfg.format.name
    asks = cfg.stage.name in ASKING
    measured = cfg.stage.name == "analyze" or (cfg.stage.name == "eval" and cfg.benchmark.name in MODEL_ITSELF)
    if path is None or (asks and cfg.source.name != "model") or (measured and chosen in TL_NAMES):
        return
    asked = str(cfg.format[own.TARGET]) if own.is_own(cfg.format) else chosen
    trained_format.check(path, trained_format.read(path), asked)


def _not_in_own(cfg: DictConfig) -> str | None:
    """Return what the configuration asks for that a user's own format does not support; None if it supports all."""
    stage = cfg.stage
    if stage.name in ("demo", "irm", "analyze", "plan", "certify", "export"):
        return f"stage={stage.name}"
    if stage.name in ("pipeline", "gate") and stage.irm:
        return "stage.irm=true"
    if stage.name == "eval" and cfg.benchmark.get("multi"):
        return f"benchmark={cfg.benchmark.name}"
    if stage.name in ASKING and cfg.source.name == "endpoint":
        return "source=endpoint"
    if stage.name in ASKING and stage.get("names") == Names.offered:
        return "stage.names=offered"
    return None


def _not_yet(cfg: DictConfig) -> str | None:
    """Return what native formats do not support in this configuration yet; None if they support all."""
    stage, chosen = cfg.stage, cfg.format.name
    if stage.name in ASKING and cfg.source.name == "endpoint" and chosen != AUTO:
        return "this is for the local model; source.mode=chat asks a server in its model's own format, with format=tl"
    offered = stage.get("names") == Names.offered and stage.name in (*ASKING, "irm")
    if offered and chosen in FAMILIES and not FAMILIES[chosen].fixed_head:
        return "stage.names=offered needs a fixed text before the name of each call, which this format does not write"
    return None


def _check_date(text: str) -> None:
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            raise ValueError
        date.fromisoformat(text)
    except ValueError:
        raise TltrainError(f"format.date: expected a date as YYYY-MM-DD, found {text[:40]}") from None
