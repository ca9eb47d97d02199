"""The process that runs tools: it confines itself, loads one module, and calls its documented functions.

It imports only the standard library. With namespaces bubblewrap starts it as a script; otherwise it is a fork of the
supervisor (`sandbox_child.py`).
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import json
import os
import resource
import stat
import sys
from types import ModuleType
from typing import Any, BinaryIO

# References of our own: a tool may change these modules.
_encode, _decode, _write = json.JSONEncoder().encode, json.JSONDecoder().decode, os.write


def send(fd: int, value: dict) -> None:
    """Write a line of JSON."""
    data = memoryview(_encode(value).encode() + b"\n")
    while data:
        data = data[_write(fd, data) :]


def take_channels() -> tuple[int, int]:
    """Move standard input and output to other descriptors, and replace them and standard error by the null device."""
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    return requests, answers


def run(config: dict, kernel: ModuleType, seccomp: ModuleType, lines: BinaryIO, answers: int) -> None:
    """Confine this process as the configuration says, report how, and answer requests."""
    try:
        hello = lock_up(config, kernel, seccomp)
    except (OSError, AttributeError) as error:  # AttributeError: a C library without that function
        send(answers, {"fault": getattr(error, "strerror", None) or str(error)})
        return
    send(answers, hello)
    tools = Tools(config)
    with lines:
        for line in lines:
            with contextlib.suppress(OSError):  # killed processes of the last call count until they are waited for
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            request = _decode(line.decode())
            text = tools.answer(request)
            send(answers, {"nonce": request["nonce"], "text": text})


SIGNALLED = 128
"""Added to a signal's number in an exit status, as shells and bubblewrap do."""


def lock_up(config: dict, kernel: ModuleType, seccomp: ModuleType) -> dict:
    """Take the rights from this process that tools do not need. Raises OSError if the kernel refuses."""
    level, network, home, user = config["level"], config["network"], config["home"], config["user"]
    read = config["read"] if level == "namespaces" else [*config["read"], config["library"]]
    if user is not None and level != "namespaces":  # with namespaces every user can write to /tmp
        os.chown(home, user, user)
        read = keep_reachable(read)
    os.umask(0o077)
    if level != "namespaces":
        os.chdir(home)
    if kernel.LINUX:
        try:
            kernel.drop_rights(user)
        except PermissionError as error:
            raise OSError(f"this process may not become the user nobody: {error.strerror}") from None
    if level == "namespaces":
        os.mkdir(home)
        os.chdir(home)
    os.environ.update(HOME=home, TMPDIR=home)
    if user is not None:
        check_readable()
    processes = config["processes"]
    if level != "namespaces":  # there all processes of the user count: leave room for others
        running = kernel.own_threads()
        processes = None if running is None else running + 8 * processes
    kernel.limit(config["memory"], config["disk"], processes, config["files"], config["cpu"])
    if level == "landlock":
        own = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]
        proc = [f"/proc/{name}" for name in (os.getpid(), "meminfo", "cpuinfo", "stat", "filesystems")]
        kernel.landlock([*read, *own, *proc], [".", "/dev/null"], network)
    refuses = "the kernel"
    try:
        families = seccomp.FAMILIES.values() if network or level == "namespaces" else ()
        seccomp.seccomp(list(families))
    except (OSError, AttributeError):
        if level != "process":
            raise
        if not network:
            refuses = "Python"
            sys.addaudithook(_no_sockets)
    if kernel.LINUX:
        kernel.die_with_parent()
    return {"level": level, "network": "on" if network else f"refused by {refuses}"}


def keep_reachable(folders: list[str]) -> list[str]:
    """Open the folders that another user cannot enter, and make Python load its modules through the descriptors.

    Python is often installed below /root, which `nobody` cannot enter. An open folder can be reached through /proc
    regardless of its parents; the files in it keep their permissions. Returns `folders` with those paths replaced.
    """
    opened = {}
    for folder in folders:
        if os.path.isdir(folder) and not _others_may_enter(folder):
            opened[folder] = f"/proc/self/fd/{os.open(folder, os.O_PATH)}"

    def through(path: str) -> str:
        for folder, replacement in opened.items():
            if path == folder or path.startswith(f"{folder}/"):
                return replacement + path.removeprefix(folder)
        return path

    sys.path[:] = map(through, sys.path)
    for module in list(sys.modules.values()):
        for name in ("__path__", "__file__"):
            value = getattr(module, name, None)
            if isinstance(value, str):
                setattr(module, name, through(value))
            elif isinstance(value, list):
                value[:] = map(through, value)
    sys.path_importer_cache.clear()
    return [opened.get(folder, folder) for folder in folders]


def _others_may_enter(folder: str) -> bool:
    path = os.path.realpath(folder)
    while os.stat(path).st_mode & stat.S_IXOTH:
        if path == "/":
            return True
        path = os.path.dirname(path)
    return False


def check_readable() -> None:
    """Raise OSError unless this process's user can read Python's standard library."""
    library = os.path.dirname(os.__file__)
    if not os.access(library, os.R_OK | os.X_OK) or not os.access(os.__file__, os.R_OK):
        raise OSError(f"the user nobody cannot read {library}")


def _no_sockets(event: str, arguments: object) -> None:
    """Refuse Python's sockets, the weakest way: C libraries and other programs are not affected."""
    if event.startswith("socket.") and event not in ("socket.gethostname", "socket.sethostname"):
        raise PermissionError("the network is off")


class Tools:
    """One module of the library, loaded at the first request; its state lives as long as the process."""

    def __init__(self, config: dict) -> None:
        self.library, self.module, self.functions = config["library"], config["module"], set(config["functions"])
        self.output, self.seconds = config["output"], config["seconds"]
        self.encode = json.JSONEncoder(ensure_ascii=False, default=plain).encode
        self.loaded: ModuleType | None = None

    def answer(self, request: dict) -> str:
        """Return a function's result as JSON, and an error as text that begins with `Error: `."""
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
        """Allow processor time for one more call; threads that earlier calls left behind use it too."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        soft = int(used.ru_utime + used.ru_stime + self.seconds) + 2
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CPU, (min(soft, hard) if hard > 0 else soft, hard))


def plain(value: Any) -> Any:
    """Return a value of a common type as one that JSON holds, in an order that repeats. Raises TypeError for others.

    Dataclasses and pydantic models become objects, sets and arrays lists, members of an Enum their values, dates,
    decimal numbers and paths texts.
    """
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in kind.__dataclass_fields__}
    if hasattr(kind, "model_dump"):  # pydantic
        return value.model_dump(mode="json")
    if hasattr(kind, "tolist"):  # NumPy
        return value.tolist()
    if isinstance(value, set | frozenset):
        try:
            return sorted(value)
        except TypeError:
            return sorted(value, key=repr)
    if isinstance(value, enum.Enum):
        return value.value
    if hasattr(kind, "isoformat"):  # dates and times
        return value.isoformat()
    if hasattr(kind, "__fspath__") or kind.__module__ in ("decimal", "fractions", "uuid"):
        return str(value)
    raise TypeError(f"Object of type {kind.__name__} is not JSON serializable")


def describe(error: BaseException) -> str:
    """Return an exception's message, with its type if the message alone would not explain the error."""
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
    """Return at most `most` characters of `text`; a cut text ends with a note."""
    if len(text) <= most:
        return text
    note = f"... [cut: {len(text):,} characters]"
    return text[: most - len(note)] + note if most > len(note) else text[:most]


def main() -> None:
    """Run inside the namespaces: the first line is the configuration, the others are requests."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import sandbox_kernel
    import sandbox_seccomp

    del sys.path[0]
    requests, answers = take_channels()
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else map(str, range(64)):
        if int(name) > 2 and int(name) not in (requests, answers):
            with contextlib.suppress(OSError):
                os.close(int(name))
    lines = os.fdopen(requests, "rb")
    run(json.loads(lines.readline()), sandbox_kernel, sandbox_seccomp, lines, answers)


if __name__ == "__main__":
    main()
