"""The folder that tools of a library are loaded from: the library itself, or a copy that the tools' user can read.

Root's tools run as the user `nobody`. Where that user cannot read all of a library, a copy is made for it, once for all
conversations, and again where the library has changed. A library is a stranger's: whatever cannot be copied stops the
run with the file's name. It never makes the isolation weaker.
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
"""Limits of a copy; a library beyond them has to be made readable for others instead."""

_copies: dict[tuple[Path, int], ToolFolder] = {}
_lock = threading.Lock()


def readable(library: Path, user: int | None) -> Path:
    """The folder with the library's modules that `user` can read; None: our own user, who reads it where it is.

    Raises:
        TltrainError: it has to be copied and cannot be; names the file.
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
    """What changes when a file of the library does; of at most `MOST_FILES`, as more are not copied."""
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
    """Whether a user without rights of their own can read all files and folders; False beyond `MOST_FILES`."""
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
    """How much of a library was copied so far."""

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
    """Copy a library into an empty folder, for everybody to read. Links are copied as links, and not followed.

    Raises:
        TltrainError: a file cannot be read, is neither file, folder nor link, or the library is too large.
    """
    try:
        root = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _refusal(str(source), error.strerror or str(error)) from None
    _copy_folder(root, str(source), str(target), _Copy(), 0)


def _copy_folder(folder: int, path: str, target: str, done: _Copy, depth: int) -> None:
    """Copy the open `folder`, which lies at `path`, and close it. Names are looked up in it: no link can mislead."""
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
    # Neither following a link nor waiting for the writer of a pipe that has taken the file's place meanwhile.
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
                done.count(path, len(chunk))  # a file that grows all the time ends here
                written.write(chunk)
    os.chmod(target, 0o755 if mode & 0o111 else 0o644)


def _refusal(path: str, reason: str) -> TltrainError:
    return TltrainError(
        f"{path}: the tool library cannot be copied for the user nobody, as whom root's tools run: {reason}; remove it "
        "from the library, make the whole library readable for others, or run as a user other than root"
    )
