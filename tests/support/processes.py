"""Commands in processes of their own, for tests of what only a fresh interpreter shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

HEAVY = ("torch", "transformers", "trl", "datasets", "wandb", "matplotlib")
PROBE = f"""
import atexit, sys
atexit.register(lambda: print("loaded:", [name for name in {HEAVY} if name in sys.modules]))
from tltrain.__main__ import main
main()
"""


def process(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, in `folder`, with the package of this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def probe(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, whose last line of output says what it loaded."""
    return process([sys.executable, "-c", PROBE, *words], folder)


def python(folder: Path, *words: str, path: Path = ROOT, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """`python words...` in `folder`, with the package in `path`."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    ran = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert ran.returncode == 0, f"{words}:\n{ran.stdout}\n{ran.stderr}"
    return ran
