"""Values in torch's key-value store, which asks nobody who reaches its port for a password, signed by those who write.

Each process publishes a random number. The key of the signatures (HMAC-SHA256) is made from the shared secret and all
these numbers, so that neither a stranger's value nor one of another run passes for a process's own.
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
"""Bytes of a value under one key; torch's store takes 8 MiB."""
ARRIVAL = 15 * 60.0
"""Seconds within which all processes must have started."""
_HEAD = re.compile(rb"(\d{1,6}) ([0-9a-f]{64}) ([0-9a-f]{64})")
_NUMBER = re.compile(rb"([0-9a-f]{64}) ([0-9a-f]{64})")


class Session:
    """What the processes of a run sign with.

    Args:
        secret: the same in every process.
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
        """The key of the signatures, once every process has published its number.

        Raises:
            TltrainError: one did not within so many seconds, or has another secret.
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
            raise TltrainError(f"rank {rank} did not come to {self.where}: are all {self.size} processes started?")
        found = _NUMBER.fullmatch(text)
        if found is None or not hmac.compare_digest(self._signature(self._secret, rank, found[1]), found[2]):
            raise TltrainError(
                f"the secret of rank {rank} is not that of rank {self.rank}, or a stranger writes to the store at "
                f"{self.where}: set TLTRAIN_SECRET to the same random text for all processes"
            )
        return found[1]

    @staticmethod
    def _signature(secret: bytes, rank: int, number: bytes) -> bytes:
        return hmac.new(secret, b"number %d %s" % (rank, number), "sha256").hexdigest().encode()


class SignedStore:
    """Reads and writes values in `store`, whichever thread's connection that is."""

    def __init__(self, store: Store, session: Session) -> None:
        self._store, self._session = store, session

    def put(self, key: str, value: Any) -> None:
        """Write a value (`runtime.messages`)."""
        body = messages.encode(value)
        parts = [body[start : start + PART] for start in range(0, len(body), PART)]
        for number, part in enumerate(parts):
            self._store.set(f"{key}/part/{number}", part)
        summary = b"%d %s" % (len(parts), hashlib.sha256(body).hexdigest().encode())
        self._store.set(key, summary + b" " + self._signature(key, summary))

    def get(self, key: str) -> Any:
        """A value, waited for without a limit: another thread watches whether its writer lives.

        Raises:
            TltrainError: no process of this run has written it.
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
        self._session.key(self._store)  # first: with another secret there is nothing to wait for
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
            "not read: keep strangers from this port (see docs/gpus.md, Ports)"
        )


def wait(store: Store, key: str, deadline: float | None = None) -> bytes | None:
    """What stands under a key, once something does; None where nothing did at the deadline (of `time.monotonic`)."""
    from torch.distributed import DistStoreError

    while deadline is None or time.monotonic() < deadline:
        seconds = 5.0 if deadline is None else min(5.0, max(0.01, deadline - time.monotonic()))
        try:
            store.wait([key], timedelta(seconds=seconds))  # a signal is handled between two
            return store.get(key)
        except DistStoreError:
            continue
    return None
