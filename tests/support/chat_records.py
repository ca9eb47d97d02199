"""Chat-completions records with the tool `search`, and the results of reading them."""

from __future__ import annotations

from collections import Counter

from tests.support.reader_samples import FINISH, SEARCH, call
from tltrain import mae
from tltrain.data import openai

USER = {"role": "user", "content": "Advice?"}


def conversation(*messages, tools=(SEARCH, FINISH), **fields):
    """Return the messages and notes read from a record."""
    notes = Counter()
    record = {"messages": list(messages), "tools": list(tools), **fields}
    (read,) = openai.parse(record, 1, notes)
    notes = {note: count for note, count in notes.items() if "not in the" not in note}
    return read, notes


def asking(*calls, **fields):
    """Make an assistant message with calls `(id, query)` of the tool search."""
    made = [call(call_id, "search", {"query": query}) for call_id, query in calls]
    return {"role": "assistant", "content": None, "tool_calls": made, **fields}


def answer(content, **fields):
    return {"role": "tool", "content": content, **fields}


def learned(read):
    """Return whether each action is learned, without a rule of MAE."""
    return mae.learnable(read, None)
