"""The two ends that we hold of a process which answers requests."""

from __future__ import annotations

import subprocess
from typing import IO


def pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """What to write requests to and read answers from. The process was started with both as pipes."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process was started without pipes for its standard input and output")
    return process.stdin, process.stdout
