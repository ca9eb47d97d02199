"""Attention over trees (`layout.flatten`): a token sees those of its own branch that stand before it.

Runs stand depth first, so one number a token says who sees it: token q sees token k if k <= q < reach[k]. From it come
the dense mask that every implementation of attention takes, and flex attention's block mask, for which nothing of size
T x T is ever made.
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
    """`reach` of several layouts as [B, width]. Padding sees itself, since a softmax over nothing is none."""
    reach = torch.arange(1, width + 1).repeat(len(reaches), 1)
    for row, own in zip(reach, reaches, strict=True):
        row[: len(own)] = torch.tensor(own)
    return reach


def visible(reach: torch.Tensor) -> torch.Tensor:
    """[B, T, T], whether the token of a row sees that of a column, from `reach` [B, T]."""
    at = torch.arange(reach.shape[1], device=reach.device)
    return (at <= at[:, None]) & (at[:, None] < reach[:, None, :])


def dense(reach: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """[B, 1, T, T]: 0 where a token sees another, else the least number there is, to be added to attention scores."""
    hidden = ~visible(reach)[:, None]
    return torch.zeros(hidden.shape, dtype=dtype, device=reach.device).masked_fill_(hidden, torch.finfo(dtype).min)


def blocks(reach: torch.Tensor) -> BlockMask:
    """The block mask of flex attention, worked out from the least and the largest `reach` in each block of columns.

    A block is full if its every token is seen by every row, and left out if none by any; the others are computed with
    `k <= q < reach[k]` tested. An empty block may be among these, which costs a little time and is as exact.
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

    behind = F.pad(reach, (0, missing))  # the last block is looked up as a whole

    def sees(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (k <= q) & (q < behind[b, k])

    return BlockMask.from_kv_blocks(
        part_counts, part, full_counts, whole, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(length, length)
    )


def _listed(wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many blocks of each row are wanted, and a list of the row's blocks in which these stand first."""
    order = wanted.int().argsort(dim=-1, descending=True, stable=True)
    return wanted.sum(-1, dtype=torch.int32), order.to(torch.int32)


def of(model: torch.nn.Module, reach: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor | BlockMask:
    """The mask in the form that the model's implementation of attention takes.

    Args:
        dtype: of a dense mask, by default that of the weights; what attention computes in saves a cast in every layer.
    """
    own = extract_model_from_parallel(model)
    return blocks(reach) if own.config._attn_implementation == "flex_attention" else dense(reach, dtype or own.dtype)


def check(model: PreTrainedModel) -> None:
    """Raise a TltrainError unless the model can be given a tree."""
    attention = model.config._attn_implementation
    if attention not in ("sdpa", "eager", "flex_attention"):
        raise TltrainError(
            f"stage.packing=prefix_tree: attention={attention} takes no mask of a tree: "
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
            f"stage.packing=prefix_tree: {type(model).__name__} does not attend to all tokens in all layers, or takes "
            "no positions: stage.packing=trajectory"
        )


def dense_until(model: PreTrainedModel) -> float:
    """See `prefix_tree.Limits`: by operations, 6 times the width (2 x 12 width^2 a token and layer for weights, 4 width
    T for attention); infinite for flex attention.
    """
    if model.config._attn_implementation == "flex_attention":
        return math.inf
    return 6 * model.config.get_text_config().hidden_size
