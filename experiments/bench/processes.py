"""Processes that a benchmark script starts: tltrain's command line, and the peak memory of whatever runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
TLTRAIN = (sys.executable, "-m", "tltrain")


def outcome(folder: Path) -> list[str]:
    """Return the options for the output folder of a tltrain run."""
    return ["tracking=none", f"hydra.run.dir={folder}"]


def run(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, root: Path = ROOT) -> float:
    """Run a command in `root` with its output in `log`; return its peak resident memory in GiB.

    The kernel keeps this high-water mark (VmHWM) for each process; it is summed over the command and its descendants.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    peaks: dict[int, int] = {}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=root, env={**os.environ, **(environment or {})}, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                for pid in family(process.pid):
                    peaks[pid] = max(peaks.get(pid, 0), high_water(pid))
                time.sleep(0.25)
        finally:
            process.kill()
    if process.returncode:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise SystemExit(f"{last}\n`{' '.join(command)}` ended with status {process.returncode}: see {log}")
    return sum(peaks.values()) / 2**20


def family(pid: int) -> list[int]:
    """Return a process and its descendants; empty if it has just ended."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def high_water(pid: int) -> int:
    """Return VmHWM in KiB; 0 if the process has just ended."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) if found else 0
