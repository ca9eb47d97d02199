"""stage=eval with conversations through the command line."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest

from tests.support.mae_rules import PAPER
from tltrain.environments.golden import GoldenCalls
from tltrain.evaluation import transcription
from tltrain.formats.tool_errors import error_kind
from tltrain.stages.evaluations import conversations
from tltrain.toolworld import environment
from tltrain.trajectory import Task
from tltrain.views import tables

TINY = ("stage=eval", "benchmark=toolworld_multi", "model=tiny", "hardware.bf16=false", "data.size=12")
SHORT = ("benchmark.size=3", "benchmark.max_turns=2", "stage.max_new_tokens=8")


GOLDEN = GoldenCalls(
    {f"toolworld-test-0-{n}": environment.golden_calls(Task(f"toolworld-test-0-{n}")) for n in range(40)}
)


class Source:
    """A source that answers with `answer`; if it returns None, the prompt is too long."""

    name, too_long = "a source", 0

    def __init__(self, answer) -> None:
        self.answer = answer

    def __call__(self, samples):
        texts = self.answer(samples)
        self.too_long += texts.count(None)
        return texts

    def reading(self):
        return {}


@pytest.fixture
def answering(monkeypatch):
    """`answering(answer)`: replace the model by a function."""

    def put(answer):
        @contextmanager
        def answering_source(cfg, tasks, world):
            yield Source(answer)

        monkeypatch.setattr(conversations, "answering_source", answering_source)

    return put


def test_a_model_is_asked_until_the_limit(tltrain):
    ran = tltrain(*TINY, *SHORT)
    found = ran.metrics
    assert (found["toolworld_multi/n"], found["toolworld_multi/calls"], found["too_long"]) == (3, 6, 0)
    assert {key for key in found if key.startswith("toolworld_multi/")} == {
        f"toolworld_multi/{key}" for key in ("de", "ce", "va", "success", "n", "calls")
    }
    lines = ran.lines("transcripts.jsonl")
    assert [line["id"] for line in lines] == [f"toolworld-test-0-{index}" for index in range(3)]
    assert all(len(line["calls"]) == 2 and line["ended"] == "turn limit" for line in lines)
    assert "Conversations: DE and CE" in ran.out and "ended by: turn limit" in ran.out
    assert "toolworld-test-0-2" in (ran.folder / "transcripts.html").read_text()
    assert not (ran.folder / "table.md").exists()


def test_transcripts_do_not_depend_on_how_many_are_held_at_a_time(tltrain):
    runs = [tltrain(*TINY, *SHORT, f"benchmark.parallel={parallel}") for parallel in (1, 3)]
    assert len({(ran.folder / "transcripts.jsonl").read_bytes() for ran in runs}) == 1
    assert {k: v for k, v in runs[0].metrics.items() if "tokens" not in k} == {
        k: v
        for k, v in runs[1].metrics.items()
        if "tokens" not in k  # more prompts share more tokens
    }


def test_golden_conversations_score_a_hundred(tltrain, answering):
    answering(GOLDEN)
    ran = tltrain(*TINY, "benchmark.size=30", "benchmark.limit=20")
    found = ran.metrics
    assert [found[f"toolworld_multi/{key}"] for key in ("de", "ce", "va", "success", "n")] == [0, 0, 100, 100, 20]
    details = found["details"]["toolworld_multi"]
    assert details["all"]["success"] == {"percent": 100.0, "right": 20, "n": 20, "low": 100.0, "high": 100.0}
    assert sum(one["va"]["n"] for one in details["by_scenario"].values()) == 20
    assert details["ended"]["finish"] == 20 and details["errors"] == {}
    line = ran.lines("transcripts.jsonl")[0]
    assert line["outcome"]["success"] and line["valid"] and line["messages"][0]["role"] == "user"
    assert line["messages"][1]["call"] == line["calls"][0]["call"]


def test_a_prompt_that_does_not_fit_ends_its_conversation(tltrain, answering):
    def answer(samples):
        return [None if sample.id == "toolworld-test-0-1#1" else text
                for sample, text in zip(samples, GOLDEN(samples), strict=True)]  # fmt: skip

    answering(answer)
    ran = tltrain(*TINY, "benchmark.size=3")
    assert ran.metrics["too_long"] == 1
    assert ran.metrics["details"]["toolworld_multi"]["ended"]["too long"] == 1
    assert ran.metrics["toolworld_multi/va"] == pytest.approx(66.6667)


def test_toolworld_says_what_an_error_is_whatever_the_rule(tltrain, answering):
    # A book is titled "Trial and Error", a task "fix login error": the paper's rule would count that as an error.
    answering(GOLDEN)
    ran = tltrain(*TINY, "benchmark.size=40", "stage.rule=paper")
    assert ran.metrics["toolworld_multi/ce"] == 0
    said = [m["content"] for line in ran.lines("transcripts.jsonl") for m in line["messages"] if m["role"] == "tool"]
    assert any(error_kind(text, PAPER) for text in said)


def test_tools_answers_are_cut_at_max_output(tltrain, answering):
    answering(GOLDEN)
    ran = tltrain(*TINY, "benchmark.size=5", "benchmark.max_output=7")
    said = [m["content"] for line in ran.lines("transcripts.jsonl") for m in line["messages"] if m["role"] == "tool"]
    assert any("[cut: the first 7 of " in text for text in said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["benchmark.name=rotbench"], "benchmark.name: with benchmark.multi=true expected one of "),
        (["benchmark.size=0"], "the benchmark has no conversations: see benchmark.size"),
        (["stage.predictions=x"], "stage.predictions: conversations cannot be scored from saved answers"),
        (["benchmark.parallel=0"], "benchmark.parallel: expected a number from 1 to 10000, found 0"),
        (["benchmark.max_turns=0"], "benchmark.max_turns: expected a number from 1 to 10000, found 0"),
        (["benchmark.max_ouput=1"], "benchmark.max_ouput: no such key; did you mean max_output?"),
    ],
)
def test_mistakes_end_in_one_line(tltrain, words, said):
    ran = tltrain(*TINY, *words, status=1)
    assert ran.err.startswith(said) and len(ran.err.splitlines()) == 1


# --- prompts that do not fit ----------------------------------------------------------------------------------------


def test_a_model_says_which_prompts_do_not_fit(tltrain):
    context = "model.random.max_position_embeddings=600"
    ran = tltrain(*TINY, "benchmark.size=6", "benchmark.max_turns=4", "stage.max_new_tokens=64", context)
    ends = {line["id"]: (line["ended"], len(line["calls"])) for line in ran.lines("transcripts.jsonl")}
    assert ran.metrics["too_long"] == sum(ended == "too long" for ended, _ in ends.values()) > 0


# --- published numbers ----------------------------------------------------------------------------------------------


def test_the_papers_rows_stand_beside_382_conversations_of_tooleyes():
    rows = tables.published_multi("tooleyes_multi", 382)
    assert len(rows) == 10 + 8
    assert rows[0] == ["Avg.", "3.91", "12.46", "65.56"]
    assert ["TL-CodeLLaMA-2", "0.82", "4.84", "77.75"] in rows
    assert rows[-1] == ["ablation: w/ All (TL-CodeLLaMA-2)", "0.82", "4.84", "77.75"]
    assert tables.published_multi("tooleyes_multi", 10) == tables.published_multi("toolworld_multi", 382) == []


def test_where_the_paper_has_numbers_the_table_has_both(tltrain, answering, monkeypatch):
    answering(GOLDEN)
    monkeypatch.setattr(tables, "MULTI", ("toolworld_multi", 4))
    ran = tltrain(*TINY, "benchmark.size=4")
    table = (ran.folder / "table.md").read_text().splitlines()
    assert table[2] == "| who | DE | CE | VA |"
    assert table[4:6] == ["| this run | 0.00 | 0.00 | 100.00 |", "| Avg. | 3.91 | 12.46 | 65.56 |"]
    assert "toolworld_multi beside the paper" in ran.out


def test_what_an_environment_says_of_itself_is_written_whatever_it_is():
    class Odd:
        def __str__(self):
            raise ValueError

    assert json.loads(json.dumps(transcription._json({"a": {1, 2}, "b": Odd(), "c": (1, 2)})))["b"] == "Odd"
