"""A filter that refuses system calls that tools do not need, written in classic BPF, which the kernel runs.

This module runs in the process of `sandbox_worker.py` and imports only the standard library. libseccomp could compile
such a filter, but its Python bindings need the system's libseccomp, which many container images lack, or are not
published on PyPI. `tests/environments/test_system_calls.py` compares the numbers with the kernel's headers and tries
the calls.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""`uname -m` -> its AUDIT_ARCH, and its column in the tables below."""

REFUSED: dict[str, tuple[int | None, int | None]] = {  # name: (x86_64, aarch64); None: no such call
    # other namespaces, other processes
    "unshare": (272, 97),
    "setns": (308, 268),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    # keyrings, which outlive a process; counters, programs and page faults of the kernel
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),  # its sockets would bypass the rule for `socket`
    "open_by_handle_at": (304, 265),
    # memory that counts for no process; System V objects also outlive their process
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmdt": (67, 197),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "splice": (275, 76),
    "tee": (276, 77),
    "vmsplice": (278, 75),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
}
CLONE, CLONE3, SOCKET = (56, 220), (435, 435), (41, 198)

_LOAD, _JUMP_EQUAL, _JUMP_SET, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_NEWUSER = 0x10000000

FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
"""Families of sockets that may be allowed; tools need no others, such as AF_VSOCK to a virtual machine's host."""


def seccomp(families: list[int]) -> None:
    """Make the system calls of `REFUSED` fail, and sockets of other families than these.

    Raises:
        OSError: the kernel refuses, or the system call numbers of this machine's architecture are not in the tables.
    """
    if platform.machine() not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"seccomp: not known for {platform.machine()}")
    library = ctypes.CDLL(None, use_errno=True)
    program = b"".join(struct.pack("HBBI", *step) for step in _program(families))
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    nothing = [ctypes.c_ulong(0)] * 3
    for arguments in (
        (38, ctypes.c_ulong(1), *nothing),  # PR_SET_NO_NEW_PRIVS
        (22, ctypes.c_ulong(2), ctypes.c_char_p(filter_)),  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
    ):
        if library.prctl(*arguments) < 0:
            raise OSError(ctypes.get_errno(), "seccomp")


def _program(families: list[int]) -> list[tuple[int, int, int, int]]:
    """Return the filter, as (operation, steps to skip if true, if false, operand)."""
    architecture, column = ARCHITECTURES[platform.machine()]
    refuse = (_RETURN, 0, 0, _FAIL | errno.EPERM)
    allow = (_RETURN, 0, 0, _ALLOW)
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_JUMP_EQUAL, 1, 0, architecture), refuse, (_LOAD, 0, 0, _NUMBER)]
    if column == 0:  # the x32 system calls have numbers of their own
        steps += [(_JUMP_AT_LEAST, 0, 1, 0x40000000), refuse]
    for numbers in REFUSED.values():
        number = numbers[column]
        if number is not None:
            steps += [(_JUMP_EQUAL, 0, 1, number), refuse]
    # A filter cannot read clone3's flags; where clone3 is missing, libraries use clone.
    steps += [(_JUMP_EQUAL, 0, 1, CLONE3[column]), (_RETURN, 0, 0, _FAIL | errno.ENOSYS)]
    steps += [(_JUMP_EQUAL, 0, 4, CLONE[column]), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_JUMP_SET, 0, 1, _NEWUSER)]
    steps += [refuse, allow]
    steps += [(_JUMP_EQUAL, 0, 2 * len(families) + 2, SOCKET[column]), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
    for family in families:
        steps += [(_JUMP_EQUAL, 0, 1, family), allow]
    return [*steps, refuse, allow]
