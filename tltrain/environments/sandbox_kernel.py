"""Kernel features that confine malicious tools, by ctypes, since Python 3.11 wraps few of them.

This module runs in the processes of `sandbox_child.py` and imports only the standard library.

    rights       another user, no capabilities, limits of this process
    Landlock     lists of folders that may be read, and that may be written
    counting     the descendants of a process, and the memory and files that they hold together

`sandbox_bwrap.py` makes namespaces, `sandbox_seccomp.py` filters system calls. Every function raises OSError if the
kernel refuses. The numbers are from the kernel's headers and equal on all architectures.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import stat
import struct
import sys
from collections.abc import Iterable

LINUX = sys.platform == "linux"
NOBODY = 65534
"""The user that root's tools run as."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(number: int, what: str, *arguments: object) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *words), what)


def _prctl(option: int, *arguments: int, what: str) -> int:
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
    return _check(_libc.prctl(option, *words), what)


# --- limits ---------------------------------------------------------------------------------------------------------


def limit(memory: int, file_size: int, processes: int | None, open_files: int, cpu: int) -> None:
    """Limit this process and each that it starts: bytes of address space and of a file, processes, seconds of CPU.

    `processes` counts the user's processes and threads in the user namespace and does not bind root; None: no limit. A
    limit that the system does not know is left out.
    """
    wanted = {
        "RLIMIT_AS": memory,
        "RLIMIT_FSIZE": file_size,
        "RLIMIT_NPROC": processes,
        "RLIMIT_NOFILE": open_files,
        "RLIMIT_CPU": cpu,
        "RLIMIT_CORE": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_MEMLOCK": 0,
    }
    for name, most in wanted.items():
        if hasattr(resource, name) and most is not None:
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(kind, (most, most))


def die_with_parent() -> None:
    """Make the kernel kill this process when its parent ends; a change of the user id resets this."""
    _prctl(1, 9, what="PR_SET_PDEATHSIG")


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent has ended, in place of process 1."""
    _prctl(36, 1, what="PR_SET_CHILD_SUBREAPER")


def drop_rights(user: int | None) -> None:
    """Give up every capability permanently and become `user`; None: keep the user."""
    for capability in range(64):
        with contextlib.suppress(OSError):  # the kernel has fewer
            _prctl(24, capability, what="PR_CAPBSET_DROP")
    with contextlib.suppress(OSError):
        _prctl(47, 4, what="PR_CAP_AMBIENT_CLEAR_ALL")
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header = struct.pack("Ii", 0x20080522, 0)  # version 3, this process
    _check(_libc.capset(header, struct.pack("6I", 0, 0, 0, 0, 0, 0)), "capset")
    _prctl(38, 1, what="PR_SET_NO_NEW_PRIVS")
    _prctl(4, 1, what="PR_SET_DUMPABLE")  # else the process may not list its own /proc/self/fd


def send_signal(pid: int, number: int) -> None:
    """Send a signal to one process other than process 1; 0, -1 and others would send it to a group or to all.

    Raises:
        ValueError: `pid` is not the number of such a process.
        OSError: there is no such process, or we may not signal it.
    """
    if pid <= 1:
        raise ValueError(f"{pid} is not the number of one process that may be signalled")
    os.kill(pid, number)


def own_threads() -> int | None:
    """Return the number of this user's threads in all processes; None if it is not available."""
    if not os.path.isdir("/proc/self/task"):
        return None
    count = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


def descendants(root: int) -> set[int]:
    """Return the descendants of a process without zombies."""
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


# --- counting -------------------------------------------------------------------------------------------------------


def memory_in_use(processes: Iterable[int]) -> int:
    """Return the bytes of memory and swap that these processes hold together; shared memory counts once.

    If the kernel does not report shares (a process that made itself undumpable), shared memory counts for each process.
    """
    return sum(_memory(pid) for pid in processes)


def _memory(pid: int) -> int:
    for file, names in (
        ("smaps_rollup", (b"Pss", b"SwapPss")),
        ("status", (b"RssAnon", b"RssShmem", b"VmSwap")),
    ):
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/{file}", "rb") as lines:
            fields = dict(line.split(b":", 1) for line in lines if b":" in line)
            if names[0] in fields:
                return sum(int(fields[name].split()[0]) << 10 for name in names if name in fields)
    return 0  # it has ended


def files_of_namespace(processes: Iterable[int]) -> tuple[int, int]:
    """Return the number of files in /tmp of the namespace that these processes are in, and their bytes."""
    ours = os.stat("/").st_dev
    inside = next((pid for pid in processes if os.stat(f"/proc/{pid}/root/").st_dev != ours), None)
    if inside is None:
        raise OSError("no process in a namespace of its own is left")
    status = os.statvfs(f"/proc/{inside}/root/tmp")
    return status.f_files - status.f_ffree, (status.f_blocks - status.f_bfree) * status.f_frsize


def files_of(folder: str, processes: Iterable[int], most: int) -> tuple[int, int]:
    """Return the number of files in a folder, or deleted but open, and their bytes; counting ends after `most`."""
    count = size = 0
    waiting = [folder]
    while waiting and count <= most:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                if count > most:
                    break
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif stat.S_ISREG(status.st_mode):
                        size += min(status.st_size, status.st_blocks * 512)
    deleted: dict[tuple[int, int], int] = {}
    for pid in processes:
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"/proc/{pid}/fd/{number}")
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                        deleted[status.st_dev, status.st_ino] = min(status.st_size, status.st_blocks * 512)
    return count + len(deleted), size + sum(deleted.values())


# --- Landlock -------------------------------------------------------------------------------------------------------

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL = 1, 2, 4, 8, 1 << 14, 1 << 15
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL


def landlock(read: list[str], write: list[str], network: bool) -> None:
    """Allow this process and its children to read only `read` and to write only `write`.

    A restricted process cannot trace an unrestricted one or read its memory and environment in /proc, and from ABI 6 on
    cannot signal it.
    """
    abi = _syscall(444, "landlock", None, 0, 1)
    handled = (1 << {1: 13, 2: 14}.get(abi, 15 if abi < 5 else 16)) - 1
    tcp = 3 if abi >= 4 and not network else 0  # bind and connect
    scoped = 3 if abi >= 6 else 0  # abstract Unix sockets and signals
    attributes = struct.pack("3Q", handled, tcp, scoped)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = _syscall(444, "landlock", attributes, len(attributes), 0)
    for paths, rights in ((read, _EXECUTE | _READ_FILE | _READ_DIR), (write, handled)):
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
                mask = handled if os.path.isdir(path) else handled & _FILE_RIGHTS
                _syscall(445, "landlock rule", ruleset, 1, struct.pack("=Qi", rights & mask, fd), 0)
                os.close(fd)
    _prctl(38, 1, what="PR_SET_NO_NEW_PRIVS")
    _syscall(446, "landlock", ruleset, 0)
    os.close(ruleset)
