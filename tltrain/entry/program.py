"""What the program is called, and its version."""

from __future__ import annotations

import sys
from pathlib import Path

from tltrain.runtime import fingerprints


def name() -> str:
    """What the user types to start the program: `tltrain` where it was started by that script."""
    return "tltrain" if Path(sys.argv[0]).stem == "tltrain" else "python -m tltrain"


def version() -> str:
    """The versions of tltrain, of Python and of the libraries, from their metadata: none of them is imported."""
    own, *libraries = (
        f"{package} {fingerprints.version(package) or 'not installed'}"
        for package in ("tltrain", "torch", "transformers", "trl")
    )
    return "\n".join((own, f"python {sys.version.split()[0]}", *libraries))
