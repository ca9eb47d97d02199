"""Hydra's composition: without what it does twice, and by itself, for tests of configurations that nothing has to run.

Composing is most of what a small run costs. Hydra composes a command line twice, the first time for `hydra.mode` alone,
each job of a sweep twice, the first time to see that all can be composed, and reads the files of conf/ each time.
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

from tests.support.typed import last_of_each
from tltrain import config
from tltrain.entry import checks
from tltrain.entry import words as command_line_words
from tltrain.entry.command_line_errors import one_line
from tltrain.errors import TltrainError

Plugins.instance()  # registers the sources
FILES = SourcesRegistry.instance().resolve("file")
"""Hydra's reader of files; an import of its module would make another class."""
_compose, _get_mode, _load_config, _register = (
    ConfigLoaderImpl._load_configuration_impl,
    Hydra.get_mode,
    FILES.load_config,
    config.register,
)
_files: dict[tuple, bytes] = {}
"""What a file of configuration was read as, by its path, time of change and size."""


@contextmanager
def quick() -> Iterator[None]:
    """Have Hydra compose each job of a command line once, and read a file that has not changed once a process."""
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
    """None, which Hydra finds where nothing sets `hydra.mode`: of what is in conf/, experiments alone do."""
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
    """The configuration that a command line gives, checked as it is before any stage begins.

    Raises:
        TltrainError, HydraException, OmegaConfBaseException: what the command line says in one line.
    """
    words = tuple(last_of_each(words))
    command_line_words.check(words)
    with in_job(*words) as cfg:
        checks.check_run(cfg)
        return cfg


@contextmanager
def in_job(*words: str) -> Iterator[DictConfig]:
    """The configuration that a command line gives, nothing checked, with Hydra's state as in the job that runs it."""
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
    """The line that a command line ends with where its configuration is wrong; "" where it is not."""
    try:
        composed(*words)
    except TltrainError as error:
        return str(error)
    except (HydraException, OmegaConfBaseException, AssertionError) as error:
        return one_line(error, words)
    return ""
