"""Hydra's composition: without what it does twice, and by itself, for tests of configurations that nothing has to run.

Composing is most of what a small run costs. Hydra composes a command line twice, the first time for `hydra.mode` alone,
and reads the same files of conf/ again in each run of a process.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tltrain import config
from tltrain.entry import checks
from tltrain.entry.command_line_errors import one_line
from tltrain.errors import TltrainError

_get_mode, _load_config = Hydra.get_mode, FileConfigSource.load_config
_files: dict[tuple, bytes] = {}
"""What a file of configuration was read as, by its path, time of change and size."""


@contextmanager
def quick() -> Iterator[None]:
    """Have Hydra compose a command line once, and read a file that has not changed once a process."""
    with (
        mock.patch.object(Hydra, "get_mode", _mode),
        mock.patch.object(FileConfigSource, "load_config", _load_once),
    ):
        yield


def _mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> object:
    """None, which Hydra finds where nothing sets `hydra.mode`: of what is in conf/, experiments alone do."""
    words = sys.argv[1:]
    if any("hydra.mode" in word or "experiment" in word or word.startswith(("--config", "-c")) for word in words):
        return _get_mode(hydra, config_name, overrides)
    return None


def _load_once(source: FileConfigSource, config_path: str) -> ConfigResult:
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
    config.register()
    GlobalHydra.instance().clear()
    try:
        with quick(), initialize_config_dir(str(config.CONF_DIR), version_base="1.3", job_name="tltrain"):
            whole = compose("config", list(words), return_hydra_config=True)
        HydraConfig.instance().set_config(whole)
        cfg = OmegaConf.masked_copy(whole, [key for key in whole if key != "hydra"])
        checks.check(cfg)
        return cfg
    finally:
        HydraConfig.instance().cfg = None
        GlobalHydra.instance().clear()


def mistake(*words: str) -> str:
    """The line that a command line ends with where its configuration is wrong; "" where it is not."""
    try:
        composed(*words)
    except TltrainError as error:
        return str(error)
    except (HydraException, OmegaConfBaseException) as error:
        return one_line(error)
    return ""
