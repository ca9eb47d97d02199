"""Attention masks for trees (`layout.flatten`): a token attends to the preceding tokens of its own branch.

Runs are in depth-first order, so one number per token determines who attends to it: token q attends to token k if
k <= q < reach[k]. From these numbers come the dense mask, which every attention implementation accepts, and flex
attention's block mask, which needs no T x T tensor.

A layer with a sliding window of W attends only to tokens less than W positions back. Positions are those in the branch
(`layout.Layout.position_ids`), since other branches may lie in between. Models with several kinds of layers get a mask
for each kind.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from accelerate.utils import extract_model_from_parallel
from torch.nn.attention.flex_attention import BlockMask
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

from tltrain.errors import TltrainError

BLOCK = 128
"""Side of a block of flex attention, in tokens."""


def padded(reaches: Sequence[Sequence[int]], width: int) -> torch.Tensor:
    """Stack the `reach` of several layouts as [B, width]. Padding attends to itself: an empty softmax is undefined."""
    reach = torch.arange(1, width + 1).repeat(len(reaches), 1)
    for row, own in zip(reach, reaches, strict=True):
        row[: len(own)] = torch.tensor(own)
    return reach


class Window(NamedTuple):
    """A sliding window of `size` tokens, the token itself included, over `positions` [B, T] in each token's branch."""

    positions: torch.Tensor
    size: int


def visible(reach: torch.Tensor, window: Window | None = None) -> torch.Tensor:
    """Return [B, T, T] from `reach` [B, T]: True where the row's token attends to the column's token."""
    at = torch.arange(reach.shape[1], device=reach.device)
    seen = (at <= at[:, None]) & (at[:, None] < reach[:, None, :])
    if window is None:
        return seen
    return seen & (window.positions[:, :, None] - window.positions[:, None, :] < window.size)


def dense(reach: torch.Tensor, dtype: torch.dtype = torch.float32, window: Window | None = None) -> torch.Tensor:
    """Return the additive mask [B, 1, T, T]: 0 where a token attends to another, else the dtype's lowest number."""
    hidden = ~visible(reach, window)[:, None]
    return torch.zeros(hidden.shape, dtype=dtype, device=reach.device).masked_fill_(hidden, torch.finfo(dtype).min)


def blocks(reach: torch.Tensor, window: Window | None = None) -> BlockMask:
    """Return flex attention's block mask, computed from the minimum and maximum `reach` in each block of columns.

    A block is full if all of its rows attend to all of its columns, and omitted if none attends to any. All other
    blocks are computed with the test `k <= q < reach[k]`, and that of the window. These may include an empty block,
    which costs a little time but does not change the result.
    """
    length = reach.shape[1]
    least, largest = _extremes(reach)
    count = least.shape[1]
    first = torch.arange(0, count * BLOCK, BLOCK, device=reach.device)
    end = (first + BLOCK).clamp(max=length)
    rows, columns = first[:, None], first
    some = (columns < end[:, None]) & (largest[:, None, :] > rows)
    full = (end <= rows + 1) & (least[:, None, :] >= end[:, None])
    behind = F.pad(reach, (0, count * BLOCK - length))  # the last block is indexed up to its full length

    def sees(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (k <= q) & (q < behind[b, k])

    test = sees
    if window is not None:
        nearest, farthest = _extremes(window.positions)
        some &= nearest[:, :, None] - farthest[:, None, :] < window.size
        full &= farthest[:, :, None] - nearest[:, None, :] < window.size
        places, size = F.pad(window.positions, (0, count * BLOCK - length)), window.size

        def sees_near(b: Any, h: Any, q: Any, k: Any) -> Any:
            return sees(b, h, q, k) & (places[b, q] - places[b, k] < size)

        test = sees_near
    lists = (_listed(kind[:, None]) for kind in (some & ~full, full))
    (part_counts, part), (full_counts, whole) = lists
    return BlockMask.from_kv_blocks(
        part_counts, part, full_counts, whole, BLOCK_SIZE=BLOCK, mask_mod=test, seq_lengths=(length, length)
    )


def _extremes(numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the least and the largest of the numbers, from 0 to T, in each block: [B, T] -> two of [B, T / BLOCK]."""
    batch, length = numbers.shape
    count = math.ceil(length / BLOCK)
    missing = count * BLOCK - length
    least, largest = (
        edge(F.pad(numbers, (0, missing), value=filler).view(batch, count, BLOCK), -1)
        for edge, filler in ((torch.amin, length), (torch.amax, 0))
    )
    return least, largest


def _listed(wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the number of selected blocks of each row, and the row's block indices with the selected ones first."""
    order = wanted.int().argsort(dim=-1, descending=True, stable=True)
    return wanted.sum(-1, dtype=torch.int32), order.to(torch.int32)


def layer_windows(config: PreTrainedConfig) -> dict[str, int | None] | None:
    """Return the window of each kind of layer of a model, None for full attention.

    Returns:
        None if the model has other layers: recurrent or convolutional ones, and attention in chunks or by an index.
    """
    text = config.get_text_config(decoder=True)
    try:
        layers = DynamicCache(config=text).layers
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    kinds = getattr(text, "layer_types", None)
    if kinds is None:
        sliding = getattr(text, "sliding_window", None) is not None
        kinds = ["sliding_attention" if sliding else "full_attention"] * len(layers)
    if not kinds or set(kinds) - set(_CACHE_LAYERS):
        return None
    windows: dict[str, int | None] = {}
    for kind, layer in zip(kinds, layers, strict=True):
        if type(layer) is DummyLayer:  # it attends to the keys of an earlier layer of its kind
            continue
        window = layer.sliding_window if type(layer) is DynamicSlidingWindowLayer else None
        if type(layer) is not _CACHE_LAYERS[kind] or windows.setdefault(kind, window) != window:
            return None
    return windows if windows.keys() == set(kinds) else None


_CACHE_LAYERS = {"full_attention": DynamicLayer, "sliding_attention": DynamicSlidingWindowLayer}
"""The kinds of layers that attend in trees, by their names in transformers, with what they cache."""


def attention_mask(
    model: torch.nn.Module, reach: torch.Tensor, positions: torch.Tensor, dtype: torch.dtype | None = None
) -> torch.Tensor | BlockMask | dict[str, torch.Tensor | BlockMask]:
    """Return the mask in the form that the model's attention implementation takes.

    Args:
        positions: [B, T], the `position_ids`.
        dtype: dtype of a dense mask, by default the weights' dtype; that of the attention computation saves a cast in
            every layer.

    Returns:
        A mask for all layers; for a model with several kinds of layers a dictionary of masks by kind.
    """
    own = extract_model_from_parallel(model)
    flex = own.config._attn_implementation == "flex_attention"

    def mask(size: int | None) -> torch.Tensor | BlockMask:
        window = None if size is None else Window(positions, size)
        return blocks(reach, window) if flex else dense(reach, dtype or own.dtype, window)

    windows = layer_windows(own.config)
    if windows is None:
        raise ValueError(obstacle(own))
    if len(windows) == 1:
        return mask(*windows.values())
    return {kind: mask(size) for kind, size in windows.items()}


def obstacle(model: PreTrainedModel) -> str:
    """Return why a model does not process trees; empty if it does."""
    attention = model.config._attn_implementation
    if attention not in ("sdpa", "eager", "flex_attention"):
        return (
            f"attention={attention} does not support tree masks: "
            "model.attn_implementation=sdpa, eager or flex_attention"
        )
    if attention == "flex_attention" and model.device.type == "cpu":
        return "torch's flex_attention does not train on a CPU: model.attn_implementation=sdpa"
    own = model.get_base_model() if hasattr(model, "get_base_model") else model  # without a LoRA adapter
    name = type(own).__name__
    if layer_windows(model.config) is None:
        kinds = set(getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ()) - set(_CACHE_LAYERS)
        which = f" ({', '.join(sorted(kinds))})" if kinds else ""
        return f"{name} has layers{which} that do not attend to single tokens, so that branches would mix in them"
    if "position_ids" not in inspect.signature(own.forward).parameters:
        return f"{name} does not take position_ids, which count a token's place in its branch"
    return ""


def check(model: PreTrainedModel) -> None:
    """Raise a TltrainError unless the model supports attention over trees."""
    if why := obstacle(model):
        other = ", or " if "model.attn_implementation" in why else ": "
        raise TltrainError(f"stage.packing=prefix_tree: {why}{other}stage.packing=trajectory")


def check_same_layers(policy: PreTrainedModel, critic: PreTrainedModel) -> None:
    """Raise a TltrainError unless both models attend to the same tokens in their kinds of layers."""
    windows, others = layer_windows(policy.config), layer_windows(critic.config)
    if windows != others:
        raise TltrainError(
            f"stage.critic.path: the critic's layers attend to other tokens than the policy's ({others}, {windows}), "
            "and both compute trees with the same masks: a critic of the same base model, or stage.packing=turn"
        )


def dense_until(model: PreTrainedModel) -> float:
    """Return the sequence length at which dense attention costs as much as the weights (see `prefix_tree.Limits`).

    Per token and layer, weights take 2 x 12 width^2 operations and attention 4 width T, which gives 6 times the width.
    The length is infinite for flex attention.
    """
    if model.config._attn_implementation == "flex_attention":
        return math.inf
    return 6 * model.config.get_text_config().hidden_size
