"""Preference pairs as for DPO: the chosen answer is learned, the rejected one is left out.

    {"prompt": [{"role": "user", "content": "..."}], "chosen": [{"role": "assistant", ...}], "rejected": [...],
     "tools": [...]}

The prompt may be a text, be in `messages` or `conversations`, or begin both answers (TRL). When2Call names the answers
`chosen_response` and `rejected_response`. Messages are those of `tltrain.data.openai` or of `tltrain.data.sharegpt`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from typing import Any, Literal

from tltrain.data.conversations import trajectory
from tltrain.data.entries import Entry
from tltrain.data.openai import tools_in_text
from tltrain.data.prompt_completion import entries_under
from tltrain.data.reading import expect
from tltrain.data.schemas import offered_tools
from tltrain.data.sharegpt import entries_of
from tltrain.errors import FieldError
from tltrain.trajectory import Trajectory

ANSWERS = {"chosen": "rejected", "chosen_response": "rejected_response"}
PROMPTS = ("prompt", "messages", "conversations", "conversation")


def recognise(record: dict[str, Any]) -> str:
    """Return what shows that a record has this format; empty if nothing does."""
    return next(
        (f"it has `{chosen}` and `{other}`" for chosen, other in ANSWERS.items() if {chosen, other} <= record.keys()),
        "",
    )


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Raises FieldError."""
    record = expect(record, dict, "record")
    chosen = next((key for key in ANSWERS if record.get(key) is not None), "chosen")
    rejected = ANSWERS[chosen]
    prompt = next((key for key in PROMPTS if record.get(key) is not None), None)
    before = [] if prompt is None else _entries(record, prompt, "user", notes)
    answer = _entries(record, chosen, "assistant", notes)
    shared = 0
    if prompt is None and isinstance(record[chosen], list) and isinstance(record.get(rejected), list):
        pairs = zip(record[chosen], record[rejected], strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    if not any(entry.role == "user" for entry in [*before, *answer]):
        raise FieldError("prompt", "a text or a list of messages", "no such field")
    notes[f"records: `{rejected}` is not learned"] += 1
    system = record.get("system")
    stated = [Entry("system", "system", system, system)] if isinstance(system, str) and system else []
    history = [replace(entry, learn=False) for entry in [*stated, *before, *answer[:shared]]]
    entries = [*history, *answer[shared:]]
    tools = None if record.get("tools") in (None, "") else offered_tools(record["tools"], "tools", notes)
    if tools is None:
        entries, tools = tools_in_text(entries, notes)
    yield trajectory(record, number, tools, entries, notes, (*PROMPTS, chosen, rejected, "tools", "system"))


def _entries(
    record: dict[str, Any], key: str, speaker: Literal["user", "assistant"], notes: Counter[str]
) -> list[Entry]:
    value = record.get(key)
    value = [value] if isinstance(value, dict) else value
    if isinstance(value, list) and value and isinstance(value[0], dict) and "from" in value[0]:
        return entries_of({key: value}, key, notes)
    return entries_under(record, key, speaker, notes)
