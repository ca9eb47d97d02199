"""What native formats do not do yet, refused in one line before anything is loaded."""

from __future__ import annotations

import re
from datetime import date

from omegaconf import DictConfig

from tltrain.config import Names
from tltrain.errors import TltrainError
from tltrain.formats.families import TL_NAMES

_READ_NONE = ("mae", "cache", "report")
"""Stages that neither train nor ask a model."""


def check(cfg: DictConfig) -> None:
    """Raise a TltrainError where the configuration asks for what works with `format=tl` alone."""
    chosen = cfg.format.name
    _check_date(cfg.format.date)
    if chosen in TL_NAMES:
        if cfg.format.options:
            raise TltrainError(f"format.options: format={chosen} has no chat template of the model; format=native does")
        return
    if cfg.stage.name in _READ_NONE:
        return
    if (what := _not_yet(cfg)) is not None:
        raise TltrainError(f"format={chosen}: {what}")
    if cfg.model.bos != "auto":
        raise TltrainError(f"model.bos: with format={chosen} the chat template says whether there is a BOS token")


def _not_yet(cfg: DictConfig) -> str | None:
    """What of the configuration has no native format yet; None if all has."""
    stage = cfg.stage
    if stage.name in ("demo", "irm", "analyze", "plan"):
        return f"stage={stage.name} works with format=tl alone so far"
    if stage.name == "pipeline" and stage.irm:
        return "IRM works with format=tl alone so far; stage.irm=false trains and evaluates without it"
    if stage.name == "eval" and cfg.benchmark.get("multi"):
        return "conversations (benchmark.multi) work with format=tl alone so far"
    if stage.name in ("eval", "predict") and cfg.source.name == "endpoint":
        return "it is of the local model; source.mode=chat asks a server in its model's own format, with format=tl"
    if stage.name in ("eval", "predict") and stage.get("names") == Names.offered:
        return "stage.names=offered works with format=tl alone so far"
    return None


def _check_date(text: str) -> None:
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            raise ValueError
        date.fromisoformat(text)
    except ValueError:
        raise TltrainError(f"format.date: expected a date as YYYY-MM-DD, found {text[:40]}") from None
