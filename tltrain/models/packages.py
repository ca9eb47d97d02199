"""Find base models that a Python package ships as GGUF, without importing the package or torch.

Such a model is converted once, to `cache.dir/models/NAME-KEY`; the key is a hash of the GGUF file and the versions of
the converting libraries.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tltrain.errors import TltrainError
from tltrain.runtime import fingerprints

CONVERTERS = ("transformers", "gguf")
"""Libraries that read GGUF: other versions may give other weights."""


def weights(package: str | None) -> Path | None:
    """Return the GGUF file of an installed package; None if the package is not installed.

    Raises:
        TltrainError: the package has no GGUF file.
    """
    spec = importlib.util.find_spec(package) if package is not None else None
    if spec is None:
        return None
    folder = Path(next(iter(spec.submodule_search_locations or ())))
    files = sorted(folder.rglob("*.gguf"))
    if not files:
        raise TltrainError(f"the package {folder.name} has no .gguf file: reinstall it, or give model.path=FOLDER")
    return files[0]


def converted(file: Path, name: str, cache_dir: str) -> Path:
    """Return the cache folder for the model `name` converted from a GGUF file; it need not exist yet."""
    decided_by = [fingerprints.of_file(file), dict(fingerprints.versions(CONVERTERS))]
    return Path(cache_dir) / "models" / f"{name}-{fingerprints.fingerprint(decided_by)[:12]}"
