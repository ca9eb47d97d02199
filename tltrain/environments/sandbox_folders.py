"""Temporary folders for the tools of a library, and the removal of folders whose owner was killed.

    tltrain-tool-RANDOM/    ours; other users may enter but not list it
        owner               locked by our process while it lives: the kernel releases the lock however the process ends
        home/, library/     the folder that a tool may write, and a copy of the library that it may read

A folder whose `owner` is not locked was left by a dead process; the next run removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
import time
from functools import cache

PREFIX = "tltrain-tool-"
OWNER = "owner"
DAY = 24 * 3600.0
"""Seconds after which a folder without `owner`, which earlier versions made, counts as left behind."""


class ToolFolder:
    """A new temporary folder. `close` removes it, or a later run if this process is killed before."""

    def __init__(self) -> None:
        parent = parent_folder()
        remove_stale(parent)
        self.path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        if os.geteuid() == 0:
            os.chmod(self.path, 0o711)  # the tool runs as another user and must reach the content
        # Locked before it gets its name: any run may remove a folder with an unlocked `owner`.
        self._lock = os.open(f"{self.path}/{OWNER}.new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with contextlib.suppress(OSError):  # a file system without locks: the folder counts as in use for a day
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(f"{self.path}/{OWNER}.new", f"{self.path}/{OWNER}")

    def make(self, name: str) -> str:
        """Make a folder inside, accessible to our user only until the tool's user becomes its owner."""
        os.mkdir(f"{self.path}/{name}", 0o700)
        return f"{self.path}/{name}"

    def close(self) -> None:
        """Remove the folder with everything in it."""
        remove(self.path)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def parent_folder() -> str:
    """Return the folder for temporary folders; for root, one that the user `nobody` can enter.

    Raises:
        OSError: there is no such folder.
    """
    first = tempfile.gettempdir()
    if os.geteuid() != 0:
        return first
    for folder in (first, "/tmp", "/var/tmp"):
        if others_may_enter(folder) and os.access(folder, os.W_OK):
            return folder
    raise OSError(f"no temporary folder that the user nobody can enter: {first}, /tmp and /var/tmp cannot be")


def others_may_enter(folder: str) -> bool:
    """Return whether any user can enter all folders of a path, including the last one."""
    path = os.path.realpath(folder)
    while True:
        try:
            if not os.stat(path).st_mode & stat.S_IXOTH:
                return False
        except OSError:
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


@cache
def remove_stale(parent: str) -> None:
    """Remove our folders in `parent` whose process is dead; once per process."""
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    _remove_if_stale(entry.path)


def _remove_if_stale(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)  # fails for a link
    try:
        status = os.fstat(folder)
        if status.st_uid != os.geteuid():
            return
        try:
            owner = os.open(OWNER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except FileNotFoundError:
            if time.time() - status.st_mtime > DAY and not _named_by_a_process(path):
                remove(path)
            return
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the owner lives
            remove(path)
        finally:
            os.close(owner)
    finally:
        os.close(folder)


def _named_by_a_process(path: str) -> bool:
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            if os.fsencode(path) in file.read():
                return True
    return False


def remove(folder: str) -> None:
    """Delete a folder with any content that a tool may have left; links are not followed."""
    with contextlib.suppress(RecursionError):  # folders in folders in folders ...
        shutil.rmtree(folder, ignore_errors=True)
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwx"], ["rm", "-rf"]):  # a tool may have removed our permissions
        if not os.path.isdir(folder):
            return
        with contextlib.suppress(OSError):
            subprocess.run([*command, "--", folder], check=False, stderr=subprocess.DEVNULL)
