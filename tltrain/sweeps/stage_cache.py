"""The cache of stages: each result is stored once, under the fingerprint of everything that determines it.

    CACHE/stages/pkt-0123456789abcdef/     the stage's output
        .tltrain-entry                     written first: marks a folder that the cache made, and may remove
        entry.json                         written last: files with digests, the fingerprinted configuration, the cost
    CACHE/stages/.locks/NAME.lock          held while a process builds, checks or removes an entry
    CACHE/stages/.locks/NAME.users/        one lock for each job that uses the entry

An entry without `entry.json` is unfinished; one whose files differ from those listed in it has been altered. Neither is
ever used. A process that builds an entry holds its lock and others wait. The operating system frees the lock of a
process that died, and the next one builds the entry again. A job uses its entries until `StageCache.release`.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tltrain.errors import TltrainError
from tltrain.runtime import fingerprints, json_files, manifests, memory, runs, terminal

log = logging.getLogger(__name__)

TRACKERS_OWN = ("wandb", ".wandb_id", "tensorboard")
"""What trackers write to an entry; it is not part of the result."""
MANIFEST, MARK = manifests.ENTRY, ".tltrain-entry"


@dataclass(frozen=True)
class Cost:
    """The cost of building an entry, paid now or, if it was reused, earlier."""

    name: str
    fingerprint: str
    seconds: float
    peak_memory_bytes: int | None
    tokens: int | None
    reused: bool


@dataclass(frozen=True)
class Entry:
    """A complete entry: its folder, the stage's metrics, and its cost."""

    folder: Path
    metrics: dict[str, Any]
    cost: Cost


@dataclass
class Manifest:
    """The content of `entry.json`. `files`: relative name -> size, digest."""

    stage: str
    fingerprint: str
    decided_by: Mapping[str, Any]
    seconds: float
    peak_memory_bytes: int | None
    created: str
    files: dict[str, list[Any]] = field(default_factory=dict)


Build = Callable[[Path], dict[str, Any]]


class StageCache:
    """Results by fingerprint, stored below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._in_use: dict[Path, FileLock] = {}

    def get(self, stage: str, decided_by: Mapping[str, Any], build: Build, resumable: bool = False) -> Entry:
        """Return the entry for `decided_by`; if there is none, build it with `build(folder) -> metrics`.

        The entry is in use from then on: no process removes it before `release` or the end of this process.

        Args:
            resumable: `build` can continue from the files that a stopped builder left in the folder.
        """
        name = fingerprints.fingerprint(decided_by)
        folder = self.root / f"{stage}-{name}"
        with self._locked(folder):
            self._use(folder)
            manifest = self._whole(folder)
            if manifest is not None:
                os.utime(folder / MANIFEST)  # the time of last use
                return _entry(folder, manifest, reused=True)
            if folder.exists() and not (resumable and not (folder / MANIFEST).exists()):
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / MARK).touch()
            start = time.monotonic()
            with memory.peak() as peak:
                build(folder)
            manifest = Manifest(
                stage,
                name,
                decided_by,
                round(time.monotonic() - start, 2),
                peak.bytes,
                datetime.now(UTC).isoformat(timespec="seconds"),
                _listed(folder),
            )
            runs.write_json(folder / MANIFEST, asdict(manifest))
            return _entry(folder, manifest, reused=False)

    def release(self) -> None:
        """Stop using all entries."""
        while self._in_use:
            _, lock = self._in_use.popitem()
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)

    def _use(self, folder: Path) -> None:
        """Use the entry until `release`; the caller must hold its lock."""
        if folder not in self._in_use:
            users = self._users(folder)
            users.mkdir(parents=True, exist_ok=True)
            lock = FileLock(users / f"{os.getpid()}-{secrets.token_hex(4)}.lock", thread_local=False)
            lock.acquire()
            self._in_use[folder] = lock

    def _is_used(self, folder: Path) -> bool:
        """Return whether a job uses the entry, and remove locks of dead jobs; the caller must hold the entry's lock."""
        for file in self._users(folder).glob("*.lock"):
            lock = FileLock(file)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return True
            lock.release()
            file.unlink(missing_ok=True)
        return False

    def _lock(self, folder: Path) -> FileLock:
        (self.root / ".locks").mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / ".locks" / f"{folder.name}.lock")

    def _users(self, folder: Path) -> Path:
        return self.root / ".locks" / f"{folder.name}.users"

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        lock = self._lock(folder)
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            with terminal.status(f"waiting for another job, which builds {folder.name}"):
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _whole(self, folder: Path) -> Manifest | None:
        """Return the manifest of an intact entry, else None; this reads all its files, once per process."""
        if not (folder / MANIFEST).is_file():
            return None
        manifest = read_manifest(folder)
        if manifest is None:
            what = f"its {MANIFEST} cannot be read"
        elif folder.name != f"{manifest.stage}-{manifest.fingerprint}":
            what = f"its {MANIFEST} belongs to another entry"
        elif (changed := manifests.changed(folder, manifest.files)) is not None:
            what = f"{changed} has changed"
        else:
            return manifest
        log.warning("%s is built again: %s", folder, what)
        return None

    def entries(self) -> list[tuple[Path, Manifest | None]]:
        """Return every entry's folder and manifest (None if unfinished), the most recently used last.

        Folders without the cache's mark belong to others and are not listed.
        """
        folders = [folder for folder in self._folders() if is_entry(folder)]
        return sorted(((folder, read_manifest(folder)) for folder in folders), key=lambda entry: last_used(entry[0]))

    def foreign(self) -> list[Path]:
        """Return the folders beside the entries that the cache did not make."""
        return sorted(folder for folder in self._folders() if not is_entry(folder))

    def _folders(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        return [
            folder
            for folder in self.root.iterdir()
            if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith(".")
        ]

    def remove(self, folder: Path) -> bool:
        """Remove an entry. Return False if a job builds or uses it, or if it is not an entry of the cache."""
        lock = self._lock(folder)
        try:
            with lock.acquire(timeout=0):
                if not is_entry(folder) or self._is_used(folder):
                    return False
                (folder / MANIFEST).unlink(missing_ok=True)  # first: an interruption leaves an unfinished entry
                for path in folder.iterdir():
                    if path.name != MARK:  # last, for the same reason
                        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                shutil.rmtree(folder)
                return True
        except Timeout:
            return False


def is_entry(folder: Path) -> bool:
    """Return whether the cache made this folder: it has the mark, or the manifest of a version without marks."""
    return (folder / MARK).is_file() or read_manifest(folder) is not None


def last_used(folder: Path) -> float:
    """Return when the entry was made or last used, in seconds since the epoch; 0 if it has just been removed."""
    for path in (folder / MANIFEST, folder):
        with suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def size(folder: Path) -> int:
    """Return the size in bytes of all files of an entry; a job that builds it may move files at the same time."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def read_manifest(folder: Path) -> Manifest | None:
    """Read `entry.json`; return None if it does not exist or cannot be read."""
    try:
        manifest = Manifest(**json_files.read_object(folder / MANIFEST))
    except (OSError, ValueError, TypeError):
        return None
    files: Any = manifest.files
    if not isinstance(files, dict) or not all(isinstance(kept, list) and len(kept) > 1 for kept in files.values()):
        return None
    # Earlier versions stored a time between size and digest.
    return replace(manifest, files={name: [kept[0], kept[-1]] for name, kept in files.items()})


def _listed(folder: Path) -> dict[str, list[Any]]:
    names = (file.relative_to(folder) for file in fingerprints.files(folder))
    return manifests.of_files(
        folder,
        [name.as_posix() for name in names if name.parts[0] not in TRACKERS_OWN and name.name not in (MANIFEST, MARK)],
    )


def _entry(folder: Path, manifest: Manifest, reused: bool) -> Entry:
    try:
        metrics = json_files.read_object(folder / "metrics.json")
    except (OSError, ValueError) as error:
        raise TltrainError(f"{folder / 'metrics.json'} cannot be read: {error}") from error
    train = metrics.get("train") or {}
    tokens = train.get("tokens")
    return Entry(
        folder,
        metrics,
        Cost(manifest.stage, manifest.fingerprint, manifest.seconds, manifest.peak_memory_bytes, tokens, reused),
    )
