"""PKT, prioritize key tokens: how much each target token of a call counts (TL-Training, arXiv 2412.15495).

Which tool is called is decided by few tokens: the first of its name, and those at which its name parts from the names
of other tools on offer. Their weight is

    w = clip(|NK| / |K|, 1, w_max)

with K the key tokens of a turn and NK its other target tokens (the end token included), whose weight is 1.
A turn's loss is sum(w * nll) / sum(w).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def key_positions(target: Sequence[int], first: int, others: Iterable[Sequence[int]]) -> frozenset[int]:
    """Positions of the key tokens in a call.

    Args:
        target: token ids of the call as it stands after `Assistant:`, the end token included.
        first: position in `target` of the first token of the called tool's name.
        others: for every other tool on offer the token ids of a call of it, its name and the `(` at least.

    Returns:
        `first`, and for every other tool whose name begins with the same tokens the position right after what they
        share: the token that tells the two apart. Where the called name is itself the beginning of another's, that is
        the token after the name.
    """
    keys = {first}
    for other in others:
        shared = _shared_prefix(target, other)
        if first < shared < len(target):
            keys.add(shared)
    return frozenset(keys)


def token_weights(length: int, keys: frozenset[int], w_max: float) -> list[float]:
    """Weight of each of a turn's `length` target tokens; 1 everywhere in a turn without key tokens (plain text)."""
    if not keys:
        return [1.0] * length
    key_weight = min(max((length - len(keys)) / len(keys), 1.0), w_max)
    return [key_weight if position in keys else 1.0 for position in range(length)]


def _shared_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading elements that `a` and `b` have in common."""
    for position, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return position
    return min(len(a), len(b))
