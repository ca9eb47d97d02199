"""Sandboxes around the hostile tools."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from tests.support.rude_tools import AVAILABLE, FUNCTIONS, LIBRARY, LIMITS
from tltrain.environments.sandbox import ISOLATION_LEVELS, Sandbox


@pytest.fixture(params=ISOLATION_LEVELS)
def level(request):
    if not AVAILABLE[request.param]:
        pytest.skip(f"the kernel does not offer {request.param}")
    return request.param


@pytest.fixture
def rude():
    """`rude(level=None, network=False, seconds=1)` returns a sandbox for the hostile module, closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda level=None, network=False, seconds=LIMITS.seconds: stack.enter_context(
            Sandbox(LIBRARY, "Hostile.Rude.tool", FUNCTIONS, replace(LIMITS, seconds=seconds), network, level)
        )


@pytest.fixture(scope="module")
def calm():
    """A shared sandbox for calls that do not end it; if a test does end it, the next one only needs a new process."""
    with Sandbox(LIBRARY, "Hostile.Rude.tool", FUNCTIONS, LIMITS) as opened:
        yield opened
