"""A reader: {"question": "...", "tools": [...], "name": "...", "arguments": {...}} is a question with one call."""

from tltrain.data.reading import expect, expect_tools, member
from tltrain.trajectory import Call, Message, Trajectory


def parse(record, number, notes, question: str = "question"):
    """Return the trajectory of a record; `question` is a key of the choice, which names the field."""
    record = expect(record, dict, "record")
    tools = expect_tools(member(record, "tools", list), "tools", notes)
    call = Call(member(record, "name", str), member(record, "arguments", dict))
    messages = (Message("user", member(record, question, str)), Message.calling(call))
    return Trajectory(str(number), tools, messages)
