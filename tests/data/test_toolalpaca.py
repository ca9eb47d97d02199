"""ToolAlpaca's evaluation files: tools from text, the first golden call, peculiarities of the release."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.support.paths import SHARED
from tests.support.toolalpaca_records import API, OUTPUT
from tltrain.data import toolalpaca
from tltrain.data.reading import ReadReport
from tltrain.errors import RecordError, TltrainError
from tltrain.formats.calls import render_call
from tltrain.trajectory import ANY, Call, Message, Tool, example

DATA = SHARED / "data" / "toolalpaca"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="ToolAlpaca's files are not there (set TLTRAIN_SHARED)")


@pytest.fixture
def read(tmp_path):
    """`read(record, kind)` returns the samples of a file with only this record, and the report."""

    def read(record, kind="real"):
        file = tmp_path / toolalpaca.FILES[kind]
        file.write_text(json.dumps([record]))
        report = ReadReport()
        return toolalpaca.read_samples(file, kind, report, check_counts=False), report

    return read


def changed(**fields):
    return {**API, **fields}


def with_tool(text):
    return changed(Function_Description={**API["Function_Description"], "find": text})


def with_golden(action_input, action="find"):
    return changed(Instructions=["x"], Golden_Answers=[[{"Action": action, "Action_Input": action_input}]])


def test_an_api_becomes_one_sample_per_instruction_with_the_first_golden_call(read):
    samples, report = read(API)
    tools = (
        Tool(
            "find",
            "Finds a cat",
            {
                "type": "object",
                "properties": {
                    "id": {"type": "string", "description": "Its id, say 7."},
                    "size": {"type": "integer", "description": ""},
                },
                "required": ["id"],
            },
        ),
        Tool("all", "", {"type": "object", "properties": {}, "required": []}),
    )
    assert [sample.tools for sample in samples] == [tools, tools]
    assert [sample.id for sample in samples] == ["real/Cats/1", "real/Cats/2"]
    assert samples[0].messages == (Message("user", "Show cat 7."),)
    assert [sample.goldens for sample in samples] == [(Call("find", {"id": "7"}),), (Call("all"),)]
    assert samples[0].meta == {"scenario": "Cats", "golden_on_offer": True}
    assert report.notes["golden calls after the first, not asked for"] == 1


@pytest.mark.parametrize(
    ("specification", "schema", "required"),
    [
        ("Required. string. A name.", {"type": "string", "description": "A name."}, True),
        ("string.", {"type": "string", "description": ""}, False),
        ("string. One of: [a, b]. Which.", {"type": "string", "description": "One of: [a, b]. Which."}, False),
        ("Array[string]. Names.", {"type": "array", "description": "Names."}, False),
        ("Required. Object{a, b: Array[c]}. Both.", {"type": "object", "description": "Both."}, True),
        ("Required. Anything. Really.", {"description": "Anything. Really."}, True),
        ("#Cat", {"description": "#Cat"}, False),
        ("", {"description": ""}, False),
    ],
)
def test_a_parameters_words_become_a_schema(read, specification, schema, required):
    (sample, _), _ = read(with_tool("Parameters: " + json.dumps({"p": specification}) + OUTPUT))
    assert sample.tools[0].properties == {"p": schema}
    assert sample.tools[0].required == (("p",) if required else ())


def test_quotes_that_the_release_does_not_escape(read):
    text = 'Parameters: {"a": "Required. string. As "x", or so.", "b": "integer. Say "1"."}' + OUTPUT
    (sample, _), _ = read(with_tool(text))
    assert sample.tools[0].properties == {
        "a": {"type": "string", "description": 'As "x", or so.'},
        "b": {"type": "integer", "description": 'Say "1".'},
    }
    (sample, _), _ = read(with_tool("Parameters: {Pet}" + OUTPUT))
    assert sample.tools[0].properties == {}


def test_a_key_written_twice_is_repaired(read):
    (sample,), report = read(with_golden('{"id": "7", "size": "size": ["a", "b"]}'))
    assert sample.goldens[0].arguments == {"id": "7", "size": ["a", "b"]}
    assert report.notes["golden calls whose arguments are broken JSON, repaired"] == 1


def test_a_golden_tool_that_is_not_documented_is_marked(read):
    (sample,), report = read(with_golden("{}", "nowhere"))
    assert sample.meta["golden_on_offer"] is False and len(sample.tools) == 2
    assert report.notes[toolalpaca.NOT_ON_OFFER] == 1


def test_simulated_apis_may_ask_the_user_back_in_any_words(read):
    (sample,), _ = read(with_golden('{"Question": "Which cat?"}', "getDetails"), "simulated")
    assert [tool.name for tool in sample.tools] == ["find", "all", "getDetails"]
    assert sample.goldens == (Call("getDetails", {"Question": ANY}),)
    assert (sample.id, sample.meta["golden_on_offer"]) == ("simulated/Cats/1", True)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ([], "record: expected an object, found []"),
        (changed(Golden_Answers=[]), "Golden_Answers: expected 2, one for each instruction, found 0"),
        (changed(Golden_Answers=[[], []]), "Golden_Answers[0]: expected at least one golden call"),
        (changed(Instructions=[1, 2]), "Instructions[0]: expected a string, found 1"),
        (with_tool("Finds a cat"), "Function_Description.find: expected `Parameters: {...}`"),
        (with_tool('Parameters: {"a"}' + OUTPUT), "Function_Description.find, Parameters: expected valid JSON"),
        (with_golden("none"), "Golden_Answers[0][0].Action_Input: expected valid JSON"),
        (with_golden("[1]"), "Golden_Answers[0][0].Action_Input: expected an object, found [1]"),
        (with_golden(None), "Golden_Answers[0][0].Action_Input: expected a string, found null"),
    ],
)
def test_a_wrong_record_is_said_with_its_field(read, record, said):
    with pytest.raises(RecordError) as caught:
        read(record)
    assert f"eval_real.json, record 1: {said}" in str(caught.value)


def test_the_real_file_must_have_as_many_instructions_as_published(tmp_path):
    (tmp_path / "eval_real.json").write_text(json.dumps([API]))
    with pytest.raises(TltrainError, match=r"eval_real\.json: expected ToolAlpaca's 114 instructions, found 2$"):
        toolalpaca.read_samples(tmp_path / "eval_real.json", "real")


def test_files_are_found_by_folder_or_by_name(tmp_path):
    (tmp_path / "data").mkdir()
    real, simulated = tmp_path / "data" / "eval_real.json", tmp_path / "data" / "eval_simulated.json"
    simulated.write_text("[]")
    assert toolalpaca.files(tmp_path) == {"simulated": simulated}
    real.write_text("[]")
    assert toolalpaca.files(tmp_path) == toolalpaca.files(tmp_path / "data") == {"real": real, "simulated": simulated}
    assert toolalpaca.files(real) == {"real": real}
    with pytest.raises(TltrainError, match=r"expected eval_real\.json or eval_simulated\.json"):
        toolalpaca.files(tmp_path / "data" / "other.json")


def test_both_sets_through_the_command_line(tltrain, tmp_path, monkeypatch):
    monkeypatch.setitem(toolalpaca.EXPECTED_COUNTS, "real", 2)
    for file in toolalpaca.FILES.values():
        (tmp_path / file).write_text(json.dumps([API]))
    texts = ["find(id='7')", "all()", "all(id='7')", "getDetails(Question='?')"]
    (tmp_path / "answers").write_text("".join(json.dumps({"prediction": text}) + "\n" for text in texts))
    words = [f"benchmark.path={tmp_path}", f"stage.predictions={tmp_path / 'answers'}"]
    ran = tltrain("stage=eval", "benchmark=toolalpaca", *words)
    found = {key: ran.metrics[f"toolalpaca_{key}"] for key in ("real/cf", "real/n", "simulated/ts", "simulated/n")}
    assert found == {"real/cf": 100, "real/n": 2, "simulated/ts": 0, "simulated/n": 2}
    assert [line["grade"] for line in ran.lines("predictions.jsonl")] == ["correct"] * 2 + ["wrong_tool"] * 2
    assert not (ran.folder / "table.md").exists()  # the paper has no numbers for so few samples


@needs_data
def test_the_release(tltrain, tmp_path):
    samples = toolalpaca.read_samples(DATA / "eval_real.json", "real", report := ReadReport())
    assert len(samples) == 114 and len({sample.id for sample in samples}) == 114
    assert len({sample.tools[0].name for sample in samples}) == 11
    assert report.notes == {
        "tools: `Output: ...` is not in the stub": 40,
        "golden calls after the first, not asked for": 29,
        "golden calls whose arguments are broken JSON, repaired": 4,
        toolalpaca.NOT_ON_OFFER: 6,
    }
    assert all(tool.name != "components" for sample in samples for tool in sample.tools)
    kinds = Counter(
        schema.get("type") for sample in samples for tool in sample.tools for schema in tool.properties.values()
    )
    assert set(kinds) == {"string", "integer", "number"}
    (airport, *_) = (sample for sample in samples if sample.meta["scenario"] == "airportsapi")
    assert airport.tools[0].name == "AirportApi_getAirport" and airport.tools[0].required == ("icao_code",)


@needs_data
def test_golden_calls_of_the_release_are_right_where_their_tool_is_on_offer(tltrain, tmp_path):
    samples = toolalpaca.read_samples(DATA / "eval_real.json", "real")
    texts = [render_call(example(sample.goldens[0])) for sample in samples]
    (tmp_path / "answers").write_text("".join(json.dumps({"prediction": text}) + "\n" for text in texts))
    words = [f"benchmark.path={DATA}", f"stage.predictions={tmp_path / 'answers'}"]
    ran = tltrain("stage=eval", "benchmark=toolalpaca", *words)
    assert "the golden tool of 6 of 114 samples is not on offer" in ran.err
    for level in ("ts", "pi", "cf"):
        assert ran.metrics[f"toolalpaca_real/{level}"] == pytest.approx(100 * 108 / 114, abs=1e-3)
    wrong = [line for line in ran.lines("predictions.jsonl") if not line["cf"]]
    assert [line["meta"]["golden_on_offer"] for line in wrong] == [False] * 6
    assert all(line["id"].startswith("real/AviationAPI/") for line in wrong)
    table = (ran.folder / "table.md").read_text()
    assert "| this run | 94.74 | 94.74 | 94.74 |" in table and "| TL-CodeLLaMA-2 | 87.72 | 78.07 | 57.89 |" in table
    assert "| ablation: w/ MAE | 73.68 | 64.91 | 43.68 |" in table
