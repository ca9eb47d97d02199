"""Recognise a record's format, for `data=auto` and for the remedies in other readers' errors."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from tltrain.data import (
    adp,
    anthropic,
    api_log,
    gemini,
    glaive,
    irm,
    langchain,
    native,
    openai,
    preference,
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
    """Return the text of the system message with which the paper's files begin."""
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
    "preference": (preference.recognise, preference.parse),
    "toolace": (toolace.recognise, toolace.parse),
    "toolbench": (toolbench.recognise, toolbench.parse),
    "sharegpt": (sharegpt.recognise, sharegpt.parse),
    "xlam": (xlam.recognise, xlam.parse),
    "glaive": (glaive.recognise, glaive.parse),
    "responses": (responses.recognise, responses.parse),
    "adp": (adp.recognise, adp.parse),
    "gemini": (gemini.recognise, gemini.parse),
    "langchain": (langchain.recognise, langchain.parse),
    "anthropic": (anthropic.recognise, anthropic.parse),
    "api_log": (api_log.recognise, api_log.parse),
    "prompt_completion": (prompt_completion.recognise, prompt_completion.parse),
    "openai": (openai.recognise, openai.parse),
}
"""Recogniser and parser of each format by the name of the `data` choice, in the order in which they are tried. `turns`
is not among them: its records depend on each other, and it reads the file itself."""


def recognised(record: Any) -> tuple[str, str] | None:
    """Return the name of a record's format and what shows it; None if it has none of `FORMATS`."""
    if not isinstance(record, dict):
        return None
    return next(((name, why) for name, (recognise, _) in FORMATS.items() if (why := recognise(record))), None)


def _elsewhere(record: dict[str, Any]) -> str:
    """Return the name of the field with a record's messages if it is not one of the known names."""
    for key, value in record.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) and "role" in item for item in value):
            return key
    return ""


def _inside(record: dict[str, Any]) -> bool:
    """Return whether an object contains records: each under its own name, or in a list one or two levels down."""
    below: list[Any] = list(record.values())[:1]
    for value in record.values():
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        below += [each[0] if isinstance(each, list) and each else each for each in islice(inner, 1)]
    return any(recognised(each) is not None for each in below)


def _texts(record: dict[str, Any], *keys: str) -> bool:
    return all(isinstance(record.get(key), str) for key in keys)


UNREAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a request of a batch without its response": (
        lambda record: "custom_id" in record and "body" in record,
        'join both files by custom_id, {"request": ..., "response": ...}, for data=api_log',
    ),
    "a response of a batch without its request": (
        lambda record: "custom_id" in record and "response" in record,
        'join both files by custom_id, {"request": ..., "response": ...}, for data=api_log',
    ),
    "an answer of an API without its request": (
        lambda record: isinstance(record.get("choices"), list) or isinstance(record.get("candidates"), list),
        'store both, {"request": ..., "response": ...}, for data=api_log',
    ),
    "a question of BFCL": (lambda record: {"question", "function"} <= record.keys(), "benchmark=bfcl asks them"),
    "a question of When2Call": (lambda record: "correct_answer" in record, "benchmark=when2call asks them"),
    "prompts for reinforcement learning, without answers": (
        lambda record: "prompt" in record and "reward_model" in record,
        "stage=irm needs golden calls: messages that end with the call, for data=openai",
    ),
    "text that a chat template wrote": (
        lambda record: _texts(record, "text") and "<|" in record["text"],
        "give the messages that it was made from: the text does not say for certain which words are a call",
    ),
    "Alpaca's instruction and output": (
        lambda record: _texts(record, "instruction", "output"),
        "data=prompt_completion reads them once the fields are called prompt and completion",
    ),
    "an object that holds records": (
        _inside,
        "write them as JSON lines, jq -c '.NAME[]' FILE > records.jsonl, or '.[]' if each has a name",
    ),
    "messages in a field of another name": (_elsewhere, "data=openai reads them once the field is called messages"),
}
"""Formats that are known but not read: how to recognise a record of each, and what to do."""


def unread(record: Any) -> tuple[str, str] | None:
    """Return the kind of a record that no reader here reads, and what to do; None if it is unknown."""
    if not isinstance(record, dict):
        return None
    return next(((what, remedy) for what, (is_one, remedy) in UNREAD.items() if is_one(record)), None)


class Auto:
    """Reads all records in the format of the first one (`data=auto`), and logs which format that is."""

    def __init__(self) -> None:
        self._name = ""
        self._parse: Parse | None = None

    def __call__(self, record: Any, number: int, notes: Counter[str]) -> Iterable[Trajectory]:
        """Parse the trajectories of a record. Raises FieldError, also for the first record if it has no format."""
        if self._parse is None:
            self._choose(record)
        assert self._parse is not None
        try:
            return list(self._parse(record, number, notes))
        except FieldError as error:
            raise self._mixed(record, number, error) from None

    def _mixed(self, record: Any, number: int, error: FieldError) -> FieldError:
        """Return the error, with a remedy if the record has another format than the first one."""
        other = recognised(record)
        if other is None or other[0] == self._name:
            return error
        parse = FORMATS[other[0]][1]
        try:
            list(parse(record, number, Counter()) if parse else [])
        except FieldError:
            return error
        remedy = (
            f"{other[1]}, as in data={other[0]}, while the file began with data={self._name}: give each format a file "
            "of its own, or leave these out with data.on_error=skip"
        )
        return FieldError(error.field, error.expected, error.found, remedy)

    def _choose(self, record: Any) -> None:
        if not isinstance(record, dict):
            list(openai.parse(record, 0, Counter()))  # says what is expected instead
            raise FieldError("record", "an object", shown(record))
        found = recognised(record)
        if found is None:
            expected, known = f"one of the formats {', '.join(FORMATS)}", unread(record)
            if known is not None:
                raise FieldError("record", expected, *known)
            named = ", ".join(map(shorten, list(record)[:12])) or "none"
            raise FieldError("record", expected, f"the fields {named}")
        self._name, why = found
        self._parse = FORMATS[self._name][1]
        if self._parse is None:
            raise FieldError("record", f"data={self._name} for such a file", why)
        log.info("data=auto: read as data=%s, since %s", self._name, why)
