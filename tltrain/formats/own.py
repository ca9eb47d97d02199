"""Formats: what a choice of `format` comes to, a native format by its name or a `Format` of a user's own.

A class that `_target_` names is made of its keys; it has what `tltrain.formats.Format` has, and is most easily a
`TlFormat` with other methods. Whatever it makes of an answer (`answer`) is text of the TL format, which is graded.
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
    """Return the name of a format of ours: `tl`, or a native one."""
    return str(format.name)


FORMATS: dict[str, Callable[..., str | Format]] = dict.fromkeys(NAMES, named)
"""Formats by the name of their choice."""


def check(made: object, target: str) -> Format:
    """Return an object of a user's own if it has what a format has.

    Raises:
        TltrainError: it lacks something.
    """
    lacking = [name for name in METHODS if not callable(getattr(made, name, None))]
    lacking += [name for name in ("writes_bos", "stop") if not hasattr(made, name)]
    if lacking:
        raise TltrainError(
            f"format.{TARGET}={target}: expected a tltrain.formats.Format (inherit from tltrain.formats.tl.TlFormat), "
            f"found {type(made).__name__} without {', '.join(lacking)}"
        )
    return made  # type: ignore[return-value]  # as far as can be told from its names


def is_own(format: DictConfig | None) -> bool:
    """Return whether the choice is a user's own."""
    return format is not None and format.get(TARGET) is not None
