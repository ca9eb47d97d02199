"""Sampling and names on offer in generation: repeatable, independent of the batch, and only names on offer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from tests.support.small_rollouts import SIZES
from tests.support.trajectories import OTHER, TRAJECTORY
from tltrain.inference import generation, kv_cache
from tltrain.inference.continuous_batching import Prefill
from tltrain.inference.offered_names import OfferedNames
from tltrain.inference.prefix_cache import PrefixCache
from tltrain.inference.token_choice import TokenChoice
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.prompts import questions
from tltrain.trajectory import Sample


def sample(identity: str) -> Sample:
    return Sample(identity, (), (), ())


def test_samples_have_the_probabilities_of_the_model_at_the_temperature():
    count, logits = 4000, torch.tensor([1.0, 0.0, -1.0, -torch.inf, 2.0])
    choose = TokenChoice([sample(str(number)) for number in range(count)], temperature=0.7, seed=5)
    chosen = choose(range(count), [[]] * count, logits.expand(count, -1)).argmax(dim=1)
    shares = torch.bincount(chosen, minlength=5) / count
    expected = (logits / 0.7).softmax(dim=0)
    assert shares[3] == 0 and torch.allclose(shares, expected, atol=0.025)  # three standard deviations
    again = TokenChoice([sample(str(number)) for number in range(count)], temperature=0.7, seed=5)
    rows = [9, 3, 7]
    assert again(rows, [[]] * 3, logits.expand(3, -1)).argmax(dim=1).tolist() == chosen[rows].tolist()
    other = TokenChoice([sample(str(number)) for number in range(count)], temperature=0.7, seed=6)
    assert other(range(count), [[]] * count, logits.expand(count, -1)).argmax(dim=1).tolist() != chosen.tolist()


@pytest.fixture
def encoder(byte_level) -> Encoder:
    return Encoder(byte_level)


@pytest.fixture
def model(encoder) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=len(encoder.tokenizer) + 3)).eval()


SAMPLES = [own for item in (TRAJECTORY, replace(OTHER, id="o")) for _, own in questions(item)]


def answers(model, encoder, samples=SAMPLES, *, batch_size=2, memory=None, **choice) -> list[str]:
    found = generation.answers(
        model,
        encoder,
        [encoder.prompt(sample) for sample in samples],
        generation.GenerationSettings(24, batch_size),
        choose=TokenChoice(samples, **choice),
        prefill=Prefill(),
        memory=memory,
    )
    return [answer.text for answer in found]


def test_sampled_answers_do_not_depend_on_batch_order_or_cache(model, encoder):
    found = answers(model, encoder, temperature=0.7, seed=1)
    assert found == answers(model, encoder, temperature=0.7, seed=1, batch_size=5)
    assert found[::-1] == answers(model, encoder, SAMPLES[::-1], temperature=0.7, seed=1, batch_size=3)
    memory = PrefixCache()
    assert found == answers(model, encoder, temperature=0.7, seed=1, memory=memory)
    assert found == answers(model, encoder, temperature=0.7, seed=1, memory=memory)  # now read from the cache
    greedy = answers(model, encoder)
    assert found != answers(model, encoder, temperature=0.7, seed=2) and found != greedy
    assert answers(model, encoder, temperature=1e-4) == greedy


def names_of(texts: list[str]) -> set[str]:
    return {text.partition("(")[0] if "(" in text else text for text in texts}


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_answers_call_tools_on_offer_alone_and_are_free_behind_the_name(model, encoder, temperature):
    offered, on_offer = OfferedNames(encoder), {tool.name for tool in TRAJECTORY.tools}
    samples = [replace(SAMPLES[number % 5], id=str(number)) for number in range(12)]
    found = answers(model, encoder, samples, batch_size=5, offered=offered, temperature=temperature)
    assert names_of(found) <= on_offer
    assert not names_of(answers(model, encoder, samples, temperature=temperature)) & on_offer
    behind = {text.partition("(")[2] for text in found}
    assert len(behind) > 3 if temperature else behind
    other = [replace(own, tools=own.tools[:1] + own.tools[2:]) for own in samples]  # each by its own tools
    mixed = [one if number % 2 else own for number, (own, one) in enumerate(zip(samples, other, strict=True))]
    again = answers(model, encoder, mixed, batch_size=4, offered=offered, temperature=temperature)
    assert not any(text.startswith("getPapersByKeywords") for text in again[1::2])


def test_so_do_those_of_models_with_another_kind_of_cache(encoder):
    torch.manual_seed(0)
    config = MistralConfig(**SIZES, vocab_size=len(encoder.tokenizer), sliding_window=16)
    model = MistralForCausalLM(config).eval()
    assert kv_cache.empty(model) is None
    found = answers(model, encoder, offered=OfferedNames(encoder))
    assert names_of(found) <= {tool.name for tool in TRAJECTORY.tools}
    sampled = answers(model, encoder, temperature=0.9, seed=3)
    assert sampled == answers(model, encoder, temperature=0.9, seed=3, batch_size=2) != found
