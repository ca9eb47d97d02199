"""Make configurations within a run: derived from another stage's, or composed through the run's search path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra import compose as compose_here
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from tltrain import config


def resolved(node: DictConfig) -> dict[str, Any]:
    """Return a part of the configuration as plain values, with references resolved."""
    return config.plain(node)


def part(cfg: DictConfig, stage: dict[str, Any], kind: str | None = None) -> DictConfig:
    """Return the whole configuration with another stage, as if `stage=...` had been composed."""
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "stage"])
    schema = OmegaConf.structured(config.stage_schema(kind or stage["name"]))
    OmegaConf.set_struct(schema, False)
    with open_dict(own):
        own.stage = OmegaConf.merge(schema, stage)
    return own


def choice_of(group: str, name: str) -> DictConfig:
    """Return the node of a choice of a group, with unresolved references."""
    return OmegaConf.masked_copy(compose([f"{group}={name}"]), group)[group]


def compose(overrides: Sequence[str]) -> DictConfig:
    """Compose a configuration through this run's search path (`--config-dir`, `hydra.searchpath`), in any process.

    Raises:
        HydraException, OmegaConfBaseException: there is no such choice, or no such key.
    """
    config.register()  # a worker has not composed anything
    job = HydraConfig.instance().cfg is not None  # otherwise only our own folder is known
    sources = HydraConfig.get().runtime.config_sources if job else []
    main = next((source.path for source in sources if source.provider == "main"), str(config.CONF_DIR))
    ours = ("hydra", "main", "schema")  # Hydra searches these anyway
    further = [f"{source.schema}://{source.path}" for source in sources if source.provider not in ours]
    own = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(main, version_base="1.3", job_name="tltrain"):
            return compose_here("config", [f"hydra.searchpath={further!r}", *overrides])
    finally:
        GlobalHydra.instance().hydra = own
