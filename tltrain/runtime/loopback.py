"""Bind all listening sockets of the processes on one machine to the loopback interface."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

from tltrain.runtime.place import LOOPBACK

if TYPE_CHECKING:
    from datetime import timedelta

    from torch.distributed import TCPStore

INTERFACE = "lo0" if sys.platform == "darwin" else "lo"


def store(port: int, timeout: timedelta) -> TCPStore:
    """Serve a store on the loopback interface; port 0 takes a free port.

    torch itself would listen on every interface regardless of the address, but it accepts a bound socket.

    Raises:
        OSError: the port is in use.
    """
    from torch.distributed import TCPStore

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(1024)
        port = listener.getsockname()[1]
        return TCPStore(
            LOOPBACK,
            port,
            is_master=True,
            wait_for_workers=False,
            multi_tenant=True,
            timeout=timeout,
            master_listen_fd=listener.detach(),  # the store closes it
        )


def keep_libraries() -> None:
    """Make gloo and NCCL use the loopback interface; they would listen on the address of the host's name.

    Interfaces that the user has chosen are kept.
    """
    if any(name == INTERFACE for _, name in socket.if_nameindex()):
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, INTERFACE)
