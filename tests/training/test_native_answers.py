"""Answers in native formats as they are graded, priced, logged and learned (IRM)."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.support.native_formats import NAMES, PARALLEL, TOOLS, encoder, talk
from tests.support.small_rollouts import SIZES, with_mask
from tltrain.tokens.prompts import PromptReport, PromptTree, prompt_trees, questions
from tltrain.training import rollout, update_batches
from tltrain.training.actor_critic import response_logits, token_logprobs
from tltrain.training.pricing import TableReward
from tltrain.training.rejection import is_kept
from tltrain.training.reward_function import RewardFunction, SampleRecord, graded, response_counts
from tltrain.training.rollout import Prompts, Sampling
from tltrain.trajectory import Call, Message, Sample, ToolCall

JUDGE = RewardFunction(TableReward(trailing_text=-0.5), several_calls=True)
family = pytest.mark.parametrize("name", NAMES)


def said(name: str, sample: Sample, *calls: Call, text: str = "", thought: str = "") -> list[int]:
    """Return the tokens that a model of this format generates to make these calls."""
    own = encoder(name)
    message = Message("assistant", text, tuple(map(ToolCall, calls)), thought)
    item = talk(1, False)
    *_, turn = own.turns(replace(item, messages=(*sample.messages, message)), None)
    return turn.said.ids


def judged(name: str, ids: list[int], sample: Sample):
    own = encoder(name)
    return graded(JUDGE, own, sample, own.prompt(sample), ids, ids[-1] in own.ends)


QUESTION = Sample("q#1", TOOLS, (Message("user", "Who is 7?"),), (Call("get_user", {"id": "7"}),))


@family
@pytest.mark.parametrize(
    ("call", "grade", "reward"),
    [
        (Call("get_user", {"id": "7"}), "correct", 1.0),
        (Call("get_user", {"id": "8"}), "wrong_value", -0.25),
        (Call("get_users", {"id": "7"}), "wrong_tool", -1.5),
        (Call("get_nobody", {"id": "7"}), "tool_hallucination", -2.0),
    ],
)
def test_a_sampled_answer_earns_what_the_table_says_whatever_its_format(name, call, grade, reward):
    found = judged(name, said(name, QUESTION, call, thought="Hm."), QUESTION)
    assert (found.outcome, found.reward, found.ended, found.has_trailing_text) == (grade, reward, True, False)
    assert found.response == f'{call.name}(id="{call.arguments["id"]}")'
    record = SampleRecord.from_response(1, found)
    assert record.prompt == encoder(name).text(encoder(name).prompt(QUESTION))
    assert call.name in record.sampled and record.sampled != found.response
    assert record.golden == 'get_user(id="7")'


@pytest.mark.parametrize("name", ["qwen3", "gemma", "lfm2"])
def test_neither_a_thought_nor_words_nor_a_second_call_are_text_behind_a_call(name):
    _, sample = questions(PARALLEL, several_calls=True)[0]
    ids = said(name, sample, *sample.goldens, thought="Hm.")
    found = judged(name, ids, sample)
    assert found.response.splitlines() == ['get_user(id="7")', "get_users(count=3, on=true)"]
    assert found.reward == 1.0 and response_counts([found])["trailing_text"] == 0
    assert "Hm." in found.written


@pytest.mark.parametrize("name", ["qwen3", "gemma", "lfm2"])
def test_golden_calls_are_matched_in_any_order_and_a_superfluous_one_is_not_correct(name):
    _, sample = questions(PARALLEL, several_calls=True)[0]
    one, other = sample.goldens
    assert judged(name, said(name, sample, other, one), sample).is_correct
    assert judged(name, said(name, sample, other), sample).reward == pytest.approx((1 - 2) / 2)
    more = judged(name, said(name, sample, one, other, Call("set_user", {})), sample)
    assert more.reward == pytest.approx((1 + 1 - 1.5) / 2) and not more.is_correct and not is_kept(more)


@family
def test_an_answer_that_was_cut_is_one_without_an_end_token(name):
    ids = said(name, QUESTION, Call("get_user", {"id": "7"}))
    cut = judged(name, ids[:3], QUESTION)
    assert (cut.outcome, cut.reward, cut.ended) == ("cut", -2.0, False)


# --- sampled and learned ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    size = max(len(encoder(name).tokenizer) for name in NAMES)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, "max_position_embeddings": 8192}, vocab_size=size)).eval()


def trees_of(name: str) -> list[PromptTree]:
    words = {"packing": "trajectory", "max_length": 10**6, "truncation": "error"}
    return list(prompt_trees([talk(2, True), PARALLEL], encoder(name), report=PromptReport(), **words))


def sampling_of(name: str, **words) -> Sampling:
    own = encoder(name)
    return Sampling(6, 0.7, own.eos_id, own.tokenizer.pad_token_id, other_ends=own.ends - {own.eos_id}, **words)


def logprobs(model, batch) -> list[list[float]]:
    """Return the log-probabilities of the learned tokens of each response, in the update's forward pass."""
    with torch.no_grad():
        found = token_logprobs(response_logits(model, with_mask(dict(batch), model), 0.7), batch["targets"])
    return [row[mask].tolist() for row, mask in zip(found[batch["index"]], batch["mask"], strict=True)]


@pytest.mark.parametrize("name", ["qwen3", "llama3", "gptoss"])
def test_the_update_gives_a_sampled_answer_the_probability_that_it_was_drawn_with(model, name):
    trees, sampling, drawn = trees_of(name), sampling_of(name), []
    torch.manual_seed(1)
    responses = rollout.sample(model, trees, sampling, drawn)
    count = sum(len(tree.ends) for tree in trees)
    batch = update_batches.make_batch(trees, responses, [0.0] * count, sampling.pad_id)
    found = logprobs(model, batch)
    assert [len(row) for row in found] == [len(row) for row in drawn]
    for own, others in zip(found, drawn, strict=True):
        assert own == pytest.approx(others, abs=1e-5)


def test_each_of_several_end_tokens_ends_an_answer(model):
    trees = trees_of("gptoss")
    torch.manual_seed(1)
    free = rollout.sample(model, trees, Sampling(6, None, 10**6, 1))
    first, second = free[0][0][2], free[-1][-1][1]
    both = Sampling(6, None, first, 1, other_ends=frozenset({second}))
    for own, whole in zip(rollout.sample(model, trees, both), free, strict=True):
        for tokens, others in zip(own, whole, strict=True):
            end = next((at for at, token in enumerate(others) if token in (first, second)), len(others))
            assert tokens == others[: end + 1]


class Thinking(SimpleNamespace):
    """An encoder whose answers begin with a thought of two tokens; one answer is only a thought."""

    def thought(self, ids, prompt) -> range:
        return range(len(ids)) if len(ids) == 3 else range(2)


def test_a_thought_that_is_not_learned_is_context(model):
    trees = trees_of("hermes")
    responses = [[[11, 12, 13, 14, 15][: 5 - (m % 3)] for m in range(len(tree.ends))] for tree in trees]
    asked = Prompts(trees, Sampling(6, 0.7, 10**6, 1, learn_thoughts=False), Thinking())
    learned = asked.learned(trees, responses)
    assert learned[0][0] == [False, False, True, True, True]
    scores = [0.0] * sum(map(len, responses))
    whole = logprobs(model, update_batches.make_batch(trees, responses, scores, 1))
    batch = update_batches.make_batch(trees, responses, scores, 1, learned=learned)
    count = sum(len(row) - 2 for row in whole if len(row) != 3)
    assert batch["targets"].numel() == int(batch["mask"].sum()) == count
    for own, others in zip(logprobs(model, batch), whole, strict=True):
        assert own == pytest.approx(others[2:] if len(others) != 3 else [], abs=1e-6)
    assert replace(asked, sampling=replace(asked.sampling, learn_thoughts=True)).learned(trees, responses) is None
