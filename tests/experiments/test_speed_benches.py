"""The rows of the benches of supervised training, by hand."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from tests.support.paths import ROOT
from tests.support.trajectories import END, chain
from tltrain.tokens.layout import flatten
from tltrain.trajectory import Call, Message, Tool, Trajectory


@pytest.fixture(scope="module")
def benches() -> tuple[ModuleType, ModuleType]:
    sys.path.insert(0, str(ROOT / "experiments" / "bench"))
    try:
        import sft
        import thinking
    finally:
        sys.path.pop(0)
    return sft, thinking


def test_a_whole_conversation_has_an_end_token_behind_each_turn(benches):
    sft, _ = benches
    layout = flatten(chain(([1, 2], False), ([4, 5], True), ([3], False), ([6], True)))
    row = sft.whole_row(layout)
    assert row["input_ids"] == [1, 2, 4, 5, END, 3, 6, END]
    assert row["labels"] == [-100, -100, 4, 5, END, -100, 6, END]


def test_turns_stand_where_labels_are(benches):
    _, thinking = benches
    assert thinking.said_runs([-100, 4, 5, -100, -100, 6]) == [(1, 3), (5, 6)]
    assert thinking.common_tail([1, 2, 3, 9, 7], [5, 2, 3, 9]) == range(1, 4)  # 7 stands behind the end token
    assert thinking.common_tail([2, 3, 9], [2, 3, 9]) == range(3)


def test_conversations_are_joined_over_all_their_tools(benches):
    _, thinking = benches
    tools = [Tool(name, "Does it.", {"type": "object", "properties": {}}) for name in ("one", "two", "finish")]

    def talk(tool: int) -> Trajectory:
        called = Message.calling(Call(tools[tool].name, {}))
        end = Message.calling(Call("finish", {"answer": f"Done {tool}."}))
        return Trajectory(
            f"t{tool}", (tools[tool], tools[2]), (Message("user", "Go."), called, Message("tool", "1"), end)
        )

    found = thinking.joined([talk(0), talk(1)])
    assert [tool.name for tool in found.tools] == ["one", "two"]
    assert [message.role for message in found.messages] == ["user", "assistant", "tool", "assistant"] * 2
    assert [message.text for message in found.messages[3::4]] == ["Done 0.", "Done 1."]
    assert all(message.thought for message in found.messages if message.role == "assistant")


def test_operations_are_six_a_weight_and_token_and_those_of_attention(benches):
    from machine import operations
    from transformers import LlamaConfig

    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=32, num_hidden_layers=1, **sizes)
    layer = 4 * 8 * 8 + 3 * 8 * 16
    attention = 2 * 2 * 8 * (1 + 2 + 3 + 1 + 2)  # two products with the tokens seen, in sequences of 3 and 2
    assert operations(config, [3, 2], 4) == pytest.approx(3 * (2 * layer * 5 + attention + 2 * 8 * 32 * 4), rel=0.02)
