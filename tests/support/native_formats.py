"""Encoders of the native formats over a small byte-level tokenizer, and conversations for them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

from tests.support.trajectories import conversation
from tltrain.formats.families import FAMILIES
from tltrain.formats.native import Answer, corpus_text, messages_of, tools_of
from tltrain.models.encoders import native_encoder
from tltrain.models.loading import byte_level_tokenizer
from tltrain.tokens.layout import Layout
from tltrain.tokens.native import NativeEncoder
from tltrain.trajectory import Call, Message, Sample, Tool, ToolCall, Trajectory

NAMES = tuple(FAMILIES)


def tool(name: str) -> Tool:
    properties = {"id": {"type": "string"}, "count": {"type": "integer"}, "on": {"type": "boolean"}}
    return Tool(name, "Looks.", {"type": "object", "properties": properties})


TOOLS = tuple(map(tool, ("get_user", "get_users", "get_user_name", "get_use", "set_user", "finish")))
"""Names with common beginnings; one of them is the beginning of another."""
TWO_CALLS = Message(
    "assistant",
    "Both.",
    (ToolCall(Call("get_user", {"id": "7"}), id="a"), ToolCall(Call("get_users", {"count": 3, "on": True}), id="b")),
    "Hm.",
)
PARALLEL = Trajectory(
    "parallel",
    TOOLS,
    (
        Message("user", "Who is 7, and who else?"),
        TWO_CALLS,
        Message("tool", "Ann", answers="a"),
        Message("tool", "Error: no such count", answers="b"),
        Message.calling(Call("finish", {"id": "Ann"})),
    ),
    instructions="Be brief.",
)


def second_left_out(trajectory: Trajectory = PARALLEL) -> Trajectory:
    """Return the conversation with the second of its two calls not learned."""
    messages = tuple(
        replace(m, calls=(m.calls[0], replace(m.calls[1], learn=False))) if len(m.calls) > 1 else m
        for m in trajectory.messages
    )
    return replace(trajectory, messages=messages)


def talk(turns: int, thoughts: bool, calls: int = 1) -> Trajectory:
    """Make a conversation of several user turns, each with calls, their answers, and words to the user."""
    messages: list[Message] = []
    for turn in range(turns):
        thought = f"Thought {turn}." if thoughts else ""
        made = tuple(ToolCall(Call("get_user", {"id": f"{turn}-{k}"})) for k in range(calls))
        messages += [Message("user", f"Question {turn}?"), Message("assistant", "", made, thought)]
        messages += [Message("tool", f"answer {turn} {k}") for k in range(calls)]
        messages.append(Message("assistant", f"It is {turn}.", thought=thought and "Done."))
    return Trajectory(f"talk{turns}", TOOLS, tuple(messages))


@cache
def encoder(name: str, vocabulary: int = 420) -> NativeEncoder:
    """Return a family's encoder. With so few tokens, names take several, and share their first ones."""
    texts = [corpus_text(conversation(Call("finish", {"answer": "done"}))), json.dumps([t.name for t in TOOLS])]
    return native_encoder(byte_level_tokenizer(texts, vocabulary, name), name, {})


def answer_in(own: NativeEncoder, sample: Sample, message: Message) -> Answer:
    """Return an answer, written by the format after the sample's prompt and read back."""
    messages, _ = messages_of(
        own.conversation_messages(replace(sample, messages=(*sample.messages, message))), "", sample.tools
    )
    tools = tools_of(sample)
    prompt, said = own.native.prompt(messages[:-1], tools), own.native.said(messages, tools)
    return own.read(said.ids, prompt.ids, sample.tools)


def context(layout: Layout, position: int) -> list[int]:
    """Return the tokens that the hidden state at a sample's position has read, including its own."""
    return [layout.input_ids[k] for k in range(position + 1) if position < layout.reach[k]]


MISTRAL = """
{%- for m in messages %}
    {%- if m.role == 'user' %}
        {%- if tools and m == (messages | selectattr('role', 'equalto', 'user') | list)[-1] %}
            {{- '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {{- '[INST]' + m.content + '[/INST]' }}
    {%- elif m.tool_calls %}
        {{- '[TOOL_CALLS][' }}
        {%- for c in m.tool_calls %}
            {{- (c.function | tojson)[:-1] + ', "id": "' + c.id + '"}' + (']' + eos_token if loop.last else ', ') }}
        {%- endfor %}
    {%- elif m.role == 'assistant' %}{{- m.content + eos_token }}
    {%- elif m.role == 'tool' %}{{- '[TOOL_RESULTS]' + m.content + '[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}"""
"""Calls as Mistral's models write them; the tools come before the last user message, so turns are branches."""


def mistral_encoder() -> NativeEncoder:
    """Return the encoder of a model with this template."""
    tokenizer = byte_level_tokenizer([], 300, "hermes")
    tokenizer.chat_template = MISTRAL
    return native_encoder(tokenizer, "native", {})
