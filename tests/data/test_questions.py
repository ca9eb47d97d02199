"""Questions written as chat-completions records are read back unchanged."""

from __future__ import annotations

import json
from collections import Counter

from tests.support.trajectories import TRAJECTORY
from tltrain.data import openai, questions
from tltrain.tokens import prompts
from tltrain.trajectory import Call, Message, Sample, Tool

TOOL = Tool("math.gcd", "Greatest divisor.", {"type": "object", "properties": {"a": {"type": "integer"}}})


def read_back(sample: Sample) -> Sample:
    (found,) = openai.parse_sample(json.loads(json.dumps(questions.record(sample))), 1, Counter())
    return found


def test_the_questions_of_a_trajectory_are_read_back():
    for _, sample in prompts.questions(TRAJECTORY):
        found = read_back(sample)
        assert (found.id, found.tools, found.goldens) == (sample.id, sample.tools, sample.goldens)
        assert [(m.role, m.text, [c.call for c in m.calls]) for m in found.messages] == [
            (m.role, m.text, [c.call for c in m.calls]) for m in sample.messages
        ]


def test_tools_keep_names_that_an_api_would_refuse():
    called = Message.calling(Call("math.gcd", {"a": 4}), thought="Divide.")
    messages = (Message("user", "gcd"), called, Message("tool", "2"))
    goldens = (Call("math.gcd", {"a": 1}), Call("math.gcd", {"a": 2}))
    found = read_back(Sample("1", (TOOL,), messages, goldens, "Be brief.", parallel=True))
    assert (found.tools, found.goldens, found.parallel) == ((TOOL,), goldens, True)
    assert (found.instructions, found.messages[1].calls[0].call.name) == ("Be brief.", "math.gcd")
    assert found.messages[1].thought == "Divide."
