"""Configurations of one stage made from the configuration of another, as if they had been composed."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from tltrain import config


def resolved(node: DictConfig) -> dict[str, Any]:
    """A part of the configuration as plain values, what it refers to put in its place."""
    return config.plain(node)


def part(cfg: DictConfig, stage: dict[str, Any], kind: str | None = None) -> DictConfig:
    """The whole configuration with another stage in it, as if `stage=...` had been composed."""
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "stage"])
    schema = OmegaConf.structured(config.stage_schema(kind or stage["name"]))
    OmegaConf.set_struct(schema, False)
    with open_dict(own):
        own.stage = OmegaConf.merge(schema, stage)
    return own
