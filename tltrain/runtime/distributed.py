"""One run in several processes: rank 0 leads, and the others run the jobs that it gives them.

Only rank 0 reads the command line, writes, logs and tracks. When a job needs all processes (training, or a model that
answers), rank 0 calls it by name, and the others, which wait for such calls, run the same function with the same
arguments:

    call("tltrain.stages.supervised:run", cfg, folder)

The processes communicate through torch's key-value store (TCPStore), so nothing here depends on the device. Anyone can
read and write the store, so messages are JSON (`messages`) with a signature (`signed_store`). Each process sends a
heartbeat; if one fails or falls silent, the run ends on all of them. In a single process everything here is trivial,
and torch is not imported.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

from omegaconf import DictConfig

from tltrain.errors import TltrainError
from tltrain.runtime import loopback, messages, own_code, stage_names
from tltrain.runtime.place import Place
from tltrain.runtime.resolver import resolve
from tltrain.runtime.signed_store import Session, SignedStore

T = TypeVar("T")

BEAT = 2.0
"""Seconds between two heartbeats."""
SILENCE = 45.0
"""Seconds without a heartbeat after which a process counts as dead."""
GRACE = 5.0
"""Seconds to wait after a failure for other processes to fail as well: a user's mistake fails all of them."""


# --- the team of this run --------------------------------------------------------------------------------------------


class Team:
    """All processes of a run, seen from this one.

    Args:
        secret: the secret by which the processes recognize one another, the same in all of them (`shared_secret`).
        on_failure: called with the exception that a job raised here, on every process except rank 0.
        on_death: called in the watching thread with the line that says why this process ends.
    """

    def __init__(
        self,
        place: Place,
        secret: str,
        on_failure: Callable[[Exception], None] = lambda error: None,
        on_death: Callable[[str], None] = lambda line: None,
    ) -> None:
        from torch.distributed import PrefixStore

        self.place, self.on_failure, self.on_death = place, on_failure, on_death
        store = _store(place)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = PrefixStore(f"tltrain/{attempt}", store)
        self._watched = PrefixStore(f"tltrain/{attempt}", store.clone())  # for the watching thread only
        self._session = Session(place.rank, place.size, secret, f"{place.address}:{place.port}")
        self._session.greet(self._store)
        self._values = SignedStore(self._store, self._session)
        self._watched_values = SignedStore(self._watched, self._session)
        self._exchanges = self._job = 0
        self._working, self._ended = False, threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tltrain-watch", daemon=True)
        self._thread.start()

    # Exchange of objects. In a job every process makes the same exchanges in the same order, so they can be numbered.

    def share(self, value: T) -> T:
        """Return rank 0's value, on every process."""
        return self._share(self._next_key(), value)

    def _share(self, key: str, value: T) -> T:
        if self.place.rank == 0:
            self._values.put(key, value)
            return value
        found = self._values.get(key)
        if self._store.add(f"{key}/read", 1) == self.place.size - 1:
            self._values.remove(key)
        return found

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes by rank, on every process."""
        key = self._next_key()
        self._values.put(f"{key}/{self.place.rank}", value)
        values = [self._values.get(f"{key}/{rank}") for rank in range(self.place.size)]
        if self._store.add(f"{key}/read", 1) == self.place.size:
            for rank in range(self.place.size):
                self._values.remove(f"{key}/{rank}")
        return values

    def _next_key(self) -> str:
        self._exchanges += 1
        return f"exchange/{self._job}/{self._exchanges}"

    # Work.

    def call(self, job: str, *arguments: Any) -> Any:
        """On rank 0: run `module:function` with these arguments on all processes and return rank 0's result."""
        self.post(job, *arguments)
        return self._do(job, arguments, None)

    def post(self, job: str, *arguments: Any) -> None:
        """On rank 0: run the job on the other processes only."""
        # Two messages in one: the second may hold values whose types the modules in these folders define.
        work = messages.encode((job, arguments, stage_names.current())).decode("ascii")
        self._begin((own_code.found(), work))

    def follow(self) -> None:
        """On the other processes: run the jobs that rank 0 calls, until it releases them.

        Raises:
            TltrainError: a stranger has written to the store, or rank 0 has a different secret.
        """
        while (begun := self._begin()) is not None:
            folders, work = begun
            own_code.find(folders)
            with suppress(Exception):  # rank 0 fails for the same reason, or the watch ends it
                self._do(*messages.decode(work.encode("ascii")))

    def _begin(self, work: Any = None) -> Any:
        self._job, self._exchanges = self._job + 1, 0
        return self._share(f"work/{self._job}", work)

    def _do(self, job: str, arguments: tuple[Any, ...], place: stage_names.Node | None) -> Any:
        """Run a job; `place` says how it names its keys, which rank 0 handles itself."""
        self._working = True
        try:
            with stage_names.named(place):
                return resolve(job)(*arguments)
        except Exception as error:
            if self.place.rank > 0:
                self.on_failure(error)
            with suppress(Exception):
                self._values.put(f"failed/{self._job}", (self.place.rank, in_one_line(error)))
            raise
        finally:
            self._working = False

    def end(self) -> None:
        """On rank 0: release the other processes."""
        with suppress(Exception):
            if self.place.rank == 0:
                self._session.key(self._store, SILENCE)  # others may still be starting, or never come
                self._begin(None)
                deadline = time.monotonic() + GRACE
                while self._store.add("gone", 0) < self.place.size - 1 and time.monotonic() < deadline:
                    time.sleep(0.05)  # the store may live in this process
            else:
                self._store.add("gone", 1)
        self._ended.set()

    # Heartbeats.

    def _watch(self) -> None:
        seen: dict[int, tuple[bytes, float]] = {}
        beats = 0
        while not self._ended.wait(BEAT):
            beats += 1
            try:
                self._watched.set(f"beat/{self.place.rank}", str(beats))
                self._check_failure()
                for rank in range(self.place.size) if self.place.rank == 0 else (0,):
                    if self._silent(rank, seen):
                        self._die(f"rank {rank}: no sign of life for {SILENCE:.0f} s")
            except TltrainError as error:
                self._die(str(error))
            except Exception:  # the store is gone, and so is the process that held it
                if not self._ended.wait(GRACE):
                    self._die("rank 0, or the launcher that started it, has ended")

    def _check_failure(self) -> None:
        job = self._job
        if self._working and self._watched.check([f"failed/{job}"]):
            rank, line = self._watched_values.get(f"failed/{job}")
            if rank != self.place.rank and not self._ended.wait(GRACE) and self._working and self._job == job:
                self._die(f"rank {rank}: {line}")

    def _silent(self, rank: int, seen: dict[int, tuple[bytes, float]]) -> bool:
        if rank == self.place.rank or not self._watched.check([f"beat/{rank}"]):
            return False
        beat, now = self._watched.get(f"beat/{rank}"), time.monotonic()
        if rank not in seen or seen[rank][0] != beat:
            seen[rank] = (beat, now)
        return now - seen[rank][1] > SILENCE

    def _die(self, line: str) -> None:
        """End this process, whose main thread may be waiting forever for a dead process."""
        try:
            self.on_death(line)
        finally:
            os._exit(1)


def _store(place: Place) -> Any:
    """Return the store of a run. If this process serves it, torch.distributed later shares it by its port."""
    timeout = timedelta(minutes=15)
    serves = place.rank == 0 and not place.agent_store
    if serves and place.one_machine:
        try:
            return loopback.store(place.port, timeout)
        except OSError as error:
            raise TltrainError(
                f"MASTER_PORT={place.port}: cannot listen on this port ({error.strerror}): set a free one"
            ) from error
    from torch.distributed import TCPStore

    return TCPStore(
        place.address, place.port, is_master=serves, wait_for_workers=False, multi_tenant=True, timeout=timeout
    )


def in_one_line(error: BaseException) -> str:
    """Return an error in one line: its message if it is meant for the user, else its type and message."""
    text = " ".join(str(error).split())
    return text if isinstance(error, TltrainError | OSError) else f"{type(error).__name__}: {text}"


_team: Team | None = None


def join(place: Place, secret: str, **notices: Callable[..., None]) -> Team:
    """Join the other processes (see `Team`), and set the environment variables that libraries read.

    Raises:
        TltrainError: the port is taken.
    """
    global _team
    os.environ |= {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.size),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.local_size),
        "MASTER_ADDR": place.address,
        "MASTER_PORT": str(place.port),
    }
    os.environ.setdefault("OMP_NUM_THREADS", str(threads(place.local_size)))
    if place.one_machine:
        loopback.keep_libraries()
    _team = Team(place, secret, **notices)
    return _team


def leave() -> None:
    """Leave the team."""
    global _team
    if _team is not None:
        _team.end()
        _team = None
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def threads(processes: int) -> int:
    """Return the CPU threads for each of `processes` processes here; with more they would slow one another."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes)


def local_processes(hardware: DictConfig) -> int:
    """Return the number of workers on this machine: `hardware.processes`, or if null one per GPU, one on a CPU."""
    if hardware.processes is not None:
        return hardware.processes
    if hardware.device.name == "cpu":
        return 1
    import torch

    return max(1, torch.cuda.device_count())


# --- for the rest of the package -------------------------------------------------------------------------------------


def team() -> Team | None:
    """Return the team, or None in a single process."""
    return _team


def rank() -> int:
    return 0 if _team is None else _team.place.rank


def size() -> int:
    return 1 if _team is None else _team.place.size


def leads() -> bool:
    """Return whether this process writes, logs and tracks."""
    return rank() == 0


def share(value: T) -> T:
    """Rank 0's value, everywhere."""
    return value if _team is None else _team.share(value)


def receive() -> Any:
    """On the other processes: return the value that rank 0 shares."""
    nothing: Any = None
    return share(nothing)


def gather(value: T) -> list[T]:
    """Return the values of all processes by rank, on every process."""
    return [value] if _team is None else _team.gather(value)


def call(job: str, *arguments: Any) -> Any:
    """On rank 0: run `module:function` on all processes and return rank 0's result."""
    if _team is not None:
        return _team.call(job, *arguments)
    return resolve(job)(*arguments)


@contextmanager
def leader_first() -> Iterator[None]:
    """Run the block on rank 0 first, then on the others, so that they find what rank 0 made."""
    if not leads():
        gather(None)
    try:
        yield
    finally:
        if leads():
            gather(None)
