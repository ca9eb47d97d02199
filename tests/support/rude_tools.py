"""The library of hostile tools, this kernel's level of isolation, and processes that the tools leave behind."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tltrain.environments import sandbox
from tltrain.environments.sandbox import ISOLATION_LEVELS, Limits, Sandbox

LIBRARY = ROOT / "tests" / "environments" / "tool_library" / "Tool_Library"
RUDE = LIBRARY / "Hostile" / "Rude"
FUNCTIONS = {tool["name"] for tool in json.loads((RUDE / "config_gpt4.json").read_text())}
LIMITS = Limits(seconds=1.0, memory=500, output=200, disk=4, processes=12)


def reached(level: str) -> bool:
    with Sandbox(LIBRARY, "none", (), LIMITS, level=level) as trial:
        try:
            return trial.start().level == level
        except sandbox._Gone:
            return False


AVAILABLE = {level: reached(level) for level in ISOLATION_LEVELS}
BEST = next(level for level in ISOLATION_LEVELS if AVAILABLE[level])
best_only = pytest.mark.skipif(BEST != "namespaces", reason="the kernel allows no namespaces")


def running(text: str) -> list[str]:
    """Return the processes of this machine whose command line contains `text`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                if text in words:
                    found.append(f"{folder.name}: {words}")
    return found


def gone(text: str) -> bool:
    """Return whether no such process is left, now or very soon, as the kernel ends them one by one."""
    deadline = time.monotonic() + 3
    while left := running(text):
        if time.monotonic() > deadline:
            pytest.fail(f"still there: {left}")
        time.sleep(0.02)
    return True


def still_works(tools: Sandbox) -> bool:
    return tools.call("echo", {"value": [1, "é"]}) == '[1, "é"]'
