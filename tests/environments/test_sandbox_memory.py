"""Memory and files that a per-process limit does not cover: refused, or counted for all processes together."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.rude_tools import AVAILABLE, FUNCTIONS, LIBRARY, LIMITS, still_works
from tltrain.environments.sandbox import ISOLATION_LEVELS, Sandbox

PATIENT = replace(LIMITS, seconds=15.0, memory=200)
"""More time to reach the counted limits, even on a busy machine, and less memory to fill."""


LEVELS = [
    # It counts as landlock does, and takes longest.
    pytest.param(level, marks=[pytest.mark.slow] if level == "process" and AVAILABLE["landlock"] else [])
    for level in ISOLATION_LEVELS
]


@pytest.fixture(params=LEVELS)
def patient(request):
    if not AVAILABLE[request.param]:
        pytest.skip(f"the kernel does not offer {request.param}")
    with Sandbox(LIBRARY, "Hostile.Rude.tool", FUNCTIONS, PATIENT, level=request.param) as tools:
        yield tools


def system_v() -> set[str]:
    """Return all System V objects in our IPC namespace, whoever made them."""
    found = set()
    for kind in ("shm", "sem", "msg"):
        lines = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
        found |= {f"{kind} {line.split()[1]}" for line in lines}
    return found


@pytest.mark.skipif(not Path("/proc/sysvipc").is_dir(), reason="the kernel has no System V IPC")
@pytest.mark.parametrize("kind", ["shared memory", "semaphores", "queue"])
def test_what_outlives_a_process_is_refused(level, rude, kind):
    before = system_v()
    assert rude(level).call("system_v", {"kind": kind}) == '"Operation not permitted"'
    assert system_v() - before == set()


def test_memory_that_no_process_answers_for_is_refused(level, rude):
    tools = rude(level)
    assert tools.call("memory_file", {"megabytes": 600}).startswith("Error: [Errno 1]")
    assert tools.call("watch_files", {}) == '"Operation not permitted"'
    for call in ("vmsplice", "tee", "splice"):
        assert tools.call("give_to_pipe", {"call": call}) == '"Operation not permitted"', call
    assert still_works(tools)


@pytest.mark.parametrize("tool", ["share_out_memory", "hide_memory"])
def test_the_memory_of_all_processes_together_is_limited(patient, tool):
    assert patient.call(tool, {"children": 8, "megabytes": 40}) == (
        f"Error: the tool's processes used more than {PATIENT.memory} MB of memory together"
    )
    assert still_works(patient)


def test_processes_that_share_memory_are_not_counted_twice(level, rude):
    assert int(rude(level).call("breed", {"most": 8})) == 8


def test_the_size_of_all_files_together_is_limited(patient):
    tools = patient
    assert tools.call("write_many", {"files": 3, "kilobytes": 1000}) == "3"
    assert tools.call("write_many", {"files": 8, "kilobytes": 1000}).startswith(
        ("Error: the tool's files are larger than 4 MB together", "Error: [Errno 28]")
    )
    assert tools.call("write_deleted", {"files": 8, "kilobytes": 1000}).startswith(
        ("Error: the tool's files are larger than 4 MB together", "Error: [Errno 28]")
    )
    assert still_works(tools)


def test_the_number_of_files_is_limited(patient):
    assert patient.call("write_many", {"files": 100, "kilobytes": 0}) == "100"
    assert patient.call("write_many", {"files": 5000, "kilobytes": 0}) == "Error: the tool made more than 4096 files"
    assert still_works(patient)


def test_folders_that_a_tool_locks_are_removed(level, rude):
    tools = rude(level)
    assert tools.call("lock_away", {}) == '"locked"'
    folder = tools._folder.path
    tools.close()
    assert not os.path.lexists(folder)
    assert json.loads(tools.call("echo", {"value": 1})) == 1
