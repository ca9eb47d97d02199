"""Hostile model answers are read, graded and written quickly, without a crash and without evaluating anything."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from tests.support.amounts import amount
from tests.support.hostile_inputs import CANARY, PIECES, in_a_fork, mutated, watch
from tests.support.mae_rules import PAPER, STRICT
from tests.support.reader_samples import TOOLS
from tltrain.evaluation import scoring
from tltrain.evaluation.predictions import Prediction
from tltrain.evaluation.records import to_line
from tltrain.formats import tool_errors
from tltrain.formats.answers import read_structure
from tltrain.formats.calls import UNREADABLE, CallSyntaxError, call_end, read_call, read_calls, render_call
from tltrain.formats.chat_completions import answer_text, unparsed_call
from tltrain.formats.preamble import without_words
from tltrain.formats.tl import TL
from tltrain.grading import ANY, OneOf, grade
from tltrain.trajectory import Call, Message, Sample, Tool

SEEDS = (
    'search(query="löve", limit=2, deep=[null, {"a": true}])',
    "search(query = 'love') ",
    'finish(answer="Listen \\"well\\".")\nUser: thanks\nAssistant: finish(answer=1)',
    '[search(query=\'a\'), finish(answer="""b\nc""")]',
    "f(a=-1.5e-3, b=[1, [2,], ], c={'x': {\"y\": None,},}, d=(1, 2), e=r'\\d' \"\\u00e9\")",
    '{"name": "search", "arguments": {"query": "x"}}',
    '<tool_call>\n{"name": "search", "arguments": {"query": "x"}}\n</tool_call>',
    '{"error": "Invalid input: city not found", "code": 404, "data": [{"status": "failed"}]}',
    "Traceback (most recent call last):\n  File \"x.py\", line 1\nKeyError: 'city'",
    "I am sorry, but I cannot do that.",
    "<think>search(query='a')?</think>\nSure (why not):\n```python\nsearch(query='b')\n```",
    "",
)
SAMPLE = Sample(
    "1",
    (*TOOLS, Tool("search", "", {"properties": {"q": {}}, "required": ["q"]})),
    (Message("user", "?"),),
    (Call("search", {"query": ANY, "limit": OneOf((1, "2"), True)}), Call("finish", {"answer": [1, {"a": "b"}]})),
    meta={"scenario": "x"},
)


def hostile_text(rng: random.Random) -> str:
    """Return a damaged call or several pieces in a row; occasionally a long one."""
    if rng.random() < 0.15:
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 40)))
    else:
        text = mutated(rng.choice(SEEDS), rng)
    return text * rng.choice((50, 500)) if rng.random() < 0.005 and len(text) < 4000 else text


def read_in_every_way(text: str, kinds: list[tool_errors.Rule]) -> None:
    """Do everything that may happen to the text of a model, an endpoint or a tool."""
    try:
        call = read_call(text)
    except CallSyntaxError as error:
        assert "\n" not in str(error) and len(str(error)) < 200
        assert call_end(text) is None
        call = None
    else:
        assert json.loads(json.dumps(call.arguments, ensure_ascii=False).encode()) == call.arguments
        assert 0 < call_end(text) <= len(text)
        json.dumps(render_call(call))
    calls = read_calls(text)
    assert (call is None) or calls
    for values in ("strict", "lenient"):
        found = grade(text, SAMPLE.goldens, SAMPLE.tools, values)
        assert len(found.reason) < 2000 and "\n" not in found.reason
        line = to_line(Prediction.graded("set", SAMPLE, text, found, found.reward()))
        assert Prediction.from_json(json.loads(line)).answer == text
        scoring.every_call([text], [SAMPLE], values)
    scoring.any_call([text], [SAMPLE])
    scoring.rotbench_official([call], [SAMPLE])
    scoring.rotbench_fixed([text], [SAMPLE])
    behind = without_words(text, [tool.name for tool in SAMPLE.tools])
    assert text.endswith(behind) and (behind == text or call_end(behind))
    assert len(TL.answer(text)) <= len(text)
    unparsed_call({"content": text}, SAMPLE.tools)
    read_structure(text)
    for rule in kinds:
        tool_errors.error_kind(text, rule)
    spoken = answer_text(
        {"tool_calls": [{"function": {"name": "search", "arguments": text}}, {"function": {"name": text}}, text]}, TOOLS
    )
    assert spoken.count(UNREADABLE) >= 1


def fuzz(count: int, seed: int, where: Path) -> tuple[int, float, int]:
    """Read `count` hostile texts and return (readings, slowest in ms, MiB grown); none of their code is run."""
    rng, kinds, before = random.Random(seed), (PAPER, STRICT), os.getcwd()
    os.chdir(where)
    try:
        for text in (*SEEDS, *PIECES):  # import now whatever is imported late
            read_in_every_way(text, kinds)
        with watch() as found:
            for _ in range(count):
                text = hostile_text(rng)
                with found.reading(text):
                    read_in_every_way(text, kinds)
    finally:
        os.chdir(before)
    found.check()
    assert not list(where.iterdir()), f"something made {CANARY}"
    return found.count, 1000 * found.slowest, found.grown


@in_a_fork
def test_hostile_answers(tmp_path):
    fuzz(2_000, 1, tmp_path)


@pytest.mark.faults
def test_two_hundred_thousand_hostile_answers(tmp_path, figures):
    count, slowest, grown = fuzz(amount("answers"), 2, tmp_path)
    figures(
        "Hostile inputs", what="answers", inputs=count, crashes=0, slowest=f"{slowest:.0f} ms", memory=f"+{grown} MiB"
    )


def test_the_texts_are_the_same_every_time_and_damaged():
    texts = [[hostile_text(random.Random(seed)) for seed in range(300)] for _ in range(2)]
    assert texts[0] == texts[1]
    assert sum(text in SEEDS for text in texts[0]) < 10 and len(set(texts[0])) > 250


@in_a_fork
def test_the_watch_sees_what_is_evaluated_and_what_is_slow():
    with watch() as found:
        with found.reading("1 + 1"):
            eval("1 + 1")
        with found.reading("slow"):
            sum(range(10**7))
    assert found.forbidden and found.count == 2 and found.slowest_case == "'slow'" and found.slowest > 0.02
    with pytest.raises(AssertionError, match="exec"):
        found.check()
    with pytest.raises(AssertionError, match="ZeroDivisionError"), watch() as found, found.reading("crash"):
        1 / 0  # noqa: B018
