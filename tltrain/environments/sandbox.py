"""Tools of others, run where they can do no harm: in processes without our memory, environment, files or network.

A `Sandbox` runs the functions of one module. Its process is started anew by `exec` (never forked from ours), with a
clean environment, and lives as long as a conversation, so that a module is loaded once and keeps its state from call to
call; one that died or hung is replaced at the next call. Only text comes back, at most `Limits.output` characters of
it, and whatever goes wrong is such a text. `sandbox_child.py`, `sandbox_worker.py` and `sandbox_kernel.py` run there.

How much the kernel helps is found out once (`isolation`), the best first:

    namespaces   The tool is nobody in a world of its own: the Python installation, system libraries and the tool
                 library, all read-only, an empty /tmp in memory, no other process, no network. Ending it ends all that
                 it started.
    landlock     Where namespaces are forbidden, as in most containers. The tool runs as us (for root: as nobody, where
                 nobody can read Python and the library), but can read only what is listed above, write only an empty
                 temporary folder, and open no socket. Processes that it leaves behind are found by their ancestry. As
                 root their number has no limit; before Linux 6.12 it can send signals to processes of its user.
    process      Neither: a process with limits and a clean environment, no more. It can read and write what its user
                 can. Sockets are refused by seccomp, or failing that (not on Linux) by Python, which a program can go
                 round.

Everywhere: limits of time, processor time, memory, file size and open files; no core dumps. Not covered: memory is
limited for each process, not for all together; a thread that a call leaves behind runs on until its processor time is
used up or the conversation ends; `landlock` and `process` limit the size of a file, not how many there are; a hole in
the kernel. With `network=True` a tool reaches whatever we reach, the services of this machine and its neighbours too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tltrain.environments.pipes import pipes
from tltrain.environments.sandbox_kernel import descendants
from tltrain.environments.sandbox_worker import cut
from tltrain.errors import TltrainError

log = logging.getLogger(__name__)

ISOLATION_LEVELS = ("namespaces", "landlock", "process")
CHILD = Path(__file__).with_name("sandbox_child.py")
GRACE = 10.0
"""Seconds beyond a limit after which the supervisor, which should have answered, is ended too."""
MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one tool process may use. `seconds` are those of a call, and again those of loading the module."""

    seconds: float = 10.0
    memory: int = 2048  # MB of address space of a process
    output: int = 4000  # characters of an answer
    disk: int = 64  # MB of a file; with namespaces of all files
    processes: int = 64  # and threads; without namespaces eight times as many, for all tools together
    files: int = 128  # open at once


@dataclass(frozen=True, slots=True)
class Isolation:
    """What was reached: one of `ISOLATION_LEVELS`, and who refuses the network ("on" where it is allowed)."""

    level: str
    network: str


class Sandbox:
    """A process for one module of a tool library, started at the first call. Not for several threads at once.

    Args:
        library: the folder that modules are loaded from. The process may read all of it.
        module: the module's dotted name, from an index of the library, never from a model.
        functions: the names that may be called.
        level: one of `ISOLATION_LEVELS`; None: the best there is.
    """

    def __init__(
        self,
        library: Path,
        module: str,
        functions: Collection[str],
        limits: Limits | None = None,
        network: bool = False,
        level: str | None = None,
    ) -> None:
        self.library, self.module, self.functions = Path(library).resolve(), module, frozenset(functions)
        self.limits, self.network = limits or Limits(), network
        self.level = level
        self.load_error: str | None = None
        """Why the module could not be loaded, if it could not; every call is then answered with it."""
        self._process: subprocess.Popen[bytes] | None = None
        self._home: str | None = None

    def call(self, function: str, arguments: Mapping[str, Any]) -> str:
        """What the function returns, as JSON, or a text that begins with `Error: `. Never raises."""
        if function not in self.functions:
            return f"Error: there is no tool named {_printable(function[:200])}"
        try:
            request = json.dumps({"function": function, "arguments": dict(arguments)}).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            return f"Error: the arguments cannot be written as JSON: {error}"
        try:
            if self._process is None:
                self.load_error = None
                self.start()
                if text := self._ask(b'{"function": null, "arguments": {}}\n'):
                    self.load_error = text
            answer = self.load_error or self._ask(request)
        except (_Gone, OSError) as gone:
            self.close()
            answer = f"Error: {gone}"
        except BaseException:  # such as Ctrl-C: an answer that comes later would be taken for that of the next call
            self.close()
            raise
        return cut(_printable(answer), self.limits.output)

    def start(self) -> Isolation:
        """Start the process; no tool is loaded yet. Raises `_Gone` where the kernel refuses what `level` asks for."""
        level = self.level or isolation(self.network, self.library).level
        self._home = tempfile.mkdtemp(prefix="tltrain-tool-")
        process = self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(CHILD), self._home],  # the last to be known by in a list of processes
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_environment(self.network),
            start_new_session=True,
            bufsize=0,
        )
        requests, _ = pipes(process)
        os.set_blocking(requests.fileno(), False)
        hello = self._exchange(json.dumps(self._config(level)).encode() + b"\n", 60)
        return Isolation(hello["level"], hello["network"])

    def close(self) -> None:
        """End the process and everything it started; the next call starts another."""
        process, self._process = self._process, None
        if process is not None:
            requests, answers = pipes(process)
            requests.close()  # by this the supervisor ends its worker, and itself
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            if process.returncode is None:
                _kill_all(process)
            answers.close()
        home, self._home = self._home, None
        if home is not None:
            _remove(home)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _config(self, level: str) -> dict[str, Any]:
        limits = self.limits
        return {
            "level": level,
            "network": self.network,
            "home": self._home,
            "library": str(self.library),
            "module": self.module,
            "functions": sorted(self.functions),
            "read": [*_system_paths(), str(self.library)],
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
        """Send a line to the supervisor, read one. Raises `_Gone` with what is to be told, if there is no answer."""
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
                    with contextlib.suppress(BrokenPipeError):  # then the other end tells why, or is closed
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
    """The process is of no use any more, and why."""


@cache
def _isolation(network: bool, library: Path) -> Isolation:
    refusals = []
    for level in ISOLATION_LEVELS:
        with Sandbox(library, "none", (), Limits(), network, level) as trial:
            try:
                found = trial.start()
            except (_Gone, OSError) as error:
                refusals.append(f"{level}: {error}")
                continue
        if refusals:
            _say_once(_shortfall(found, refusals))
        return found
    raise TltrainError(f"no process for tools can be started here: {'; '.join(refusals)}")


_lock = threading.Lock()


def isolation(network: bool = False, library: Path = CHILD.parent) -> Isolation:
    """The best isolation that this machine allows for the tools of a library; what is missing is said once.

    Raises:
        TltrainError: not even a process of its own can be started.
    """
    with _lock:
        return _isolation(network, library)


def _shortfall(found: Isolation, refusals: list[str]) -> str:
    means = {
        "landlock": "they read only system files and the tool library and write only a temporary folder",
        "process": "they can read and write whatever this user can; use a container",
    }[found.level]
    network = "" if found.network == "on" else f"; the network is {found.network}"
    return f"tools run without the isolation of {'; '.join(refusals)}: {means}{network}"


@cache
def _say_once(warning: str) -> None:
    log.warning("%s", warning)


def _environment(network: bool) -> dict[str, str]:
    """All that tools see of our environment: nothing secret."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "USER": "tool",
        **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")},
    }
    passed = ["LD_LIBRARY_PATH"] if os.environ.get("LD_LIBRARY_PATH") else []
    if network:  # a proxy's address, unless it holds a password
        passed += [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "no_proxy")]
    return environment | {name: os.environ[name] for name in passed if "@" not in os.environ[name]}


@cache
def _system_paths() -> tuple[str, ...]:
    """What Python, its libraries and the programs of the system need to read."""
    etc = "ld.so.cache ld.so.conf ld.so.conf.d alternatives ssl ca-certificates pki localtime timezone mime.types fonts"
    etc += " nsswitch.conf resolv.conf hosts host.conf gai.conf services protocols passwd group"
    paths = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store"]
    paths += [f"/etc/{name}" for name in etc.split()]
    paths += [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
    paths += [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path.startswith("/")]
    paths += [os.path.realpath(path) for path in paths]
    return tuple(path for path in dict.fromkeys(paths) if path != "/" and os.path.lexists(path))


def _printable(text: str) -> str:
    """Without halves of surrogate pairs, which no file and no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """End a supervisor that does not end by itself, and all below it."""
    for pid in [*descendants(process.pid), process.pid]:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)


def _remove(folder: str) -> None:
    """Delete what a tool left, however it made it; links are not followed."""
    with contextlib.suppress(RecursionError):  # folders in folders in folders ...
        shutil.rmtree(folder, ignore_errors=True)
    if os.path.isdir(folder):
        subprocess.run(["rm", "-rf", "--", folder], check=False, stderr=subprocess.DEVNULL)
