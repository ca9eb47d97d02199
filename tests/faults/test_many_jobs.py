"""A hundred tiny jobs in one sweep: the process holds no more after a hundred than after ten.

`FAULTS_JOBS` sets the number.
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
from tests.support.small_runs import ALGORITHMS, FEW

pytestmark = pytest.mark.faults
KINDS = {
    "training": ("stage=sft,pkt", "data.size=8", "data.holdout=0.25"),
    "reinforcing": ("stage=irm", *FEW, *ALGORITHMS["ppo"]),
    "evaluating": ("stage=eval", "data.size=8", "benchmark.size=2", "stage.max_new_tokens=4"),
}
"""Words of the jobs; each kind loads models and releases them."""
FIRST = 10
"""After this many jobs everything has been loaded once."""
ALLOWED = 0.4
"""Maximum growth of memory per job in MiB; it was 0.5 and more when the configurations of all jobs were kept."""
HELD = "held.jsonl"


def measuring() -> None:
    """Record at the end of each job what the process holds."""
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
    """Return memory in MiB, and the numbers of what this process has open, runs, and has left behind."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that is already free is not a leak
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE") >> 20,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "Python's threads": threading.active_count(),
        "processes": len(interruptions.processes_of(os.getpid())),
        "temporary": len(os.listdir(interruptions.TEMPORARY)),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_tiny_jobs(tmp_path, figures, kind):
    count, words = amount("jobs"), KINDS[kind]
    seeds = count // (1 + words[0].count(","))
    command = ("-m", *ALWAYS, *words, f"seed=range({seeds})", "hydra.sweep.dir=run")
    end(start(tmp_path, *command, before=measuring), tmp_path, timeout=3600)
    lines = [json.loads(line) for line in (tmp_path / HELD).read_text().splitlines()]
    early, late = lines[FIRST - 1], lines[-1]
    for what in early:
        found = {"after 10": early[what], "at the end": late[what]}
        figures("Jobs in one sweep", kind=kind, jobs=len(lines), held=what, **found)
    grown = late["memory"] - early["memory"]
    assert grown <= 5 + ALLOWED * (count - FIRST), [line["memory"] for line in lines]
    for what in early.keys() - {"memory"}:
        assert late[what] <= early[what], (what, early, late)
    assert len(lines) == count and not list(tmp_path.rglob("error.txt"))
