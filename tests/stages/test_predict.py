"""stage=predict through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import command_line
from tests.support.reader_samples import FINISH, RAW, SEARCH, STUBS, TEXTS

TINY = ("model=tiny", "hardware.bf16=false")
FEW = (*TINY, "data.size=12", "stage.args.max_steps=2")
SHORT = ("benchmark.size=4", "stage.max_new_tokens=8")


@pytest.fixture(scope="module")
def parrot(once, models_cache) -> Path:
    """A model that has memorized the two right calls of one conversation."""

    def make(folder: Path) -> Path:
        (folder / "raw.json").write_text(json.dumps([RAW]))
        words = [
            "data=tl_training",
            f"data.path={folder / 'raw.json'}",
            "data.holdout=0",
            "stage.args.learning_rate=2e-3",
        ]
        many = [
            "stage.args.num_train_epochs=60",
            "stage.args.gradient_accumulation_steps=1",
            "stage.args.learning_rate=2e-3",
        ]
        ran = command_line("stage=pkt", *TINY, *words, *many, folder=folder / "run", cache=models_cache)
        assert ran.status == 0, ran.err
        return ran.folder / "model"

    return once("parrot", make)


CAPITALS = {"system": "System", "user": "User", "assistant": "Assistant", "function": "Output"}


@pytest.mark.parametrize(("length", "call"), [(4, TEXTS[4]), (6, TEXTS[6])])
def test_predict_reads_the_papers_inference_format(tltrain, write, parrot, length, call):
    history = [{"role": CAPITALS[m["role"]], "content": m["content"]} for m in TEXTS[:length]]
    ran = tltrain("stage=predict", f"data.path={write(history)}", f"model.path={parrot}", "hardware.bf16=false")
    text, as_json = ran.out.splitlines()
    assert text == call["content"]
    name, arguments = RAW["conversations"][length]["content"].split("\n")
    assert json.loads(as_json) == {"name": name, "arguments": json.loads(arguments)}
    saved = json.loads((ran.folder / "prediction.json").read_text())
    assert (saved["text"], saved["call"]) == (text, json.loads(as_json))
    assert saved["agrees_with_documentation"] is (length == 6)  # `deep` is not documented
    assert ("This call contradicts the tools' documentation" in ran.err) is (length == 4)


def test_predict_reads_chat_completions(tltrain, write, parrot):
    def asked(role: str, index: int, **more) -> dict:
        return {"role": role, "content": RAW["conversations"][index]["content"], **more}

    calls = [
        {"role": "assistant", "tool_calls": [{"id": str(i), "function": {"name": "search", "arguments": arguments}}]}
        for i, arguments in ((2, '{"q": "love"}'), (4, '{"query": "löve", "limit": 2, "deep": [null, {"a": true}]}'))
    ]
    messages = [asked("user", 1), calls[0], asked("tool", 3), calls[1], asked("tool", 5)]
    conversation = {"messages": messages, "tools": [{"type": "function", "function": SEARCH}, FINISH]}
    ran = tltrain("stage=predict", f"data.path={write(conversation)}", f"model.path={parrot}", "hardware.bf16=false")
    assert ran.out.splitlines()[0] == TEXTS[6]["content"]


def test_predict_reports_an_answer_without_a_valid_call(tltrain, write):
    history = [{"role": "System", "content": STUBS}, {"role": "User", "content": "Advice?"}]
    ran = tltrain("stage=predict", *TINY, "data.size=12", f"data.path={write(history)}", "stage.max_new_tokens=4")
    assert ran.out.splitlines()[-1] == "null"
    assert ran.metrics["agrees_with_documentation"] is False
    assert "No call can be read from this answer: " in ran.err and "contradict" not in ran.err
    assert "(finish_reason in prediction.json)" in ran.err and ran.metrics["finish_reason"] == "length"
    ran = tltrain("stage=predict", f"data.path={write(history[:1])}", status=1)
    assert ran.err.splitlines()[-1].endswith("messages: expected a user's message, found none")


def test_json_lines_are_told_apart_from_a_conversation(tltrain, write):
    record = {"messages": [{"role": "user", "content": "x"}], "tools": []}
    file = write(record, record)
    ran = tltrain("stage=predict", f"data.path={file}", *TINY, status=1)
    assert ran.err == (
        f"{file}: expected one conversation, found JSON lines, each of them a record: give a file with one of them "
        f"(head -n 1 {file} > conversation.json), or ask them all with stage=eval benchmark=openai "
        "benchmark.path=FILE\n"
    )
    broken = write(record)
    broken.write_text("{\n")
    assert "expected valid JSON" in tltrain("stage=predict", f"data.path={broken}", *TINY, status=1).err


def test_a_conversation_in_another_format_names_it(tltrain, write):
    file = write({"conversations": [{"from": "human", "value": "Advice?"}], "tools": "[]"})
    ran = tltrain("stage=predict", f"data.path={file}", *TINY, status=1)
    assert ran.err.endswith("`conversations` have `from` and `value`, as in data=sharegpt\n")
