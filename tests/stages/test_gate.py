"""stage=gate on the support desk's 40 conversations, with a minimal model: what a company's CI would run."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.support.fake_endpoint import message, serving
from tests.support.paths import ROOT
from tests.support.small_runs import SMALL, last_line
from tltrain.data import TRAINED_ON, openai
from tltrain.data.reading import read_file
from tltrain.data.split import opening_key
from tltrain.evaluation.predictions import Prediction
from tltrain.grading import grade, grade_answer
from tltrain.stages import gate
from tltrain.trajectory import Call, Sample, Tool

pytestmark = pytest.mark.slow

LOG = ROOT / "examples" / "support_desk" / "conversations.jsonl"
OWN_LOGS = ("+experiment=own_logs", "data=openai", f"data.path={LOG}", *SMALL)
QUICK = ("stage.supervised.args.max_steps=1", "stage.max_new_tokens=4")


@pytest.fixture(scope="module")
def gated(once, models_cache):
    """The gate as it is documented, which a model that was trained for one step does not pass."""
    from tests.support.command_line import command_line

    return once("gate", lambda folder: command_line(*OWN_LOGS, *QUICK, folder=folder / "run", cache=models_cache))


def test_a_model_that_is_not_better_ends_with_a_status_of_its_own(gated):
    assert gated.status == 3 and "Traceback" not in gated.err
    metrics = gated.metrics
    assert (metrics["passed"], metrics["exit_status"], metrics["reference"]) == (False, 3, "base")
    assert (metrics["training_conversations"], metrics["held_out_conversations"]) == (30, 10)
    assert metrics["verdict"].startswith("The new model is not certainly better than the base model: it makes")
    for line in (metrics["verdict"], metrics["too_few"], "Exit status 3."):
        assert line and line in gated.out
    assert not (gated.folder / "error.txt").exists()
    assert [stage["name"] for stage in metrics["stages"]] == ["eval", "sft", "eval", "pkt", "eval"]


def test_the_questions_are_logged_calls_that_worked_of_conversations_not_trained_on(gated):
    train = {line["id"] for line in gated.lines("train.jsonl")}
    asked = gated.lines("held_out.jsonl")
    assert len(train) == 30 and not train & {line["id"].partition("#")[0] for line in asked}
    log = {record["id"]: record for record in map(json.loads, LOG.read_text().splitlines())}
    for line in asked:
        whole = log[line["id"].partition("#")[0]]["messages"]
        called = [call["function"] for each in whole for call in each.get("tool_calls") or ()]
        (golden,) = line["tool_calls"]
        found = {"name": golden["function"]["name"], "arguments": json.dumps(golden["function"]["arguments"])}
        assert found in called
    assert gated.metrics["questions"] == len(asked)
    assert not any("timed out" in json.dumps(line["tool_calls"]) for line in asked)


def test_sft_learns_all_calls_and_the_new_model_those_that_worked(gated):
    kept = [
        json.loads((gated.folder / f"model_{kind}" / "metrics.json").read_text())["mae"]["kept"]
        for kind in ("sft", "pkt")
    ]
    assert kept[0] > kept[1]


def test_the_page_tells_a_manager(gated):
    page = (gated.folder / "gate.html").read_text()
    for words in ("Gate: <span", "not passed", "Right answers, %", "model", "Right before, wrong now: 0"):
        assert words in page
    assert "<script" not in page


def test_a_model_that_passes_ends_well_and_nothing_is_trained_again(gated, tltrain):
    new = (gated.folder / "model_pkt" / "model").resolve()
    words = (f"stage.new={new}", f"stage.current={new}", "stage.threshold=-60", "stage.max_new_tokens=4")
    ran = tltrain(*OWN_LOGS, *words)
    assert ran.metrics["passed"] and ran.metrics["reference"] == "current"
    assert "is good enough compared with the model in service" in ran.out and "Exit status 0." in ran.out
    assert {stage["name"] for stage in ran.metrics["stages"]} == {"eval"}


def test_conversations_that_the_new_model_knows_are_not_asked_about(gated, tltrain, tmp_path):
    """The gate's own model knows none; one that was trained on four of them, or on all, is not asked about those."""
    asked = {line["id"].partition("#")[0] for line in gated.lines("held_out.jsonl")}
    held_out = [item for item in read_file(str(LOG), openai.parse) if item.id in asked]
    new, copy = (gated.folder / "model_pkt" / "model").resolve(), tmp_path / "known"
    shutil.copytree(new, copy)
    own = json.loads((copy / TRAINED_ON).read_text())
    assert not set(own) & set(map(opening_key, held_out)) and gated.metrics["caveats"] == []

    def trained_on(items) -> None:
        (copy / TRAINED_ON).write_text(json.dumps([*own, *map(opening_key, items)]))

    trained_on(held_out[:4])
    words = (*OWN_LOGS, "stage.max_new_tokens=4")
    ran = tltrain(*words, f"stage.new={copy}", status=3)
    line = f"stage.new={copy} was trained on 4 of the 10 held-out conversations, which are therefore not asked about"
    assert ran.metrics["caveats"] == [line] and f"{line}." in ran.out.replace("\n", " ") and line in ran.err
    assert (ran.metrics["held_out_but_known"], ran.metrics["held_out_conversations"]) == (4, 6)
    assert line in (ran.folder / "gate.html").read_text()
    left = {entry["id"].partition("#")[0] for entry in ran.lines("held_out.jsonl")}
    assert left == asked - {item.id for item in held_out[:4]}
    ran = tltrain(*words, f"stage.new={new}", f"stage.current={copy}", status=3)
    assert ran.metrics["held_out_but_known"] == 0
    (line,) = ran.metrics["caveats"]
    assert line.endswith("was trained on 4 of the 10 held-out conversations, so the gate is strict with the new model")
    trained_on(held_out)
    ran = tltrain(*words, f"stage.new={copy}", status=1)
    assert "was trained on all 10 held-out conversations" in last_line(ran)
    (copy / TRAINED_ON).unlink()
    ran = tltrain(*words, f"stage.new={copy}", status=3)
    assert "has no trained_on.json, so nobody can tell" in ran.metrics["caveats"][0]


def test_a_sweep_whose_jobs_run_in_other_processes_ends_with_the_same_status(gated, tltrain, tmp_path):
    new = (gated.folder / "model_pkt" / "model").resolve()
    words = ("hydra/launcher=joblib", f"stage.new={new}", "stage.threshold=0,-60", "stage.max_new_tokens=4")
    ran = tltrain("-m", *OWN_LOGS, *words, f"hydra.sweep.dir={tmp_path / 'sweep'}", status=3)
    found = [json.loads((tmp_path / "sweep" / name / "metrics.json").read_text())["passed"] for name in "01"]
    assert found == [False, True] and "Traceback" not in ran.err and "failed" not in ran.out


def test_a_server_in_service_is_asked_before_anything_else_and_each_time(gated, tltrain):
    new = (gated.folder / "model_pkt" / "model").resolve()
    endpoint = ("source=endpoint", "source.model=desk", "source.mode=chat", "stage.current=endpoint")
    golden = {line["messages"][-1]["content"]: line["tool_calls"] for line in gated.lines("held_out.jsonl")}

    def reply(body, attempt):
        (call,) = golden[body["messages"][-1]["content"]]
        arguments = json.dumps(call["function"]["arguments"])
        return message(content=None, tool_calls=[{**call, "function": {**call["function"], "arguments": arguments}}])

    with serving() as server:
        server.reply = reply
        words = (*OWN_LOGS, *endpoint, f"source.url={server.url}", f"stage.new={new}", "stage.max_new_tokens=4")
        for _ in range(2):
            ran = tltrain(*words, status=3)
            assert ran.metrics["current/cf"] == 100.0 and ran.metrics["new/cf"] == 0.0
            assert "The new model is worse than the model in service" in ran.out
        assert len(server.asked) == 2 * ran.metrics["questions"]
    flips = (ran.folder / "gate.html").read_text()
    assert f"Right before, wrong now: {ran.metrics['questions']}" in flips


def test_a_server_has_room_for_its_own_format_and_the_cache_is_not_written_to(gated, tltrain):
    """The model in service was a folder in the first run, whose answers are a link to the cache, and then a server."""
    new = (gated.folder / "model_pkt" / "model").resolve()
    words = (*OWN_LOGS, f"stage.new={new}")
    ran = tltrain(*words, f"stage.current={new}", "stage.max_new_tokens=4", status=3)
    kept = (ran.folder / "eval_current").resolve() / "predictions.jsonl"
    before = kept.read_bytes()
    with serving() as server:
        server.reply = lambda body, attempt: message(content="Hello")
        endpoint = ("source=endpoint", "source.model=desk", "source.mode=chat", f"source.url={server.url}")
        ran = tltrain(*words, *endpoint, "stage.current=endpoint", folder=ran.folder, status=3)
    assert kept.read_bytes() == before
    limit = ran.metrics["max_new_tokens"]
    assert {asked.body["max_tokens"] for asked in server.asked} == {2 * limit + 128}


def test_one_of_two_golden_calls_is_half_right_in_every_format():
    tools = (Tool("f", "", {"type": "object", "properties": {"a": {"type": "string"}}}),)
    goldens = tuple(Call("f", {"a": value}) for value in "12")
    sample, text = Sample("s", tools, (), goldens), 'f(a="1")'
    grades = (grade(text, goldens, tools), grade_answer(text, [(golden,) for golden in goldens], tools))
    alone, whole = (gate.of_each_call(Prediction.graded("log", sample, text, each, None)) for each in grades)
    assert alone.scores == whole.scores == {"ts": 0.5, "pi": 0.5, "cf": 0.5}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("stage.current=endpoint",), "stage.current=endpoint and source=endpoint belong together"),
        (("source=endpoint", "source.url=http://127.0.0.1:1/v1"), "stage.current=endpoint and source=endpoint belong"),
        (("stage.current=./nowhere",), "stage.current=./nowhere: there is no such folder"),
        (("stage.new=./nowhere",), "stage.new=./nowhere: there is no such folder"),
        (("stage.customer=client",), "stage.customer=client: conversation chat-01 has no such field; it has no fields"),
        (("stage.new=a/b", "stage.irm=true"), "stage.irm: nothing is trained with stage.new"),
        (("benchmark.limit=2",), "benchmark.limit: stage=gate reads no such key; it asks about conversations"),
        (("stage.rl.kl=1",), "stage.rl.kl: stage.irm=false reads no such key"),
        (("stage.supervised.args.nonsense=1",), "stage.supervised.args.nonsense: "),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(tltrain, words, said):
    ran = tltrain(*OWN_LOGS, *words, status=1)
    assert said in last_line(ran)
