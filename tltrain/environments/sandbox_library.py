"""The folder from which tools of a library are loaded: the library itself, or a copy that the tools' user can read.

Root's tools run as the user `nobody`. If that user cannot read all of a library, it gets a copy, made once for all
conversations and again if the library has changed. A library is untrusted: a file that cannot be copied stops the run
with its name and never weakens the isolation.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import stat
import threading
from pathlib import Path

from tltrain.environments.sandbox_folders import ToolFolder, others_may_enter
from tltrain.errors import TltrainError

MOST_BYTES = 256 << 20
MOST_FILES = 20_000
DEEPEST = 64
"""Limits of a copy; a larger library must be made readable for other users instead."""

_copies: dict[tuple[Path, int], ToolFolder] = {}
_lock = threading.Lock()


def readable(library: Path, user: int | None) -> Path:
    """Return the folder from which `user` can read the library's modules; None: our own user, who reads the library.

    Raises:
        TltrainError: the library must be copied and cannot be; the message names the file.
    """
    library = library.resolve()
    if user is None or (others_may_enter(str(library)) and _readable_by_others(library)):
        return library
    with _lock:
        version = library, _signature(library)
        if version not in _copies:
            folder = ToolFolder()
            try:
                copy(library, Path(folder.make("library")))
            except BaseException:
                folder.close()
                raise
            _copies[version] = folder
            atexit.register(folder.close)
        return Path(_copies[version].path, "library")


def _signature(library: Path) -> int:
    """Return a value that changes with the files of the library; beyond `MOST_FILES` none are copied."""
    found: list[tuple[str, int, int, int, int]] = []
    waiting = [str(library)]
    while waiting and len(found) <= MOST_FILES:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                found.append((entry.path, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns))
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                if len(found) > MOST_FILES:
                    break
    return hash(tuple(sorted(found)))


def _readable_by_others(library: Path) -> bool:
    """Return whether any user can read all files and folders; False beyond `MOST_FILES`."""
    count, waiting = 0, [library]
    while waiting:
        folder = waiting.pop()
        try:
            if folder.stat().st_mode & 0o005 != 0o005:
                return False
            with os.scandir(folder) as entries:
                for entry in entries:
                    count += 1
                    if entry.is_symlink():
                        continue
                    if entry.is_dir():
                        waiting.append(Path(entry.path))
                    elif not entry.stat().st_mode & stat.S_IROTH:
                        return False
        except OSError:
            return False
        if count > MOST_FILES:
            return False
    return True


class _Copy:
    """The bytes and files of a library that were copied so far."""

    def __init__(self) -> None:
        self.bytes = self.files = 0

    def count(self, path: str, size: int) -> None:
        self.bytes += size
        if self.bytes > MOST_BYTES:
            raise _refusal(path, f"the library is larger than {MOST_BYTES >> 20} MB")

    def count_file(self, path: str) -> None:
        self.files += 1
        if self.files > MOST_FILES:
            raise _refusal(path, f"the library has more than {MOST_FILES:,} files")


def copy(source: Path, target: Path) -> None:
    """Copy a library into an empty folder that everybody can read. Links are copied as links.

    Raises:
        TltrainError: an entry cannot be read or is not a file, folder or link, or the library is too large.
    """
    try:
        root = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _refusal(str(source), error.strerror or str(error)) from None
    _copy_folder(root, str(source), str(target), _Copy(), 0)


def _copy_folder(folder: int, path: str, target: str, done: _Copy, depth: int) -> None:
    """Copy the open `folder` at `path` and close it. Names are looked up in the descriptor, so no link can mislead."""
    try:
        if depth > DEEPEST:
            raise _refusal(path, f"folders lie deeper than {DEEPEST} levels")
        with os.scandir(folder) as entries:
            for entry in entries:
                inside, to = f"{path}/{entry.name}", f"{target}/{entry.name}"
                done.count_file(inside)
                try:
                    _copy_entry(folder, entry.name, inside, to, done, depth)
                except OSError as error:
                    raise _refusal(inside, error.strerror or str(error)) from None
        os.chmod(target, 0o755)
    except OSError as error:
        raise _refusal(path, error.strerror or str(error)) from None
    finally:
        os.close(folder)


def _copy_entry(folder: int, name: str, path: str, target: str, done: _Copy, depth: int) -> None:
    mode = os.lstat(name, dir_fd=folder).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(name, dir_fd=folder), target)
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise _refusal(path, "it is no file but a pipe, socket or device")
    # A link or a pipe may have replaced the file meanwhile: follow none, and wait for no writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    if stat.S_ISDIR(mode):
        os.mkdir(target, 0o700)
        _copy_folder(os.open(name, flags | os.O_DIRECTORY, dir_fd=folder), path, target, done, depth + 1)
        return
    with os.fdopen(os.open(name, flags, dir_fd=folder), "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _refusal(path, "it is no file but a pipe, socket or device")
        with open(target, "xb") as written:
            while chunk := file.read(1 << 20):
                done.count(path, len(chunk))  # also ends for a file that keeps growing
                written.write(chunk)
    os.chmod(target, 0o755 if mode & 0o111 else 0o644)


def _refusal(path: str, reason: str) -> TltrainError:
    return TltrainError(
        f"{path}: the tool library cannot be copied for the user nobody, which root's tools run as: {reason}; remove "
        "it from the library, make the whole library readable for others, or run as a user other than root"
    )
