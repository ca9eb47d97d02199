"""The batches of the update: trees of prompts with the responses that were sampled.

Shared prefixes are computed once: the update runs over the tree, in which each response is a branch that attends only
to its own prompt and itself. The answers of a conversation are branches too. If each prompt begins with the previous
prompt and answer, they form a chain; the conversations of one task form a tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from tltrain.inference.offered_names import Offered
from tltrain.tokens.layout import Branch, Layout, Run, branch_runs, flatten
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
    rows = [branches_of(*given) for given in zip(trees, responses, flags, strict=True)]
    return batch_of(rows, scores, pad_id, tree_multiple if any(len(tree.ends) > 1 for tree in trees) else None)


def branches_of(
    tree: PromptTree, responses: Sequence[Sequence[int]], learned: Sequence[Sequence[bool]] | None = None
) -> list[Branch]:
    """Return the responses to a tree's prompts as branches, each of which shares the whole previous prompt.

    Args:
        learned: which tokens of each response are targets; None: all.
    """
    flags = [None] * len(responses) if learned is None else learned
    starts = (0, *tree.ends[:-1])
    return [
        Branch(tree.ids[:end], tokens, start, own)
        for start, end, tokens, own in zip(starts, tree.ends, responses, flags, strict=True)
    ]


def is_chain(branches: Sequence[Branch]) -> bool:
    """Return whether every prompt begins with all tokens of the previous branch, so no mask of a tree is needed."""
    return all(after.shared == len(own.prompt) + len(own.response) - 1 for own, after in pairwise(branches))


def batch_of(
    rows: Sequence[Sequence[Branch]], scores: Sequence[float], pad_id: int, tree_multiple: int | None = None
) -> dict[str, Any]:
    """Build a batch as `make_batch` does, from the branches of each row.

    Args:
        tree_multiple: T is a multiple of this, and the batch has `reach`; None: every row is a chain.
    """
    layouts = [flatten(branch_runs(row)) for row in rows] or [flatten([Run([pad_id], -1, [])])]
    width = max(len(own.input_ids) for own in layouts)
    if tree_multiple is not None:
        width = -(-width // tree_multiple) * tree_multiple
    ids = torch.full((len(layouts), width), pad_id)
    positions, real = torch.zeros_like(ids), torch.zeros_like(ids)
    reach = torch.arange(1, width + 1).repeat(len(layouts), 1)  # padding attends to itself: a softmax needs something
    labels = torch.full_like(ids, -1)
    for row, own in enumerate(layouts):
        end = len(own.input_ids)
        ids[row, :end] = torch.tensor(own.input_ids)
        positions[row, :end] = torch.tensor(own.position_ids)
        reach[row, :end] = torch.tensor(own.reach)
        real[row, :end] = 1
        labels[row, own.positions] = torch.tensor(own.targets, dtype=torch.long)
    keep = labels >= 0
    order = keep.flatten().cumsum(0).view_as(keep) - 1
    lengths = [len(own.response) if own.learned is None else sum(own.learned) for branches in rows for own in branches]
    mask = torch.arange(max([1, *lengths])) < torch.tensor(lengths, dtype=torch.long)[:, None]
    index = torch.zeros(mask.shape, dtype=torch.long)
    if lengths:
        index[mask] = torch.cat([order[row, own.positions] for row, own in enumerate(layouts)])
    return {
        "input_ids": ids,
        "position_ids": positions,
        **({"attention_mask": real} if tree_multiple is None else {"reach": reach}),
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
    """Return the tokens that may come next, at positions that do not allow all of them, as a part of the batch.

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
    """Return the layout of a tree and its responses; the arguments are those of `branches_of`."""
    return flatten(branch_runs(branches_of(tree, responses, learned)))
