"""The program's name and version."""

from __future__ import annotations

import sys
from pathlib import Path

from tltrain.runtime import fingerprints


def name() -> str:
    """Return what the user types to start the program: `tltrain` if that script started it."""
    return "tltrain" if Path(sys.argv[0]).stem == "tltrain" else "python -m tltrain"


def version() -> str:
    """Return the versions of tltrain, Python and the libraries, from metadata without importing them."""
    own, *libraries = (
        f"{package} {fingerprints.version(package) or 'not installed'}"
        for package in ("tltrain", "torch", "transformers", "trl")
    )
    return "\n".join((own, f"python {sys.version.split()[0]}", *libraries))
