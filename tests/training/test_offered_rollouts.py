"""Rollouts with names on offer: the policy that samples is the policy of the update, a masked one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaForTokenClassification

from tests.support import ppo_trainers
from tests.support.small_rollouts import NEVER, PAD, SIZES, trees_of, with_mask
from tltrain.inference.offered_names import OfferedNames
from tltrain.stages import irm_prompts
from tltrain.tokens.encoder import Encoder
from tltrain.training import policy_gradient, rollout, update_batches
from tltrain.training.actor_critic import response_logits, token_logprobs
from tltrain.training.rollout import Sampling


@pytest.fixture
def encoder(byte_level) -> Encoder:
    return Encoder(byte_level)


@pytest.fixture
def offered(encoder) -> OfferedNames:
    return OfferedNames(encoder)


@pytest.fixture
def model(encoder) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=len(encoder.tokenizer) + 3)).eval()  # 3 rows to spare


def flat(nested: list[list]) -> list:
    return [one for own in nested for one in own]


@pytest.mark.parametrize("temperature", [None, 0.7])
@pytest.mark.parametrize("packing", ["trajectory", "turn"])
def test_responses_call_tools_on_offer_and_the_updates_logprobs_are_those_of_sampling(
    model, encoder, offered, byte_level, packing, temperature
):
    trees = trees_of(byte_level, packing)
    torch.manual_seed(0)
    drawn: list[list[float]] = []
    responses = rollout.sample(model, trees, Sampling(24, temperature, NEVER, PAD, offered), drawn)
    names = {encoder.decode(tokens).strip().partition("(")[0] for tokens in flat(responses)}
    assert names <= {"getPaperDetails", "getPapersByKeywords", "finish"}

    batch = with_mask(update_batches.make_batch(trees, responses, [0.0] * 5, PAD), model)
    masks = update_batches.allowed_tokens(offered, trees, responses, batch["index"])
    assert 5 < len(masks["allowed_at"]) < 5 * 24
    logits = response_logits(model, batch | masks, temperature or 1.0)
    logprobs = token_logprobs(logits, batch["targets"])[batch["index"]]
    for row, tokens, expected in zip(logprobs, flat(responses), drawn, strict=True):
        assert torch.allclose(row[: len(tokens)], torch.tensor(expected), atol=1e-4)
    plain = response_logits(model, batch, temperature or 1.0)
    assert not torch.allclose(token_logprobs(plain, batch["targets"])[batch["index"]], logprobs, atol=0.1)

    # By the definition, for the first token of the first response.
    n = int(batch["index"][0, 0])
    allowed = offered.allowed(trees[0].samples[0].tools, []).nonzero()[0]
    by_hand = plain[n][allowed].log_softmax(dim=0)[allowed.tolist().index(int(batch["targets"][n]))]
    assert torch.allclose(logprobs[0, 0], by_hand, atol=1e-5)
    entropy = policy_gradient.entropy(logits)
    assert entropy.isfinite().all() and entropy[n] <= torch.log(torch.tensor(float(len(allowed)))) + 1e-5


def test_the_gradient_is_that_of_the_masked_policy(model, offered, byte_level):
    """d log pi(y) / dz is 1(y) - pi over the allowed tokens, and 0 for all others."""
    trees = trees_of(byte_level, "trajectory")
    torch.manual_seed(0)
    responses = rollout.sample(model, trees, Sampling(3, 1.0, NEVER, PAD, offered))
    batch = with_mask(update_batches.make_batch(trees, responses, [0.0] * 5, PAD), model)
    masks = update_batches.allowed_tokens(offered, trees, responses, batch["index"])
    logits = response_logits(model, batch, 1.0).detach().requires_grad_()

    class Given(torch.nn.Module):
        def forward(self, **_):
            return type("Out", (), {"logits": logits})

    logprobs = token_logprobs(response_logits(Given(), batch | masks, 1.0), batch["targets"])
    logprobs.sum().backward()
    bits = update_batches.allowed_tokens(offered, trees, responses, batch["index"])
    for n, row in zip(masks["allowed_at"].tolist(), bits["allowed"], strict=True):
        allowed = [8 * byte + bit for byte, value in enumerate(row.tolist()) for bit in range(8) if value >> bit & 1]
        expected = torch.zeros(logits.shape[1])
        expected[allowed] = -logits[n, allowed].detach().softmax(dim=0)
        expected[batch["targets"][n]] += 1
        assert torch.allclose(logits.grad[n], expected, atol=1e-6)


def test_a_step_of_ppo_is_on_policy(encoder, offered, model, tmp_path):
    torch.manual_seed(1)
    critic = LlamaForTokenClassification(LlamaConfig(**SIZES, vocab_size=model.vocab_size, num_labels=1))
    responses: list[str] = []
    trainer = ppo_trainers.trainer_of(
        tmp_path,
        (model, critic, model),
        encoder,
        ppo_trainers.trees_of(encoder),
        sampling=Sampling(24, 0.7, NEVER, PAD, offered),
        on_samples=lambda step, judged: responses.extend(one.response for one in judged),
        settings=ppo_trainers.Settings(critic_learning_rate=0.1, ppo_epochs=2),
        max_steps=2,
    )
    trainer.train()
    first, second = ppo_trainers.steps(trainer)
    assert {text.strip().partition("(")[0] for text in responses} <= {
        "getPaperDetails",
        "getPapersByKeywords",
        "finish",
    }
    assert first["sampling_logprob_difference_max"] < 1e-4  # sampling and update: the same policy
    assert abs(first["kl"]) < 1e-4  # and the reference, which has the same weights, is masked alike
    assert first["policy_clip_fraction"] == 0 and second["policy_loss"] != first["policy_loss"]
    assert first["entropy"] > 0


def test_golden_calls_that_cannot_be_sampled_are_counted_in_a_warning(byte_level, caplog):
    trees = trees_of(byte_level, "trajectory")
    irm_prompts.warn_of_names_not_on_offer(trees)
    assert not caplog.records
    first, *others = trees[0].samples
    without = replace(first, tools=first.tools[:1])
    irm_prompts.warn_of_names_not_on_offer([replace(trees[0], samples=(without, *others)), *trees[1:]])
    assert "the golden call of 1 of 5 (20.0 %) prompts names a tool that is not on offer" in caplog.text
