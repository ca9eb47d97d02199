"""xLAM's and APIGen's single questions (Salesforce/xlam-function-calling-60k).

    {"query": "...", "tools": "[{\\"name\\": ..., \\"parameters\\": {\\"city\\": {\\"type\\": \\"str\\", ...}}}]",
     "answers": "[{\\"name\\": ..., \\"arguments\\": {...}}]"}

All answers are calls of one message. A question without answers, for which no call is right, has no turn to learn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tltrain.data.arguments import read_named_call, read_value
from tltrain.data.conversations import trajectory
from tltrain.data.entries import Entry, Made
from tltrain.data.reading import expect, member
from tltrain.data.schemas import offered_tools
from tltrain.trajectory import Trajectory


def recognise(record: dict[str, Any]) -> str:
    """Return what shows that a record has this format; empty if nothing does."""
    return "it has `query`, `tools` and `answers`" if {"query", "tools", "answers"} <= record.keys() else ""


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Raises FieldError."""
    record = expect(record, dict, "record")
    tools = offered_tools(record.get("tools"), "tools", notes)
    answers = record.get("answers")
    answers = read_value(answers, "answers", notes) if isinstance(answers, str) and answers.strip() else answers
    answers = [answers] if isinstance(answers, dict) and "name" in answers else answers
    answers = expect([] if answers == "" else answers, list, "answers")
    calls = tuple(Made(read_named_call(entry, f"answers[{i}]", notes)) for i, entry in enumerate(answers))
    entries = [Entry("user", "query", member(record, "query", str)), Entry("assistant", "answers", "", calls=calls)]
    if not calls:
        entries.pop()
    yield trajectory(record, number, tools, entries, notes, ("query", "tools", "answers"))
