"""The folders of a user's own modules: those of the search path of choices, including `--config-dir`.

A file `my_conf/readers.py` is the module `readers` in every process of a run, of a sweep and of Hydra's launchers. The
folders come last in `sys.path`, so that no file of the user shadows a library.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

OURS = ("main", "hydra", "schema")
"""Hydra's names for the providers of this package's folders, and of Hydra's own, in the search path."""
_found: list[str] = []


def folder_of(schema: str, path: str) -> Path | None:
    """Return the folder of an entry of Hydra's search path, `file://FOLDER` or `pkg://PACKAGE.conf`; else None.

    Args:
        schema, path: the parts of the entry before and after `://`.
    """
    if schema == "file":
        return Path(path).absolute()
    if schema != "pkg":
        return None
    try:
        spec = importlib.util.find_spec(path.replace("/", "."))
    except (ImportError, ValueError):
        return None
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def of_run() -> list[Path]:
    """Return the folders of this run's search path that are not ours, in Hydra's order."""
    if HydraConfig.instance().cfg is None:
        return []
    sources = [source for source in HydraConfig.get().runtime.config_sources if source.provider not in OURS]
    folders = [folder_of(source.schema, source.path) for source in sources]
    return list(dict.fromkeys(folder for folder in folders if folder is not None))


def of_plugins() -> list[Path]:
    """Return the folders of choices that installed packages provide with a `SearchPathPlugin` in `hydra_plugins`.

    Hydra scans all its plugins for them, which takes longer than `--help`; so it is asked only if there are plugins
    other than its own launchers and sweepers.
    """
    spec = importlib.util.find_spec("hydra_plugins")
    places = spec.submodule_search_locations if spec is not None else None
    if not places or all(module.name.startswith("hydra_") for module in pkgutil.iter_modules(places)):
        return []
    from hydra._internal.utils import create_config_search_path

    entries = create_config_search_path(None).get_path()
    found = [folder_of(*entry.path.split("://", 1)) for entry in entries if entry.provider not in OURS]
    return [folder for folder in found if folder is not None]


def find(folders: Iterable[Path | str]) -> None:
    """Make the modules in these folders importable, in this process and in those that it starts."""
    for folder in map(str, folders):
        if folder not in _found:
            _found.append(folder)
        if folder not in sys.path:
            sys.path.append(folder)
            importlib.invalidate_caches()


def found() -> list[str]:
    """Return all folders that were passed to `find` in this process."""
    return list(_found)
