"""Hydra's composition, without its duplicate work, and by itself for tests of configurations that need not run.

Composing is most of the cost of a small run. Hydra composes a command line twice, first only for `hydra.mode`, and each
job of a sweep twice, first to check that all can be composed; and it reads the files of conf/ every time.
"""

from __future__ import annotations

import copy
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest import mock

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tltrain import config
from tltrain.entry import checks
from tltrain.entry.command_line_errors import one_line
from tltrain.errors import TltrainError

Plugins.instance()  # registers the sources
FILES = SourcesRegistry.instance().resolve("file")
"""Hydra's file reader; importing its module would give another class."""
_compose, _get_mode, _load_config, _register = (
    ConfigLoaderImpl._load_configuration_impl,
    Hydra.get_mode,
    FILES.load_config,
    config.register,
)
_files: dict[tuple, bytes] = {}
"""Parsed configuration files, by path, modification time and size."""


@contextmanager
def quick() -> Iterator[None]:
    """Make Hydra compose each job of a command line only once, and read an unchanged file once per process."""
    composed: dict[tuple, DictConfig] = {}

    def compose_once(loader: ConfigLoaderImpl, **how) -> DictConfig:
        key = tuple(tuple(value) if isinstance(value, list) else value for value in how.values())
        if key not in composed:
            composed[key] = _compose(loader, **how)
        return copy.deepcopy(composed[key])

    with (
        mock.patch.object(ConfigLoaderImpl, "_load_configuration_impl", compose_once),
        mock.patch.object(Hydra, "get_mode", _mode),
        mock.patch.object(FILES, "load_config", _load_once),
        mock.patch.object(config, "register", _register_once),
    ):
        yield


def _mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> object:
    """Return None, the value of `hydra.mode` unless something sets it; in conf/ only experiments do."""
    words = sys.argv[1:]
    if any("hydra.mode" in word or "experiment" in word or word.startswith(("--config", "-c")) for word in words):
        return _get_mode(hydra, config_name, overrides)
    return None


@cache
def _register_once() -> None:
    _register()


def _load_once(source: ConfigSource, config_path: str) -> ConfigResult:
    file = os.path.realpath(os.path.join(source.path, source._normalize_file_name(config_path)))
    try:
        state = os.stat(file)
    except OSError:
        return _load_config(source, config_path)
    key = (file, state.st_mtime_ns, state.st_size, source.path, source.provider)
    if key not in _files:
        _files[key] = pickle.dumps(_load_config(source, config_path))
    return pickle.loads(_files[key])


def composed(*words: str) -> DictConfig:
    """Compose the configuration of a command line, and check it as before any stage begins.

    Raises:
        TltrainError, HydraException, OmegaConfBaseException: the errors that the command line prints as one line.
    """
    with in_job(*words) as cfg:
        checks.check_run(cfg)
        return cfg


@contextmanager
def in_job(*words: str) -> Iterator[DictConfig]:
    """Compose the configuration of a command line without checks, with Hydra's state as in the job that runs it."""
    _register_once()
    GlobalHydra.instance().clear()
    try:
        with quick(), initialize_config_dir(str(config.CONF_DIR), version_base="1.3", job_name="tltrain"):
            whole = compose("config", list(words), return_hydra_config=True)
        HydraConfig.instance().set_config(whole)
        yield OmegaConf.masked_copy(whole, [key for key in whole if key != "hydra"])
    finally:
        HydraConfig.instance().cfg = None
        GlobalHydra.instance().clear()


def mistake(*words: str) -> str:
    """Return the error line of a command line whose configuration is wrong; "" if it is right."""
    try:
        composed(*words)
    except TltrainError as error:
        return str(error)
    except (HydraException, OmegaConfBaseException) as error:
        return one_line(error)
    return ""
