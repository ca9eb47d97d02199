"""Conversations with a cached history: the same answers as from the whole history, with less to prefill."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.greedy_answers import KEEPS_ALL, alone, greedy, model_of, tokens, whole
from tltrain.inference import continuous_batching, decoding_attention, kv_cache
from tltrain.inference.continuous_batching import Prefill
from tltrain.inference.generation import ignore_generation_config
from tltrain.inference.prefix_cache import PrefixCache


def answered(model, prompts, most, batch_size, memory, prefill=None):
    with torch.inference_mode(), ignore_generation_config(model), decoding_attention.enabled(model):
        found = dict(
            continuous_batching.answers(model, prompts, greedy(most), batch_size, prefill or Prefill(), memory)
        )
    return [found[number] for number in range(len(prompts))]


@st.composite
def talks(draw) -> list[list[list[int]]]:
    """Up to 6 conversations: the first prompts, and the text that follows each of up to 3 answers."""
    root = draw(st.lists(tokens, max_size=40))
    said = st.lists(tokens, min_size=1, max_size=20)
    return [
        [root + draw(said), *draw(st.lists(said, max_size=3))]
        for _ in range(draw(st.integers(min_value=1, max_value=6)))
    ]


@pytest.mark.parametrize("name", KEEPS_ALL)
@settings(max_examples=10, deadline=None)
@given(talks(), st.integers(1, 4), st.integers(1, 9))
def test_answers_are_those_of_the_whole_history(name, talks, batch_size, most):
    """A conversation may end while others continue, and the answer in the history is cut where it was read."""
    model, memory = model_of(name), PrefixCache(worth=1)
    histories = [talk[0] for talk in talks]
    for number in range(max(map(len, talks))):
        going = [at for at, talk in enumerate(talks) if number < len(talk)]
        found = answered(model, [histories[at] for at in going], most, batch_size, memory)
        for at, answer in zip(going, found, strict=True):
            assert whole(answer) == alone(model, histories[at], most)
            if number + 1 < len(talks[at]):
                histories[at] = histories[at] + whole(answer) + talks[at][number + 1]


def test_only_what_is_new_is_read():
    model, memory = model_of("llama"), PrefixCache(worth=8)
    first, other = list(range(3, 19)) * 2, list(range(18, 2, -1)) * 2
    (answer, _) = answered(model, [first, other], 4, 2, memory)
    prefill = Prefill()
    answered(model, [[*first, *answer, 7, 8, 9]], 4, 2, memory, prefill)
    assert prefill.prompt_tokens == 32 + len(answer) + 3
    assert prefill.computed_tokens == 3 + 1  # and the answer's last token, which was sampled but not processed


def test_histories_that_no_prompt_extends_are_dropped():
    model, memory = model_of("llama"), PrefixCache(worth=8)
    first, other = [3] * 20, [4] * 20
    answered(model, [first, other], 1, 2, memory)
    assert list(memory.lookup([[*first, 5, 6]])) == [0]
    assert memory.lookup([[*other, 5, 6]]) == {}


def test_a_prompt_again_leaves_its_last_token_to_be_read():
    model, memory = model_of("llama"), PrefixCache(worth=8)
    answered(model, [[3] * 20], 3, 1, memory)
    (read,) = memory.lookup([[3] * 20]).values()
    assert len(read.tokens) == 19
    assert read.cache.get_seq_length() == 19


def test_memory_has_a_limit():
    """30 positions in float64: 2 layers, keys and values, 2 heads of size 8."""
    model = model_of("llama")
    bytes_of_one = 2 * 2 * 2 * 8 * 30 * 8
    memory = PrefixCache(most_bytes=2 * bytes_of_one, worth=8)
    prompts = [[token] * 30 for token in (3, 4, 5)]
    answered(model, prompts, 1, 1, memory)
    assert sorted(kv_cache.num_bytes(one.cache) for one in memory._kept) == [bytes_of_one] * 2
