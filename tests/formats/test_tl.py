"""The TL format, which has one call per turn, with messages that make several."""

from __future__ import annotations

import pytest

from tests.support.reader_samples import TOOLS
from tltrain.errors import TltrainError
from tltrain.formats import joined
from tltrain.formats.tl import TL, call_of, chat_messages, message_text
from tltrain.trajectory import Call, Message, ToolCall, Trajectory

TWO = Message(
    "assistant", "Both.", (ToolCall(Call("search", {"query": "love"}), id="a"), ToolCall(Call("now"), id="b")), "Hm."
)
PARALLEL = Trajectory(
    "t",
    TOOLS,
    (
        Message("user", "Hi"),
        TWO,
        Message("tool", "Noon.", answers="b"),
        Message("tool", "Listen.", answers="a"),
        Message("assistant", "Bye."),
    ),
)


def test_several_calls_of_one_message_are_turns_each_followed_by_its_answer():
    pieces = TL.segments(PARALLEL)
    assert joined(pieces[1:]) == (
        '\nUser: Hi\nAssistant: search(query="love")\nOutput: Listen.\nAssistant: now()\nOutput: Noon.\nAssistant: Bye.'
    )
    assert [(piece.text, piece.turn) for piece in pieces if piece.turn is not None] == [
        (' search(query="love")', 0),
        (" now()", 1),
        (" Bye.", 2),
    ]
    assert [i for i, piece in enumerate(pieces) if piece.opens_turn] == [2, 5, 8]
    assert [message["content"] for message in chat_messages(PARALLEL)[1:]] == [
        "Hi",
        'search(query="love")',
        "Listen.",
        "now()",
        "Noon.",
        "Bye.",
    ]


def test_a_turn_of_several_calls_is_refused_in_one_line():
    for read in (call_of, message_text):
        with pytest.raises(TltrainError) as caught:
            read(TWO)
        assert str(caught.value).startswith(
            "a message makes 2 calls (search, now), and a turn of the TL format has one"
        )
        assert "\n" not in str(caught.value)


def test_a_call_follows_a_space():
    call = Call("search", {"query": "love"})
    assert TL.call_text(call)[TL.name_at(call) :].startswith("search(")
    assert TL.call_text(call).startswith(TL.call_head("search"))
    assert TL.answer(f"{TL.call_text(call)} and more\nUser: no") == 'search(query="love")'
