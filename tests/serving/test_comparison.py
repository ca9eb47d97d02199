"""The certificate's counts and reasons, from recorded ids and parsed answers written by hand."""

from __future__ import annotations

import pytest

from tltrain.formats.native import Answer, Attempt
from tltrain.serving.comparison import (
    Certificate,
    Compared,
    Reply,
    call_difference,
    certificate,
    prompt_difference,
)
from tltrain.trajectory import Call, Tool

TOOLS = [Tool("math.gcd", "", {}), Tool("finish", "", {})]
GCD, FINISH = Call("math.gcd", {"a": 1}), Call("finish", {"answer": "1"})
SERVED = Call("math_gcd", {"a": 1})
BROKEN = Attempt(None, "the call cannot be read", "{")


@pytest.mark.parametrize(
    ("reply", "ours", "difference"),
    [
        (Reply(calls=(SERVED,)), Answer(attempts=(Attempt(GCD),)), ""),
        (Reply("words"), Answer(text="words"), ""),
        (
            Reply(calls=(SERVED,)),
            Answer(text="words"),
            'the server reads math.gcd({"a": 1}), tltrain reads no call in the same tokens',
        ),
        (
            Reply(),
            Answer(attempts=(Attempt(GCD),)),
            'the server reads no call, tltrain reads math.gcd({"a": 1})',
        ),
        (Reply(calls=(Call("math_gcd", {"a": 1.0}),)), Answer(attempts=(Attempt(GCD),)), '({"a": 1.0}), tltrain reads'),
        (Reply(calls=(Call("math_gcd", {"a": True}),)), Answer(attempts=(Attempt(GCD),)), '({"a": true}), tltrain'),
        (Reply(calls=(FINISH, SERVED)), Answer(attempts=(Attempt(GCD), Attempt(FINISH))), "the server reads finish"),
        (
            Reply(error="HTTP 500: x"),
            Answer(attempts=(Attempt(GCD),)),
            'the server cannot answer (HTTP 500: x), and its answer is read here as math.gcd({"a": 1})',
        ),
        # A malformed answer: the model is weak, and a server may refuse it or read additional calls from it.
        (Reply(error="HTTP 500: x"), Answer(attempts=(BROKEN,)), ""),
        (Reply(calls=(FINISH,)), Answer(attempts=(BROKEN,)), ""),
        (Reply(calls=(SERVED,)), Answer(attempts=(Attempt(GCD), BROKEN)), ""),
        (Reply(calls=(SERVED, FINISH)), Answer(attempts=(BROKEN, Attempt(FINISH))), ""),
        (Reply(), Answer(problem="nothing follows the thought"), ""),
        (Reply(calls=(FINISH,)), Answer(attempts=(Attempt(GCD), BROKEN)), "the server reads finish"),
    ],
)
def test_readings_of_one_answer(reply, ours, difference):
    found = call_difference(reply, ours, TOOLS)
    assert difference in found and bool(found) == bool(difference)


def test_a_prompt_differs_where_its_tokens_first_do():
    texts = list("abcdefghij")
    assert prompt_difference([1, 2, 3], [1, 2, 3], texts, texts) == ""
    assert prompt_difference([*range(10)], [0, 1, 2, 3, 4, 9, 9, 9], texts, list("abcdezyx")) == (
        "token 6 of 10 differs: training has 'cdefghi', the served model was given 'cdezyx'"
    )
    assert (
        prompt_difference([1, 2], [1, 2, 3], texts[:2], texts[:3])
        == "token 3 of 2 differs: training has 'ab', the served model was given 'abc'"
    )


def test_counts_and_the_line_of_a_failure():
    compared = [
        Compared("a", parsed=True),
        Compared("b", calls="read otherwise", parsed=True),
        Compared("c", prompt="token 1 of 2 differs", readable=False),
    ]
    made = certificate(compared, mode="chat", server="s")
    assert (made.asked, made.prompts_equal, made.tool_calls, made.same_grades, made.unreadable) == (3, 2, 2, 2, 1)
    assert not made.passed
    assert made.failure() == (
        "2 of 3 prompts equal, 2 answers with parsed calls, 2 of 3 answers read alike (chat, s); "
        "prompt c: token 1 of 2 differs"
    )
    assert made.to_json()["passed"] is False and "chat_prompts_equal" not in made.to_json()


@pytest.mark.parametrize(
    ("equal", "alike", "parsed", "passed"), [(2, 2, 0, True), (2, 2, 2, True), (1, 2, 2, False), (2, 1, 2, False)]
)
def test_it_passes_whatever_the_model_says(equal, alike, parsed, passed):
    assert Certificate(2, equal, parsed, alike).passed is passed
