"""stage.write=trl, ms_swift, ...: files for other trainers, in which failed calls are not learned.

`tests/trainer_files/NAME.read.json` is what that package's own reader made of the file (`read.py` there). If the file
that is written now has other records, the reader has to read it again.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FOLDER = ROOT / "tests" / "trainer_files"
CONVERSATIONS = FOLDER / "conversations.jsonl"
READ = ("trl", "axolotl", "llama_factory", "ms_swift", "verl")
"""Formats whose reader could be run; OpenAI's is a service."""


def call(name: str, **arguments) -> str:
    made = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{made}\n</tool_call>"


LEARNED = [
    # chat-01: the first track_shipment timed out.
    call("get_order", order_id="FH-23777"),
    call("track_shipment", tracking_number="TN336100"),
    "Your parcel was last scanned at the depot Rotterdam and should reach you on Monday.",
    # chat-06: two calls in one message, both answered.
    call("check_stock", sku="BAG-5C") + "\n" + call("check_stock", sku="BOOT-42"),
    "BAG-5C: 11 pieces; 12 of BOOT-42.",
    # chat-09: the customer was not found, and the question back is a reply in the middle.
    call("find_customer", email="clara.moreau@inbox.example"),
    call("list_orders", customer_id="C-9901", limit=1),
    "Your last order is FH-20636: a two-person tent.",
    # chat-11: one of two calls in one message failed, so neither is learned.
    "FH-26163 is shipped; I find no order FH-24236.",
]
"""The messages of `conversations.jsonl` that the strict rule keeps, found by reading the four conversations."""


def records(folder: Path) -> list[dict]:
    """Return the samples of a run's file."""
    if (folder / "train.parquet").exists():
        import pyarrow.parquet as pq

        return pq.read_table(folder / "train.parquet").to_pylist()
    return [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]


def digest(rows: list[dict]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def written(run_once, name: str):
    return run_once(
        *("stage=mae", "data=openai", f"data.path={CONVERSATIONS}"), *("stage.rule=strict", f"stage.write={name}")
    )


@pytest.mark.parametrize("name", READ)
def test_the_package_reads_what_is_written_and_learns_the_right_turns(run_once, name):
    record = json.loads((FOLDER / f"{name}.read.json").read_text(encoding="utf-8"))
    assert record["records"] == digest(records(written(run_once, name).folder))
    stretches = [stretch for sample in record["learned"] for stretch in sample]
    assert [re.sub(r"<think>\s*</think>|<\|im_end\|>", "", each).strip() for each in stretches] == LEARNED


@pytest.mark.parametrize("name", [*READ, "openai"])
def test_what_cannot_be_left_out_alone_is_counted(run_once, name):
    ran = written(run_once, name)
    counts = {"calls": 15, "kept": 10, "dropped_error": 3, "dropped_no_answer": 1, "dropped_with_message": 1}
    assert ran.metrics.items() >= counts.items()
    found = ran.metrics["written"]
    assert (found["messages_learned"], found["messages_not_learned"]) == (9, 4)
    assert found["samples"] == (9 if name in ("trl", "llama_factory") else 4)
    assert "9 messages are learned, 4 are not" in ran.out
    assert "1 good call is left out for another call of its message" in ran.out
    assert f"Settings: {ran.metrics['settings']}" in ran.out


def test_the_support_desk_as_a_whole_keeps_every_turn_that_the_strict_rule_keeps(tltrain):
    path = ROOT / "examples" / "support_desk" / "conversations.jsonl"
    ran = tltrain("stage=mae", "data=openai", f"data.path={path}", "stage.rule=strict", "stage.write=axolotl")
    # The README's 99 kept actions, less chat-11's good call; six messages with two calls each count once.
    assert ran.metrics["kept"] == 98
    flags = [message["train"] for row in records(ran.folder) for message in row["messages"] if "train" in message]
    assert (len(flags), sum(flags)) == (113, 92)
    assert ran.metrics["written"]["messages_cut"] == 0


TOOLS = [
    {
        "type": "function",
        "function": {"name": "math_gcd", "description": "", "parameters": {"type": "object", "properties": {}}},
    }
]
SMALL = {
    "id": "1",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "GCD of 4 and 6?"},
        {"role": "assistant", "tool_calls": [{"name": "math.gcd", "arguments": {"x": 4}, "id": "a"}]},
        {"role": "tool", "tool_call_id": "a", "content": "Error: y is missing"},
        {
            "role": "assistant",
            "content": "Again.",
            "reasoning_content": "I forgot y.",
            "tool_calls": [{"name": "math.gcd", "arguments": {"x": 4, "y": 6}, "id": "b"}],
        },
        {"role": "tool", "tool_call_id": "b", "content": "2"},
        {"role": "assistant", "content": "2."},
        {"role": "user", "content": "Thanks"},
    ],
    "tools": [{"type": "function", "function": {"name": "math.gcd", "parameters": {}}}],
}
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "GCD of 4 and 6?"}]


def made(arguments: object, number: int) -> list[dict]:
    return [{"id": f"call0000{number}", "type": "function", "function": {"name": "math_gcd", "arguments": arguments}}]


def answered(text: str, number: int, **name: str) -> dict:
    return {"role": "tool", **name, "tool_call_id": f"call0000{number}", "content": text}


@pytest.fixture
def small(tltrain, write):
    """Return a function that gives the records of `SMALL` in a format."""

    def run(name: str) -> list[dict]:
        words = ("data=openai", f"data.path={write(SMALL)}", "data.learn_replies=true", "stage.rule=strict")
        ran = tltrain("stage=mae", *words, f"stage.write={name}")
        assert ran.metrics["written"]["messages_cut"] == 1  # the one that nobody answers
        return records(ran.folder)

    return run


def test_trl_gets_a_prompt_and_a_completion_a_turn(small):
    failed = [{"role": "assistant", "content": "", "tool_calls": made({"x": 4}, 1)}]
    history = [*ASKED, *failed, answered("Error: y is missing", 1, name="math_gcd")]
    again = {
        "role": "assistant",
        "content": "Again.",
        "reasoning_content": "I forgot y.",
        "tool_calls": made({"x": 4, "y": 6}, 3),
    }
    first, second = small("trl")
    assert (first["prompt"], first["completion"]) == (history, [again])
    assert second["prompt"] == [*history, again, answered("2", 3, name="math_gcd")]
    assert second["completion"] == [{"role": "assistant", "content": "2."}]
    assert json.loads(first["tools"]) == TOOLS


def test_axolotl_gets_train(small):
    (row,) = small("axolotl")
    assert [message.get("train") for message in row["messages"]] == [None, None, False, None, True, None, True]
    assert row["messages"][4]["tool_calls"] == made('{"x": 4, "y": 6}', 3)
    assert row["messages"][4]["reasoning_content"] == "I forgot y."


def test_ms_swift_gets_loss_and_calls_as_messages(small):
    (row,) = small("ms_swift")
    assert row["messages"] == [
        *ASKED,
        {"role": "tool_call", "content": '{"name": "math_gcd", "arguments": {"x": 4}}', "loss": False},
        {"role": "tool_response", "content": "Error: y is missing"},
        {"role": "assistant", "content": "<think>\nI forgot y.\n</think>\n\nAgain.", "loss": True},
        {"role": "tool_call", "content": '{"name": "math_gcd", "arguments": {"x": 4, "y": 6}}', "loss": True},
        {"role": "tool_response", "content": "2"},
        {"role": "assistant", "content": "2.", "loss": True},
    ]


def test_llama_factory_gets_samples_that_end_with_what_is_learned(small):
    first, second = small("llama_factory")
    again = '<tool_call>{"name": "math_gcd", "arguments": {"x": 4, "y": 6}}</tool_call>'
    entries = [
        {"from": "human", "value": "GCD of 4 and 6?"},
        {"from": "function_call", "value": '{"name": "math_gcd", "arguments": {"x": 4}}'},
        {"from": "observation", "value": "Error: y is missing"},
        {"from": "function_call", "value": f"<think>\nI forgot y.\n</think>\n\nAgain.{again}"},
    ]
    assert first["conversations"] == entries
    assert second["conversations"] == [
        *entries,
        {"from": "observation", "value": "2"},
        {"from": "gpt", "value": "2."},
    ]
    assert (first["system"], json.loads(first["tools"])) == ("Be brief.", TOOLS)


def test_verl_gets_a_mask_of_messages(small):
    (row,) = small("verl")
    assert [message["loss_mask"] for message in row["messages"]] == [0, 0, 0, 0, 1, 0, 1]
    assert row["messages"][4]["tool_calls"] == made('{"x": 4, "y": 6}', 3)


def test_openai_gets_weights_and_no_field_that_it_does_not_know(small):
    (row,) = small("openai")
    assert row["messages"] == [
        *ASKED,
        {"role": "assistant", "content": None, "tool_calls": made('{"x": 4}', 1), "weight": 0},
        answered("Error: y is missing", 1),
        {
            "role": "assistant",
            "content": "I forgot y.\nAgain.",
            "tool_calls": made('{"x": 4, "y": 6}', 3),
            "weight": 1,
        },
        answered("2", 3),
        {"role": "assistant", "content": "2.", "weight": 1},
    ]
    assert row["tools"] == TOOLS


def test_what_llama_factory_cannot_hold_is_counted(tltrain, write):
    """The user's words follow a tool's answer, but its two sides have to take turns."""
    spoken = {**SMALL, "messages": [*SMALL["messages"][:6], SMALL["messages"][7], SMALL["messages"][6]]}
    ran = tltrain("stage=mae", "data=openai", f"data.path={write(spoken)}", "stage.write=llama_factory")
    assert ran.metrics["written"]["left_out"] == {"user or tools and the assistant do not take turns": 1}
    assert "1 learned message is left out: user or tools and the assistant do not take turns" in ran.out
    assert len(records(ran.folder)) == 1


def test_a_conversation_of_which_nothing_is_learned_is_left_out_and_counted(tltrain, write):
    only_failed = {**SMALL, "messages": SMALL["messages"][:4]}
    ran = tltrain("stage=mae", "data=openai", f"data.path={write(only_failed, SMALL)}", "stage.write=openai")
    assert ran.metrics["written"]["nothing_learned"] == 1
    assert len(records(ran.folder)) == 1
    assert "1 conversation is left out, as nothing in it is learned" in ran.out


def test_the_files_beside_the_data_name_it(run_once):
    folder = written(run_once, "llama_factory").folder
    info = json.loads((folder / "dataset_info.json").read_text())
    assert (folder / info["mae"]["file_name"]).is_file()
    source = (written(run_once, "verl").folder / "verl_dataset.py").read_text()
    compile(source, "verl_dataset.py", "exec")
    assert "class MaeDataset(MultiTurnSFTDataset)" in source
