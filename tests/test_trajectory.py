"""The assistant's actions, one call after another, if a message makes several calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tltrain.trajectory import Action, Call, Message, ToolCall, actions, sequential

A, B, C = Call("a"), Call("b"), Call("c", {"x": 1})


def calling(*calls: tuple[Call, str], **words) -> Message:
    return Message("assistant", calls=tuple(ToolCall(call, id=name) for call, name in calls), **words)


def test_each_call_has_the_answer_that_names_it_and_its_own_flag():
    messages = (
        Message("user", "q"),
        Message("assistant", calls=(ToolCall(A, id="1"), ToolCall(B, False, "2"))),
        Message("tool", "of b", answers="2"),
        Message("tool", "of a", answers="1"),
        Message("assistant", "Done.", learn=False),
    )
    assert actions(messages) == [Action(1, A, True, 3), Action(1, B, False, 2), Action(4, None, False, None)]


@pytest.mark.parametrize(
    ("calls", "answers", "expected"),
    [
        ([(A, ""), (B, "")], ["", ""], [1, 2]),  # no ids: by order
        ([(A, "1"), (B, "2")], ["", ""], [1, 2]),
        ([(A, "1"), (B, "2")], ["2"], [None, 1]),
        ([(A, "1"), (B, "2")], ["", "1"], [2, 1]),  # an answer without an id belongs to the remaining call
        ([(A, "1"), (B, "2")], ["1", "1"], [1, None]),  # a second answer to one call answers no other
        ([(A, "1"), (B, "1")], ["1", "1"], [1, 2]),  # a duplicate id
        ([(A, "1"), (B, "2")], ["x", "y"], [1, 2]),  # ids of no call
        ([(A, "")], ["", ""], [1]),
        ([], [""], [1]),  # a tool's message after plain text
        ([], [], [None]),
    ],
)
def test_answers_are_matched_by_name_and_then_by_order(calls, answers, expected):
    messages = (calling(*calls), *(Message("tool", "x", answers=name) for name in answers))
    assert [action.answer for action in actions(messages)] == expected


def test_an_answer_stands_right_behind_its_message():
    messages = (calling((A, "1")), Message("user", "wait"), Message("tool", "late", answers="1"))
    assert actions(messages) == [Action(0, A, True, None)]


def test_several_calls_become_turns_each_before_its_own_answer():
    messages = (
        Message("user", "q"),
        calling((A, "1"), (B, "2"), (C, "3"), text="Three.", thought="Hm."),
        Message("tool", "of c", answers="3"),
        Message("tool", "of a", answers="1"),
        Message("tool", "of nothing", answers="1"),
        Message("assistant", "Done."),
    )
    assert sequential(messages) == (
        messages[0],
        calling((A, "1"), text="Three.", thought="Hm."),
        messages[3],
        calling((B, "2")),
        calling((C, "3")),
        messages[2],
        messages[4],
        messages[5],
    )


def test_a_conversation_with_one_call_a_turn_stays_as_it_is():
    messages = (Message("user", "q"), Message.calling(A), Message("tool", "x"), Message("assistant", "Done."))
    assert sequential(messages) is messages


def test_a_message_is_learned_entirely_or_not_at_all():
    message = Message.calling(A, B, text="Two.", learn=False)
    assert message == Message("assistant", "Two.", (ToolCall(A, False), ToolCall(B, False)), learn=False)
    assert message.with_learn(True) == Message.calling(A, B, text="Two.")


names = st.sampled_from(["", "1", "2", "3"])
tool_calls = st.builds(ToolCall, st.sampled_from([A, B, C]), st.booleans(), names)
conversations = st.lists(
    st.one_of(
        st.builds(Message, st.just("user"), st.just("q")),
        st.builds(Message, st.just("tool"), st.text(max_size=2), answers=names),
        st.builds(Message, st.just("assistant"), st.just("t"), st.lists(tool_calls, max_size=3).map(tuple)),
    ),
    max_size=8,
).map(tuple)


@given(conversations)
def test_turns_of_their_own_change_neither_the_actions_nor_what_others_said(messages):
    apart = sequential(messages)
    assert all(len(message.calls) <= 1 for message in apart)
    assert sequential(apart) is apart
    before, after = actions(messages), actions(apart)
    assert [(action.call, action.learn) for action in after] == [(action.call, action.learn) for action in before]
    answered = [(apart[new.answer], messages[old.answer]) for new, old in zip(after, before, strict=True) if old.answer]
    assert all(new == old for new, old in answered)
    others = [message for message in messages if message.role != "assistant"]
    assert sorted(map(repr, others)) == sorted(repr(message) for message in apart if message.role != "assistant")
