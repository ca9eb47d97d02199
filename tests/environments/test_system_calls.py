"""The numbers of the system calls that the filter refuses, and the signals that a supervisor may send."""

from __future__ import annotations

import errno
import os
import platform
import re
from pathlib import Path

import pytest

from tltrain.environments import sandbox_kernel, sandbox_seccomp
from tltrain.environments.sandbox_seccomp import ARCHITECTURES, CLONE, CLONE3, REFUSED, SOCKET

HEADERS = {
    "x86_64": [Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm/unistd_64.h")],
    "aarch64": [Path("/usr/include/asm-generic/unistd.h")],
}


@pytest.mark.parametrize("machine", sorted(HEADERS))
def test_numbers_are_those_of_the_kernels_headers(machine):
    header = next((file for file in HEADERS[machine] if file.is_file()), None)
    if header is None:
        pytest.skip("the kernel's headers are not installed")
    pairs = re.findall(r"#define __NR_(\w+)\s+(\d+)", header.read_text())
    numbers = {name: int(number) for name, number in pairs}
    column = ARCHITECTURES[machine][1]
    ours = REFUSED | {"clone": CLONE, "clone3": CLONE3, "socket": SOCKET}
    wrong = {name: each[column] for name, each in ours.items() if numbers.get(name, each[column]) != each[column]}
    assert wrong == {}
    assert len(ours.keys() & numbers.keys()) >= len(ours) - 3  # older headers lack the newest calls


@pytest.mark.parametrize("machine", sorted(ARCHITECTURES))
@pytest.mark.parametrize("families", [[], [1, 2, 10, 16]])
def test_the_filter_decides_as_the_table_says(machine, families, monkeypatch):
    """A small BPF interpreter runs the filter, so other architectures are tested too."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    architecture, column = ARCHITECTURES[machine]
    program = sandbox_seccomp._program(families)

    def decide(number: int, argument: int = 0, architecture: int = architecture) -> int:
        data, accumulator, at = {0: number, 4: architecture, 16: argument & 0xFFFFFFFF}, 0, 0
        while True:
            operation, if_true, if_false, operand = program[at]
            at += 1
            if operation == 0x20:
                accumulator = data[operand]
            elif operation == 0x06:
                return operand
            else:
                holds = {
                    0x15: accumulator == operand,
                    0x45: bool(accumulator & operand),
                    0x35: accumulator >= operand,
                }[operation]
                at += if_true if holds else if_false

    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EPERM
    for name, numbers in REFUSED.items():
        if numbers[column] is not None:
            assert decide(numbers[column]) == refuse, name
    refused = {numbers[column] for numbers in REFUSED.values()}
    special = {CLONE[column], CLONE3[column], SOCKET[column]}
    for number in set(range(480)) - refused - special:
        assert decide(number) == allow, number
    assert decide(CLONE[column], 0x11) == allow and decide(CLONE[column], 0x10000011) == refuse
    assert decide(CLONE3[column]) == 0x00050000 | errno.ENOSYS
    for family in range(50):
        assert decide(SOCKET[column], family) == (allow if family in families else refuse)
    assert decide(0, architecture=0x40000003) == refuse  # 32-bit calls have other numbers
    if machine == "x86_64":
        assert decide(0x40000000) == refuse


@pytest.mark.parametrize("pid", [1, 0, -1, -1234])
def test_a_signal_goes_to_one_process_and_never_to_all(pid, monkeypatch):
    sent = []
    monkeypatch.setattr(os, "kill", lambda *arguments: sent.append(arguments))
    with pytest.raises(ValueError):
        sandbox_kernel.send_signal(pid, 0)
    assert sent == []
    sandbox_kernel.send_signal(1234, 0)
    assert sent == [(1234, 0)]


def test_only_one_place_sends_signals_by_number():
    """A supervisor runs as root: a wrong number would end every process of the machine."""
    folder = Path(sandbox_kernel.__file__).parent
    places = {file.name: file.read_text().count("os.kill(") for file in folder.glob("sandbox*.py")}
    assert {name: count for name, count in places.items() if count} == {"sandbox_kernel.py": 1}
