"""Conversations held out of a log: no question on both sides, whole customers, or the latest ones."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT
from tests.support.trajectories import conversation
from tltrain.data import native, openai
from tltrain.data.reading import read_file
from tltrain.data.split import grouped, opening_key, question_keys, split
from tltrain.errors import TltrainError
from tltrain.trajectory import Call, Message


def log(count: int, **meta):
    """Return conversations with different questions; each field in `meta` is a list with one value per conversation."""
    return [
        replace(
            conversation(Call("finish", {"answer": "x"}), query=f"Question {number}"),
            id=str(number),
            meta={name: values[number] for name, values in meta.items()},
        )
        for number in range(count)
    ]


def ids(items) -> list[str]:
    return [item.id for item in items]


def test_a_share_is_held_out_by_the_seed():
    items = log(8)
    sides = split(items, 0.25, seed=0)
    assert (len(sides.train), len(sides.held_out), len(set(sides.groups))) == (6, 2, 2)
    assert sorted(ids(sides.train + sides.held_out)) == ids(items)
    assert ids(split(items, 0.25, seed=0).held_out) == ids(sides.held_out)
    assert any(ids(split(items, 0.25, seed=seed).held_out) != ids(sides.held_out) for seed in range(1, 5))


def test_a_conversation_that_was_logged_as_it_grew_is_one_group():
    whole = conversation(Call("getPaperDetails", {"id": "7"}), Call("finish", {"answer": "x"}), query="Growing")
    short = replace(whole, id="short", messages=whole.messages[:2])
    later = replace(whole, id="later", messages=(*whole.messages, Message("tool", "[]"), Message("user", "Thanks")))
    assert grouped([short, *log(2), later]) == [[0, 3], [1], [2]]


def test_a_clock_in_the_instructions_and_the_order_of_tools_separate_nothing():
    """A record is logged a moment later than its beginning was, or by a client that reorders its tools."""
    whole = conversation(Call("getPaperDetails", {"id": "7"}), Call("finish", {"answer": "x"}), query="Growing")
    short = replace(whole, id="short", messages=whole.messages[:2], instructions="It is 2026-05-31 08:00:01.")
    later = replace(whole, id="later", instructions="It is 2026-05-31 08:00:05.", tools=whole.tools[::-1])
    assert len(whole.tools) > 1 and grouped([short, later]) == [[0, 1]]
    assert len(grouped([short, replace(later, instructions="You sell books.")])) == 2


def test_a_conversation_is_recognised_by_its_opening_however_it_is_stored():
    items = [item for item in openai_log() if opening_key(item)]
    stored = [next(native.parse(json.loads(native.dumps(item)), 1, Counter())) for item in items]
    assert items and list(map(opening_key, stored)) == list(map(opening_key, items))
    sides = split(items, 0.4, seed=1)
    assert not set(map(opening_key, sides.train)) & set(map(opening_key, sides.held_out))
    assert opening_key(replace(items[0], messages=items[0].messages[:1])) is None  # no call


def openai_log():
    file = ROOT / "examples" / "support_desk" / "conversations.jsonl"
    return list(read_file(str(file), openai.parse))


def test_greetings_alone_join_nothing():
    """Equal first words are not a shared question if no call follows them."""
    greeted = [
        replace(item, messages=(Message("user", "Hi"), Message("assistant", "Hello!"), *item.messages))
        for item in log(3)
    ]
    assert len(grouped(greeted)) == 3


def test_the_conversations_of_a_customer_stay_together():
    items = log(6, customer=["a", "b", "a", "c", "b", "a"])
    for seed in range(5):
        sides = split(items, 0.3, seed, customer="customer")
        sets = [{item.meta["customer"] for item in side} for side in (sides.train, sides.held_out)]
        assert all(sets) and not sets[0] & sets[1]


def test_a_large_customer_does_not_leave_too_little_to_train_on():
    items = log(40, customer=["large"] * 30 + [str(number) for number in range(10)])
    for seed in range(8):
        assert len(split(items, 0.25, seed, customer="customer").held_out) in range(9, 11)
    halves = log(20, customer=["a"] * 11 + ["b"] * 9)  # each is more than twice the share
    assert len(split(halves, 0.2, 0, customer="customer").held_out) == 9


def test_the_latest_are_held_out_and_fields_are_reached_by_dots():
    days = ["2026-05-02", "2026-05-04T00:00:00Z", "2026-05-01T09:00:00+02:00", "2026-05-03"]
    items = [replace(item, meta={"log": {"at": day}}) for item, day in zip(log(4), days, strict=True)]
    assert ids(split(items, 0.5, seed=0, time="log.at").held_out) == ["1", "3"]
    assert ids(split(log(4, at=[30, 10, 20, 40]), 0.25, seed=0, time="at").held_out) == ["3"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"customer": "custmer"}, "stage.customer=custmer: conversation 0 has no such field; it has customer, at; did"),
        ({"time": "customer"}, "stage.time=customer: expected a number or a time such as 2026-05-31T08:00:00Z"),
        ({"customer": "at"}, "nothing can be held out: 2 conversations, of which all have the same at"),
    ],
)
def test_what_a_field_cannot_say_is_told_in_one_line(keys, said):
    with pytest.raises(TltrainError, match=said):
        split(log(2, customer=["ann", "bob"], at=[1, 1]), 0.5, 0, **keys)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=12), st.floats(0.05, 0.95))
def test_no_question_is_on_both_sides(shapes, share):
    items = [
        replace(
            conversation(*[Call("getPaperDetails", {"id": str(n)}) for n in range(calls + 1)], query=f"Q{query}"),
            id=str(at),
        )
        for at, (query, calls) in enumerate(shapes)
    ]
    if len(grouped(items)) < 2:
        return
    sides = split(items, share, seed=0)
    assert sides.train and sides.held_out
    asked = [{key for item in side for key in question_keys(item)} for side in (sides.train, sides.held_out)]
    assert not asked[0] & asked[1]
