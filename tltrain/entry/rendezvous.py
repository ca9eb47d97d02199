"""A rendezvous of torch's elastic launcher on one machine, with a store on the loopback interface.

torch's own rendezvous (`c10d`, `static`) listen on every interface, and `c10d` unpickles the content of its store.
"""

from __future__ import annotations

from datetime import timedelta

from torch.distributed import PrefixStore
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

from tltrain.runtime import loopback

BACKEND = "tltrain-loopback"


class LoopbackRendezvous(RendezvousHandler):
    """The rendezvous of a run's only agent, which serves the store for its workers."""

    def __init__(self, parameters: RendezvousParameters) -> None:
        self._run = parameters.run_id
        self._store = loopback.store(0, timedelta(minutes=15))

    @property
    def use_agent_store(self) -> bool:
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        place = RendezvousStoreInfo(self._store.host, self._store.port)
        return RendezvousInfo(PrefixStore(self._run, self._store), 0, 1, place)

    def get_backend(self) -> str:
        return BACKEND

    def get_run_id(self) -> str:
        return self._run

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        pass

    def num_nodes_waiting(self) -> int:
        return 0

    def shutdown(self) -> bool:
        return True


rendezvous_handler_registry.register(BACKEND, LoopbackRendezvous)
