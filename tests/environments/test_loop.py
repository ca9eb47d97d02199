"""The conversation loop between the source of answers and the tools."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.environment_samples import FINISH, LOOK, Room, hold, says, tasks, tool
from tests.support.mae_rules import STRICT
from tltrain.environments.golden import GoldenCalls
from tltrain.environments.loop import ConversationSettings, converse, final_answer
from tltrain.grading import Outcome
from tltrain.trajectory import Call, Message, Turn


def roles(conversation):
    return [message.role for message in conversation.messages]


# --- what happens to an answer --------------------------------------------------------------------------------------


def test_a_call_runs_and_finish_ends_the_conversation():
    room = Room()
    found = hold(says('look(at="a door")', 'finish(answer="right")'), room)
    assert room.calls == [Call("look", {"at": "a door"})]
    assert [message.text for message in found.messages] == ["query of t0", "", "saw a door", ""]
    assert roles(found) == ["user", "assistant", "tool", "assistant"]
    assert (found.ended, found.answer, found.outcome) == ("finish", "right", {"success": True})
    assert [(call.call.name, call.ran, call.de, call.ce, call.message) for call in found.calls] == [
        ("look", True, False, False, 1),
        ("finish", False, False, False, 3),
    ]
    assert room.closed == 1


def test_words_before_a_call_are_no_call_unless_they_are_left_out():
    said = ('<think>look(at="b")?</think>look(at="a door")', 'So:\nfinish(answer="right")')
    room = Room()
    found = hold(says(*said), room, max_turns=2)
    assert [call.outcome for call in found.calls] == [Outcome.WORDS_BEFORE_CALL] * 2
    assert room.calls == [] and found.ended == "turn limit"
    assert "stands before the call of `look`. Call one of the tools" in found.messages[2].text
    found = hold(says(*said), room, ignore_words=True)
    assert room.calls == [Call("look", {"at": "a door"})]
    assert [call.de for call in found.calls] == [False, False] and found.answer == "right"


def test_who_answers_sees_tools_instructions_and_history_and_no_golden_call():
    asked = []

    def answer(samples):
        asked.extend(samples)
        return says('look(at="x")', 'finish(answer="")')(samples)

    hold(answer)
    first, second = asked
    assert (first.tools, first.instructions, first.goldens) == ((LOOK, FINISH), "Be brief.", ())
    assert (first.meta, first.id, second.id) == ({"scenario": "even", "turn": 1}, "t0#1", "t0#2")
    assert [message.role for message in second.messages] == ["user", "assistant", "tool"]
    assert second.messages[1].calls[0].call == Call("look", {"at": "x"})


@pytest.mark.parametrize(
    ("text", "outcome", "said"),
    [
        ("I would look.", Outcome.FORMAT_ERROR, "Error: not a call: no `(` at character 14. Call one of the tools"),
        ("", Outcome.FORMAT_ERROR, "Error: not a call"),
        ("look(at=door)", Outcome.FORMAT_ERROR, "Error: not a call: a bare word"),
        ("peek(at='x')", Outcome.TOOL_HALLUCINATION, "Error: `peek` is not on offer. The tools are: look, finish."),
        ("__import__('os').system('true')", Outcome.TOOL_HALLUCINATION, "Error: `__import__` is not on offer."),
        ("Room.close(at='x')", Outcome.TOOL_HALLUCINATION, "Error: `Room.close` is not on offer."),
        ("call(call='x')", Outcome.TOOL_HALLUCINATION, "Error: `call` is not on offer."),
    ],
)
def test_what_is_no_call_of_a_tool_on_offer_is_answered_with_an_error_and_the_conversation_goes_on(text, outcome, said):
    room = Room()
    found = hold(says(text, 'finish(answer="right")'), room)
    assert (room.calls, found.ended) == ([], "finish")
    assert found.messages[2].role == "tool" and found.messages[2].text.startswith(said)
    wrong, right = found.calls
    assert (wrong.outcome, wrong.de, wrong.ce, wrong.ran, wrong.text) == (outcome, True, False, False, text)
    assert not right.de
    assert found.messages[1].text == ("" if wrong.call else text)


def test_wrong_parameters_reach_the_tool_and_contradict_the_documentation():
    room = Room(lambda at: '{"error": "look() got an unexpected keyword argument"}')
    found = hold(says("look(where='x')", 'finish(answer="right")'), room, rule=STRICT)
    assert room.calls == [Call("look", {"where": "x"})]
    call = found.calls[0]
    assert (call.outcome, call.de, call.ce, call.ran) == (Outcome.PARAMETERS, True, True, True)
    assert "`where`" in call.reason and "`at` is missing" in call.reason


def test_errors_of_tools_are_judged_by_the_rule_and_without_one_not_at_all():
    texts = says("look(at='x')", "look(at='y')", 'finish(answer="right")')

    def errors(**more):
        room = Room(lambda at: '{"error": "no such place"}' if at == "x" else "trial and error")
        return [call.error for call in hold(texts, room, **more).calls]

    assert errors(rule=STRICT) == ["not_found", None, None]
    assert errors() == [None, None, None]


def test_of_several_calls_the_first_is_made():
    room = Room()
    found = hold(
        says("[look(at='x'), look(at='y')]", "look(at='z')\nfinish(answer='no')", "finish(answer='right')"), room
    )
    assert [call.arguments["at"] for call in room.calls] == ["x", "z"]
    assert found.answer == "right" and not any(call.de for call in found.calls)


# --- how it ends ----------------------------------------------------------------------------------------------------


def test_a_turn_of_the_user_has_a_limit_of_calls():
    found = hold(lambda samples: ["look(at='x')"] * len(samples), max_turns=3)
    assert (found.ended, len(found.calls), found.answer) == ("turn limit", 3, None)
    assert roles(found) == ["user", *["assistant", "tool"] * 3]


def test_finish_in_the_last_call_allowed_is_in_time():
    assert hold(says("look(at='x')", "finish(answer='right')"), max_turns=2).ended == "finish"


def test_the_user_may_go_on_with_other_tools_and_a_fresh_limit():
    room = Room(queries=2)
    texts = says("look(at='x')", "finish(answer='one')", "look(at='x')", "peek(at='y')", "finish(answer='right')")
    found = hold(texts, room, max_turns=3)
    assert room.heard == ["one", "right"]
    assert (found.ended, found.answer, found.instructions) == ("finish", "right", "Be brief.")
    assert [(call.turn, call.de) for call in found.calls] == [(1, False), (1, False), (2, True), (2, False), (2, False)]
    assert [offered.name for offered in found.tools] == ["peek", "finish"]
    assert [message.text for message in found.messages if message.role == "user"] == ["query of t0", "and then?"]


def test_a_prompt_that_no_longer_fits_ends_the_conversation():
    found = hold(says("look(at='x')", None))
    assert (found.ended, len(found.calls), found.outcome) == ("too long", 1, {"success": False})


def test_words_end_a_turn_where_the_environment_says_so():
    room = Room(queries=2)
    room.words_end_turn = True
    found = hold(says("It is a door.", "", "finish(answer='right')"), room)
    assert room.heard == [None, "right"]
    assert [(call.turn, call.text) for call in found.calls] == [(2, ""), (2, "finish(answer='right')")]
    assert found.messages[1] == Message("assistant", "It is a door.")


@pytest.mark.parametrize(
    ("call", "tools", "answer"),
    [
        (Call("finish", {"answer": "yes"}), [FINISH], "yes"),
        (Call("finish", {"answer": None}), [FINISH], ""),
        (Call("finish", {}), [FINISH], ""),
        (Call("finish", {"answer": 12}), [FINISH], "12"),
        (Call("finish", {"say": "hm", "thought": "t"}), [tool("finish", "thought", "say")], "hm"),
        (Call("finish", {"other": "o"}), [FINISH], "o"),
        (Call("finish", {"answer": "\ud800"}), [FINISH], "\ufffd"),
    ],
)
def test_the_answer_is_the_last_argument_of_finish(call, tools, answer):
    assert final_answer(call, tools) == answer


# --- several at a time ----------------------------------------------------------------------------------------------


def by_id(samples):
    """Conversations of different lengths: t0 makes no call, t1 one, ..., t4 calls a tool that does not exist."""
    texts = []
    for sample in samples:
        number, said = int(sample.query.split("t")[1]), sum(m.role == "assistant" for m in sample.messages)
        calls = [*["look(at='x')"] * number, "finish(answer='right')"]
        texts.append("peek()" if number == 4 else calls[said])
    return texts


def test_results_do_not_depend_on_how_many_run_in_parallel():
    alone = hold(by_id, count=7, max_turns=6, parallel=1)
    assert [one.task.id for one in alone] == [f"t{number}" for number in range(7)]
    for parallel in (2, 3, 16):
        assert hold(by_id, count=7, max_turns=6, parallel=parallel) == alone
    assert [len(one.calls) for one in alone] == [1, 2, 3, 4, 6, 6, 6]
    assert [one.ended for one in alone] == ["finish"] * 4 + ["turn limit", "finish", "turn limit"]


def test_running_conversations_are_asked_together_and_a_finished_one_is_replaced():
    sizes, ended = [], []

    def answer(samples):
        sizes.append(len(samples))
        return by_id(samples)

    hold(answer, count=4, parallel=2, on_end=lambda one: ended.append(one.task.id))
    assert sizes == [2, 2, 2, 2, 1, 1]  # t0 t1 | t1 t2 | t2 t3 | t2 t3 | t3 | t3
    assert ended == ["t0", "t1", "t2", "t3"]


def test_without_tasks_nobody_is_asked():
    assert converse([], Room, None, ConversationSettings(1), parallel=1) == []


def test_environments_are_closed_when_who_answers_fails():
    rooms = []

    def make():
        rooms.append(Room())
        return rooms[-1]

    def answer(samples):
        raise OSError("the server is gone")

    with pytest.raises(OSError, match="gone"):
        converse(tasks(3), make, answer, ConversationSettings(2), parallel=2)
    assert [room.closed for room in rooms] == [1, 1]


# --- environments that misbehave ------------------------------------------------------------------------------------


class Odd(Exception):
    def __str__(self):
        raise ValueError("not even this")


@pytest.mark.parametrize("where", ["make", "reset", "call", "follow_up", "outcome"])
@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (KeyError("k\ud800"), "KeyError: 'k\\ud800'"),
        (SystemExit(3), "SystemExit: 3"),
        (RecursionError("deep"), "RecursionError: deep"),
        (Odd(), "Odd"),
    ],
)
def test_an_environment_that_raises_ends_its_own_conversation_only(where, raised, said):
    made = []

    def make():
        made.append(Room())
        if len(made) == 2:
            if where == "make":
                raise raised

            def broken(*arguments):
                raise raised

            setattr(made[-1], where, broken)
        return made[-1]

    answer = says("look(at='x')", "finish(answer='right')")
    found = converse(tasks(3), make, answer, ConversationSettings(5), parallel=2)
    assert [one.ended for one in found] == ["finish", "environment error", "finish"]
    assert found[1].outcome == {"success": None, "error": said}
    assert [room.closed for room in made] == [1, 0 if where == "make" else 1, 1]


def test_an_environment_that_cannot_be_closed_harms_nobody(caplog):
    room = Room()
    room.close = lambda: 1 / 0
    assert hold(says("finish(answer='right')"), room).outcome == {"success": True}
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("turn", [None, "words", Turn(None, ())])
def test_an_invalid_turn_is_an_error_of_the_environment(turn):
    room = Room()
    room.reset = lambda task: turn
    assert hold(None, room).ended == "environment error"


def test_a_tool_that_changes_its_arguments_does_not_change_the_history():
    room = Room(lambda at: str(at.append("more")))
    found = hold(says("look(at=['x'])", "finish(answer='right')"), room)
    assert found.messages[1].calls[0].call == found.calls[0].call == Call("look", {"at": ["x"]})


# --- the golden calls -----------------------------------------------------------------------------------------------


def test_golden_calls_are_played_turn_by_turn_and_finished():
    one, other = [Call("look", {"at": "x"}), Call("look", {"at": "y"})], [Call("finish", {"answer": "right"})]
    room = Room(queries=2)
    found = hold(GoldenCalls({"t0": [one, other]}), room)
    assert [call.call for call in found.calls] == [*one, Call("finish", {"answer": "Done."}), *other]
    assert room.heard == ["Done.", "right"]


@pytest.mark.parametrize(
    ("success", "expected"),
    [
        (True, True),
        (1, True),
        (np.bool_(False), False),
        (None, None),
        *((wrong, "environment error") for wrong in ("no", [])),
    ],
)
def test_a_success_is_true_false_or_unknown(success, expected):
    class Judged(Room):
        def outcome(self):
            return {"success": success}

    found = hold(says('finish(answer="")'), Judged())
    if isinstance(expected, str):
        assert found.ended == expected
        assert found.outcome["error"] == f"outcome: success: expected True, False or None, found {success!r}"
    else:
        assert found.outcome["success"] is expected
