"""PKT, prioritizing key tokens: the loss weight of each target token of a call (TL-Training, arXiv 2412.15495).

A few tokens decide which tool is called: the first token of its name, and each token at which its name diverges from
the name of another available tool. Their weight is

    w = clip(|NK| / |K|, 1, w_max)

where K are the key tokens of a turn and NK its other target tokens, end token included; those have weight 1.
A turn's loss is sum(w * nll) / sum(w).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def key_positions(target: Sequence[int], first: int, others: Iterable[Sequence[int]]) -> frozenset[int]:
    """Return the positions of the key tokens in a call.

    Args:
        target: token ids of the call as they follow `Assistant:`, end token included.
        first: position in `target` of the first token of the called tool's name.
        others: for every other available tool, the token ids of a call of it: at least its name and the `(`.

    Returns:
        `first`, and for every other tool whose name begins with the same tokens, the position after their common
        prefix: the first token that distinguishes the two names. If the called name is a prefix of the other name,
        this is the token after the called name.
    """
    keys = {first}
    for other in others:
        shared = _shared_prefix(target, other)
        if first < shared < len(target):
            keys.add(shared)
    return frozenset(keys)


def token_weights(length: int, keys: frozenset[int], w_max: float) -> list[float]:
    """Return the weight of each of a turn's `length` target tokens; all 1 without key tokens (plain text)."""
    if not keys:
        return [1.0] * length
    key_weight = min(max((length - len(keys)) / len(keys), 1.0), w_max)
    return [key_weight if position in keys else 1.0 for position in range(length)]


def _shared_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the common prefix of `a` and `b`."""
    for position, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return position
    return min(len(a), len(b))
