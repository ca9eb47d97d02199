"""Several processes on one machine: what they listen on is bound to the loopback interface."""

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
    """A store that this process serves on the loopback interface; a port 0 becomes a free one.

    torch itself would listen on every interface, whatever address it is given, but it takes a socket that is bound.

    Raises:
        OSError: something else listens on this port.
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
    """Have gloo and NCCL, which would listen on the address of the host's name, use the loopback interface.

    The user's own choice of interfaces is left.
    """
    if any(name == INTERFACE for _, name in socket.if_nameindex()):
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, INTERFACE)
