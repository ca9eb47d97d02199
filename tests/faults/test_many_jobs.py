"""A hundred tiny jobs in one sweep: what the process holds after a hundred is what it held after ten.

`FAULTS_JOBS` says how many. Jobs are of several stages, so that models are loaded, trained and let go.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import threading
from pathlib import Path

import pytest

from tests.support import interruptions
from tests.support.amounts import amount
from tests.support.launched_runs import ALWAYS, end, start

pytestmark = pytest.mark.faults
STAGES = ("mae", "sft", "pkt", "eval", "analyze")
FIRST = 10
"""After so many jobs everything has been loaded once."""
HELD = "held.jsonl"


def measuring() -> None:
    """Have each job's end leave what the process holds."""
    interruptions.alone()
    from tltrain import __main__ as entry

    run_job = entry.run_job

    def run(cfg):
        try:
            return run_job(cfg)
        finally:
            with Path(HELD).open("a") as file:
                file.write(json.dumps(held()) + "\n")

    entry.run_job = run


def held() -> dict[str, int]:
    """Memory in MiB, and numbers of what this process has open, runs, and has left."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free already is no leak
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE") >> 20,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "Python's threads": threading.active_count(),
        "processes": len(interruptions.processes_of(os.getpid())),
        "temporary": len(os.listdir(interruptions.TEMPORARY)),
    }


def test_a_hundred_tiny_jobs(tmp_path, figures):
    count = amount("jobs")
    seeds = -(-count // len(STAGES))
    words = (
        *("-m", *ALWAYS, "data.size=8", "data.holdout=0.25", "benchmark.size=2", "hydra.sweep.dir=run"),
        *(f"seed=range({seeds})", f"stage={','.join(STAGES)}"),
    )
    end(start(tmp_path, *words, before=measuring), tmp_path, timeout=3600)
    lines = [json.loads(line) for line in (tmp_path / HELD).read_text().splitlines()]
    assert len(lines) == seeds * len(STAGES)
    early, late = lines[FIRST - 1], lines[-1]
    for what in early:
        figures("Jobs in one sweep", held=what, jobs=len(lines), **{"after 10": early[what], "at the end": late[what]})
    assert late["memory"] <= early["memory"] + 30, lines
    for what in early.keys() - {"memory"}:
        assert late[what] <= early[what], (what, early, late)
    assert not list(tmp_path.rglob("error.txt"))
