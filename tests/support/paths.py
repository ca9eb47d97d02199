"""Paths of the repository and of the public data files, and marks for tests that need the latter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("TLTRAIN_SHARED", ROOT.parent / "shared"))
ROTBENCH = SHARED / "data" / "rotbench"

needs_rotbench = pytest.mark.skipif(not ROTBENCH.is_dir(), reason=f"RoTBench's files are not at {ROTBENCH}")
