"""The process that runs tools: locks itself up, loads one module, calls its documented functions.

Part of the process that `sandbox_child.py` is: it imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import stat
import sys
from types import ModuleType

# Kept, so that a tool which changes these modules does not change what we do.
_encode, _decode, _write = json.JSONEncoder().encode, json.JSONDecoder().decode, os.write


def send(fd: int, value: dict) -> None:
    """Write a line of JSON."""
    data = memoryview(_encode(value).encode() + b"\n")
    while data:
        data = data[_write(fd, data) :]


def run(config: dict, kernel: ModuleType, requests: int, answers: int) -> None:
    """Lock this process up as the configuration says, tell how, and answer requests."""
    try:
        hello = lock_up(config, kernel)
    except (OSError, AttributeError) as error:  # the second: a C library without that function
        send(answers, {"fault": getattr(error, "strerror", None) or str(error)})
        return
    if os.getpid() == 1:
        _stay_behind()
        kernel.die_with_parent()
    send(answers, hello)
    tools = Tools(config)
    with os.fdopen(requests, "rb") as lines:
        for line in lines:
            with contextlib.suppress(OSError):  # what the last call left was killed, and counts until waited for
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            request = _decode(line.decode())
            text = tools.answer(request)
            send(answers, {"nonce": request["nonce"], "text": text})


def _stay_behind() -> None:
    """Go on as a child; the parent waits for it, and for every orphan, and ends as it did.

    The first process of a namespace is no ordinary one: most signals do not reach it, that for used up processor time
    among them.
    """
    child = os.fork()
    if child == 0:
        os.setsid()
        return
    os.closerange(3, 64)
    while True:
        with contextlib.suppress(ChildProcessError):
            pid, status = os.wait()
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else SIGNALLED - code)


SIGNALLED = 128
"""Added to a signal's number where a status has to tell of it, as shells do."""


def lock_up(config: dict, kernel: ModuleType) -> dict:
    """Take from this process what tools do not need. Raises OSError where the kernel does not do what was asked for."""
    level, network, home, library = config["level"], config["network"], config["home"], config["library"]
    root = kernel.LINUX and os.getuid() == 0
    user = kernel.NOBODY if root and (level == "namespaces" or can_use(kernel.NOBODY, library, home)) else None
    if level == "namespaces":
        copied = [library] if user and not readable_by_others(library) else []
        kernel.new_world(home, config["read"], copied, config["disk"], network)
        home = "/tmp/home"
        os.mkdir(home)
    if user:
        os.chown(home, user, user)
    os.chdir(home)
    os.environ.update(HOME=home, TMPDIR=home)
    os.umask(0o077)
    if kernel.LINUX:
        kernel.drop_rights(user)
    if user and not os.access(os.path.dirname(os.__file__), os.R_OK | os.X_OK):
        raise OSError(f"{os.path.dirname(os.__file__)} can be read by root alone")
    processes = config["processes"]
    if level != "namespaces":  # there all that the user runs counts, now and later: leave room
        running = kernel.own_threads()
        processes = None if running is None else running + 8 * processes
    kernel.limit(config["memory"], config["disk"], processes, config["files"], config["cpu"])
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


def can_use(user: int, library: str, home: str) -> bool:
    """For root: whether another user gets to Python, to the library, and to where its own folder lies."""
    os.setgroups([])
    os.setegid(user)
    os.seteuid(user)
    try:
        places = (os.path.dirname(os.__file__), library)
        return (
            all(os.access(place, os.R_OK | os.X_OK, effective_ids=True) for place in places)
            and os.access(os.path.dirname(home), os.X_OK, effective_ids=True)
            and readable_by_others(library)
        )
    finally:
        os.seteuid(0)
        os.setegid(0)


def readable_by_others(folder: str) -> bool:
    """Whether a user without rights of their own can read all that is in a folder."""
    for path, folders, files in os.walk(folder):
        for name in ("", *folders, *files):
            mode = os.lstat(os.path.join(path, name)).st_mode
            if not mode & stat.S_IROTH or (stat.S_ISDIR(mode) and not mode & stat.S_IXOTH):
                return False
    return True


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
        self.loaded: ModuleType | None = None

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
