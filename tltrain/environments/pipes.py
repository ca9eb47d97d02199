"""Our ends of the pipes to a process that answers requests."""

from __future__ import annotations

import subprocess
from typing import IO


def pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Return the pipes for requests and for answers of a process that was started with both."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process was started without pipes for its standard input and output")
    return process.stdin, process.stdout
