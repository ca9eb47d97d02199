"""PKT, prioritizing key tokens: the loss weight of each target token of a call (TL-Training, arXiv 2412.15495).

A few tokens decide which tool is called: the first token of its name, and each token at which its name diverges from
the name of another available tool. Their weight is

    w = clip(|NK| / |K|, 1, w_max)

where K are the key tokens of a turn and NK its other target tokens, end token included; those have weight 1.
A turn's loss is sum(w * nll) / sum(w).

Two variants give the same w, computed from the paper's K, to other tokens H (`stage.key_tokens`; paper: H = K):

    name        H = K and all tokens of the called name
    shuffled    H = |K| random target tokens of the same turn: a control with the same weights in other places

`name` makes up for the normalization, which lowers the weight of the rest of the name, so that models copy it less
reliably.
A w computed from H would fall as H grows (3 instead of 9 if H has 5 of 20 tokens and K has 2), so a difference could
come from lighter key tokens. With the paper's w, a variant changes only which tokens carry it.
"""

from __future__ import annotations

import hashlib
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


def shuffled_positions(length: int, count: int, draw: str) -> frozenset[int]:
    """Return `count` of a turn's `length` positions, each equally likely; equal draws give equal positions.

    They are the positions with the smallest digests, so the result depends on no library's random numbers.
    """

    def rank(position: int) -> bytes:
        return hashlib.blake2b(f"{draw}/{position}".encode(errors="surrogatepass")).digest()

    return frozenset(sorted(range(length), key=rank)[:count])


def weighed_positions(which: str, length: int, keys: frozenset[int], name: Iterable[int], draw: str) -> frozenset[int]:
    """Return H, the positions of a turn that get the weight of its key tokens.

    Args:
        which: `paper`, `name` or `shuffled`.
        length: number of target tokens.
        keys: K.
        name: positions of the called name's tokens.
        draw: text that seeds `shuffled`: the seed, the trajectory and the turn.
    """
    if which == "shuffled":
        return shuffled_positions(length, len(keys), draw)
    return keys.union(name) if which == "name" else keys


def token_weights(length: int, keys: frozenset[int], w_max: float, heavy: frozenset[int] | None = None) -> list[float]:
    """Return the weight of each of a turn's `length` target tokens; all 1 without key tokens (plain text).

    Args:
        heavy: positions that get the weight of the key tokens; None: the key tokens themselves.
    """
    if not keys:
        return [1.0] * length
    key_weight = min(max((length - len(keys)) / len(keys), 1.0), w_max)
    heavy = keys if heavy is None else heavy
    return [key_weight if position in heavy else 1.0 for position in range(length)]


def _shared_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the common prefix of `a` and `b`."""
    for position, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return position
    return min(len(a), len(b))
