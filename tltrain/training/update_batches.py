"""The batches of the update: trees of prompts with the responses that were sampled.

Shared prefixes are computed once: the update runs over the tree, in which each response is a branch that attends only
to its own prompt and itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tltrain.inference.offered_names import Offered
from tltrain.tokens.layout import Layout, Run, Target, flatten
from tltrain.tokens.prompts import PromptTree

Learned = Sequence[Sequence[Sequence[bool]]]
"""For each tree and each of its responses, whether each token is learned."""


def make_batch(
    trees: Sequence[PromptTree],
    responses: Sequence[Sequence[Sequence[int]]],
    scores: Sequence[float],
    pad_id: int,
    tree_multiple: int = 1,
    learned: Learned | None = None,
) -> dict[str, Any]:
    """Build one batch from B trees with M responses, of at most R and altogether N tokens, padded to T positions.

    R and N count the tokens that are learned. Without trees, the batch is a row of a single token without targets (M
    and N are 0).

    Args:
        tree_multiple: T is a multiple of this if a tree has branches.
        learned: which tokens of each response are learned; the others are context. None: all.

    Returns:
        `input_ids`, `position_ids`: [B, T]. `attention_mask`: [B, T]; or, if a tree has branches, `reach`: [B, T], from
        which `tree_mask.attention_mask` computes a mask. `real`: [B, T], 0 where there is padding. `keep`: [B, T], True
        where a hidden state predicts a response token. `targets`: [N], those tokens in the order of `keep`. `index`:
        [M, R], the position in that order of each token of each response. `mask`: [M, R], True where a response has a
        token. `scores`: [M].
    """
    flags = [None] * len(trees) if learned is None else learned
    rows = [layout(*given) for given in zip(trees, responses, flags, strict=True)]
    if not rows:
        rows = [flatten([Run([pad_id], -1, [])])]
    width = max(len(own.input_ids) for own in rows)
    branching = any(len(tree.ends) > 1 for tree in trees)
    if branching:
        width = -(-width // tree_multiple) * tree_multiple
    ids = torch.full((len(rows), width), pad_id)
    positions, real = torch.zeros_like(ids), torch.zeros_like(ids)
    reach = torch.arange(1, width + 1).repeat(len(rows), 1)  # padding attends to itself: a softmax needs something
    labels = torch.full_like(ids, -1)
    for row, own in enumerate(rows):
        end = len(own.input_ids)
        ids[row, :end] = torch.tensor(own.input_ids)
        positions[row, :end] = torch.tensor(own.position_ids)
        reach[row, :end] = torch.tensor(own.reach)
        real[row, :end] = 1
        labels[row, own.positions] = torch.tensor(own.targets, dtype=torch.long)
    keep = labels >= 0
    order = keep.flatten().cumsum(0).view_as(keep) - 1
    lengths = [len(response) for own in responses for response in own]
    if learned is not None:
        lengths = [sum(own) for each in learned for own in each]
    mask = torch.arange(max([1, *lengths])) < torch.tensor(lengths, dtype=torch.long)[:, None]
    index = torch.zeros(mask.shape, dtype=torch.long)
    if trees:
        index[mask] = torch.cat([order[row, own.positions] for row, own in enumerate(rows)])
    return {
        "input_ids": ids,
        "position_ids": positions,
        **({"reach": reach} if branching else {"attention_mask": real}),
        "real": real,
        "keep": keep,
        "targets": labels[keep],
        "index": index,
        "mask": mask,
        "scores": torch.tensor(scores, dtype=torch.float32),
    }


def allowed_tokens(
    offered: Offered,
    trees: Sequence[PromptTree],
    responses: Sequence[Sequence[Sequence[int]]],
    index: torch.Tensor,
    learned: Learned | None = None,
) -> dict[str, torch.Tensor]:
    """Return which tokens may come next where not all may, as a part of the batch.

    Args:
        index: [M, R] of `make_batch`. learned: see there.

    Returns:
        `allowed_at`: [K], the positions of those tokens among the N targets. `allowed`: [K, ceil(V / 8)], uint8, the
        tokens that may come next as bits, the lowest first.
    """
    at: list[int] = []
    allowed: list[np.ndarray] = []
    owners = [
        (sample, tokens, None if learned is None else learned[b][m])
        for b, (tree, own) in enumerate(zip(trees, responses, strict=True))
        for m, (sample, tokens) in enumerate(zip(tree.samples, own, strict=True))
    ]
    for (sample, tokens, flags), positions in zip(owners, index.tolist(), strict=False):
        places = iter(positions)
        for k in range(len(tokens)):
            if flags is not None and not flags[k]:
                continue
            place = next(places)
            found = offered.allowed(sample.tools, tokens[:k])
            if found is None and offered.in_the_beginning:
                break
            if found is not None:
                at.append(place)
                allowed.append(np.packbits(found, bitorder="little"))
    bits = np.stack(allowed) if allowed else np.zeros((0, 0), dtype=np.uint8)
    return {"allowed_at": torch.tensor(at, dtype=torch.long), "allowed": torch.from_numpy(bits)}


def padded(rows: Sequence[Sequence[float]], mask: torch.Tensor) -> torch.Tensor:
    """Return per-token numbers of each response as [M, R], 0 outside of `mask`."""
    found = torch.zeros(mask.shape)
    found[mask] = torch.tensor([number for row in rows for number in row])
    return found


def layout(
    tree: PromptTree, responses: Sequence[Sequence[int]], learned: Sequence[Sequence[bool]] | None = None
) -> Layout:
    """Split the prompt where responses branch off, and attach each response without its last token to its piece.

    Args:
        learned: which tokens of each response are targets; None: all.
    """
    starts = (0, *tree.ends[:-1])
    runs: list[Run] = []
    for m, (start, end, tokens) in enumerate(zip(starts, tree.ends, responses, strict=True)):
        targets = [
            Target(k - 1, token, 1.0, False, m) for k, token in enumerate(tokens) if learned is None or learned[m][k]
        ]
        runs += [Run(list(tree.ids[start:end]), 2 * (m - 1) if m else -1, []), Run(list(tokens[:-1]), 2 * m, targets)]
    return flatten(runs)
