"""The TL format, which has one call per turn, with messages that make several."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter

import pytest
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from tests.support.paths import ROOT
from tests.support.reader_samples import TOOLS
from tltrain.data import openai
from tltrain.errors import TltrainError
from tltrain.formats import joined
from tltrain.formats.native import messages_of, tools_of
from tltrain.formats.tl import TL, call_of, chat_messages, chat_template, message_text
from tltrain.models.encoders import encoder_of
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
            "a message makes 2 calls (search, now), but a turn of the TL format has only one"
        )
        assert "\n" not in str(caught.value)


def test_a_call_follows_a_space():
    call = Call("search", {"query": "love"})
    assert TL.call_text(call)[TL.name_at(call) :].startswith("search(")
    assert TL.call_text(call).startswith(TL.call_head("search"))
    assert TL.answer(f"{TL.call_text(call)} and more\nUser: no") == 'search(query="love")'


# --- the chat template that is saved with a model ---------------------------------------------------------------------


def rendered(messages, tools=None, **more) -> str:
    template = chat_template()
    (text,), _ = render_jinja_template([messages], tools=tools, chat_template=template, eos_token="</s>", **more)
    return text


def with_objects(record):
    """Return the record with arguments as objects, as servers pass them to a template."""
    for message in record["messages"]:
        for made in message.get("tool_calls") or ():
            made["function"]["arguments"] = json.loads(made["function"]["arguments"])
    return record


def test_the_template_writes_tools_and_calls_as_training_does():
    lines = (ROOT / "examples" / "support_desk" / "conversations.jsonl").read_text().splitlines()
    assert len(lines) == 40
    for line in lines:
        (item,) = openai.parse(json.loads(line), 1, Counter())
        record = with_objects(json.loads(line))
        assert rendered(record["messages"], record["tools"]) == joined(TL.segments(item)) + "</s>"
        asked = joined(TL.prompt_segments(item))
        assert rendered(record["messages"], record["tools"], add_generation_prompt=True) == asked
        assert rendered(chat_messages(item), add_generation_prompt=True) == asked


SPOKEN = {
    "as an API writes it": lambda message: message,
    "without null content": lambda message: {key: value for key, value in message.items() if value is not None},
    "with parts of text": lambda message: {
        **message,
        "content": [{"type": "text", "text": part} for part in re.findall(r"\S+\s*|\s+", message["content"] or "")],
    },
    "with roles in other letters": lambda message: {**message, "role": message["role"].upper()},
    "by a developer": lambda message: {**message, "role": message["role"].replace("system", "developer")},
    "with the legacy field": lambda message: (
        {"role": "assistant", "content": None, "function_call": message["tool_calls"][0]["function"]}
        if len(message.get("tool_calls") or ()) == 1
        else message
    ),
}


@pytest.mark.parametrize("name", ["conversations", "held_out"])
@pytest.mark.parametrize("spoken", SPOKEN)
@pytest.mark.parametrize("family", ["byte_level", "sentencepiece"])
def test_a_saved_tokenizer_writes_logged_conversations_however_they_are_spoken(name, spoken, family, request):
    """Every conversation of examples/, seven of which make two calls in a message, as training writes it."""
    tokenizer = copy.deepcopy(request.getfixturevalue(family))
    encoder = encoder_of(tokenizer, bos=True if family == "sentencepiece" else None)
    begins = "".join(encoder.tokenizer.convert_ids_to_tokens(encoder.opening))
    lines = (ROOT / "examples" / "support_desk" / f"{name}.jsonl").read_text().splitlines()
    for line in lines:
        (item,) = openai.parse(json.loads(line), 1, Counter())
        record = with_objects(json.loads(line))
        messages = [SPOKEN[spoken](message) for message in record["messages"]]
        for asks, written in ((False, TL.segments(item)), (True, TL.prompt_segments(item))):
            text = encoder.tokenizer.apply_chat_template(
                messages, tools=record["tools"], tokenize=False, add_generation_prompt=asks
            )
            assert text == begins + joined(written) + ("" if asks else encoder.tokenizer.eos_token)
    assert len(lines) == {"conversations": 40, "held_out": 12}[name]


def test_the_template_puts_parallel_calls_in_turns_with_their_own_answers():
    messages, _ = messages_of(PARALLEL.messages, "", TOOLS)
    answers = [message for message in messages if message["role"] == "tool"]
    messages[2:4] = reversed(answers)  # in the order they came, matched by their ids
    assert rendered(messages, tools_of(PARALLEL)) == joined(TL.segments(PARALLEL)) + "</s>"


@pytest.mark.parametrize(
    ("message", "refusal"),
    [
        ({"role": "narrator", "content": "x"}, "there is no role narrator"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "a part that is not text"),
        ({"role": "user", "content": 3}, "content must be text"),
        ({"role": "assistant", "content": None}, "neither content nor calls"),
        (
            {"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]},
            "a message of user makes calls",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]},
            "arguments of a call must be an object",
        ),
    ],
)
def test_the_template_refuses_loudly_what_it_cannot_write(message, refusal):
    with pytest.raises(TemplateError, match=refusal):
        rendered([{"role": "user", "content": "Hi"}, message])


def test_the_template_takes_parts_of_text_and_calls_without_arguments():
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "content": None},
    ]
    assert rendered(messages) == "User: Hi there\nAssistant: f()\nOutput: </s>"
