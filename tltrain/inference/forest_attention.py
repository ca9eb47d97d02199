"""Attention over several sequences that lie one after another in a single row, on a CPU.

Linear layers then compute all tokens in one matrix product, without padding. Attention is computed for each sequence by
itself, so that it costs what the sequences cost apart. A sequence is a chain or a tree of branches
(`training.tree_mask`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tltrain.inference import decoding_attention, kv_cache

NAME = "tltrain_forest"


class Branches(NamedTuple):
    """How the tokens of a tree divide into its longest chain and the branches that leave it.

    Attributes:
        chain: [C] indices of the tokens of the chain, which attend to each other causally.
        others: [L - C] indices of all other tokens. mask: [1, 1, L - C, L], added to their scores.
        order: [L] where each token stands in (chain, others).
    """

    chain: torch.Tensor
    others: torch.Tensor
    mask: torch.Tensor
    order: torch.Tensor


class Segment(NamedTuple):
    """The L tokens `start` to `end` of a row: a causal chain, or a tree."""

    start: int
    end: int
    branches: Branches | None = None


def forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segments: Sequence[Segment] | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Compute attention for transformers within each of `segments`, by torch's sdpa.

    Args:
        query: [1, heads, T, size]. key, value: [1, key-value heads, T, size].
        attention_mask: ignored, see `Branches.mask`.

    Returns:
        The outputs [1, T, heads, size], and None in place of the attention weights.

    Raises:
        RuntimeError: the model does not pass `segments` on to its attention.
    """
    if segments is None:
        raise RuntimeError(f"{type(module).__name__} does not pass keyword arguments on to its attention")
    outputs = []
    for start, end, branches in segments:
        q, k, v = (states[:, :, start:end] for states in (query, key, value))
        if branches is None:
            outputs.append(sdpa_attention_forward(module, q, k, v, None, **kwargs)[0])
            continue
        # A causal chain takes half of the scores, and only the branches, which are short, need a mask.
        chain = (states.index_select(2, branches.chain) for states in (q, k, v))
        of_chain = sdpa_attention_forward(module, *chain, None, **kwargs)[0]
        others = q.index_select(2, branches.others)
        of_others = sdpa_attention_forward(module, others, k, v, branches.mask.to(q.dtype), **kwargs)[0]
        outputs.append(torch.cat([of_chain, of_others], dim=1).index_select(1, branches.order))
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(NAME, forward)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)


@contextmanager
def enabled(*models: PreTrainedModel) -> Iterator[None]:
    """Use this attention in the models within the block; their forward passes then need `segments`."""
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(decoding_attention.replaced(model, NAME))
        yield


_PASSES_SEGMENTS: dict[type, bool] = {}
"""Model class -> whether it passes keyword arguments on to its attention."""


def supports(model: PreTrainedModel) -> bool:
    """Return whether the model can use this attention: on a CPU, with sdpa, all tokens attended to in all layers."""
    if model.device.type != "cpu" or model.config._attn_implementation != "sdpa" or kv_cache.empty(model) is None:
        return False
    kind = type(model.get_base_model() if hasattr(model, "get_base_model") else model)
    if kind not in _PASSES_SEGMENTS:
        _PASSES_SEGMENTS[kind] = _passes_segments(model)
    return _PASSES_SEGMENTS[kind]


@torch.no_grad()
def _passes_segments(model: PreTrainedModel) -> bool:
    ids = torch.zeros(1, 2, dtype=torch.long)
    words = {"input_ids": ids, "position_ids": torch.zeros_like(ids), "segments": [Segment(0, 1), Segment(1, 2)]}
    try:
        with enabled(model):
            model(**words, use_cache=False)
    except (RuntimeError, TypeError, ValueError):
        return False
    return True
