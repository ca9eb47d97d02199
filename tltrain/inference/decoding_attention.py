"""Attention for decoding on a CPU: with one query a row, two matrix products are faster than torch's sdpa kernel.

SmolLM2-135M in bfloat16, one core, 16 rows behind 400 tokens: 56 ms a step, 72 ms with the kernel; a single row, where
the library has the kernel repeat the keys that heads share: 29 ms, 37 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "tltrain_decoding"


def forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """An attention function for transformers: sdpa, except for a single query a row.

    Args:
        query: [B, heads, N, size]. key, value: [B, heads with keys of their own, T, size].
        attention_mask: [B, 1, N, T], True where a query may look, or what is added to its score; None: everywhere.

    Returns:
        [B, N, heads, size], and None for the weights.
    """
    unusual = dropout or any(kwargs.get(name) is not None for name in ("position_bias", "softcap", "s_aux", "cache"))
    if query.shape[2] > 1 or unusual:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    batch, heads, _, size = query.shape
    grouped = query.reshape(batch, key.shape[1], -1, size)  # heads with the same keys are rows of one matrix
    # With room behind them (`kv_cache.GrowingLayer`), keys and values are slow as a right factor that is transposed, or
    # beside a left one that is.
    scores = (key @ grouped.transpose(2, 3)).transpose(2, 3).contiguous()
    scores = scores.float() * (size**-0.5 if scaling is None else scaling)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(torch.float32).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    out = scores.softmax(-1).to(value.dtype) @ value
    return out.reshape(batch, 1, heads, -1), None


AttentionInterface.register(NAME, forward)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def on(model: PreTrainedModel) -> Iterator[None]:
    """Use this attention in `model` within the block, if the model is on a CPU and uses sdpa."""
    cpu = model.device.type == "cpu" and model.config._attn_implementation == "sdpa"
    with without_flex(model), _replaced(model, NAME) if cpu else nullcontext():
        yield


@contextmanager
def without_flex(model: PreTrainedModel) -> Iterator[None]:
    """Use sdpa instead of flex attention within the block: flex compiles for each length and expects many queries."""
    with _replaced(model, "sdpa") if model.config._attn_implementation == "flex_attention" else nullcontext():
        yield


@contextmanager
def _replaced(model: PreTrainedModel, attention: str) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(attention)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
