"""Attention of one query token per row: equal to torch's kernel, for every form of the mask."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tltrain.inference import decoding_attention

SIZES = {
    "vocab_size": 30,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}


@pytest.mark.parametrize("kind", ["everywhere", "boolean", "added"])
@pytest.mark.parametrize(("heads", "keys", "count"), [(6, 2, 1), (4, 4, 1), (6, 2, 3)])
@pytest.mark.parametrize("scaling", [None, 0.5])
def test_the_same_as_sdpa(kind, heads, keys, count, scaling):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, heads, count, 8), torch.randn(3, keys, 10, 8), torch.randn(3, keys, 10, 8)
    mask = torch.rand(3, 1, count, 10) < 0.5
    mask[..., 4] = True
    if kind == "added":
        mask = torch.zeros(mask.shape).masked_fill_(~mask, torch.finfo(torch.float32).min)
    given = None if kind == "everywhere" else mask
    module = SimpleNamespace(num_key_value_groups=heads // keys, is_causal=True)
    if given is None and count > 1:
        key, value = key[:, :, :count], value[:, :, :count]  # no mask means causal there
    expected, _ = sdpa_attention_forward(module, query, key, value, given, scaling=scaling)
    found, weights = decoding_attention.forward(module, query, key, value, given, scaling=scaling)
    assert weights is None and found.shape == expected.shape == (3, count, heads, 8)
    assert torch.allclose(found, expected, atol=1e-6)


def test_decoding_attention_is_enabled_within_its_context_only(monkeypatch):
    model = LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="sdpa")).eval()
    queries = []
    monkeypatch.setattr(
        decoding_attention,
        "sdpa_attention_forward",
        lambda module, query, *args, **kwargs: (
            queries.append(query.shape[2]),
            sdpa_attention_forward(module, query, *args, **kwargs),
        )[1],
    )
    ids = torch.arange(3, 9)[None]
    settings = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 5, "do_sample": False}
    plain = model.generate(ids, **settings)
    assert queries == []
    with decoding_attention.enabled(model):
        assert torch.equal(model.generate(ids, **settings), plain)
    assert queries == [6, 6]  # both layers prefill the prompt this way, and no later token
    assert model.config._attn_implementation == "sdpa"


def test_other_attention_is_left_alone():
    model = LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="eager"))
    with decoding_attention.enabled(model):
        assert model.config._attn_implementation == "eager"
