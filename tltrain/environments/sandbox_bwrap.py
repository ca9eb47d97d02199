"""A process in namespaces of its own, made by bubblewrap (`bwrap`, github.com/containers/bubblewrap).

`sandbox_child.py` imports this module, which imports only the standard library. bubblewrap makes the user, process,
mount, network, IPC and host name namespaces and a file system with:

    the paths that the configuration lists, read-only; a few devices; /proc of the process namespace where the machine
    allows it; an empty /tmp in memory. Nothing else of the machine is visible.

The user keeps its number but has no rights. Root becomes another user: the namespace maps the numbers of root and of
`nobody`, and the worker, which starts with only the capabilities to change its user, becomes `nobody`. The worker
itself sets what bubblewrap has no option for (limits, the filter of system calls).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

SCRIPTS = "/sandbox"
"""Folder of the worker's modules inside the namespace."""
HOME = "/tmp/home"
_DEVICES = ("null", "zero", "full", "random", "urandom")


def variants(config: dict) -> list[list[str]]:
    """Return the commands to try, without the program to run, the preferred one first.

    Older releases lack a required option and report that; containers that hide parts of /proc forbid a new one.
    """
    proc = ["--proc", "/proc", "--remount-ro", "/proc"]
    return [[bwrap, *_arguments(config, more)] for more in (proc, ["--dir", "/proc"]) for bwrap in config["bwrap"]]


def _arguments(config: dict, proc: list[str]) -> list[str]:
    words = ["--die-with-parent", "--new-session", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    words += [] if config["network"] else ["--unshare-net"]
    words += ["--cap-drop", "ALL"]
    if config["user"] is not None:
        for name in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            words += ["--cap-add", name]
    words += ["--perms", "1777", "--size", str(config["disk"]), "--tmpfs", "/tmp"]  # first: others may be inside
    shown, (source, library) = _outermost(config["read"]), (config["library_source"], config["library"])
    for folder in _parents([*shown, library, f"{SCRIPTS}/x", "/dev/x"]):
        if folder != "/tmp" and not _inside(folder, shown):
            words += ["--perms", "0755", "--dir", folder]  # bubblewrap would create them for its own user only
    for path in shown:
        words += ["--ro-bind-try", path, path]
    if source != library or not _inside(library, shown):
        words += ["--ro-bind", source, library]
    here = os.path.dirname(os.path.abspath(__file__))
    for name in ("sandbox_worker.py", "sandbox_kernel.py", "sandbox_seccomp.py"):
        words += ["--ro-bind", f"{here}/{name}", f"{SCRIPTS}/{name}"]
    for name in _DEVICES:
        words += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    words += ["--symlink", "/proc/self/fd", "/dev/fd", "--symlink", "/tmp", "/dev/shm"]
    return [*words, *proc, "--remount-ro", "/", "--chdir", "/tmp", "--"]


def _parents(paths: list[str]) -> list[str]:
    """Return the parent folders of the paths, outer ones first."""
    found = {path[:end] for path in paths for end in range(1, len(path)) if path[end] == "/"}
    return sorted(found)


def _inside(path: str, folders: list[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _outermost(paths: list[str]) -> list[str]:
    """Return the paths that are not inside another one."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not _inside(path, kept):
            kept.append(path)
    return kept


def start(command: list[str], user: int | None) -> subprocess.Popen[bytes]:
    """Start the worker with a bubblewrap command, its channels as pipes.

    Args:
        user: the user that root becomes inside; None: we are not root.
    """
    program = [sys.executable, "-P", "-s", "-B", f"{SCRIPTS}/sandbox_worker.py"]
    if user is None:
        return _popen([*command, *program], ())
    told, tell = os.pipe()
    wait, go = os.pipe()
    more = ["--info-fd", str(tell), "--userns-block-fd", str(wait)]
    process = _popen([command[0], *more, *command[1:], *program], (tell, wait))
    try:
        os.close(tell)
        tell = -1
        with contextlib.suppress(ValueError, KeyError, ProcessLookupError):  # it has ended; its stderr gives the reason
            _write_maps(json.loads(_read_all(told))["child-pid"], user)
            os.write(go, b"1")
    except OSError as error:
        process.kill()
        process.wait()
        raise OSError(f"the user nobody cannot be had in a namespace: {error.strerror}") from None
    finally:
        for fd in {told, tell, wait, go} - {-1}:
            os.close(fd)
    return process


def _popen(command: list[str], pass_fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, pass_fds=pass_fds)


def _read_all(fd: int) -> bytes:
    text = b""
    while chunk := os.read(fd, 4096):
        text += chunk
        if text.rstrip().endswith(b"}"):
            break
    return text


def _write_maps(pid: int, user: int) -> None:
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(f"0 0 1\n{user} {user} 1\n")
