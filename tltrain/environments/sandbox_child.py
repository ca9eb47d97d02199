"""The other side of `sandbox.py`: two processes that share nothing with ours; run as a script by an isolated Python.

    ours  <-- JSON lines -->  supervisor  <-- JSON lines -->  worker

The supervisor is ours and runs no tool. It locks the worker up, waits for it no longer than allowed, kills whatever a
call leaves running, and ends with everything below it as soon as its own input is closed, so when our process is killed
too. The worker loads one module of the library and calls the functions that are documented, and those only; names and
arguments arrive as JSON.

    in     the configuration                          out    {"level": ..., "network": ...}
           {"function": null, "arguments": {}}               {"text": ""}, or why the module cannot be loaded
           {"function": name, "arguments": {...}}            {"text": ...}, as often as asked

or, at any point, `{"fault": ...}` as the last line: the worker is gone.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import resource
import select
import signal
import sys
import time

# Kept, so that a tool which changes these modules does not change what we do.
_encode, _decode, _write = json.JSONEncoder().encode, json.JSONDecoder().decode, os.write


class Fault(Exception):
    """Why there is no answer and the worker has to go."""


class Closed(Exception):
    """Our process wants no more."""


# --- supervisor -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Read the configuration, start a worker, hand requests over until the input is closed."""
    requests, answers = _take_channels()
    lines = os.fdopen(requests, "rb")
    config = json.loads(lines.readline())
    kernel = _kernel()
    worker = None
    try:
        worker = Worker(config, kernel, requests)
        _send(answers, worker.hello())
        while line := lines.readline():
            _send(answers, {"text": worker.ask(line, config["seconds"])})
    except Fault as fault:
        status = f" ({worker.end()})" if worker and str(fault) == ENDED else ""
        _send(answers, {"fault": f"{fault}{status}"})
    except (Closed, BrokenPipeError):
        pass
    finally:
        if worker:
            worker.kill()
        with contextlib.suppress(OSError):  # also where our process is no more to do it
            os.rmdir(config["home"])


ENDED = "the tool ended its process"


def _take_channels() -> tuple[int, int]:
    """Standard input and output under other numbers; in their place, and for errors, nothing."""
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    return requests, answers


def _kernel():
    """`sandbox_kernel.py` beside this file: an isolated Python does not look there by itself."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sandbox_kernel.py")
    spec = importlib.util.spec_from_file_location("_tltrain_sandbox_kernel", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _send(fd: int, value: dict) -> None:
    data = memoryview(_encode(value).encode() + b"\n")
    while data:
        data = data[_write(fd, data) :]


class Worker:
    """The process that runs tools, seen from outside of it."""

    def __init__(self, config: dict, kernel, parent: int) -> None:
        self.parent = parent
        self.most = 12 * config["output"] + 4096  # bytes of an answer: a character is up to 12 of them in JSON
        os.chdir("/")
        if kernel.LINUX:
            kernel.adopt_orphans()
        if config["level"] == "namespaces":
            try:
                kernel.new_users_and_processes()
            except OSError as error:
                raise Fault(str(error)) from None
        inward, self.requests = os.pipe()
        self.answers, outward = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                for fd in set(range(3, 64)) - {inward, outward}:
                    with contextlib.suppress(OSError):
                        os.close(fd)
                run(config, kernel, inward, outward)
                status = 0
            finally:
                os._exit(status)
        os.close(inward)
        os.close(outward)
        os.set_blocking(self.requests, False)
        self.ended = False

    def hello(self) -> dict:
        """What the worker says of itself once it is locked up."""
        reply = json.loads(self._exchange(b"", 30, "its start"))
        if "fault" in reply:
            raise Fault(reply["fault"])
        return reply

    def ask(self, line: bytes, seconds: float) -> str:
        """The answer to a request; afterwards nothing that the call started is left."""
        nonce = os.urandom(8).hex()  # what the worker wrote unasked answers nothing
        request = json.dumps({**json.loads(line), "nonce": nonce}).encode() + b"\n"
        reply = self._exchange(request, seconds, "the tool")
        try:
            found = json.loads(reply)
            if found["nonce"] != nonce:
                raise ValueError
            text = found["text"] + ""
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Fault("what came back from the tool is no answer") from None
        self._sweep()
        return text

    def _exchange(self, request: bytes, seconds: float, who: str) -> bytes:
        """Write a line, read a line; neither waits beyond `seconds` or for more than `most` bytes."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.parent, 0)  # hang-up is told unasked
        poll.register(self.answers, select.POLLIN)
        if request:
            poll.register(self.requests, select.POLLOUT)
        received = bytearray()
        while (left := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
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
        """Kill what the worker has started and not ended: in some rounds, since meanwhile it may start more."""
        for _ in range(50):
            left = [pid for pid in descendants(os.getpid()) if pid != self.pid]
            if not left:
                return
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in left:
                    with contextlib.suppress(OSError):
                        os.kill(pid, number)
            for pid in left:
                with contextlib.suppress(OSError):
                    os.waitpid(pid, os.WNOHANG)
        raise Fault("the tool starts processes faster than they can be ended")

    def end(self) -> str:
        """How the worker ended."""
        with contextlib.suppress(OSError):
            for _ in range(100):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.ended = True
                    code = os.waitstatus_to_exitcode(status)
                    return f"status {code}" if code >= 0 else signal.Signals(-code).name
                time.sleep(0.01)
        return "its channel closed"

    def kill(self) -> None:
        """End the worker and all below it; with namespaces the kernel does the second by itself."""
        if not self.ended:
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        self.pid = -1
        with contextlib.suppress(Fault):
            self._sweep()


def descendants(root: int) -> set[int]:
    """The processes below one, ended ones that nobody has waited for left out."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state not in (b"Z", b"X"):
                    children.setdefault(int(parent), []).append(int(name))
    found: set[int] = set()
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


# --- worker ---------------------------------------------------------------------------------------------------------


def run(config: dict, kernel, requests: int, answers: int) -> None:
    """Lock this process up as the configuration says, tell how, and answer requests."""
    try:
        hello = lock_up(config, kernel)
    except (OSError, AttributeError) as error:  # the second: a C library without that function
        _send(answers, {"fault": str(error)})
        return
    _send(answers, hello)
    tools = Tools(config)
    with os.fdopen(requests, "rb") as lines:
        for line in lines:
            request = _decode(line.decode())
            text = tools.answer(request)
            _send(answers, {"nonce": request["nonce"], "text": text})
            with contextlib.suppress(OSError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def lock_up(config: dict, kernel) -> dict:
    """Take from this process what tools do not need. Raises OSError where the kernel does not do what was asked for."""
    level, network, home = config["level"], config["network"], config["home"]
    root = kernel.LINUX and os.getuid() == 0
    user = None
    if level == "namespaces":
        kernel.new_world(home, config["read"], config["disk"], network)
        home = "/tmp/home"
        os.mkdir(home)
        user = kernel.NOBODY if root else None
        if user:
            os.chown(home, user, user)
    os.chdir(home)
    os.environ.update(HOME=home, TMPDIR=home)
    os.umask(0o077)
    if kernel.LINUX:
        kernel.drop_rights(user)
    kernel.limit(config["memory"], config["disk"], config["processes"], config["files"], config["cpu"])
    if level == "landlock":
        own = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]
        proc = [f"/proc/{name}" for name in (os.getpid(), "meminfo", "cpuinfo", "stat", "filesystems")]
        kernel.landlock([*config["read"], *own, *proc], [home, "/dev/null"], network)
    refuses = "the kernel"
    try:
        families = kernel.FAMILIES.values() if network or level == "namespaces" else ()
        kernel.seccomp(list(families))
    except (OSError, AttributeError):
        if level == "landlock":
            raise
        if not network and level == "process":
            refuses = "Python"
            sys.addaudithook(_no_sockets)
    if kernel.LINUX:
        kernel.die_with_parent()
    return {"level": level, "network": "on" if network else f"refused by {refuses}"}


def _no_sockets(event: str, arguments: object) -> None:
    """The weakest way: sockets of Python's own; a library in C, or another program, has others."""
    if event.startswith("socket.") and event not in ("socket.gethostname", "socket.sethostname"):
        raise PermissionError("the network is off")


class Tools:
    """One module of the library, loaded when first asked for; its state lives as long as the process."""

    def __init__(self, config: dict) -> None:
        self.library, self.module, self.functions = config["library"], config["module"], set(config["functions"])
        self.output, self.seconds = config["output"], config["seconds"]
        self.encode = json.JSONEncoder(ensure_ascii=False).encode
        self.loaded = None

    def answer(self, request: dict) -> str:
        """What a function returns, as JSON; what goes wrong, as text that begins with `Error: `."""
        try:
            self._more_cpu()
            if self.loaded is None:
                sys.path.insert(0, self.library)
                self.loaded = importlib.import_module(self.module)
            name = request["function"]
            if name is None:
                return ""
            function = getattr(self.loaded, name, None) if name in self.functions else None
            if not callable(function):
                return f"Error: there is no tool named {name} in the library"
            return cut(self.encode(function(**request["arguments"])), self.output)
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: a tool must not end the conversation
            return cut(f"Error: {describe(error)}", self.output)

    def _more_cpu(self) -> None:
        """Processor time for one more call; a thread that a call left behind uses it up."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        soft = int(used.ru_utime + used.ru_stime + self.seconds) + 2
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CPU, (min(soft, hard) if hard > 0 else soft, hard))


def describe(error: BaseException) -> str:
    """An exception's message; its type too where the message alone would say nothing."""
    try:
        kind = type.__getattribute__(type(error), "__name__")
    except BaseException:
        kind = "an error without a name"
    try:
        message = str.__str__(str(error))
    except BaseException:
        return f"{kind}, whose message cannot be shown"
    if not message or not isinstance(error, Exception) or isinstance(error, KeyError | RecursionError | MemoryError):
        return f"{kind}: {message}" if message else kind
    return message


def cut(text: str, most: int) -> str:
    """`text` in at most `most` characters; at the end of a longer one stands that it was cut."""
    if len(text) <= most:
        return text
    note = f"... [cut: {len(text):,} characters]"
    return text[: most - len(note)] + note if most > len(note) else text[:most]


if __name__ == "__main__":
    main()
