"""Sandboxes around the hostile tools."""

from __future__ import annotations

import contextlib

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
    """`rude(level=None, network=False)` returns a sandbox for the hostile module, which is closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda level=None, network=False: stack.enter_context(
            Sandbox(LIBRARY, "Hostile.Rude.tool", FUNCTIONS, LIMITS, network, level)
        )


@pytest.fixture(scope="module")
def calm():
    """A shared sandbox for calls that do not end it; if a test does end it, the next one only needs a new process."""
    with Sandbox(LIBRARY, "Hostile.Rude.tool", FUNCTIONS, LIMITS) as opened:
        yield opened
