"""Our side of the process in which BFCL's simulators run (`bfcl_worker`): started when needed, ended when it hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from tltrain.environments.pipes import pipes
from tltrain.errors import TltrainError
from tltrain.trajectory import Call

SECONDS = 10.0  # for one call
SECONDS_TO_START = 60.0

Turns = Sequence[Sequence[Call | None]]
"""The calls of each user turn; None for a call that must not be repeated because it ended the process."""


class Simulators:
    """Runs all conversations in one shared process: each request contains the whole conversation so far.

    That costs a fraction of a millisecond per call, keeps nothing between two requests, and lets a new process replace
    one that hung or died. Threads may share it too.

    Args:
        folder: the folder that contains the package `bfcl_eval`.
        seconds: how long one call may take.
    """

    def __init__(self, folder: Path, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""
        self._lock = threading.Lock()
        self._stop_at_exit: weakref.finalize | None = None

    def answer(self, scenario: Mapping[str, Any], turns: Turns) -> str | None:
        """Return the answer of the last call; None if it took too long, or ended the process."""
        reply = self._ask({**scenario, "turns": _plain(turns)})
        return None if reply is None else reply["answer"]

    def verdict(self, scenario: Mapping[str, Any], turns: Turns, golden: Turns) -> dict[str, Any] | None:
        """Return the verdict of BFCL's checker: `success`, `turn`, `error`, `reason`; None as for `answer`."""
        return self._ask({**scenario, "turns": _plain(turns), "golden": _plain(golden)})

    def start(self) -> None:
        """Start the process if there is none. The first request does so too, but this reports a failure early.

        Raises:
            TltrainError: the simulators cannot be imported there.
        """
        with self._lock:
            self._start()

    def close(self) -> None:
        """End the process, if there is one."""
        if self._stop_at_exit is not None:
            self._stop_at_exit()
        self._process, self._read = None, b""

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        line = json.dumps(request).encode() + b"\n"
        with self._lock:
            try:
                process = self._start()
                requests, _ = pipes(process)
                requests.write(line)
                requests.flush()
                while not (reply := self._line(process, self.seconds)).strip():  # empty: a call was run
                    pass
                return json.loads(reply)
            except (TimeoutError, OSError):
                self.close()
                return None
            except BaseException:  # Ctrl-C: the pending reply must not be taken for the reply to another request
                self.close()
                raise

    def _start(self) -> subprocess.Popen[bytes]:
        """See `start`. The process gets none of our environment, and its own group, so it ends with its children."""
        if self._process is not None:
            if self._process.poll() is None:
                return self._process
            self.close()  # something else ended it; no call is to blame
        process = self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", str(Path(__file__).with_name("bfcl_worker.py")), str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PYTHONHASHSEED": "0"},  # some answers list the members of a set
            start_new_session=True,
        )
        self._stop_at_exit = weakref.finalize(self, _stop, process)
        try:
            hello = json.loads(self._line(process, SECONDS_TO_START))
        except (TimeoutError, OSError):
            hello = {"error": "the process ended or did not answer"}
        if "error" in hello:
            self.close()
            raise TltrainError(f"{self._folder}: BFCL's simulators do not start: {hello['error']}")
        return process

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes:
        """Return the next line. Raises TimeoutError, or BrokenPipeError if the process has ended."""
        _, pipe = pipes(process)
        while b"\n" not in self._read:
            if not wait([pipe.fileno()], seconds):
                raise TimeoutError
            chunk = os.read(pipe.fileno(), 1 << 20)
            if not chunk:
                raise BrokenPipeError
            self._read += chunk
        line, _, self._read = self._read.partition(b"\n")
        return line


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    requests, answers = pipes(process)
    with suppress(BrokenPipeError):
        requests.close()
    answers.close()


def _plain(turns: Turns) -> list[list[Any]]:
    return [[None if call is None else [call.name, dict(call.arguments)] for call in calls] for calls in turns]
