"""Questions to which no call is right in stage=eval: read from each source, scored beside the others, compared."""

from __future__ import annotations

import json

import pytest

from tests.support.reader_samples import FINISH, SEARCH
from tltrain.data import bfcl, when2call
from tltrain.data.reading import read_file
from tltrain.errors import RecordError, TltrainError
from tltrain.evaluation.metrics import SINGLE_TURN
from tltrain.trajectory import Call, Message

TOOLS = [SEARCH, FINISH]
SEARCH_CALL = {"function": {"name": "search", "arguments": '{"query": "x"}'}}
CALLS = [{"messages": [{"role": "user", "content": f"Find x, {i}."}], "tool_calls": [SEARCH_CALL]} for i in range(2)]
NONE = [{"messages": [{"role": "user", "content": f"A joke, {i}."}], "tool_calls": []} for i in range(4)]
RIGHT = "search(query='x')"
ANSWERS = [RIGHT, "I cannot search.", "No.", "None fits.", "No tool tells jokes.", RIGHT]


@pytest.fixture
def evaluate(tltrain, tmp_path):
    """`evaluate(records, answers, *words) -> Ran` runs stage=eval on saved answers to a file named `mine`."""

    def evaluate(records, answers, *words):
        for name, lines in (
            ("mine.jsonl", [{"tools": TOOLS, **record} for record in records]),
            ("answers.jsonl", [{"prediction": answer} for answer in answers]),
        ):
            (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        given = [f"benchmark.path={tmp_path / 'mine.jsonl'}", f"stage.predictions={tmp_path / 'answers.jsonl'}"]
        return tltrain("stage=eval", "benchmark=openai", *given, *words)

    return evaluate


def test_abstention_stands_beside_ts_pi_cf_and_not_in_them(evaluate):
    ran = evaluate([*CALLS, *NONE], ANSWERS)
    found = ran.metrics
    # 1 of 2 calls is right and the other question is answered in words; 3 of 4 others are answered in words
    assert [found[f"mine/{level}"] for level in SINGLE_TURN] == [50, 50, 50]
    assert (found["mine/abstention"], found["mine/abstention_n"], found["mine/no_call"]) == (75, 4, 1)
    assert found["mine/n"] == 6
    assert found["mine/reward"] == pytest.approx((1 - 2) / 2)  # the paper's table has no price for abstention
    rows = found["details"]["mine"]["rows"]
    assert {row: count for row, count in rows.items() if count} == {
        **{"format_error": 1, "correct": 1},
        **{"called_anyway": 1, "abstained": 3},
    }
    lines = ran.lines("predictions.jsonl")
    assert [line.get("abstention") for line in lines] == [None, None, True, True, True, False]
    assert [line.get("cf") for line in lines] == [True, False, None, None, None, None]
    assert "reward" not in lines[2] and lines[5]["grade"] == "called_anyway"
    assert "No call is right" in ran.out


def test_a_price_counts_abstention_in_the_reward(evaluate):
    ran = evaluate([*CALLS, *NONE], ANSWERS, "reward.abstained=1", "reward.called_anyway=-1.5")
    assert ran.metrics["mine/reward"] == pytest.approx((1 - 2 + 3 * 1 - 1.5) / 6, abs=1e-4)


def test_a_set_of_such_questions_alone_has_no_ts_pi_cf(evaluate):
    found = evaluate(NONE, ANSWERS[2:]).metrics
    assert (found["mine/abstention"], found["mine/n"]) == (75, 4)
    assert not {f"mine/{level}" for level in (*SINGLE_TURN, "no_call", "reward")} & found.keys()


def test_without_such_questions_nothing_is_added(evaluate):
    found = evaluate(CALLS, ANSWERS[:2]).metrics
    assert not {"mine/abstention", "mine/abstention_n", "mine/no_call"} & found.keys()
    assert not {"abstained", "called_anyway"} & found["details"]["mine"]["rows"].keys()


def test_golden_answers_are_the_ceiling_and_random_calls_the_floor(tltrain, tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"tools": TOOLS, **record}) + "\n" for record in [*CALLS, *NONE]))
    for source, percent in (("golden", 100), ("random", 0)):
        found = tltrain("stage=eval", "benchmark=openai", f"benchmark.path={file}", f"source={source}").metrics
        assert found["mine/abstention"] == percent


def test_two_results_are_compared_in_abstention(evaluate, tltrain):
    a = evaluate([*CALLS, *NONE], ANSWERS)
    b = evaluate([*CALLS, *NONE], [*ANSWERS[:2], *[RIGHT] * 4])
    found = tltrain("stage=eval", f"stage.compare=[{a.folder},{b.folder}]").metrics
    assert (found["mine/abstention/difference"], found["mine/cf/difference"]) == (-75, 0)
    assert (found["details"]["mine"]["levels"]["abstention"]["n"], found["details"]["mine"]["levels"]["cf"]["n"]) == (
        4,
        2,
    )


# --- BFCL and When2Call ---------------------------------------------------------------------------------------------

FUNCTION = {
    "name": "math.sum",
    "description": "Sums.",
    "parameters": {"type": "dict", "properties": {"x": {"type": "float", "description": "X."}}, "required": ["x"]},
}


def test_bfcls_irrelevance_sets_have_no_answers(tmp_path, caplog):
    lines = [
        {"id": f"live_irrelevance_{i}", "question": [[{"role": "user", "content": "Why?"}]], "function": functions}
        for i, functions in enumerate(([FUNCTION], []))
    ]
    (tmp_path / "BFCL_v4_live_irrelevance.json").write_text("\n".join(map(json.dumps, lines)))
    first, second = bfcl.read_samples(tmp_path, "live_irrelevance")
    assert (first.abstain, first.goldens, first.asked, first.meta) == (True, (), (), {"scenario": "live_irrelevance"})
    assert first.tools[0].properties["x"]["type"] == "number" and second.tools == ()
    assert "expected BFCL's 884 questions, found 2" in caplog.text
    bfcl.check_place(tmp_path, ["live_irrelevance"])
    with pytest.raises(TltrainError, match=r"expected BFCL_v4_irrelevance.json(;|$)"):
        bfcl.check_place(tmp_path, ["irrelevance"])
    assert bfcl.official_verdicts([[]], tmp_path, "live_irrelevance") is None


def question(right, **more):
    answers = {"tool_call": '{"name": "math.sum", "arguments": {"x": 1}}', "cannot_answer": "No."}
    return {
        **{"uuid": right, "question": "Sum 1.", "correct_answer": right, "answers": answers},
        **{"tools": [json.dumps(FUNCTION)], "target_tool": None},
        **more,
    }


def test_when2call(tmp_path, tltrain):
    file = tmp_path / "judge.jsonl"
    rights = ("tool_call", "cannot_answer", "request_for_info", "direct")
    file.write_text("".join(json.dumps(question(right)) + "\n" for right in rights))
    call, *others = read_file(file, when2call.parse_sample)
    assert (call.goldens, call.messages, call.id) == (
        *((Call("math.sum", {"x": 1}),), (Message("user", "Sum 1."),), "tool_call"),
    )
    assert not call.abstain and call.tools[0].properties["x"]["type"] == "number"
    assert [(sample.abstain, sample.goldens, sample.meta["scenario"]) for sample in others] == [
        (True, (), right) for right in rights[1:]
    ]
    answers = tmp_path / "answers.jsonl"
    texts = ("math.sum(x=1)", "No.", "math.sum(x=1)", "It is 1.")
    answers.write_text("".join(json.dumps({"prediction": text}) + "\n" for text in texts))
    words = [f"benchmark.path={file}", f"stage.predictions={answers}"]
    found = tltrain("stage=eval", "benchmark=when2call", *words).metrics
    assert (found["judge/cf"], found["judge/no_call"], found["judge/abstention_n"]) == (100, 0, 3)
    assert found["judge/abstention"] == pytest.approx(66.6667)
    scenarios = found["details"]["judge"]["abstention"]["by_scenario"]
    assert {name: numbers["percent"] for name, numbers in scenarios.items()} == {
        **{"cannot_answer": 100, "request_for_info": 0, "direct": 100},
    }


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (question("maybe"), "correct_answer: expected one of tool_call, request_for_info, cannot_answer, direct"),
        (question("tool_call", answers={}), "answers.tool_call: expected a string"),
        (question("direct", tools="x"), "tools: expected a list"),
    ],
)
def test_a_wrong_record_of_when2call_is_said_with_its_field(tmp_path, record, said):
    (tmp_path / "judge.jsonl").write_text(json.dumps(record))
    with pytest.raises(RecordError, match=said):
        list(read_file(tmp_path / "judge.jsonl", when2call.parse_sample))
