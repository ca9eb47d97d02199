"""Rollouts on a small random Llama: computing several prompts together equals computing each prompt alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaForTokenClassification

from tests.support.small_rollouts import NEVER, PAD, RESPONSES, SIZES, trees_of, with_mask
from tltrain.tokens.prompts import PromptTree
from tltrain.training import rollout, tree_mask, update_batches
from tltrain.training.actor_critic import ActorCritic
from tltrain.training.rollout import Sampling


@pytest.fixture(params=["sdpa", "eager"])
def attention(request) -> str:
    return request.param


@pytest.fixture
def sizes(byte_level, attention) -> dict:
    return {**SIZES, "vocab_size": len(byte_level), "attn_implementation": attention}


@pytest.fixture
def model(sizes) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**sizes)).eval()


@pytest.fixture(params=["trajectory", "turn"])
def trees(request, byte_level) -> list[PromptTree]:
    return trees_of(byte_level, request.param)


def prompts_of(trees: Sequence[PromptTree]) -> list[list[int]]:
    return [list(tree.ids[:end]) for tree in trees for end in tree.ends]


def flat(nested: list[list]) -> list:
    return [one for own in nested for one in own]


def greedy(eos_id: int = NEVER, max_new_tokens: int = 8) -> Sampling:
    return Sampling(max_new_tokens, None, eos_id, PAD)


def alone(model: PreTrainedModel, prompt: list[int], count: int = 8) -> list[int]:
    """Return the most likely next tokens, each from the whole sequence: no cache, no padding, no `generate`."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


# --- sampling -------------------------------------------------------------------------------------------------------


def test_greedy_responses_are_those_of_each_prompt_alone(model, trees):
    expected = [alone(model, prompt) for prompt in prompts_of(trees)]
    found = rollout.sample(model, trees, greedy())
    assert [len(own) for own in found] == [len(tree.ends) for tree in trees]
    assert flat(found) == expected
    assert len({tuple(response) for response in expected}) > 2
    for prompt, response in zip(prompts_of(trees), expected, strict=True):
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        out = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=8, eos_token_id=NEVER)
        assert out[0, len(prompt) :].tolist() == response


def test_responses_stop_at_the_end_token_and_keep_it(model, trees):
    free = flat(rollout.sample(model, trees, greedy()))
    end = free[0][3]
    cut = [tokens[: tokens.index(end) + 1] if end in tokens else tokens for tokens in free]
    assert len({len(tokens) for tokens in cut}) > 1
    assert flat(rollout.sample(model, trees, greedy(eos_id=end))) == cut


def test_an_end_token_at_once_is_a_response_of_one_token(model, trees):
    first = flat(rollout.sample(model, trees, greedy()))[0][0]
    assert flat(rollout.sample(model, trees, greedy(eos_id=first)))[0] == [first]


def test_one_prompt_and_one_token(model):
    tree = PromptTree((5,), (1,), (None,))
    assert rollout.sample(model, [tree], greedy()) == [[alone(model, [5])]]
    assert rollout.sample(model, [tree], greedy(max_new_tokens=1)) == [[alone(model, [5], 1)]]


def test_sliding_window_layers_get_no_shared_cache_and_give_the_same_responses(sizes, byte_level):
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**sizes, sliding_window=16)).eval()
    trees = trees_of(byte_level, "trajectory")
    owners = [(b, end) for b, tree in enumerate(trees) for end in tree.ends]
    assert rollout.shared_cache(model, trees, owners, max(end for _, end in owners)) is None
    assert flat(rollout.sample(model, trees, greedy())) == [alone(model, prompt) for prompt in prompts_of(trees)]


def test_sampling_draws_from_the_softmax_over_the_temperature(model):
    tree = PromptTree((5, 6, 7), (3,), (None,))
    with torch.no_grad():
        logits = model(torch.tensor([tree.ids])).logits[0, -1]
    expected = (logits / 3.0).softmax(-1)
    torch.manual_seed(0)
    drawn = flat(rollout.sample(model, [tree] * 2000, Sampling(1, 3.0, NEVER, PAD)))
    shares = torch.bincount(torch.tensor(flat(drawn)), minlength=len(expected)) / 2000
    assert (shares - expected).abs().max() < 4 * (expected.max() * (1 - expected.max()) / 2000).sqrt()
    assert (shares > 0).sum() > 60  # more than the 50 most likely, to which `generate` limits itself by default


def test_the_models_own_generation_settings_do_not_reshape_what_is_drawn(model, byte_level):
    trees = trees_of(byte_level, "turn")
    plain = rollout.sample(model, trees, greedy())
    banned = plain[0][0][0]
    model.generation_config.update(
        top_k=1, top_p=0.1, min_p=0.9, temperature=0.01, repetition_penalty=5.0, suppress_tokens=[banned], num_beams=3
    )
    settings = model.generation_config
    assert rollout.sample(model, trees, greedy()) == plain
    assert model.generation_config is settings
    torch.manual_seed(0)
    drawn = flat(rollout.sample(model, [trees[0]] * 100, Sampling(1, 3.0, NEVER, PAD)))
    assert len(set(flat(drawn))) > 20


def test_seeds_differ_by_every_number_and_are_repeatable():
    seeds = {rollout.derive_seed(seed, step, process) for seed in range(3) for step in range(3) for process in range(3)}
    assert len(seeds) == 27
    assert rollout.derive_seed(1, 2, 3) == rollout.derive_seed(1, 2, 3) != rollout.derive_seed(3, 2, 1)


# --- laying out -----------------------------------------------------------------------------------------------------


def test_a_batch_by_hand():
    # Tree 0: prompts "7" and "7 8 9" with responses "3 4" and "5"; tree 1: prompt "6" with response "2 2 2".
    # The last token of a response is predicted, not fed in.
    trees = [PromptTree((7, 8, 9), (1, 3), (None, None)), PromptTree((6,), (1,), (None,))]
    batch = update_batches.make_batch(trees, [[[3, 4], [5]], [[2, 2, 2]]], [1.0, -2.0, 0.5], PAD)
    assert batch["input_ids"].tolist() == [[7, 3, 8, 9], [6, 2, 2, PAD]]
    assert batch["position_ids"].tolist() == [[0, 1, 1, 2], [0, 1, 2, 0]]
    assert batch["keep"].tolist() == [[True, True, False, True], [True, True, True, False]]
    assert batch["targets"].tolist() == [3, 4, 5, 2, 2, 2]
    assert batch["mask"].tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    in_order = batch["targets"][batch["index"]].masked_fill(~batch["mask"], 0)
    assert in_order.tolist() == [[3, 4, 0], [5, 0, 0], [2, 2, 2]]
    assert batch["scores"].tolist() == [1.0, -2.0, 0.5]
    assert "attention_mask" not in batch
    may_attend = tree_mask.visible(batch["reach"]).int().tolist()
    assert may_attend == [
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]],
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]],
    ]
    padded = update_batches.make_batch(trees, [[[3, 4], [5]], [[2, 2, 2]]], [1.0, -2.0, 0.5], PAD, tree_multiple=3)
    assert padded["input_ids"].tolist() == [[7, 3, 8, 9, PAD, PAD], [6, 2, 2, PAD, PAD, PAD]]
    assert padded["reach"][0].tolist() == [4, 2, 4, 4, 5, 6]
    assert torch.equal(padded["targets"], batch["targets"]) and not padded["keep"][:, 4:].any()


def test_without_branches_the_mask_is_one_of_padding():
    trees = [PromptTree((7, 8), (2,), (None,)), PromptTree((6,), (1,), (None,))]
    batch = update_batches.make_batch(trees, [[[3]], [[4]]], [0.0, 0.0], PAD)
    assert batch["input_ids"].tolist() == [[7, 8], [6, PAD]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert batch["keep"].tolist() == [[False, True], [True, False]]
    assert (batch["index"].tolist(), batch["mask"].tolist()) == ([[0], [1]], [[True], [True]])


def test_a_batch_gives_the_logprobs_and_values_of_each_response_alone(model, sizes, trees):
    critic = LlamaForTokenClassification(LlamaConfig(**sizes, num_labels=1)).eval()
    responses = iter(RESPONSES)
    nested = [[next(responses) for _ in tree.ends] for tree in trees]
    batch = with_mask(update_batches.make_batch(trees, nested, [0.0] * 5, PAD), model)
    scores, mask, index = batch.pop("scores"), batch.pop("mask"), batch.pop("index")
    with torch.no_grad():
        logprobs, entropy, values = ActorCritic(model, critic)(temperature=0.7, **batch)
    assert len(scores) == 5 and mask.sum(1).tolist() == [4, 1, 2, 3, 1]
    for m, (prompt, response) in enumerate(zip(prompts_of(trees), RESPONSES, strict=True)):
        ids, at = torch.tensor([prompt + response]), slice(len(prompt) - 1, -1)
        with torch.no_grad():
            expected = (model(ids).logits[0, at] / 0.7).log_softmax(-1)
            expected_values = critic(ids).logits[0, at, 0]
        own = index[m][mask[m]]
        assert torch.allclose(logprobs[own], expected[range(len(response)), response], atol=1e-5)
        assert torch.allclose(values[own], expected_values, atol=1e-5)
        assert torch.allclose(entropy[own], -(expected.exp() * expected).sum(-1), atol=1e-5)
    assert logprobs.std() > 0.1 and values.std() > 0.1


def test_what_is_sampled_has_the_logprobs_it_was_drawn_with(model, byte_level):
    """Greedy tokens are also the most likely in the update's forward pass: both see the same context."""
    trees = trees_of(byte_level, "trajectory")
    responses = rollout.sample(model, trees, greedy())
    batch = with_mask(update_batches.make_batch(trees, responses, [0.0] * 5, PAD), model)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
    with torch.no_grad():
        logits = model(**inputs, logits_to_keep=batch["keep"], use_cache=False).logits
    assert torch.equal(logits.argmax(-1), batch["targets"])


def test_the_copy_that_samples_is_in_bfloat16_and_follows_the_policy(model):
    policy = copy.deepcopy(model).float()
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    sampling_copy = rollout.SamplingCopy()
    first = sampling_copy.synced_with(policy)
    assert {parameter.dtype for parameter in first.parameters()} == {torch.bfloat16}
    assert [b.dtype for b in first.buffers()] == [b.dtype for b in policy.buffers()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.5)
    second = sampling_copy.synced_with(policy)
    assert second is first
    for own, now in zip(second.parameters(), policy.parameters(), strict=True):
        assert torch.equal(own, now.to(torch.bfloat16)) and not own.requires_grad


def test_the_logprobs_that_tokens_were_drawn_with_are_those_of_each_prompt_alone(model, trees):
    torch.manual_seed(0)
    end = flat(rollout.sample(model, trees, Sampling(20, 0.7, NEVER, PAD)))[0][2]
    torch.manual_seed(0)  # now the first response ends there and leaves the batch
    drawn: list[list[float]] = []
    responses = flat(rollout.sample(model, trees, Sampling(20, 0.7, end, PAD), drawn))
    assert list(map(len, drawn)) == list(map(len, responses)) and len(set(map(len, responses))) > 1
    for prompt, tokens, numbers in zip(prompts_of(trees), responses, drawn, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        expected = (logits / 0.7).log_softmax(-1)[range(len(tokens)), tokens]
        assert torch.allclose(torch.tensor(numbers), expected, atol=1e-4)
