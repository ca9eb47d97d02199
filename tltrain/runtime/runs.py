"""Run folders, which are Hydra's. `metrics.json` is written last: a folder without it is unfinished.

A process holds a lock on the folder's `.lock` while it writes there; the operating system frees it if the process dies.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tltrain.errors import TltrainError
from tltrain.runtime import distributed, json_files, redact, yaml_files


def folder() -> Path:
    """Return the folder of the current run."""
    return Path(HydraConfig.get().runtime.output_dir)


def obstacle(directory: Path) -> str | None:
    """Return why a folder cannot be created or written to; None if no obstacle is known."""
    place = directory.absolute()
    there = next((each for each in (place, *place.parents) if os.path.lexists(each)), place)
    for name in place.relative_to(there).parts:
        if len(os.fsencode(name)) > LONGEST_NAME:
            return f"a name has {len(os.fsencode(name))} bytes, but file systems allow {LONGEST_NAME}"
    if there.is_symlink() and not there.exists():
        return f"{there} is a link to {os.readlink(there)}, which does not exist"
    if not there.is_dir():
        return f"{there} is a file"
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return f"{there} is on a read-only file system"
    return None if os.access(there, os.W_OK | os.X_OK) else f"no permission to write in {there}"


LONGEST_NAME = 255
"""Maximum number of bytes of a file's name on common file systems."""
_claimed: list[FileLock] = []


def claim(directory: Path) -> None:
    """Lock a run's or a sweep's folder for this process until `release` or the end of the process.

    Raises:
        TltrainError: another process holds it.
        OSError: the folder cannot be created or written to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / ".lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TltrainError(
            f"another run is in progress in {directory} ({_owner(path)}): wait for it, or give another "
            "hydra.run.dir (for a sweep: hydra.sweep.dir)"
        ) from None
    path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
    _claimed.append(lock)


def release() -> None:
    """Release every folder that `claim` locked."""
    while _claimed:
        _claimed.pop().release()


def _owner(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() or "by a process"
    except (OSError, ValueError):
        return "by a process"


@contextmanager
def writing(path: Path, data: bool = False) -> Iterator[IO[str]]:
    """Open a text file that appears under its name only when complete, with known secrets masked. Only rank 0 writes.

    Args:
        data: whether it is a copy of the user's own data, which training reads again and which no secret of the run can
            have reached: it is written unmasked.
    """
    if not distributed.leads():
        yield io.StringIO()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield file if data else cast(IO[str], redact.Stream(file))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def writing_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file of the user's own data that appears under its name only when complete. Only rank 0 writes."""
    if not distributed.leads():
        yield io.BytesIO()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def readable_by_umask(folder: Path) -> None:
    """Give all files below `folder` the permissions that the umask leaves a new file.

    safetensors creates its files with mode 0600, so that a server under another user could not read a model.
    """
    probe = folder / f".{os.getpid()}.part"
    try:
        with probe.open("w") as file:  # asking for the umask itself would change it for all threads
            mode = os.fstat(file.fileno()).st_mode & 0o777
    finally:
        probe.unlink(missing_ok=True)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and (found := path.stat().st_mode & 0o777) != found & 0o111 | mode:
            with suppress(OSError):  # a file system without permissions
                path.chmod(found & 0o111 | mode)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, completely or not at all."""
    with writing(path, data=True) as file:  # masked here, since a mask instead of a number would not be JSON
        json.dump(redact.known_in(value), file, ensure_ascii=False, indent=2, sort_keys=False)
        file.write("\n")


def write_lines(path: Path, lines: Iterable[str], data: bool = False) -> None:
    """Write lines (given without line breaks), completely or not at all; `data` as in `writing`."""
    with writing(path, data) as file:
        for line in lines:
            file.write(line + "\n")


def history(directory: Path) -> list[dict[str, Any]]:
    """Return what a training run logged, step by step: `history.jsonl`."""
    return [json_files.parse(line) for line in (directory / "history.jsonl").read_text(encoding="utf-8").splitlines()]


def ended(directory: Path) -> dict[str, Any] | None:
    """Return the metrics of a run that has finished; None if it has not."""
    try:
        return json_files.read_object(directory / "metrics.json")
    except (OSError, ValueError):
        return None


def check_stage(directory: Path, cfg: DictConfig) -> None:
    """Refuse to run in the folder of a finished run of another stage, since their files would be mixed.

    Raises:
        TltrainError: there is such a run, and `overwrite=true` is not set.
    """
    before = ended(directory) and stage_of(directory)
    if before and before != cfg.stage.name and not cfg.overwrite:
        raise TltrainError(
            f"{directory} has the finished run of stage={before}: give stage={cfg.stage.name} another hydra.run.dir, "
            "or overwrite=true to write among its files"
        )


def check_place(directory: Path, cfg: DictConfig) -> None:
    """Raise a TltrainError if a run or a sweep would write inside the cache."""
    if cfg.cache.dir.strip() and directory.resolve().is_relative_to(Path(cfg.cache.dir).resolve()):
        raise TltrainError(
            f"{directory} is inside the cache (cache.dir={cfg.cache.dir}): give another hydra.run.dir (for a sweep: "
            "hydra.sweep.dir)"
        )


def stage_of(directory: Path) -> str | None:
    """Return the stage of the run that last finished in a folder; None if it is not recorded."""
    try:
        found = yaml_files.read(directory / "config.yaml")["stage"]["name"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if isinstance(found, str) else None


TIMED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")
"""The time in the folder names that `hydra.run.dir` and `hydra.sweep.dir` of `conf/` generate."""


def link_latest(directory: Path) -> None:
    """Point the link `latest` beside a folder `outputs/NAME/TIME` at it: the newest run or sweep that has ended.

    A folder with any other name is the user's choice, and gets no link beside it. If no link can be created, as on some
    file systems, that is not an error.
    """
    directory = directory.absolute()
    if directory.parents[1].name != "outputs" or not TIMED.fullmatch(directory.name) or not distributed.leads():
        return
    link = directory.with_name("latest")
    part = directory.with_name(f".latest.{os.getpid()}.part")
    if link.exists() and not link.is_symlink():
        return
    with suppress(OSError, NotImplementedError):
        part.symlink_to(directory.name, target_is_directory=True)
        try:
            os.replace(part, link)
        finally:
            part.unlink(missing_ok=True)


def finish(directory: Path, cfg: DictConfig, metrics: dict[str, Any]) -> None:
    """Write the resolved configuration without secrets, then the metrics, which mark the run as finished."""
    with writing(directory / "config.yaml") as file:
        file.write(redact.as_yaml(redact.config(cfg)))
    write_json(directory / "metrics.json", metrics)
