"""Temporary folders around the tools of a library, and the removal of those whose owner was killed.

    tltrain-tool-RANDOM/    ours; other users may pass through it, not list it
        owner               locked by our process for as long as it lives: the kernel lets go of a lock, however it ends
        home/, library/     what a tool may write, a copy that it may read

A folder whose `owner` nobody locks was left by a process that is dead, and the next run removes it.
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
"""Seconds after which a folder without `owner`, as earlier versions made them, counts as left behind."""


class ToolFolder:
    """A new temporary folder, removed by `close`, or by a later run if this process is killed before."""

    def __init__(self) -> None:
        parent = parent_folder()
        remove_stale(parent)
        self.path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        if os.geteuid() == 0:
            os.chmod(self.path, 0o711)  # the tool, which is another user, has to reach what lies inside
        # Locked before it has its name: a folder with an unlocked `owner` may be removed by anybody.
        self._lock = os.open(f"{self.path}/{OWNER}.new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with contextlib.suppress(OSError):  # a file system without locks: the folder counts as in use for a day
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(f"{self.path}/{OWNER}.new", f"{self.path}/{OWNER}")

    def make(self, name: str) -> str:
        """A folder inside, for our user alone until the tool's user is given it."""
        os.mkdir(f"{self.path}/{name}", 0o700)
        return f"{self.path}/{name}"

    def close(self) -> None:
        """Remove the folder with everything in it."""
        remove(self.path)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def parent_folder() -> str:
    """Where temporary folders are made; for root a place that the user `nobody` can get to.

    Raises:
        OSError: there is no such place.
    """
    first = tempfile.gettempdir()
    if os.geteuid() != 0:
        return first
    for folder in (first, "/tmp", "/var/tmp"):
        if others_may_enter(folder) and os.access(folder, os.W_OK):
            return folder
    raise OSError(f"no temporary folder that the user nobody can enter: {first}, /tmp and /var/tmp cannot be")


def others_may_enter(folder: str) -> bool:
    """Whether a user without rights of their own gets through all folders of a path, the last one included."""
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
    """Remove folders of ours in `parent` whose process is dead; once in the life of a process."""
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
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where the owner lives
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
    """Delete what a tool left, however it made it; links are not followed."""
    with contextlib.suppress(RecursionError):  # folders in folders in folders ...
        shutil.rmtree(folder, ignore_errors=True)
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwx"], ["rm", "-rf"]):  # a tool may close its folders to us
        if not os.path.isdir(folder):
            return
        with contextlib.suppress(OSError):
            subprocess.run([*command, "--", folder], check=False, stderr=subprocess.DEVNULL)
