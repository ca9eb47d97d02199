"""The secret by which the processes of a run recognize one another's messages.

Workers that this program starts on one machine get a new secret with each run. Processes that another launcher
started (torchrun, accelerate, deepspeed, srun), or that run on several machines, share only their user: they use the
environment variable TLTRAIN_SECRET, or else a file in the user's home, which the first of them creates.
"""

from __future__ import annotations

import os
import secrets
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tltrain.errors import TltrainError

VARIABLE = "TLTRAIN_SECRET"
SHORTEST = 16
"""Minimum length in characters; a shorter secret could be guessed."""


def new() -> str:
    """Return a random secret for one run."""
    return secrets.token_hex(32)


def of_user(environment: Mapping[str, str]) -> str:
    """Return the user's secret: TLTRAIN_SECRET, else the content of `file`, which is created if it is missing.

    Raises:
        TltrainError: the secret is too short, others may read it, or the file can be neither read nor created.
    """
    given = environment.get(VARIABLE)
    if given is not None:
        if len(given) < SHORTEST:
            raise TltrainError(f"{VARIABLE}: expected at least {SHORTEST} characters, found {len(given)}")
        return given
    path = file(environment)
    remedy = f"or set {VARIABLE} to the same random text for all processes"
    try:
        if not path.exists():
            _make(path)
        with path.open(encoding="utf-8") as opened:
            found = os.fstat(opened.fileno())
            text = opened.read(10_000).strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise TltrainError(
            f"several processes need a common secret, but {path} cannot be used ({why}): repair it, {remedy}"
        ) from error
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077 or found.st_uid != os.geteuid():
        raise TltrainError(f"{path} must be readable only by you (mode {mode:04o}): chmod 600 {path}, {remedy}")
    if len(text) < SHORTEST:
        raise TltrainError(f"{path}: expected at least {SHORTEST} characters: remove it, {remedy}")
    return text


def file(environment: Mapping[str, str]) -> Path:
    """Return the path of the user's secret: `tltrain/secret` in XDG_CONFIG_HOME, else in `~/.config`.

    Raises:
        TltrainError: the user has no home.
    """
    base = Path(environment.get("XDG_CONFIG_HOME") or "")
    if not base.is_absolute():
        base = Path(environment.get("HOME") or os.path.expanduser("~"), ".config")
    if not base.is_absolute():
        raise TltrainError(f"several processes need a common secret, and HOME is not set: set {VARIABLE}")
    return base / "tltrain" / "secret"


def _make(path: Path) -> None:
    """Write a new secret; if several processes do so at once, even on several machines, one succeeds."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".secret.{socket.gethostname()}.{os.getpid()}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
            opened.write(new() + "\n")
        with suppress(FileExistsError):
            os.link(part, path)  # unlike a rename, a link replaces nothing
    finally:
        part.unlink(missing_ok=True)
