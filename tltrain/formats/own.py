"""Resolve a choice of `format`: a native format by name, or the user's own `Format`.

A class named by `_target_` is constructed with the keys beside it. It implements `tltrain.formats.Format`, most easily
as a subclass of `TlFormat`. Its `answer` returns TL-format text, which is graded.
"""

from __future__ import annotations

from collections.abc import Callable

from omegaconf import DictConfig

from tltrain import config
from tltrain.errors import TltrainError
from tltrain.formats import Format
from tltrain.formats.families import NAMES

TARGET = "_target_"
METHODS = ("segments", "prompt_segments", "call_text", "name_at", "call_head", "answer_length", "answer")


def named(format: config.Format) -> str:
    """Return the name of a built-in format: `tl`, `tl_full` or a native one."""
    return str(format.name)


FORMATS: dict[str, Callable[..., str | Format]] = dict.fromkeys(NAMES, named)
"""Formats by the name of their choice."""


def check(made: object, target: str) -> Format:
    """Return the user's own object if it has all members of a `Format`.

    Raises:
        TltrainError: a member is missing.
    """
    lacking = [name for name in METHODS if not callable(getattr(made, name, None))]
    lacking += [name for name in ("writes_bos", "stop") if not hasattr(made, name)]
    if lacking:
        raise TltrainError(
            f"format.{TARGET}={target}: expected a tltrain.formats.Format (inherit from tltrain.formats.tl.TlFormat), "
            f"found {type(made).__name__} without {', '.join(lacking)}"
        )
    return made  # type: ignore[return-value]  # checked by member names only


def is_own(format: DictConfig | None) -> bool:
    """Return whether the choice is a user's own format."""
    return format is not None and format.get(TARGET) is not None
