"""Conversations for the pages: `inspect.html` (`conversation`) and `transcripts.html` (`record`, `outcome`)."""

from __future__ import annotations

from typing import Any

from tltrain.evaluation.transcripts import Transcript
from tltrain.views import transcripts
from tltrain.views.inspect_page import Conversation, History, Settings, Token, Tools, Turn

SETTINGS = Settings(w_max=9.0, rule="strict", model="tiny")
TOOLS = Tools(("get_order", "get_refund"), "Function:\ndef get_order(id: string):\n")
END = Token("⏎", is_end=True)
LEARNED = Turn(
    (Token(" get", 2.5, True), Token("_"), Token("order", 2.5, True), Token("("), Token("id"), Token(")"), END)
)
FAILED = Turn((Token(" get_order(no=1)", 0.0),), False, "the tool answered this call with an error", "missing argument")
MESSAGES = (
    History("User", "Where is it?"),
    FAILED,
    History("Output", "Error: id is required", "missing argument"),
    LEARNED,
    History("Output", '{"state": "sent"}'),
    Turn((Token(" Sent"), Token("."), END)),
)


def conversation(**other) -> Conversation:
    return Conversation(**{"id": "c-1", "tools": TOOLS, "messages": MESSAGES, "instructions": "Be kind.", **other})


def record(**other: Any) -> dict[str, Any]:
    """Return a line of `transcripts.jsonl`: a conversation with an error of each kind."""
    return {
        "id": "t1",
        "meta": {"scenario": "rooms"},
        "instructions": "",
        "tools": [
            {
                "name": "look",
                "description": "Look.",
                "parameters": {"properties": {"at": {}, "how": {}}, "required": ["at"]},
            }
        ],
        "messages": [
            {"role": "user", "content": "Where is it?"},
            {"role": "assistant", "content": "", "call": {"name": "look", "arguments": {"at": "x"}}},
            {"role": "tool", "content": "nothing"},
            {"role": "assistant", "content": "dunno"},
            {"role": "tool", "content": "Error: not a call"},
            {"role": "assistant", "content": "", "call": {"name": "finish", "arguments": {"answer": "here"}}},
        ],
        "calls": [
            {"message": 1, "text": "look(at='x')", "de": False, "ce": True, "reason": "agrees", "error": "http"},
            {"message": 3, "text": "dunno", "de": True, "ce": False, "reason": "not a call: no `(`", "error": None},
            {
                "message": 5,
                "text": "finish(answer='here')",
                "de": False,
                "ce": False,
                "reason": "agrees",
                "error": None,
            },
        ],
        "ended": "finish",
        "answer": "here",
        "valid": True,
        "outcome": {"success": False, "missing": [12]},
        **other,
    }


def rendered(title, records, numbers=None) -> str:
    return "".join(transcripts.page(title, [Transcript.from_json(one) for one in records], numbers or {}))


def outcome(success, **other):
    """A conversation of one call that reaches its end; `other` as in `record`."""
    call = {"message": 0, "text": "f()", "de": False, "ce": False, "reason": "agrees", "error": None}
    messages = [{"role": "assistant", "content": "f()"}]
    return record(**{"messages": messages, "calls": [call], "outcome": {"success": success}, **other})
