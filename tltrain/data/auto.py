"""Which format a record has: what `data=auto` takes, and what an error of another reader suggests."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from tltrain.data import (
    adp,
    anthropic,
    glaive,
    irm,
    native,
    openai,
    prompt_completion,
    responses,
    sharegpt,
    tl_training,
    toolace,
    toolbench,
    xlam,
)
from tltrain.data.reading import shown
from tltrain.errors import FieldError, shorten
from tltrain.trajectory import Trajectory

log = logging.getLogger(__name__)

Parse = Callable[[Any, int, Counter[str]], Iterable[Trajectory]]


def _is_native(record: dict[str, Any]) -> str:
    messages = record.get("messages")
    ours = {"call", "calls", "answers"}
    if not isinstance(messages, list):
        return ""
    if any(isinstance(message, dict) and ours & message.keys() for message in messages):
        return "`messages` have `call`"
    return "it has a `version`" if isinstance(record.get("version"), int) and "tools" in record else ""


def _system_text(record: dict[str, Any]) -> str:
    """The text of the system message that the paper's files begin with."""
    entries = record.get("conversations")
    first = entries[0] if isinstance(entries, list) and entries else None
    text = first.get("content") if isinstance(first, dict) and first.get("role") == "system" else None
    return text if isinstance(text, str) else ""


def _is_raw(record: dict[str, Any]) -> str:
    return "the system message of `conversations` is a list of tools" if _system_text(record).startswith("[") else ""


def _is_irm(record: dict[str, Any]) -> str:
    pair = [record.get(key) for key in ("instruction", "output")]
    prompt = isinstance(pair[0], str) and pair[0].startswith("System:")
    return "`instruction` is a prompt in the TL format" if prompt and isinstance(pair[1], str) else ""


def _is_turns(record: dict[str, Any]) -> str:
    stubs = "Function:\ndef " in _system_text(record)
    return "the system message of `conversations` has tools as stubs" if stubs else ""


FORMATS: dict[str, tuple[Callable[[dict[str, Any]], str], Parse | None]] = {
    "tltrain": (_is_native, native.parse),
    "tl_training": (_is_raw, tl_training.parse),
    "turns": (_is_turns, None),
    "irm": (_is_irm, irm.parse),
    "toolace": (toolace.recognise, toolace.parse),
    "toolbench": (toolbench.recognise, toolbench.parse),
    "sharegpt": (sharegpt.recognise, sharegpt.parse),
    "xlam": (xlam.recognise, xlam.parse),
    "glaive": (glaive.recognise, glaive.parse),
    "responses": (responses.recognise, responses.parse),
    "adp": (adp.recognise, adp.parse),
    "anthropic": (anthropic.recognise, anthropic.parse),
    "prompt_completion": (prompt_completion.recognise, prompt_completion.parse),
    "openai": (openai.recognise, openai.parse),
}
"""By the name of the `data` choice: what shows that a record has the format, and its parser, in the order in which they
are asked. `turns` has none: its records belong together, and it reads the file itself."""


def recognised(record: Any) -> tuple[str, str] | None:
    """Return the name of the format that a record has and what shows it; None if it has none of `FORMATS`."""
    if not isinstance(record, dict):
        return None
    return next(((name, why) for name, (recognise, _) in FORMATS.items() if (why := recognise(record))), None)


class Auto:
    """Reads records in the format of the first one that has any (`data=auto`), and says which that is."""

    def __init__(self) -> None:
        self._name = ""
        self._parse: Parse | None = None

    def __call__(self, record: Any, number: int, notes: Counter[str]) -> Iterable[Trajectory]:
        """Parse the trajectories of a record. Raises FieldError, also for the first record if it has no format."""
        if self._parse is None:
            self._choose(record)
        assert self._parse is not None
        return self._parse(record, number, notes)

    def _choose(self, record: Any) -> None:
        if not isinstance(record, dict):
            list(openai.parse(record, 0, Counter()))  # says what is expected instead
            raise FieldError("record", "an object", shown(record))
        found = recognised(record)
        if found is None:
            named = ", ".join(map(shorten, list(record)[:12])) or "none"
            raise FieldError("record", f"one of the formats {', '.join(FORMATS)}", f"the fields {named}")
        self._name, why = found
        self._parse = FORMATS[self._name][1]
        if self._parse is None:
            raise FieldError("record", f"data={self._name} for such a file", why)
        log.info("data=auto: read as data=%s, since %s", self._name, why)
