"""Hydra's composition, without its duplicate work, and by itself for tests of configurations that need not run.

Composition is most of the cost of a small run. Hydra composes a command line twice (first only to learn `hydra.mode`)
and each job of a sweep twice (first to validate it), and each time it reads conf/ and merges its files, which takes ten
times as long as applying the values on the command line to the result. Here each choice of groups is merged once per
process.
"""

from __future__ import annotations

import copy
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides, create_defaults_list
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
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
"""Hydra's file reader; importing its module would give another class."""
_compose, _get_mode, _load_config, _merge = (
    ConfigLoaderImpl._load_configuration_impl,
    Hydra.get_mode,
    FILES.load_config,
    ConfigLoaderImpl._compose_config_from_defaults_list,
)
_files: dict[tuple, bytes] = {}
"""Pickled contents of configuration files, by path, modification time and size."""
_defaults: dict[tuple, DefaultsList] = {}
"""Defaults lists by the state of the sources and the overrides of groups."""
_merged: dict[tuple, bytes] = {}
"""Pickled configurations before the overrides of values, by the state of the sources and the entries of the list."""


@contextmanager
def quick() -> Iterator[None]:
    """Make Hydra compose each job of a command line only once, and read an unchanged file once per process."""
    composed: dict[tuple, bytes] = {}

    def compose_once(loader: ConfigLoaderImpl, **how) -> DictConfig:
        key = tuple(tuple(value) if isinstance(value, list) else value for value in how.values())
        if key not in composed:
            composed[key] = pickle.dumps(_compose(loader, **how))
        return pickle.loads(composed[key])

    with (
        mock.patch.object(ConfigLoaderImpl, "_load_configuration_impl", compose_once),
        mock.patch.object(ConfigLoaderImpl, "_compose_config_from_defaults_list", _merge_once),
        mock.patch.object(config_loader_impl, "create_defaults_list", _defaults_once),
        mock.patch.object(CachingConfigRepository, "__init__", _share),
        mock.patch.object(Hydra, "get_mode", _mode),
        mock.patch.object(FILES, "load_config", _load_once),
    ):
        yield


def _mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> object:
    """Return None, the value of `hydra.mode` unless something sets it; in conf/ only experiments do."""
    words = sys.argv[1:]
    if any("hydra.mode" in word or "experiment" in word or word.startswith(("--config", "-c")) for word in words):
        return _get_mode(hydra, config_name, overrides)
    return None


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


def _share(caching: CachingConfigRepository, delegate: IConfigRepository) -> None:
    """Share the sources. A shallow copy is enough: Hydra replaces the list of sources, never its elements."""
    caching.delegate = copy.copy(delegate)
    caching.cache = {}


def _state(repo: IConfigRepository) -> tuple:
    """Return the sources of configurations, with every file's modification time and size."""
    states = []
    for source in repo.get_sources():
        states.append((source.scheme(), source.path))
        if source.scheme() == "file":
            for folder, _, names in os.walk(source.path):
                files = (os.path.join(folder, name) for name in names if name.endswith((".yaml", ".yml")))
                states.extend((file, (stat := os.stat(file)).st_mtime_ns, stat.st_size) for file in files)
    return tuple(states)


def _defaults_once(
    repo: IConfigRepository, config_name: str | None, overrides_list: list[Override], **how: bool
) -> DefaultsList:
    values = Overrides(repo=repo, overrides_list=overrides_list).config_overrides
    groups = [override for override in overrides_list if not any(override is value for value in values)]
    key = (_state(repo), config_name, tuple(override.input_line for override in groups), *how.values())
    if key not in _defaults:
        _defaults[key] = create_defaults_list(repo=repo, config_name=config_name, overrides_list=groups, **how)
    return replace(_defaults[key], config_overrides=values)


def _merge_once(loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
    key = (_state(repo), *((entry.config_path, entry.package, entry.is_self, entry.primary) for entry in defaults))
    if key not in _merged:
        _merged[key] = pickle.dumps(_merge(loader, defaults=defaults, repo=repo))
    return pickle.loads(_merged[key])


def composed(*words: str) -> DictConfig:
    """Compose the configuration of a command line and check it as is done before any stage begins.

    Raises:
        TltrainError, HydraException, OmegaConfBaseException: the errors that the command line prints as one line.
    """
    words = tuple(last_of_each(words))
    command_line_words.check(words)
    with in_job(*words) as cfg:
        checks.check_run(cfg)
        return cfg


@contextmanager
def in_job(*words: str) -> Iterator[DictConfig]:
    """Compose the configuration of a command line without checks, with Hydra's state as in the job that runs it."""
    config.register()
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
    except (HydraException, OmegaConfBaseException, AssertionError) as error:
        return one_line(error, words)
    return ""
