"""Attention masks for trees (`layout.flatten`): a token attends to the preceding tokens of its own branch.

Runs are in depth-first order, so one number per token determines who attends to it: token q attends to token k if
k <= q < reach[k]. From these numbers come the dense mask, which every attention implementation accepts, and flex
attention's block mask, which needs no T x T tensor.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import extract_model_from_parallel
from torch.nn.attention.flex_attention import BlockMask
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from tltrain.errors import TltrainError

BLOCK = 128
"""Side of a block of flex attention, in tokens."""


def padded(reaches: Sequence[Sequence[int]], width: int) -> torch.Tensor:
    """Stack the `reach` of several layouts as [B, width]. Padding attends to itself: an empty softmax is undefined."""
    reach = torch.arange(1, width + 1).repeat(len(reaches), 1)
    for row, own in zip(reach, reaches, strict=True):
        row[: len(own)] = torch.tensor(own)
    return reach


def visible(reach: torch.Tensor) -> torch.Tensor:
    """Return [B, T, T] from `reach` [B, T]: True where the row's token attends to the column's token."""
    at = torch.arange(reach.shape[1], device=reach.device)
    return (at <= at[:, None]) & (at[:, None] < reach[:, None, :])


def dense(reach: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return the additive mask [B, 1, T, T]: 0 where a token attends to another, else the dtype's lowest number."""
    hidden = ~visible(reach)[:, None]
    return torch.zeros(hidden.shape, dtype=dtype, device=reach.device).masked_fill_(hidden, torch.finfo(dtype).min)


def blocks(reach: torch.Tensor) -> BlockMask:
    """Return flex attention's block mask, computed from the minimum and maximum `reach` in each block of columns.

    A block is full if all of its rows attend to all of its columns, and omitted if none attends to any. All other
    blocks are computed with the test `k <= q < reach[k]`. These may include an empty block, which costs a little time
    but does not change the result.
    """
    batch, length = reach.shape
    count = math.ceil(length / BLOCK)
    missing = count * BLOCK - length
    least, largest = (
        edge(F.pad(reach, (0, missing), value=filler).view(batch, count, BLOCK), -1)
        for edge, filler in ((torch.amin, length), (torch.amax, 0))
    )
    first = torch.arange(0, count * BLOCK, BLOCK, device=reach.device)
    end = (first + BLOCK).clamp(max=length)
    rows, columns = first[:, None], first
    some = (columns < end[:, None]) & (largest[:, None, :] > rows)
    full = (end <= rows + 1) & (least[:, None, :] >= end[:, None])
    lists = (_listed(kind[:, None]) for kind in (some & ~full, full))
    (part_counts, part), (full_counts, whole) = lists

    behind = F.pad(reach, (0, missing))  # the last block is indexed up to its full length

    def sees(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (k <= q) & (q < behind[b, k])

    return BlockMask.from_kv_blocks(
        part_counts, part, full_counts, whole, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(length, length)
    )


def _listed(wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the number of selected blocks of each row, and the row's block indices with the selected ones first."""
    order = wanted.int().argsort(dim=-1, descending=True, stable=True)
    return wanted.sum(-1, dtype=torch.int32), order.to(torch.int32)


def attention_mask(
    model: torch.nn.Module, reach: torch.Tensor, dtype: torch.dtype | None = None
) -> torch.Tensor | BlockMask:
    """Return the mask in the form that the model's attention implementation takes.

    Args:
        dtype: dtype of a dense mask, by default the weights' dtype; that of the attention computation saves a cast in
            every layer.
    """
    own = extract_model_from_parallel(model)
    return blocks(reach) if own.config._attn_implementation == "flex_attention" else dense(reach, dtype or own.dtype)


def check(model: PreTrainedModel) -> None:
    """Raise a TltrainError unless the model supports attention over trees."""
    attention = model.config._attn_implementation
    if attention not in ("sdpa", "eager", "flex_attention"):
        raise TltrainError(
            f"stage.packing=prefix_tree: attention={attention} does not support tree masks: "
            "model.attn_implementation=sdpa, eager or flex_attention, or stage.packing=trajectory"
        )
    if attention == "flex_attention" and model.device.type == "cpu":
        raise TltrainError(
            "stage.packing=prefix_tree: torch's flex_attention does not train on a CPU: model.attn_implementation=sdpa"
        )
    layers = DynamicCache(config=model.config).layers
    everywhere = all(type(layer) is DynamicLayer for layer in layers)
    if not everywhere or "position_ids" not in inspect.signature(model.forward).parameters:
        raise TltrainError(
            f"stage.packing=prefix_tree: {type(model).__name__} does not attend to all tokens in all layers, or does "
            "not take position_ids: stage.packing=trajectory"
        )


def dense_until(model: PreTrainedModel) -> float:
    """Return the sequence length at which dense attention costs as much as the weights (see `prefix_tree.Limits`).

    Per token and layer, weights take 2 x 12 width^2 operations and attention 4 width T, which gives 6 times the width.
    The length is infinite for flex attention.
    """
    if model.config._attn_implementation == "flex_attention":
        return math.inf
    return 6 * model.config.get_text_config().hidden_size
