"""BFCL's single-turn sets: golden calls in Python syntax and as possible answers, and BFCL's own checker."""

from __future__ import annotations

import importlib.util
import json
import random
import sys

import pytest

from tltrain.data import bfcl
from tltrain.errors import TltrainError
from tltrain.evaluation import scoring
from tltrain.formats.calls import read_calls, render_call
from tltrain.grading import grade
from tltrain.trajectory import Call, Message, OneOf, Tool, example

needs_package = pytest.mark.skipif(
    importlib.util.find_spec(bfcl.PACKAGE) is None,
    reason="bfcl-eval is not installed (pip install --no-deps bfcl-eval)",
)
NUMBERS = {"type": "array", "items": {"type": "float"}, "description": "Numbers."}
MEAN = {
    "name": "stats.mean",
    "description": "The mean.",
    "parameters": {
        "type": "dict",
        "properties": {"numbers": NUMBERS, "weight": {"type": "float", "description": "W."}},
        "required": ["numbers"],
    },
}
PLAY = {
    "name": "play",
    "description": "Plays.",
    "parameters": {
        "type": "dict",
        "properties": {
            "artist": {"type": "string", "description": "Who."},
            "minutes": {"type": "integer", "description": "How long."},
            "how": {
                "type": "dict",
                "description": "How.",
                "properties": {"volume": {"type": "integer"}, "mood": {"type": "string"}},
            },
        },
        "required": ["artist"],
    },
}


def question(identity, *functions, text="Do it.", system=None):
    messages = [{"role": "user", "content": text}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return {"id": identity, "question": [messages], "function": list(functions or [MEAN, PLAY])}


@pytest.fixture
def write(tmp_path):
    """`write(category, questions, ground_truths)` writes BFCL's two files to a new folder and returns it."""

    def write(category, questions, truths, version=4):
        name = f"BFCL_v{version}_{category}.json"
        answers = [
            {"id": record["id"], "ground_truth": truth} for record, truth in zip(questions, truths, strict=False)
        ]
        for folder, records in ((tmp_path, questions), (tmp_path / "possible_answer", answers)):
            folder.mkdir(exist_ok=True)
            (folder / name).write_text("\n".join(map(json.dumps, records)))
        return tmp_path

    return write


def read(folder, category):
    return bfcl.read_samples(folder, category, check_counts=False)


def golden(write, truth, category="exec_parallel"):
    (sample,) = read(write(category, [question("q")], [truth]), category)
    return sample.goldens


def test_a_question_becomes_a_sample(write):
    folder = write("exec_simple", [question("exec_simple_0", system="Be brief.")], [["play(artist='A')"]])
    (sample,) = read(folder, "exec_simple")
    assert (sample.id, sample.messages, sample.instructions) == (
        "exec_simple_0",
        (Message("user", "Do it."),),
        "Be brief.",
    )
    assert sample.tools[0] == Tool(
        "stats.mean",
        "The mean.",
        {
            "type": "object",
            "properties": {
                "numbers": {"type": "array", "items": {"type": "number"}, "description": "Numbers."},
                "weight": {"type": "number", "description": "W."},
            },
            "required": ["numbers"],
        },
    )
    assert sample.tools[1].properties["how"]["type"] == "object"
    assert sample.goldens == (Call("play", {"artist": "A"}),)
    assert sample.meta == {"scenario": "exec_simple"}


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("stats.mean(numbers=[1, -2.5, (3,)])", Call("stats.mean", {"numbers": [1, -2.5, [3]]})),
        ("stats.mean([1,3])", Call("stats.mean", {"numbers": [1, 3]})),  # positional: in documented order
        ("stats.mean([1], 0.5)", Call("stats.mean", {"numbers": [1], "weight": 0.5})),
        ("play(artist='A', minutes=1/6)", Call("play", {"artist": "A", "minutes": 1 / 6})),
        ("play(minutes=500*500)", Call("play", {"minutes": 250_000})),
        ("play(how={'mood': None, 'loud': True})", Call("play", {"how": {"mood": None, "loud": True}})),
    ],
)
def test_a_golden_call_from_pythons_text(write, text, call):
    assert golden(write, [text]) == (call,)


@pytest.mark.parametrize(
    "text",
    [
        "play(artist=__import__('os').getcwd())",
        "play(artist=open('x'))",
        "play(minutes=9**9**9)",
        "play(minutes='a' * 1000000000)",
        "play(minutes=1/0)",
        "play(**{'artist': 'A'})",
        "play(artist={1, 2})",
        "play(1, 2, 3, 4)",
        "play(artist=b'A')",
        "play",
        "play(",
        "play(artist=" + "[" * 10_000,
    ],
)
def test_nothing_but_literals_is_a_golden_call_and_nothing_is_evaluated(write, text):
    with pytest.raises(TltrainError, match=r"BFCL_v4_exec_parallel\.json, q: ground_truth: expected a call `name\("):
        golden(write, [text])


def test_possible_answers_become_accepted_values(write):
    truth = [{"play": {"artist": ["A", "a"], "minutes": [20], "how": ["", {"volume": [3, ""], "mood": ["", "calm"]}]}}]
    (call,) = golden(write, truth, "parallel")
    how = {"volume": OneOf((3,), optional=True), "mood": OneOf(("calm", ""), optional=True)}
    assert call == Call("play", {"artist": OneOf(("A", "a")), "minutes": 20, "how": OneOf((how,), optional=True)})

    (sample,) = read(write("parallel", [question("q")], [truth]), "parallel")
    for right in (
        "artist='a', minutes=20",
        "artist='A', minutes=20.0, how={}",
        "artist='A', minutes=20, how={'volume': 3}",
    ):
        assert grade(f"play({right})", sample.goldens, sample.tools).cf
    for wrong in (
        "artist='B', minutes=20",
        "artist='A', minutes=20, how={'volume': ''}",
        "artist='A', minutes=20, how=''",
    ):
        assert grade(f"play({wrong})", sample.goldens, sample.tools).row == "wrong_value"
    assert not grade("play(artist='A')", sample.goldens, sample.tools).pi


def test_required_parameters_may_not_be_left_out_even_if_the_possible_answers_allow_it(write):
    (call,) = golden(write, [{"play": {"artist": ["", "A"], "minutes": [""]}}], "parallel")
    assert call.arguments == {"artist": OneOf(("A", "")), "minutes": OneOf((), optional=True)}
    assert example(call) == Call("play", {"artist": "A"})
    assert golden(write, [{"stats.mean": {"numbers": []}}], "parallel")[0].arguments == {"numbers": []}


def test_dicts_in_lists_have_accepted_values_and_deeper_values_are_literal(write):
    tool = {**PLAY, "parameters": {"type": "dict", "properties": {"x": {"type": "array", "items": {"type": "dict"}}}}}
    truth = [{"play": {"x": [[{"a": [1, 2], "b": [{"c": 3}]}]]}}]
    (sample,) = read(write("multiple", [question("q", tool)], [truth]), "multiple")
    assert sample.goldens[0].arguments == {"x": [{"a": OneOf((1, 2)), "b": {"c": 3}}]}


def test_a_category_is_not_read_from_the_file_of_another(write):
    for category in ("multiple", "live_multiple", "parallel_multiple", "exec_multiple", "parallel", "live_parallel"):
        folder = write(category, [question(f"{category}_0")], [["play()"]])
    for category in ("multiple", "live_multiple", "parallel_multiple", "parallel"):
        assert [sample.id for sample in read(folder, category)] == [f"{category}_0"]


def test_the_name_of_earlier_versions(write):
    folder = write("simple", [question("simple_0")], [["play()"]], version=3)
    assert [sample.id for sample in read(folder, "simple_python")] == ["simple_0"]


@pytest.mark.parametrize(
    ("questions", "truths", "said"),
    [
        ([question("a")], [], "BFCL_v4_parallel.json, record 1: id: expected the id at the same position "),
        ([question("a"), question("b")], [["play()"]], "record 2: id: expected the id at the same position"),
        (
            [{**question("a"), "question": [[], []]}],
            [["play()"]],
            "record 1: question: expected one turn, found 2 turns",
        ),
        ([{**question("a"), "question": [[]]}], [["play()"]], "question[0]: expected a user's message at its end"),
        ([{**question("a"), "function": {}}], [["play()"]], "record 1: function: expected a list"),
        ([question("a")], [[]], "record 1: ground_truth: expected at least one golden call, found an empty list"),
        ([question("a")], [[{"f": {}, "g": {}}]], "a: ground_truth: expected one tool's name, found f, g"),
        ([question("a")], [[{"f": {"x": 1}}]], "a: ground_truth.f.x: expected a list, found 1"),
    ],
)
def test_what_is_wrong_in_the_files_is_said(write, questions, truths, said):
    with pytest.raises(TltrainError) as caught:
        read(write("parallel", questions, truths), "parallel")
    assert said in str(caught.value)


def test_files_that_are_not_there(write, tmp_path, monkeypatch):
    with pytest.raises(TltrainError, match=r"expected BFCL_v4_exec_simple\.json, and the same in possible_answer/"):
        read(tmp_path, "exec_simple")
    monkeypatch.setattr(bfcl.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TltrainError, match="pip install --no-deps bfcl-eval"):
        bfcl.folder(None)


def test_the_papers_sets_must_be_whole_and_others_are_warned_about(write, caplog):
    folder = write("exec_simple", [question("a")], [["play()"]])
    with pytest.raises(TltrainError, match=r"exec_simple\.json: expected BFCL's 100 questions, found 1$"):
        bfcl.read_samples(folder, "exec_simple")
    assert len(bfcl.read_samples(write("parallel", [question("a")], [["play()"]]), "parallel")) == 1
    assert "parallel.json: expected BFCL's 200 questions, found 1: another release?" in caplog.text


def test_scored_by_any_call_and_by_every_call_through_the_command_line(tltrain, write, tmp_path, monkeypatch):
    monkeypatch.setattr(bfcl, "_checker", lambda: None)
    truth = [{"play": {"artist": ["A"]}}, {"play": {"artist": ["B"]}}]
    folder = write("parallel", [question(f"parallel_{i}", PLAY) for i in range(4)], [truth] * 4)
    texts = ["play(artist='B')", "[play(artist='B'), play(artist='A')]", "play(artist='C'), play(artist='A')", "none"]
    (tmp_path / "answers").write_text("".join(json.dumps({"prediction": text}) + "\n" for text in texts))
    words = [f"benchmark.path={folder}", f"stage.predictions={tmp_path / 'answers'}", "benchmark.categories=[parallel]"]
    ran = tltrain("stage=eval", "benchmark=bfcl", *words)
    keys = ("cf", "any/cf", "any/ts", "each/cf", "each/ts", "every/cf", "every/ts", "n")
    assert [ran.metrics[f"bfcl_parallel/{key}"] for key in keys] == [50, 50, 75, 50, 62.5, 25, 50, 4]
    native = tltrain("stage=eval", "benchmark=bfcl", *words, "format=hermes")  # an answer may be several calls
    assert [native.metrics[f"bfcl_parallel/{key}"] for key in keys] == [50, 50, 75, 50, 62.5, 25, 50, 4]
    assert native.metrics["bfcl_parallel/ts"] == 62.5 and ran.metrics["bfcl_parallel/ts"] == 75
    assert [line["reward"] for line in native.lines("predictions.jsonl")] == [-0.5, 1, (1 - 0.25) / 2, -2]
    assert [line["reward"] for line in ran.lines("predictions.jsonl")] == [1, 1, -0.25, -2]
    assert native.metrics["bfcl_parallel/missing_calls"] == 2
    assert "bfcl_parallel/ast" not in ran.metrics
    assert "bfcl_parallel (every)" in ran.out
    goldens = ran.lines("predictions.jsonl")[0]["goldens"]
    assert goldens == [{"name": "play", "arguments": {"artist": artist}} for artist in "AB"]


def test_without_the_package_its_checker_is_left_out_with_a_note(monkeypatch, caplog):
    monkeypatch.setattr(bfcl.importlib.util, "find_spec", lambda name: None)
    bfcl._checker.cache_clear()
    assert bfcl.official_verdicts([[]], None, "parallel") is None
    assert "BFCL's own accuracy (SET/ast) is left out: pip install --no-deps bfcl-eval" in caplog.text
    bfcl._checker.cache_clear()


# --- the package ----------------------------------------------------------------------------------------------------

ASKED = [name for name in bfcl.EXPECTED_COUNTS if name not in bfcl.EXECUTABLE]
UNREACHABLE = {
    "parallel_multiple_12",
    "parallel_multiple_26",
    "live_simple_106-63-0",
    "live_simple_112-68-0",
    "live_multiple_862-181-3",
    "live_multiple_964-207-0",
}
"""Golden calls that BFCL's own checker rejects."""


@needs_package
def test_the_packages_sets_are_found_without_importing_it():
    for name in [name for name in sys.modules if name.partition(".")[0] == bfcl.PACKAGE]:
        del sys.modules[name]
    bfcl._checker.cache_clear()
    executable = [sample for category in bfcl.SETS["exec"] for sample in bfcl.read_samples(None, category)]
    assert len(executable) == 240
    assert {category: len(bfcl.read_samples(None, category)) for category in ASKED} == {
        category: bfcl.EXPECTED_COUNTS[category] for category in ASKED
    }
    assert bfcl.PACKAGE not in sys.modules
    goldens = {sample.id: sample.goldens[0] for sample in executable}
    assert goldens["exec_multiple_0"].arguments == {"n": 20, "k": 5, "p": 1 / 6}


@needs_package
def test_golden_calls_of_the_papers_240_are_right(tltrain, tmp_path):
    samples = [sample for category in bfcl.EXECUTABLE for sample in bfcl.read_samples(None, category)]
    texts = ["\n".join(map(render_call, sample.goldens)) for sample in samples]
    (tmp_path / "answers").write_text("".join(json.dumps({"prediction": text}) + "\n" for text in texts))
    ran = tltrain("stage=eval", "benchmark=bfcl", f"stage.predictions={tmp_path / 'answers'}")
    for key in ("ts", "pi", "cf", "any/cf", "every/ts", "every/cf"):
        assert ran.metrics[f"bfcl_exec/{key}"] == 100
    assert ran.metrics["bfcl_exec/n"] == 240
    by_category = ran.metrics["details"]["bfcl_exec"]["scoring"]["any"]["by_scenario"]
    assert {name: levels["cf"]["n"] for name, levels in by_category.items()} == {
        "exec_simple": 100,
        "exec_multiple": 50,
        "exec_parallel": 50,
        "exec_parallel_multiple": 40,
    }
    assert "bfcl_exec/ast" not in ran.metrics
    assert "| TL-CodeLLaMA-2 | 96.25 | 93.75 | 88.33 |" in (ran.folder / "table.md").read_text()


def accepted_at_random(value, rng):
    """Return a random value that a golden value accepts."""
    if isinstance(value, OneOf):
        return accepted_at_random(rng.choice(value.values), rng)
    if isinstance(value, dict):
        stated = {k: v for k, v in value.items() if not may_be_left_out(v) or (v.values and rng.random() < 0.5)}
        return {key: accepted_at_random(inner, rng) for key, inner in stated.items()}
    return [accepted_at_random(inner, rng) for inner in value] if isinstance(value, list) else value


def may_be_left_out(value):
    return isinstance(value, OneOf) and value.optional


@needs_package
@pytest.mark.parametrize("category", ASKED)
def test_answers_we_accept_pass_bfcls_own_checker_and_wrong_types_and_tools_fail_it(category):
    rng = random.Random(0)
    samples = bfcl.read_samples(None, category)
    calls = [
        [Call(golden.name, accepted_at_random(dict(golden.arguments), rng)) for golden in sample.goldens]
        for sample in samples
    ]
    texts = [f"[{', '.join(map(render_call, several))}]" for several in calls]
    assert [read_calls(text) for text in texts] == calls
    shuffled = ["\n".join(map(render_call, rng.sample(several, len(several)))) for several in calls]
    assert all(levels.cf for levels in scoring.every_call([*texts, *shuffled], samples * 2))
    verdicts = bfcl.official_verdicts(calls, None, category)
    refused = {sample.id for sample, verdict in zip(samples, verdicts, strict=True) if not verdict}
    assert refused == UNREACHABLE & {sample.id for sample in samples}

    wrong = [[Call(f"{call.name}x", call.arguments) for call in several] for several in calls]
    odd = [[Call(call.name, {"\0": [{None: [1]}], **call.arguments}) for call in several] for several in calls]
    for answers in ([[]] * len(calls), [several * 2 for several in calls], wrong, odd):
        assert not any(bfcl.official_verdicts(answers, None, category))


@needs_package
def test_bfcls_accuracy_is_reported_next_to_ours(tltrain, tmp_path):
    samples = bfcl.read_samples(None, "simple_python")[:4]
    right = [render_call(example(sample.goldens[0])) for sample in samples]
    texts = [right[0], right[1], right[2], "none()"]
    (tmp_path / "answers").write_text("".join(json.dumps({"prediction": text}) + "\n" for text in texts))
    words = ["benchmark.categories=[simple_python]", "benchmark.limit=4", f"stage.predictions={tmp_path / 'answers'}"]
    ran = tltrain("stage=eval", "benchmark=bfcl", *words)
    assert ran.metrics["bfcl_simple_python/ast"] == ran.metrics["bfcl_simple_python/cf"] == 75
    assert ran.metrics["details"]["bfcl_simple_python"]["ast"]["right"] == 3
    assert "BFCL's AST" in ran.out


@needs_package
def test_bfcls_checker_forgives_case_and_punctuation_which_cf_does_not():
    sample = next(s for s in bfcl.read_samples(None, "parallel") if s.id == "parallel_0")
    text = "[spotify.play(artist='taylor-swift', duration=20), spotify.play(artist='MAROON 5', duration=15)]"
    assert scoring.every_call([text], [sample]) == [scoring.Correctness(True, True, False)]
    assert bfcl.official_verdicts([read_calls(text)], None, "parallel") == [True]


@needs_package
def test_the_checkers_import_leaves_the_packages_own_table_of_models_alone():
    bfcl._checker.cache_clear()
    assert bfcl.official_verdicts([[]], None, "parallel") == [False]
    assert "bfcl_eval.constants.model_config" not in sys.modules
