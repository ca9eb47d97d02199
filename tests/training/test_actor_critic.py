"""PPO's models: the frozen reference under autocast, and attention by blocks."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaForTokenClassification

from tests.support.small_rollouts import NEVER, PAD, RESPONSES, SIZES, trees_of, with_mask
from tltrain.inference import decoding_attention
from tltrain.training import rollout, tree_mask, update_batches
from tltrain.training.actor_critic import ActorCritic, freeze_reference


def llama(tied: bool = False, **more) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=400, tie_word_embeddings=tied, **more)).eval()


@pytest.mark.parametrize("tied", [True, False])
def test_a_reference_in_half_the_memory_gives_the_same_numbers_under_autocast(tied):
    model, ids = llama(tied), torch.arange(5, 45).view(2, 20)
    reference = freeze_reference(copy.deepcopy(model), autocast=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(reference(ids).logits, model(ids).logits)
    dtypes = {name: parameter.dtype for name, parameter in reference.named_parameters()}
    assert dtypes["model.embed_tokens.weight"] == dtypes["model.norm.weight"] == torch.float32
    assert dtypes["model.layers.0.mlp.up_proj.weight"] == torch.bfloat16
    assert dtypes.get("lm_head.weight", torch.bfloat16) == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in reference.parameters())


def test_without_autocast_a_reference_keeps_its_precision():
    assert {parameter.dtype for parameter in freeze_reference(llama(), autocast=False).parameters()} == {torch.float32}


def test_checkpointing_that_trl_switches_off_and_on_stays_what_it_was(byte_level):
    both = ActorCritic(llama(), LlamaForTokenClassification(LlamaConfig(**SIZES, vocab_size=400, num_labels=1)))
    both.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False}, every_n_layers=2)
    embedding = both.policy.get_input_embeddings()
    for _ in range(3):
        both.gradient_checkpointing_disable()
        assert not both.is_gradient_checkpointing and not embedding._forward_hooks
        both.gradient_checkpointing_enable(gradient_checkpointing_kwargs=None)
        assert both.is_gradient_checkpointing and len(embedding._forward_hooks) == 1
    for model in (both.policy, both.critic):
        assert [layer.gradient_checkpointing for layer in model.model.layers] == [True, False]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_attention_by_blocks_gives_what_a_dense_mask_gives(byte_level, monkeypatch):
    """Uncompiled on the CPU: everything but the GPU kernel."""
    from torch.nn.attention import flex_attention as flex
    from transformers.integrations import flex_attention as library

    monkeypatch.setattr(library, "WrappedFlexAttention", lambda training: lambda: flex.flex_attention)
    critic = LlamaForTokenClassification(LlamaConfig(**SIZES, vocab_size=400, num_labels=1)).eval()
    both, found = ActorCritic(llama(), critic), []
    trees = trees_of(byte_level, "trajectory")
    responses = [RESPONSES[: len(trees[0].ends)], RESPONSES[len(trees[0].ends) :]]
    for attention, multiple in (("sdpa", 1), ("flex_attention", tree_mask.BLOCK)):
        for model in (both.policy, both.critic):
            model.set_attn_implementation(attention)
        batch = with_mask(update_batches.make_batch(trees, responses, [0.0] * 5, PAD, multiple), both.policy)
        names = ("input_ids", "position_ids", "attention_mask", "keep", "targets")
        with torch.no_grad():
            found.append(both(temperature=0.7, **{name: batch[name] for name in names}))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_tokens_are_sampled_without_flex_attention(byte_level):
    model = llama()
    trees = trees_of(byte_level, "trajectory")
    expected = rollout.sample(model, trees, rollout.Sampling(6, None, NEVER, PAD))
    model.set_attn_implementation("flex_attention")
    assert rollout.sample(model, trees, rollout.Sampling(6, None, NEVER, PAD)) == expected
    assert model.config._attn_implementation == "flex_attention"
    with decoding_attention.enabled(model):
        assert model.config._attn_implementation == "sdpa"
