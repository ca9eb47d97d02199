"""Signed values in torch's key-value store, which requires no password from anyone who can reach its port.

Each process publishes a random number. The key of the signatures (HMAC-SHA256) is derived from the shared secret and
all these numbers, so that values of strangers and of other runs are rejected.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tltrain.errors import TltrainError
from tltrain.runtime import messages

if TYPE_CHECKING:
    from torch.distributed import Store

PART = 4 << 20
"""Most bytes stored under one key; torch's store takes 8 MiB."""
ARRIVAL = 15 * 60.0
"""Seconds within which all processes must have started."""
_HEAD = re.compile(rb"(\d{1,6}) ([0-9a-f]{64}) ([0-9a-f]{64})")
_NUMBER = re.compile(rb"([0-9a-f]{64}) ([0-9a-f]{64})")


class Session:
    """The key with which the processes of a run sign values.

    Args:
        secret: the shared secret, the same in every process.
        where: the store's address, for messages.
    """

    def __init__(self, rank: int, size: int, secret: str, where: str) -> None:
        self.rank, self.size, self.where = rank, size, where
        self._secret = secret.encode()
        self._key: bytes | None = None
        self._lock = threading.Lock()
        self._own = secrets.token_hex(32).encode()

    def greet(self, store: Store) -> None:
        """Publish this process's number."""
        store.set(f"number/{self.rank}", self._own + b" " + self._signature(self._secret, self.rank, self._own))

    def key(self, store: Store, seconds: float = ARRIVAL) -> bytes:
        """Return the key of the signatures once every process has published its number.

        Raises:
            TltrainError: a process did not do so within `seconds`, or has a different secret.
        """
        with self._lock:
            if self._key is None:
                deadline = time.monotonic() + seconds
                numbers = [self._number(store, rank, deadline) for rank in range(self.size)]
                self._key = hmac.digest(self._secret, b"key " + b" ".join(numbers), "sha256")
            return self._key

    def _number(self, store: Store, rank: int, deadline: float) -> bytes:
        if rank == self.rank:
            return self._own
        text = wait(store, f"number/{rank}", deadline)
        if text is None:
            raise TltrainError(f"rank {rank} did not connect to {self.where}: are all {self.size} processes started?")
        found = _NUMBER.fullmatch(text)
        if found is None or not hmac.compare_digest(self._signature(self._secret, rank, found[1]), found[2]):
            raise TltrainError(
                f"the secret of rank {rank} differs from that of rank {self.rank}, or a stranger writes to the store "
                f"at {self.where}: set TLTRAIN_SECRET to the same random text for all processes"
            )
        return found[1]

    @staticmethod
    def _signature(secret: bytes, rank: int, number: bytes) -> bytes:
        return hmac.new(secret, b"number %d %s" % (rank, number), "sha256").hexdigest().encode()


class SignedStore:
    """Signed reading and writing of values in `store`; each thread needs a store connection of its own."""

    def __init__(self, store: Store, session: Session) -> None:
        self._store, self._session = store, session

    def put(self, key: str, value: Any) -> None:
        """Write a value that `runtime.messages` can encode."""
        body = messages.encode(value)
        parts = [body[start : start + PART] for start in range(0, len(body), PART)]
        for number, part in enumerate(parts):
            self._store.set(f"{key}/part/{number}", part)
        summary = b"%d %s" % (len(parts), hashlib.sha256(body).hexdigest().encode())
        self._store.set(key, summary + b" " + self._signature(key, summary))

    def get(self, key: str) -> Any:
        """Return a value, waiting for it without a time limit: another thread watches whether its writer lives.

        Raises:
            TltrainError: the value was not written by a process of this run.
        """
        count, digest = self._head(key)
        body = b"".join(self._store.get(f"{key}/part/{number}") for number in range(count))
        if not hmac.compare_digest(hashlib.sha256(body).hexdigest().encode(), digest):
            raise self._stranger(key)
        return messages.decode(body)

    def remove(self, key: str) -> None:
        """Remove a value that every process has read."""
        count, _ = self._head(key)
        for number in range(count):
            self._store.delete_key(f"{key}/part/{number}")
        self._store.delete_key(key)

    def _head(self, key: str) -> tuple[int, bytes]:
        self._session.key(self._store)  # first, so that a different secret is an error at once
        text = wait(self._store, key)
        found = _HEAD.fullmatch(text or b"")
        if found is None or not hmac.compare_digest(self._signature(key, b"%s %s" % found.group(1, 2)), found[3]):
            raise self._stranger(key)
        return int(found[1]), found[2]

    def _signature(self, key: str, summary: bytes) -> bytes:
        signed = f"value {key} ".encode() + summary
        return hmac.new(self._session.key(self._store), signed, "sha256").hexdigest().encode()

    def _stranger(self, key: str) -> TltrainError:
        return TltrainError(
            f"the store at {self._session.where} holds a value that no process of this run wrote ({key}), and it was "
            "not read: restrict access to this port (see docs/gpus.md, Ports)"
        )


def wait(store: Store, key: str, deadline: float | None = None) -> bytes | None:
    """Return the value of a key once there is one; None if there is none at the deadline (of `time.monotonic`)."""
    from torch.distributed import DistStoreError

    while deadline is None or time.monotonic() < deadline:
        seconds = 5.0 if deadline is None else min(5.0, max(0.01, deadline - time.monotonic()))
        try:
            store.wait([key], timedelta(seconds=seconds))  # signals are handled between two waits
            return store.get(key)
        except DistStoreError:
            continue
    return None
