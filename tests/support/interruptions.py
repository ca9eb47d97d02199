"""Signals that surely arrive during a run: a process sends itself one when it calls a function for the n-th time.

So neither the machine's speed nor chance decides what is interrupted. The functions are those of this package; a run
that is not interrupted (`counting`) shows which of them are called.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import tltrain

PACKAGE = str(Path(tltrain.__file__).parent) + os.sep
CALLS, TEMPORARY = "calls.json", "temporary"
Moment = tuple[str, int]
"""A function (`file:name`) and the number of the call, from 1."""


def _watched(what: Callable[[str], None]) -> None:
    """Call `what(function)` at each call of a function of this package in the jobs of this process."""
    from tltrain import __main__ as entry

    run_job = entry.run_job

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE):
            what(f"{code.co_filename.removeprefix(PACKAGE)}:{code.co_qualname}")

    def run(cfg: Any) -> Any:
        sys.setprofile(watch)
        try:
            return run_job(cfg)
        finally:
            sys.setprofile(None)

    entry.run_job = run


def alone() -> None:
    """Make this process the leader of a session, with its own folder for temporary files."""
    os.setsid()
    Path(TEMPORARY).mkdir(exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = os.path.abspath(TEMPORARY)


def counting() -> None:
    """Write to the file `calls.json` how often a run calls each function."""
    alone()
    calls: Counter[str] = Counter()
    _watched(lambda function: calls.update([function]))
    from tltrain import __main__ as entry

    run_job = entry.run_job

    def run(cfg: Any) -> Any:
        try:
            return run_job(cfg)
        finally:
            Path(CALLS).write_text(json.dumps(calls))

    entry.run_job = run


def interrupting(moment: Moment, number: int = signal.SIGTERM) -> None:
    """Send this process a signal at a moment, and write the moment to the file `interrupted`."""
    alone()
    function, left = moment

    def count(called: str) -> None:
        nonlocal left
        left -= called == function
        if called == function and left == 0:
            sys.setprofile(None)
            Path("interrupted").write_text(f"{moment}\n")
            os.kill(os.getpid(), number)

    _watched(count)


def interrupted(moment: Moment, number: int = signal.SIGTERM) -> Callable[[], None]:
    """Return the function that a process must call first to be sent the signal."""
    return partial(interrupting, moment, number)


def moments(home: Path, count: int, name: str) -> list[Moment]:
    """Return random moments of the run that `counting` watched in `home`; all functions are equally likely."""
    calls = json.loads((home / CALLS).read_text())
    rng = random.Random(f"interrupt {name}")
    functions = rng.sample(sorted(calls), min(count, len(calls)))
    return [(function, rng.randint(1, calls[function])) for function in functions]


def processes_of(session: int) -> list[int]:
    """Return the remaining processes of a session."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found
