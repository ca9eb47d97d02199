"""What the kernel offers against a tool that means harm, by ctypes, since Python 3.11 wraps little of it.

Part of the process that `sandbox_child.py` is: it imports nothing but the standard library, and runs there alone.

    namespaces   own users, processes, mounts, network, IPC: the tool sees a small read-only world and an empty /tmp
    Landlock     no namespaces, but a list of folders that may be read, and of those that may be written
    seccomp      system calls that fail: new namespaces, sockets of families that are not allowed, keyrings, tracing

Every function raises OSError where the kernel refuses. Numbers are those of the kernel's headers; what differs between
machines is listed for x86_64 and aarch64.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import shutil
import struct
import sys

LINUX = sys.platform == "linux"
NOBODY = 65534
"""Whom root's tools run as."""

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
    """Limits of this process and each that it starts: bytes of address space and of a file, a user's processes, CPU s.

    `processes` counts those of the same user in the same user namespace, threads too; it does not bind root; None: no
    limit. Not every system knows every limit: what cannot be set stays as it is.
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
    """Have the kernel kill this process when its parent ends; forgotten whenever the user id changes."""
    _prctl(1, 9, what="PR_SET_PDEATHSIG")


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ended, instead of the machine's first process."""
    _prctl(36, 1, what="PR_SET_CHILD_SUBREAPER")


def drop_rights(user: int | None) -> None:
    """Give up every capability for good, and become `user`; None: stay who we are."""
    for capability in range(64):
        with contextlib.suppress(OSError):  # the kernel knows fewer
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


def own_threads() -> int | None:
    """How many threads this user has in all processes; None where that is not to be found out."""
    if not os.path.isdir("/proc/self/task"):
        return None
    count = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


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


# --- namespaces -----------------------------------------------------------------------------------------------------

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)


def _unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def new_users_and_processes() -> None:
    """A user namespace for this process, and a process namespace for its children.

    The user keeps the number it has; for root, `NOBODY` is there too. Who may write that is outside the namespace: a
    child that stays there does it.
    """
    uid, gid = os.getuid(), os.getgid()
    extra = f"{NOBODY} {NOBODY} 1\n" if uid == 0 else ""
    maps = {"uid_map": f"{uid} {uid} 1\n{extra}", "gid_map": f"{gid} {gid} 1\n{extra}"}
    if uid:
        maps = {"setgroups": "deny", **maps}
    ready, go = os.pipe()
    parent = os.getpid()
    writer = os.fork()
    if writer == 0:
        status = 0
        try:
            os.close(go)
            if os.read(ready, 1):
                for name, text in maps.items():
                    with open(f"/proc/{parent}/{name}", "w") as file:
                        file.write(text)
        except OSError as error:
            status = error.errno or 1
        finally:
            os._exit(status)
    os.close(ready)
    try:
        _unshare(_NEWUSER | _NEWPID)
        os.write(go, b"1")
    finally:
        os.close(go)
        status = os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1])
    if status:
        raise OSError(status, f"uid_map: {os.strerror(status)}")


def new_world(base: str, read: list[str], copied: list[str], size: int, network: bool) -> None:
    """Mounts, IPC, host name and, unless `network`, the network of this process's own.

    The file system becomes: `read`, at their places and read-only; a few devices; /proc of this process namespace; an
    empty /tmp of `size` bytes. Nothing else of the machine is there; its network has no interface that is up.

    Args:
        base: an empty folder to build it in; on the machine nothing of it is seen.
        copied: folders of `read` of which there is a copy that anybody may read, 256 MB at most.
    """
    _unshare(_NEWNS | _NEWIPC | _NEWUTS | (0 if network else _NEWNET))
    _mount(None, "/", None, _REC | _PRIVATE)
    _mount("tmpfs", base, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    os.mkdir(f"{base}/tmp")
    _mount("tmpfs", f"{base}/tmp", "tmpfs", _NOSUID | _NODEV, f"size={size},nr_inodes=4096,mode=1777")
    for path in _outermost(read):
        if path in copied:
            _copy(base, path)
        else:
            _show(base, path, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)
    for name in ("null", "zero", "full", "random", "urandom"):
        _show(base, f"/dev/{name}", _ATTR_NOSUID | _ATTR_NOEXEC)
    os.symlink("/proc/self/fd", f"{base}/dev/fd")
    os.symlink("/tmp", f"{base}/dev/shm")
    os.mkdir(f"{base}/proc")
    with contextlib.suppress(OSError):  # containers that hide parts of theirs forbid a whole one
        _mount("proc", f"{base}/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
        _restrict(f"{base}/proc", _ATTR_RDONLY)
    os.mkdir(f"{base}/.machine")
    _check(_libc.pivot_root(base.encode(), f"{base}/.machine".encode()), "pivot_root")
    os.chdir("/")
    _check(_libc.umount2(b"/.machine", 2), "umount2")  # MNT_DETACH
    os.rmdir("/.machine")
    _restrict("/", _ATTR_RDONLY, recursive=False)


_NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if word is None else word.encode() for word in (source, target, kind, options)]
    result = _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    _check(result, f"mount of {source} at {target}")


def _restrict(target: str, attributes: int, recursive: bool = True) -> None:
    """Read-only, no set-user-id, no devices for a mount, and for those inside it."""
    request = struct.pack("4Q", attributes, 0, 0, 0)
    flags = 0x8000 if recursive else 0  # AT_RECURSIVE
    _syscall(442, "mount_setattr", -100, target.encode(), flags, request, len(request))


def _show(base: str, path: str, attributes: int) -> None:
    """What is at `path` on the machine, at the same path under `base`; a link stays the link it is."""
    target = base + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT, 0o644))
    _mount(path, target, None, _BIND | _REC)
    _restrict(target, attributes)


def _copy(base: str, path: str) -> None:
    target = base + path
    os.makedirs(target, exist_ok=True)
    _mount("tmpfs", target, "tmpfs", _NOSUID | _NODEV, "size=256m,mode=755")
    for folder, folders, files in os.walk(path):
        inside = target + folder.removeprefix(path)
        for name in folders:
            os.mkdir(f"{inside}/{name}")
        for name in files:
            if not os.path.islink(f"{folder}/{name}"):
                shutil.copyfile(f"{folder}/{name}", f"{inside}/{name}")
    _restrict(target, _ATTR_RDONLY)


def _outermost(paths: list[str]) -> list[str]:
    """Those that exist and do not lie in another."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if os.path.lexists(path) and not any(path.startswith(f"{outer}/") for outer in kept):
            kept.append(path)
    return kept


# --- Landlock -------------------------------------------------------------------------------------------------------

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL = 1, 2, 4, 8, 1 << 14, 1 << 15
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL


def landlock(read: list[str], write: list[str], network: bool) -> None:
    """From now on, for this process and its children: nothing but `read` is read, and nothing but `write` is written.

    A process so restricted may not trace one that is not, nor read its memory and environment in /proc; where the
    kernel knows how (ABI 6), not signal it either.
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


# --- seccomp --------------------------------------------------------------------------------------------------------

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_REFUSED = {  # name: (x86_64, aarch64)
    "unshare": (272, 97),
    "setns": (308, 268),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),  # its sockets would pass by the rule for `socket`
}
_CLONE, _CLONE3, _SOCKET = (56, 220), (435, 435), (41, 198)
_LOAD, _JUMP_EQUAL, _JUMP_SET, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000

FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
"""Families of sockets that there are at all; others, such as that to a virtual machine's host, nobody needs."""


def seccomp(families: list[int]) -> None:
    """Let the system calls that no tool needs fail, and sockets of families other than these.

    Raises:
        OSError: the kernel refuses, or this machine's numbers of system calls are not known here.
    """
    if platform.machine() not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"seccomp: not known for {platform.machine()}")
    program = b"".join(struct.pack("HBBI", *step) for step in _program(families))
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    _prctl(38, 1, what="PR_SET_NO_NEW_PRIVS")
    where = ctypes.c_char_p(filter_)
    _check(_libc.prctl(22, ctypes.c_ulong(2), where), "seccomp")  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _program(families: list[int]) -> list[tuple[int, int, int, int]]:
    """The filter, as (operation, steps to skip if true, if false, operand)."""
    architecture, column = _ARCHITECTURES[platform.machine()]
    refuse = (_RETURN, 0, 0, _FAIL | errno.EPERM)
    allow = (_RETURN, 0, 0, _ALLOW)
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_JUMP_EQUAL, 1, 0, architecture), refuse, (_LOAD, 0, 0, _NUMBER)]
    if column == 0:  # the x32 system calls have numbers of their own
        steps += [(_JUMP_AT_LEAST, 0, 1, 0x40000000), refuse]
    for numbers in _REFUSED.values():
        steps += [(_JUMP_EQUAL, 0, 1, numbers[column]), refuse]
    # clone3's flags cannot be seen from here; without it libraries use clone.
    steps += [(_JUMP_EQUAL, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _FAIL | errno.ENOSYS)]
    steps += [(_JUMP_EQUAL, 0, 4, _CLONE[column]), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_JUMP_SET, 0, 1, _NEWUSER)]
    steps += [refuse, allow]
    steps += [(_JUMP_EQUAL, 0, 2 * len(families) + 2, _SOCKET[column]), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
    for family in families:
        steps += [(_JUMP_EQUAL, 0, 1, family), allow]
    return [*steps, refuse, allow]
