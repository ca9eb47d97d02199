"""benchmark=openai: any file of chat-completions conversations as a benchmark."""

from __future__ import annotations

import json

import pytest

from tests.support.reader_samples import FINISH, SEARCH
from tltrain.data import openai
from tltrain.data.reading import ReadReport, read_file
from tltrain.errors import RecordError
from tltrain.trajectory import Call, Message

TOOLS = [{"type": "function", "function": SEARCH}, {"type": "function", "function": FINISH}]
USER = {"role": "user", "content": "Find x."}


def called(*calls):
    """Make `tool_calls` from (name, arguments)."""
    return [
        {"id": str(i), "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for i, (name, arguments) in enumerate(calls)
    ]


def assistant(*calls):
    return {"role": "assistant", "content": None, "tool_calls": called(*calls)}


SEARCHED = assistant(("search", {"query": "x"}))
ANSWER = {"role": "tool", "tool_call_id": "0", "content": "y"}


@pytest.fixture
def read(tmp_path):
    """`read(*records)`: return the samples of a file of JSON lines, and the report."""

    def read(*records):
        file = tmp_path / "mine.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        report = ReadReport()
        return list(read_file(file, openai.parse_sample, report=report)), report

    return read


def test_golden_calls_stand_in_a_field_of_their_own_or_in_the_last_message_that_calls(read):
    system = {"role": "system", "content": "Be brief."}
    golden = called(("finish", {"answer": "y"}))
    records = (
        {"id": "a", "messages": [system, USER, SEARCHED, ANSWER], "tools": TOOLS, "tool_calls": golden, "level": 1},
        {"messages": [system, USER, SEARCHED, ANSWER, assistant(("finish", {"answer": "y"}))], "tools": TOOLS},
    )
    (own, last), _ = read(*records)
    assert (own.messages, own.tools, own.goldens) == (last.messages, last.tools, last.goldens)
    assert own.goldens == (Call("finish", {"answer": "y"}),)
    assert own.messages == (
        Message("user", "Find x."),
        Message.calling(Call("search", {"query": "x"})),
        Message("tool", "y"),
    )
    assert own.instructions == last.instructions == "Be brief."
    assert (own.id, last.id, own.meta, last.meta) == ("a", "2", {"level": 1}, {})


def test_messages_after_the_golden_calls_are_not_in_the_prompt(read):
    (sample,), report = read(
        {"messages": [USER, SEARCHED, ANSWER, {"role": "assistant", "content": "y"}], "tools": TOOLS}
    )
    assert sample.messages == (Message("user", "Find x."),) and sample.goldens == (Call("search", {"query": "x"}),)
    assert report.notes["messages: those after the golden calls are not in the prompt"] == 1


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            {"messages": [USER]},
            "tool_calls: expected golden calls here or in an assistant message, or [] if no call",
        ),
        ({"messages": [USER], "tool_calls": None}, "tool_calls: expected golden calls here"),
        ({"messages": [SEARCHED]}, "messages: expected a user's or tool's message before the golden calls"),
        (
            {"messages": [USER, {"role": "assistant", "content": "x"}, SEARCHED]},
            "messages: expected a user's or tool's",
        ),
        ({"messages": [USER], "tool_calls": [{"function": {}}]}, "tool_calls[0].function.name: expected a string"),
        ({"messages": [USER], "tool_calls": [{}]}, "tool_calls[0].function: expected an object"),
        ({"messages": USER}, "messages: expected a list"),
    ],
)
def test_a_wrong_record_is_said_with_its_field(read, record, said):
    with pytest.raises(RecordError) as caught:
        read({"tools": TOOLS, **record})
    assert f"mine.jsonl, record 1: {said}" in str(caught.value)


def test_a_file_is_a_set_named_after_it(tltrain, read, tmp_path):
    both = assistant(("search", {"query": "x"}), ("finish", {"answer": "y"}))
    read(*({"messages": [USER, both], "tools": TOOLS} for _ in range(3)))
    texts = ["finish(answer='y')", "finish(answer='y')\nsearch(query='x')", "search(query='z'), finish(answer='y')"]
    (tmp_path / "answers").write_text("".join(json.dumps({"prediction": text}) + "\n" for text in texts))
    words = [f"benchmark.path={tmp_path / 'mine.jsonl'}", f"stage.predictions={tmp_path / 'answers'}"]
    ran = tltrain("stage=eval", "benchmark=openai", *words)
    assert ran.metrics["mine/n"] == 3
    assert ran.metrics["mine/ts"] == ran.metrics["mine/any/ts"] == 100
    assert ran.metrics["mine/cf"] == pytest.approx(66.6667) and ran.metrics["mine/every/cf"] == pytest.approx(33.3333)
    # The last two tools are not special here, unlike RoTBench's `finish`: the words to the user are compared.
    wrong = [{"prediction": "finish(answer='no')"}] * 3
    (tmp_path / "answers").write_text("".join(json.dumps(line) + "\n" for line in wrong))
    assert tltrain("stage=eval", "benchmark=openai", *words).metrics["mine/cf"] == 0
