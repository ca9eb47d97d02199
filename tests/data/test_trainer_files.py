"""Files for other trainers: in every conversation exactly the calls that MAE keeps are learned."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tltrain import mae
from tltrain.data import openai
from tltrain.data.trainer_files import TRAINERS, TrainerFile, Written, conversation
from tltrain.errors import TltrainError
from tltrain.trajectory import Call, Message, Tool, ToolCall, Trajectory

TOOLS = tuple(Tool(name, "", {"type": "object", "properties": {"x": {}}}) for name in ("get", "math.gcd"))
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="<>[]{}\r"), min_size=1, max_size=8).filter(str.strip)


@st.composite
def turns(draw) -> list[Message]:
    """Draw a user's message, or an assistant's with words, or with calls that are all answered or all not."""
    if draw(st.booleans()):
        return [Message("user", draw(WORDS))]
    if draw(st.booleans()):
        return [Message("assistant", draw(WORDS), thought=draw(st.sampled_from(["", "hm"])), learn=draw(st.booleans()))]
    made = draw(
        st.lists(
            st.builds(
                ToolCall,
                st.builds(
                    Call, st.sampled_from([tool.name for tool in TOOLS]), st.fixed_dictionaries({"x": st.integers()})
                ),
                st.booleans(),
            ),
            min_size=1,
            max_size=3,
        )
    )
    answers = [Message("tool", draw(WORDS)) for _ in made] if draw(st.booleans()) else []
    return [Message("assistant", draw(st.sampled_from(["", "So:"])), tuple(made)), *answers]


CONVERSATIONS = st.builds(
    lambda parts, instructions: mae.whole_messages(
        Trajectory("1", TOOLS, tuple(message for part in parts for message in part), instructions)
    ),
    st.lists(turns(), max_size=6),
    st.sampled_from(["", "Be brief."]),
)


def records(trainer: TrainerFile, item: Trajectory, written: Written) -> list[dict]:
    found = conversation(item, written)
    return [] if found is None else list(trainer.records(found, written))


def is_learned(message: Message) -> bool:
    return all(made.learn for made in message.calls) if message.calls else message.learn


def said(item: Trajectory) -> list[tuple]:
    """Return the assistant's messages up to the last learned one: their calls, and whether they are learned."""
    found = [
        ([(each.call.name.replace(".", "_"), dict(each.call.arguments)) for each in message.calls], is_learned(message))
        for message in item.messages
        if message.role == "assistant"
    ]
    while found and not found[-1][1]:
        found.pop()
    return found


@pytest.mark.parametrize("name", ["openai", "axolotl", "verl"])
@given(item=CONVERSATIONS)
def test_a_file_with_a_field_of_messages_reads_back_with_the_same_calls_learned(name, item):
    written = Written()
    rows = records(TRAINERS[name], item, written)
    assert written.messages_learned == sum(learned for _, learned in said(item))
    if not rows:
        assert said(item) == [] and written.nothing_learned == 1
        return
    (row,) = rows
    for message in row["messages"]:
        if "loss_mask" in message:
            message["weight"] = message.pop("loss_mask")
    (again,) = openai.parse(json.loads(json.dumps(row)), 1, Counter())
    assert said(again) == said(item)


@pytest.mark.parametrize("name", ["trl", "llama_factory"])
@given(item=CONVERSATIONS)
def test_a_file_of_samples_has_one_for_each_learned_message_or_counts_it(name, item):
    written = Written()
    rows = records(TRAINERS[name], item, written)
    assert len(rows) == written.messages_learned
    assert len(rows) + sum(written.left_out.values()) == sum(learned for _, learned in said(item))
    for row in rows if name == "llama_factory" else []:
        sides = [entry["from"] in ("human", "observation") for entry in row["conversations"]]
        assert sides == [True, False] * (len(sides) // 2)


@given(item=CONVERSATIONS)
def test_messages_of_ms_swift_say_whether_they_are_learned(item):
    for row in records(TRAINERS["ms_swift"], item, Written()):
        spoken = [message for message in row["messages"] if message["role"] in ("assistant", "tool_call")]
        calls = [(json.loads(each["content"]), each["loss"]) for each in spoken if each["role"] == "tool_call"]
        expected = [
            ({"name": name, "arguments": arguments}, learned)
            for made, learned in said(item)
            for name, arguments in made
        ]
        assert calls == expected
        assert spoken[-1]["loss"] and all("loss" not in each for each in row["messages"] if each not in spoken)


def test_what_json_cannot_hold_is_one_line(tmp_path):
    broken = Trajectory("odd", TOOLS, (Message("user", "\ud800"), Message("assistant", "Yes.")))
    with pytest.raises(TltrainError, match="trajectory odd: cannot be written as JSON"):
        TRAINERS["axolotl"].write(tmp_path / "train.jsonl", [broken])
    assert list(tmp_path.iterdir()) == []
