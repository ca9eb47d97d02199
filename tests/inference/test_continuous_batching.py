"""Greedy answers with shared prefixes: the same as for each prompt alone, with less to prefill and decode."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    PreTrainedModel,
)

from tests.support.greedy_answers import KEEPS_ALL, MODELS, PAD, alone, greedy, model_of, tokens, whole
from tltrain.formats.tl import TL
from tltrain.inference import continuous_batching, decoding_attention, generation, kv_cache
from tltrain.inference.continuous_batching import Decoding, Family, Prefill, families
from tltrain.inference.generation import ignore_generation_config


def answered(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], most: int, batch_size: int, prefill: Prefill | None = None
) -> list[list[int]]:
    with torch.inference_mode(), ignore_generation_config(model), decoding_attention.enabled(model):
        found = list(continuous_batching.answers(model, prompts, greedy(most), batch_size, prefill or Prefill()))
    assert sorted(number for number, _ in found) == list(range(len(prompts)))
    assert all(len(tokens) <= most for _, tokens in found)
    return [whole(dict(found)[number]) for number in range(len(prompts))]


@st.composite
def prompts_that_begin_alike(draw) -> list[list[int]]:
    """Up to 12 prompts, many of which extend a prefix of one of two roots of up to 100 tokens."""
    roots = draw(st.lists(st.lists(tokens, min_size=1, max_size=100), min_size=1, max_size=2))
    found = []
    for _ in range(draw(st.integers(1, 12))):
        root = draw(st.sampled_from(roots))
        cut = draw(st.sampled_from([0, len(root) // 2, len(root), len(root)]))
        found.append(root[:cut] + draw(st.lists(tokens, min_size=1, max_size=8)))
    return found


@pytest.mark.parametrize("name", KEEPS_ALL)
@settings(max_examples=8, deadline=None)
@given(prompts=prompts_that_begin_alike(), batch_size=st.integers(1, 5), most=st.integers(1, 20))
def test_answers_are_those_of_each_prompt_alone(name, prompts, batch_size, most):
    model = model_of(name)
    assert answered(model, prompts, most, batch_size) == [alone(model, prompt, most) for prompt in prompts]


ROOTS = [[3 + (k * step) % 17 for k in range(100)] for step in (5, 7)]
PROMPTS = [[*root, 3 + k, 4 + k] for root in ROOTS for k in range(6)] + [[9, 8, 7], [7] * 50]
"""Two families of six prompts, and two prompts that share no prefix with others."""


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_plain_batches(name):
    model, most = model_of(name), 20
    with torch.inference_mode(), ignore_generation_config(model):
        plain = dict(generation.in_batches(model, PROMPTS, greedy(most), 4, Prefill()))
    expected = [whole(plain[number]) for number in range(len(PROMPTS))]
    assert len({len(answer) for answer in expected}) > 1 and len({tuple(answer) for answer in expected}) > 3
    if name in KEEPS_ALL:
        assert answered(model, PROMPTS, most, 4) == expected
    else:
        assert kv_cache.empty(model) is None


def test_shared_prefixes_are_prefilled_once():
    prefill = Prefill()
    answered(model_of("llama"), PROMPTS, 4, 6, prefill)
    shared, own = 2 * 100, 12 * 2  # the two roots, and two own tokens of each prompt in the families
    assert prefill == Prefill(14, 12 * 102 + 53, shared + own + 53)
    assert prefill.per_sample() == {
        "prompt_tokens_per_sample": round((12 * 102 + 53) / 14, 1),
        "tokens_prefilled_per_sample": round((200 + 24 + 53) / 14, 1),
    }
    assert Prefill().per_sample() == {}


def test_answers_that_have_ended_make_room(monkeypatch):
    """One of 8 prompts has a long answer: the others do not wait for it, and their rows are not computed with it."""
    model = model_of("llama")
    rows: list[int] = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda *a, **k: (rows.append(k["input_ids"].shape[0]), forward(*a, **k))[1])
    prompts = [[3 + k] for k in range(8)]
    long, short = 60, 4
    lengths = {}

    def ended(answer: list[int]) -> bool:
        return len(answer) >= lengths.setdefault(id(answer), short if lengths else long)

    with torch.inference_mode(), ignore_generation_config(model):
        order = [
            i for i, _ in continuous_batching.answers(model, prompts, Decoding(60, 10**6, PAD, ended), 4, Prefill())
        ]
    assert len(order) == 8
    in_turn = 60 * 4 + 60 * 4  # what two batches of 4 would decode if each waited for its longest answer
    assert sum(rows) < in_turn / 2
    assert max(rows) <= 4 and rows[-1] == 1


# --- families --------------------------------------------------------------------------------------------------------


def test_families_by_hand():
    long, short = [5] * 200, [6] * 100
    prompts = [
        [*short, 1],  # 0
        [*long[:150], 9, 9, 9],  # 1: grouped with 3 and 5, although those share more with each other
        [7] * 30,  # 2: alone
        [*long, 1, 2],  # 3
        [*short, 2, 2, 2],  # 4
        [*long, 2],  # 5
        [8] * 29,  # 6: alone, of about the length of 2
        [9],  # 7: alone
    ]
    assert families(prompts, batch_size=4) == [
        Family([3, 5, 1], 150),
        Family([4, 0], 100),
        Family([2, 6], 0),
        Family([7], 0),
    ]
    assert families(prompts, batch_size=1)[2:] == [Family([2], 0), Family([6], 0), Family([7], 0)]
    assert families([], 4) == []


def test_a_large_family_is_not_shortened_for_one_more():
    prompts = [[5] * 200 + [6 + k] for k in range(4)] + [[5] * 80 + [6]]
    assert families(prompts, 8) == [Family([0, 1, 2, 3], 200), Family([4], 0)]


def test_the_same_prompt_twice_keeps_a_token_to_ask_with():
    assert families([[5] * 100] * 2, 8) == [Family([0, 1], 99)]


@settings(max_examples=100, deadline=None)
@given(prompts=prompts_that_begin_alike(), batch_size=st.integers(1, 5))
def test_a_family_begins_alike_and_saves_tokens(prompts, batch_size):
    found = families(prompts, batch_size)
    assert sorted(i for family in found for i in family.numbers) == list(range(len(prompts)))
    for family in found:
        own = [prompts[i] for i in family.numbers]
        assert len({tuple(prompt[: family.shared]) for prompt in own}) == 1
        assert family.shared < min(map(len, own))
        assert family.shared == 0 or (len(own) - 1) * family.shared >= continuous_batching.WORTH
        if not family.shared:
            assert len(own) * max(map(len, own)) * (1 - continuous_batching.PADDING) <= sum(map(len, own))
            assert len(own) <= batch_size
    lengths = [[len(prompts[i]) for i in family.numbers] for family in found]
    assert [max(own) for own in lengths] == sorted((max(own) for own in lengths), reverse=True)
    assert all(own == sorted(own, reverse=True) for own in lengths)


# --- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (' f(a="x") and more', ' f(a="x")'),
        (" f()\nUser: next", " f()"),
        (" no call\nUser: next(1)", " no call"),
        (' f(a="\nUser: x")', ' f(a="'),
        (" words\nOutput: x\nUser: y", " words"),
        (" f(a=1", None),
    ],
)
def test_where_an_answer_ends_does_not_depend_on_how_much_follows(text, answer):
    ends = [TL.answer_length(text[:count]) for count in range(len(text) + 1)]
    known = [(count, end) for count, end in enumerate(ends) if end is not None]
    assert len({end for _, end in known}) == (answer is not None)
    assert [count for count, _ in known] == list(range(len(text) + 1 - len(known), len(text) + 1))
    assert answer is None or text[: ends[-1]] == answer
