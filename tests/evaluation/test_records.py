"""The lines of result files: written and read back, also from old versions; errors are one line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.sweep_sample import conversation
from tltrain.errors import RecordError, TltrainError
from tltrain.evaluation.predictions import Prediction, by_sample, read_graded
from tltrain.evaluation.records import read_lines, to_line
from tltrain.evaluation.transcripts import Transcript, TranscriptCall, TranscriptMessage, read_transcripts
from tltrain.grading import grade
from tltrain.trajectory import ANY, Call, OneOf, Sample, Tool

texts = st.text(max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(texts, values, max_size=3)
predictions = st.builds(
    Prediction,
    set=texts,
    id=texts,
    answer=texts,
    call=st.none() | objects,
    goldens=st.lists(objects, max_size=2),
    grade=texts,
    scores=st.fixed_dictionaries(
        {},
        optional={
            "ts": st.booleans() | st.floats(0, 1, exclude_min=True, exclude_max=True),
            "va": st.booleans(),
            "de": st.floats(0, 1),
        },
    ),
    reward=st.none() | st.floats(-3, 1),
    reason=texts,
    meta=objects,
    calls=st.lists(objects, max_size=2),
)
transcripts = st.builds(
    Transcript,
    id=texts,
    messages=st.lists(
        st.builds(
            TranscriptMessage,
            st.sampled_from(["user", "tool"]),
            texts,
            st.lists(objects.filter(bool), max_size=2).map(tuple),
            texts,
        ),
        max_size=2,
    ).map(tuple),
    calls=st.lists(
        st.builds(TranscriptCall, de=st.booleans(), ce=st.booleans(), message=st.none() | st.integers(0, 9)), max_size=2
    ).map(tuple),
    ended=texts,
    answer=st.none() | texts,
    valid=st.booleans(),
    outcome=objects,
    meta=objects,
    instructions=texts,
    tools=st.lists(st.builds(Tool, texts, texts, objects), max_size=2).map(tuple),
)


@given(predictions | transcripts)
def test_what_is_written_is_read_back(record):
    assert type(record).from_json(json.loads(to_line(record))) == record


def test_a_graded_answer_as_a_line():
    tool = Tool("get", "", {"properties": {"a": {}, "b": {}}})
    golden = Call("get", {"a": ANY, "b": OneOf((1, "x"), True)})
    sample = Sample("7", (tool,), (), (golden,), meta={"scenario": "TG", "seen": True, "levels": [1]})
    text = "get(a=3, b=2)"
    record = Prediction.graded("set", sample, text, grade(text, (golden,), (tool,)), -0.25)
    written = json.loads(to_line(record))
    assert list(written) == [
        *("set", "id", "prediction", "call", "goldens", "grade", "ts", "pi", "cf", "reward", "reason", "meta"),
    ]
    assert written["call"] == {"name": "get", "arguments": {"a": 3, "b": 2}}
    assert written["goldens"] == [
        {"name": "get", "arguments": {"a": "<any>", "b": {"<one of>": [1, "x"], "<optional>": True}}}
    ]
    assert (written["grade"], written["ts"], written["cf"], written["reward"]) == ("wrong_value", True, False, -0.25)
    assert written["meta"] == {"scenario": "TG", "seen": True} and record.seen


def test_an_old_line_has_defaults_and_unknown_keys_are_ignored():
    assert Prediction.from_json({"set": "s", "id": 3, "colour": "red"}) == Prediction("s", "3")
    old = Transcript.from_json(conversation(7, 1, 2))
    assert (old.query, old.success, old.tools, old.calls[1].message) == ("Question 7", True, (), None)


def test_a_sample_is_known_by_set_id_and_golden_calls_whatever_their_order():
    one = Prediction("s", "1", goldens=[{"name": "f", "arguments": {"x": 1, "y": 2}}])
    other = Prediction("s", "1", "else", goldens=[{"arguments": {"y": 2, "x": 1}, "name": "f"}], meta={"query": "?"})
    assert one.identity == other.identity
    assert one.identity != Prediction("s", "1", goldens=[{"name": "g", "arguments": {}}]).identity
    # Without golden calls (conversations), by the question.
    assert Prediction("s", "1", meta={"query": "a"}).identity != Prediction("s", "1", meta={"query": "b"}).identity
    assert list(by_sample([one, other]).values()) == [one, other]  # a duplicate


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line: expected a JSON object in UTF-8"),
        ("[]", "line: expected an object, found []"),
        ('{"id": "1"}', "set: expected a string, found no such field"),
        ('{"set": "s", "id": "1", "call": 3}', "call: expected an object, found 3"),
        ('{"set": "s", "id": "1", "ts": 1}', "ts: expected true or false, found 1"),
        ('{"set": "s", "id": "1", "de": "few"}', 'de: expected a number, found "few"'),
        ('{"set": "s", "id": "1", "reward": true}', "reward: expected a number, found true"),
    ],
)
def test_a_malformed_prediction_is_reported_with_file_and_line(tmp_path, line, said):
    file = tmp_path / "predictions.jsonl"
    file.write_text('{"set": "s", "id": "0"}\n' + line + "\n")
    with pytest.raises(RecordError) as raised:
        read_lines(file, Prediction.from_json)
    assert str(raised.value).startswith(f"{file}, record 2: {said}") and "\n" not in str(raised.value)


def test_a_malformed_conversation_is_reported_with_its_position(tmp_path):
    file = tmp_path / "transcripts.jsonl"
    broken = conversation(0, 0, 2)
    broken["calls"][1]["de"] = "no"
    file.write_text(json.dumps(broken) + "\n")
    with pytest.raises(RecordError, match=r"record 1: calls\[1\].de: expected true or false, found \"no\""):
        read_transcripts(file)
    file.write_text("\n")
    with pytest.raises(TltrainError, match="expected conversations, found none"):
        read_transcripts(file)


def test_half_of_a_surrogate_pair_in_an_answer_is_read_back(tmp_path):
    record = Prediction("s", "1", "a \ud800", goldens=[{}], grade="correct", reward=1.0)
    record = Prediction.from_json(record.to_json() | {"ts": True, "pi": True, "cf": True})
    file = tmp_path / "predictions.jsonl"
    file.write_text(to_line(record) + "\n", encoding="utf-8", errors="backslashreplace")
    assert read_graded(tmp_path, "stage.compare") == [record]
