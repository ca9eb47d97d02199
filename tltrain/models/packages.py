"""Base models that a Python package ships as GGUF, found without importing the package. Imports no torch.

Such a model is converted once, to `cache.dir/models/NAME-KEY`: the key is of the file it was converted from.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tltrain.errors import TltrainError
from tltrain.runtime import fingerprints

CONVERTERS = ("transformers", "gguf")
"""Libraries that read GGUF: another version may read it otherwise."""


def weights(package: str | None) -> Path | None:
    """The GGUF file that an installed package ships; None where no such package is installed.

    Raises:
        TltrainError: it ships none.
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
    """The folder of the cache that the model `name` is, or would be, converted to from a GGUF file."""
    decided_by = [fingerprints.of_file(file), dict(fingerprints.versions(CONVERTERS))]
    return Path(cache_dir) / "models" / f"{name}-{fingerprints.fingerprint(decided_by)[:12]}"
