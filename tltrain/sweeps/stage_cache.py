"""The cache of stages: each result lives once, under the fingerprint of what decides it.

    CACHE/stages/pkt-0123456789abcdef/     what the stage wrote
        entry.json                         last: the files with their digests, the fingerprinted configuration, the cost
    CACHE/stages/.locks/                   one lock an entry

An entry without `entry.json` is unfinished, one whose files are not those that it lists is altered: neither is ever
used. Who builds an entry holds its lock; others wait for it, and as the operating system frees the lock of a process
that died, the next in line builds the entry anew.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tltrain.errors import TltrainError
from tltrain.runtime import fingerprints, memory, runs, terminal

log = logging.getLogger(__name__)

NOT_LISTED = ("wandb", "tensorboard")
"""Folders that trackers leave in an entry: no part of the result."""


@dataclass(frozen=True)
class Cost:
    """What making an entry took, or would have taken."""

    name: str
    fingerprint: str
    seconds: float
    peak_memory_bytes: int | None
    tokens: int | None
    reused: bool


@dataclass(frozen=True)
class Entry:
    """A whole entry: its folder, what the stage returned, and its cost."""

    folder: Path
    metrics: dict[str, Any]
    cost: Cost


@dataclass
class Manifest:
    """`entry.json`. `files`: relative name -> size, time of change in ns, SHA-256."""

    stage: str
    fingerprint: str
    decided_by: Mapping[str, Any]
    seconds: float
    peak_memory_bytes: int | None
    created: str
    files: dict[str, tuple[int, int, str]] = field(default_factory=dict)


Build = Callable[[Path], dict[str, Any]]


class StageCache:
    """Results by fingerprint, below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, stage: str, decided_by: Mapping[str, Any], build: Build, resumable: bool = False) -> Entry:
        """The entry for what `decided_by` says; built by `build(folder) -> metrics` where there is none.

        Args:
            resumable: `build` goes on from what a builder that was stopped left in the folder.
        """
        name = fingerprints.fingerprint(decided_by)
        folder = self.root / f"{stage}-{name}"
        with self._locked(folder):
            manifest = self._whole(folder)
            if manifest is not None:
                os.utime(folder / "entry.json")  # when it was last of use
                return _entry(folder, manifest, reused=True)
            if folder.exists() and not (resumable and not (folder / "entry.json").exists()):
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
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
            runs.write_json(folder / "entry.json", asdict(manifest))
            return _entry(folder, manifest, reused=False)

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{folder.name}.lock")
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            with terminal.status(f"waiting for another job that makes {folder.name}"):
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _whole(self, folder: Path) -> Manifest | None:
        """The manifest of an entry that is as it was when it was finished."""
        if not (folder / "entry.json").is_file():
            return None
        manifest = read_manifest(folder)
        if manifest is None or (changed := _altered(folder, manifest)):
            what = "its entry.json cannot be read" if manifest is None else f"{changed} is not as it was"
            log.warning("%s is made anew: %s", folder, what)
            return None
        return manifest

    def entries(self) -> list[tuple[Path, Manifest | None]]:
        """Every entry's folder with its manifest (None: unfinished), the last used last."""
        if not self.root.is_dir():
            return []
        folders = [folder for folder in self.root.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
        return sorted(((folder, read_manifest(folder)) for folder in folders), key=lambda entry: last_used(entry[0]))

    def remove(self, folder: Path) -> bool:
        """Remove an entry; False where a job is building it."""
        lock = FileLock(self.root / ".locks" / f"{folder.name}.lock")
        lock_folder = self.root / ".locks"
        lock_folder.mkdir(parents=True, exist_ok=True)
        try:
            with lock.acquire(timeout=0):
                (folder / "entry.json").unlink(missing_ok=True)  # first: half of it is left if this is interrupted
                shutil.rmtree(folder)
                return True
        except Timeout:
            return False


def last_used(folder: Path) -> float:
    """When the entry was made or last asked for, in seconds since the epoch."""
    manifest = folder / "entry.json"
    return (manifest if manifest.exists() else folder).stat().st_mtime


def size(folder: Path) -> int:
    """Bytes of all files of an entry."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def read_manifest(folder: Path) -> Manifest | None:
    """`entry.json`, None where there is none that can be read."""
    try:
        return Manifest(**json.loads((folder / "entry.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _listed(folder: Path) -> dict[str, tuple[int, int, str]]:
    listed = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and name.parts[0] not in NOT_LISTED and name.name != "entry.json":
            stat = file.stat()
            listed[name.as_posix()] = (stat.st_size, stat.st_mtime_ns, fingerprints.of_file(file))
    return listed


def _altered(folder: Path, manifest: Manifest) -> str | None:
    """The first file that is missing or has another content; content is read where size or time tell of a change."""
    for name, (length, mtime_ns, digest) in manifest.files.items():
        try:
            stat = (folder / name).stat()
            same = stat.st_size == length and (
                stat.st_mtime_ns == mtime_ns or fingerprints.of_file(folder / name) == digest
            )
        except OSError:
            same = False
        if not same:
            return name
    return None


def _entry(folder: Path, manifest: Manifest, reused: bool) -> Entry:
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TltrainError(f"{folder / 'metrics.json'} cannot be read: {error}") from error
    train = metrics.get("train") or {}
    tokens = train.get("tokens")
    return Entry(
        folder,
        metrics,
        Cost(manifest.stage, manifest.fingerprint, manifest.seconds, manifest.peak_memory_bytes, tokens, reused),
    )
