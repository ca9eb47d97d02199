"""Run tools from third parties in processes that cannot reach our memory, environment, files or network.

A `Sandbox` runs the functions of one module. It starts its process with `exec` (never as a fork of ours) and a clean
environment. The process lives as long as a conversation, so that a module is loaded once and keeps its state between
calls; the next call replaces a process that died or hung. A call returns only text, at most `Limits.output` characters,
and reports every error as such a text. `sandbox_child.py`, `sandbox_worker.py`, `sandbox_kernel.py`, `sandbox_bwrap.py`
and `sandbox_seccomp.py` run in the process.

`isolation` determines once, with a module of our own, how strongly the machine can isolate, and tries the strongest
level first. The content of a library never changes the level: a library that cannot be read or copied stops the run.

    namespaces   bubblewrap gives the tool a file system with the Python installation, system libraries and the tool
                 library, all read-only, and an empty /tmp in memory. The tool sees no other process and no network.
                 Ending it ends everything that it started.
    landlock     Used where bubblewrap is missing or namespaces are forbidden, as in most containers. The tool can read
                 only the paths above, write only an empty temporary folder, and open no socket. Processes that it
                 leaves behind are found by their ancestry. Before Linux 6.12 it can send signals to its user's
                 processes.
    process      No isolation: a process with limits and a clean environment, which can read and write what its user
                 can. seccomp refuses sockets; outside Linux Python does, which a program can circumvent. Used only with
                 `isolation=process`.

Root's tools run as the user `nobody`, without groups and capabilities. They run as root only with `isolation=process`
and where root itself may not change its user.

All levels limit time, processor time, memory, files and open files, and disable core dumps. The kernel limits the
memory of each process; the memory and files of all processes together are counted ten times a second. seccomp refuses
memory that is not attributed to a process (System V, `memfd_create`, spliced pipes, inotify watches). Not covered:
allocations between two counts; buffers of sockets and pipes, about 200 kB for each open file; threads that a call
leaves behind, which run until their processor time is used up or the conversation ends; vulnerabilities of the kernel.
With `network=True` a tool reaches everything that we reach, including the services of this machine and its neighbours.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from tltrain.environments.pipes import pipes
from tltrain.environments.sandbox_folders import ToolFolder
from tltrain.environments.sandbox_kernel import descendants, send_signal
from tltrain.environments.sandbox_library import readable
from tltrain.environments.sandbox_machine import bubblewraps, environment, system_paths, tool_user
from tltrain.environments.sandbox_worker import cut
from tltrain.errors import TltrainError

log = logging.getLogger(__name__)

ISOLATION_LEVELS = ("namespaces", "landlock", "process")
CHILD = Path(__file__).with_name("sandbox_child.py")
GRACE = 10.0
"""Seconds past a limit after which a supervisor that has not answered is killed too."""
MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one tool process may use. `seconds` apply to a call, and separately to loading the module."""

    seconds: float = 10.0
    memory: int = 2048  # MB of address space of each process, and of memory that all of them use together
    output: int = 4000  # characters of an answer
    disk: int = 64  # MB of all files together
    processes: int = 64  # including threads; without namespaces eight times as many, for all tools together
    files: int = 128  # open at once


@dataclass(frozen=True, slots=True)
class Isolation:
    """The isolation in effect: one of `ISOLATION_LEVELS`, and what refuses the network ("on" if it is allowed)."""

    level: str
    network: str


class ToolSession(Protocol):
    """Isolated tools. The owner of the session starts and ends them; implementations choose how to isolate them.

    `Sandbox` calls the functions of a module. A long-lived tool server would be another class with these methods.
    """

    def start(self) -> Isolation:
        """Start the process and return its isolation. Raises if it cannot be started."""
        ...

    def call(self, function: str, arguments: Mapping[str, Any]) -> str:
        """Return a tool's answer as text, errors included; starts the process if there is none. Never raises."""
        ...

    def close(self) -> None:
        """End the process and everything it started."""
        ...


class Sandbox:
    """A process for one module of a tool library, started at the first call. Not thread-safe.

    Args:
        library: the folder from which modules are loaded. The process may read all of it.
        module: the module's dotted name, from an index of the library, never from a model.
        functions: the names that may be called.
        level: one of `ISOLATION_LEVELS`; None: the strongest level of this machine other than `process`.
        source: the folder that `sandbox_library.readable` returns; None: it is called when the process starts.
    """

    def __init__(
        self,
        library: Path,
        module: str,
        functions: Collection[str],
        limits: Limits | None = None,
        network: bool = False,
        level: str | None = None,
        source: Path | None = None,
    ) -> None:
        self.library, self.module, self.functions = Path(library).resolve(), module, frozenset(functions)
        self.limits, self.network = limits or Limits(), network
        self.level, self.source = level, source
        self.load_error: str | None = None
        """Why the module could not be loaded, which is then the answer to every call; None if it could."""
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: ToolFolder | None = None

    def call(self, function: str, arguments: Mapping[str, Any]) -> str:
        """Return the function's result as JSON, or a text that begins with `Error: `. Never raises."""
        if function not in self.functions:
            return f"Error: there is no tool named {_printable(function[:200])}"
        try:
            request = json.dumps({"function": function, "arguments": dict(arguments)}).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            return f"Error: the arguments cannot be written as JSON: {error}"
        try:
            answer = self._load() or self._ask(request)
        except (_Gone, OSError, TltrainError) as gone:
            self.close()
            answer = f"Error: {gone}"
        except BaseException:  # such as Ctrl-C: a late answer would be taken for the answer to the next call
            self.close()
            raise
        return cut(_printable(answer), self.limits.output)

    def loaded(self) -> str | None:
        """Load the module and return None, or an error as text. Never raises."""
        try:
            return self._load()
        except (_Gone, OSError, TltrainError) as gone:
            self.close()
            return f"Error: {gone}"

    def _load(self) -> str | None:
        if self._process is None:
            self.load_error = None
            self.start()
            self.load_error = self._ask(b'{"function": null, "arguments": {}}\n') or None
        return self.load_error

    def start(self) -> Isolation:
        """Start the process without loading a tool.

        Raises:
            _Gone: the kernel refuses what `level` requires.
            TltrainError: the tools' user cannot read the library, or no level is strong enough.
        """
        level = self.level or isolation(network=self.network).level
        user = tool_user(level)
        source = self.source or readable(self.library, user)
        self._folder = ToolFolder()
        process = self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-B", str(CHILD), self._folder.path],  # its path, for process lists
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment(self.network),
            start_new_session=True,
            bufsize=0,
        )
        requests, _ = pipes(process)
        os.set_blocking(requests.fileno(), False)
        hello = self._exchange(json.dumps(self._config(level, user, source)).encode() + b"\n", 60)
        return Isolation(hello["level"], hello["network"])

    def close(self) -> None:
        """End the process and everything it started; the next call starts another."""
        process, self._process = self._process, None
        if process is not None:
            requests, answers = pipes(process)
            requests.close()  # the supervisor then ends its worker and itself
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            if process.returncode is None:
                _kill_all(process)
            answers.close()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _config(self, level: str, user: int | None, source: Path) -> dict[str, Any]:
        if self._folder is None:
            raise _Gone("the process that runs the tools was not started")
        limits = self.limits
        return {
            "level": level,
            "user": user,
            "network": self.network,
            "folder": self._folder.path,
            "home": self._folder.make("home"),
            "bwrap": bubblewraps() if level == "namespaces" else [],
            "library": str(self.library),
            "library_source": str(source),
            "module": self.module,
            "functions": sorted(self.functions),
            "read": list(system_paths()),
            "seconds": limits.seconds,
            "output": limits.output,
            "memory": limits.memory * MB,
            "disk": limits.disk * MB,
            "processes": limits.processes,
            "files": limits.files,
            "cpu": int(limits.seconds * 1000) + 60,
        }

    def _ask(self, request: bytes) -> str:
        return str(self._exchange(request, self.limits.seconds + GRACE)["text"])

    def _exchange(self, request: bytes, seconds: float) -> dict[str, Any]:
        """Send a line to the supervisor and read its reply. Raises `_Gone` with the reason if there is no reply."""
        if self._process is None:
            raise _Gone("the process that runs the tools was not started")
        deadline = time.monotonic() + seconds
        outward, inward = (pipe.fileno() for pipe in pipes(self._process))
        poll = select.poll()
        poll.register(inward, select.POLLIN)
        poll.register(outward, select.POLLOUT)
        received = bytearray()
        while (left := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                if fd == outward:
                    with contextlib.suppress(BrokenPipeError):  # the reply gives the reason
                        request = request[os.write(fd, request) :]
                        if request:
                            continue
                    poll.unregister(fd)
                    continue
                chunk = os.read(fd, 65536)
                received += chunk
                if not chunk or len(received) > 12 * self.limits.output + 65536:
                    raise _Gone("the process that runs the tools ended")
                if received.endswith(b"\n"):
                    reply = json.loads(received)
                    if "fault" in reply:
                        raise _Gone(reply["fault"])
                    return reply
        raise _Gone(f"the tool took longer than {self.limits.seconds:g} s")


class _Gone(Exception):
    """The process can no longer be used; the message gives the reason."""


_lock = threading.Lock()


def isolation(minimum: str = "auto", network: bool = False) -> Isolation:
    """Return the strongest isolation of this machine. It is determined and logged once, with a module of our own.

    Args:
        minimum: the weakest of `ISOLATION_LEVELS` to accept; `auto` is `landlock`.

    Raises:
        TltrainError: the machine's isolation is weaker than `minimum`.
    """
    weakest = "landlock" if minimum == "auto" else minimum
    refusals: list[str] = []
    with _lock:
        for level in ISOLATION_LEVELS[: ISOLATION_LEVELS.index(weakest) + 1]:
            found = _probe(level, network)
            if isinstance(found, Isolation):
                _say_once(*_announcement(found, refusals))
                return found
            refusals.append(f"{level}: {found}")
    raise TltrainError(
        f"benchmark.isolation={minimum}: this machine has no such isolation ({'; '.join(refusals)}); {REMEDY}"
    )


REMEDY = (
    "install bubblewrap and allow user namespaces, or run in a container or machine that may be harmed and type "
    "benchmark.isolation=process"
)


@cache
def _probe(level: str, network: bool) -> Isolation | str:
    """Return the isolation that `level` gives on this machine, or why it is not available."""
    folder = None
    try:
        folder = ToolFolder()
        library = Path(folder.make("library"))
        (library / "probe.py").write_text("import os\n\n\ndef user():\n    return os.getuid()\n", encoding="utf-8")
        for path, mode in ((library / "probe.py", 0o644), (library, 0o755)):
            path.chmod(mode)
        with Sandbox(library, "probe", {"user"}, Limits(), network, level) as trial:
            found = trial.start()
            answer = trial.call("user", {})
        expected = tool_user(level)
        if answer != str(os.getuid() if expected is None else expected):
            return f"a tool did not run as it should: {answer}"
        return found
    except (_Gone, OSError, TltrainError) as error:
        return str(error)
    finally:
        if folder is not None:
            folder.close()


def _announcement(found: Isolation, refusals: list[str]) -> tuple[int, str]:
    """Return the log level and the message about the isolation in effect."""
    means = {
        "namespaces": "they see only system files and the tool library",
        "landlock": "they read only system files and the tool library and write only a temporary folder",
        "process": "they can read and write whatever their user can; use a container",
    }[found.level]
    user = "" if os.geteuid() else " as the user nobody" if tool_user(found.level) is not None else " AS ROOT"
    network = "the network is on" if found.network == "on" else f"the network is {found.network}"
    without = f" without the isolation of {'; '.join(refusals)}" if refusals else ""
    text = f"tools run{user} at isolation level {found.level}{without}: {means}; {network}"
    return logging.WARNING if refusals else logging.INFO, text


@cache
def _say_once(severity: int, text: str) -> None:
    log.log(severity, "%s", text)


def _printable(text: str) -> str:
    """Replace lone surrogates, which neither files nor tokenizers accept."""
    return text.encode("utf-8", "replace").decode()


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill a supervisor that does not end by itself, and all its descendants."""
    for pid in [*descendants(process.pid), process.pid]:
        with contextlib.suppress(OSError):
            send_signal(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
