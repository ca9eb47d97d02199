"""The sockets that processes listen on, from Linux's /proc."""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LISTEN = "0A"


def family(pid: int) -> set[int]:
    """Return a process and all its descendants."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def listening(pids: Iterable[int]) -> set[str]:
    """Return `address:port` of every TCP socket that one of the processes listens on."""
    inodes = set()
    for pid in pids:
        with suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    inodes.add(os.readlink(link))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTEN and f"socket:[{words[9]}]" in inodes:
                found.add(_readable(words[1]))
    return found


def reachable(places: Iterable[str]) -> list[str]:
    """Return those of `listening` that another machine may reach."""
    return sorted(
        place for place in places if not ipaddress.ip_address(place.rpartition(":")[0].strip("[]")).is_loopback
    )


def _readable(place: str) -> str:
    address, _, port = place.partition(":")
    words = struct.unpack(f"<{len(address) // 8}I", bytes.fromhex(address))
    packed = struct.pack(f">{len(words)}I", *words)
    return f"[{ipaddress.ip_address(packed)}]:{int(port, 16)}"
