"""Rollouts: sample a response to every prompt of a batch of trees, and lay trees and responses out for the update.

What prompts share is computed once in both halves. Sampling fills the key-value cache from each tree's longest prompt
and gives every prompt its part of it; the update runs over the tree, each response a branch that sees its own prompt
and itself alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import Cache, GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from tltrain.inference import decoding_attention, kv_cache
from tltrain.inference.generation import own_settings_aside
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Layout, Run, Target, flatten
from tltrain.tokens.prompts import PromptTree
from tltrain.training import tree_mask


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. `temperature` None is greedy."""

    max_new_tokens: int
    temperature: float | None
    eos_id: int
    pad_id: int

    def config(self, max_new_tokens: int) -> GenerationConfig:
        """For `generate`; with `top_k`, which has another default there."""
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=self.temperature is not None,
            temperature=self.temperature or 1.0,
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            eos_token_id=self.eos_id,
            pad_token_id=self.pad_id,
            use_cache=True,
        )


@dataclass(frozen=True)
class Prompts:
    """What a policy is asked, how responses are drawn, and the encoder that reads them."""

    trees: Sequence[PromptTree]
    sampling: Sampling
    encoder: Encoder


def sample(
    model: PreTrainedModel, trees: Sequence[PromptTree], sampling: Sampling, logprobs: list[list[float]] | None = None
) -> list[list[list[int]]]:
    """A response to each prompt of each tree: token ids up to the end token, with it where the model gave it.

    Args:
        logprobs: takes, for each response, the log-probabilities that its tokens were drawn with.
    """
    owners = [(b, end) for b, tree in enumerate(trees) for end in tree.ends]
    width = max(end for _, end in owners)
    ids = torch.full((len(owners), width), sampling.pad_id)
    mask = torch.zeros_like(ids)
    for row, (b, end) in enumerate(owners):
        ids[row, width - end :] = torch.tensor(trees[b].ids[:end])
        mask[row, width - end :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    with torch.inference_mode(), own_settings_aside(model), decoding_attention.without_flex(model):
        cache = shared_cache(model, trees, owners, width)
        responses = iter(_answers(model, ids, mask, cache, sampling, logprobs))
        return [[next(responses) for _ in tree.ends] for tree in trees]


def parts(trees: Sequence[PromptTree], limit: int | None) -> Iterator[list[PromptTree]]:
    """The trees in groups of at most `limit` prompts (or one tree)."""
    part: list[PromptTree] = []
    for tree in trees:
        if part and limit is not None and sum(len(own.ends) for own in [*part, tree]) > limit:
            yield part
            part = []
        part.append(tree)
    if part:
        yield part


PHASE = 16
"""Tokens after which responses that have ended leave the batch: most calls are short, a few are long."""


class _DrawnLogprobs(LogitsProcessor):
    """Log-probabilities of the tokens that `generate` draws, one step after the other.

    A step's token is known when the next step begins, so one step's logits, [rows, V], are kept at a time.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self._logits: torch.Tensor | None = None
        self._steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._take(input_ids)
        self._logits = scores
        return scores

    def _take(self, ids: torch.Tensor) -> None:
        if self._logits is not None:
            logits = self._logits / self.temperature
            self._steps.append(logits.gather(1, ids[:, -1:])[:, 0] - logits.logsumexp(dim=1))

    def rows(self, out: torch.Tensor) -> list[list[float]]:
        """Of each row of `out`, what `generate` returned: its new tokens' log-probabilities."""
        self._take(out)
        return torch.stack(self._steps, dim=1).tolist()


def _answers(
    model: PreTrainedModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    cache: Cache | None,
    sampling: Sampling,
    logprobs: list[list[float]] | None = None,
) -> list[list[int]]:
    """A response to each row of `ids` [rows, T] (left-padded, `mask` alike).

    Args:
        cache: of all positions but the last, or of none yet; None where rows cannot be taken out of the model's.
        logprobs: see `sample`.
    """
    responses: list[list[int]] = [[] for _ in ids]
    found: list[list[float]] = [[] for _ in ids]
    going, left = list(range(len(ids))), sampling.max_new_tokens
    while going and left:
        count = left if cache is None else min(PHASE, left)
        drawn = None if logprobs is None else _DrawnLogprobs(sampling.temperature or 1.0)
        out = model.generate(
            ids,
            attention_mask=mask,
            past_key_values=cache,
            generation_config=sampling.config(count),
            logits_processor=LogitsProcessorList([drawn] if drawn else []),
            synced_gpus=False,  # under ZeRO-3 too the weights are whole here, and processes have different prompts
        )
        new = out[:, ids.shape[1] :].tolist()
        for row, tokens in zip(going, new, strict=True):
            responses[row] += _until_end(tokens, sampling.eos_id)
        if drawn is not None:
            for row, numbers in zip(going, drawn.rows(out), strict=True):
                found[row] += numbers[: len(responses[row]) - len(found[row])]
        kept = [at for at, tokens in enumerate(new) if sampling.eos_id not in tokens]
        going, left = [going[at] for at in kept], left - count
        if going and left and cache is not None:
            ids, mask = out, torch.nn.functional.pad(mask, (0, count), value=1)
            if len(kept) < len(new):  # else nothing is worth a copy of the cache
                at = torch.tensor(kept, device=ids.device)
                ids, mask = ids[at], mask[at]
                cache.batch_select_indices(at)
    if logprobs is not None:
        logprobs += found
    return responses


def _until_end(tokens: list[int], eos_id: int) -> list[int]:
    return tokens[: tokens.index(eos_id) + 1] if eos_id in tokens else tokens


def shared_cache(
    model: PreTrainedModel, trees: Sequence[PromptTree], owners: Sequence[tuple[int, int]], width: int
) -> Cache | None:
    """The key-value cache of all prompts but their last tokens, padded on the left to `width - 1`; an empty one where
    every tree is a single prompt.

    Each tree's longest prompt is run once; keys carry their own positions, so a row is a copy of its beginning.

    Args:
        owners: (tree, length) of each prompt.

    Returns:
        None for models whose layers keep something else than every key and value.
    """
    cache = kv_cache.empty(model)
    if cache is None:
        return None
    if all(len(tree.ends) == 1 for tree in trees):
        return cache
    length = max(len(tree.ids) for tree in trees) - 1
    trunks = torch.tensor([list(tree.ids[:-1]) + [0] * (length - len(tree.ids) + 1) for tree in trees])
    # Padding stands behind, where attention does not look, so no mask is needed.
    model(trunks.to(model.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
    rows = torch.tensor([b for b, _ in owners], device=model.device)
    shift = torch.tensor([width - end for _, end in owners], device=model.device)
    source = (torch.arange(width - 1, device=model.device) - shift[:, None]).clamp(min=0)  # [rows, width - 1]
    for layer in cache.layers:
        at = source.to(layer.keys.device)[:, None, :, None]
        for name in ("keys", "values"):
            whole = getattr(layer, name)[rows]  # [rows, heads, length, size]
            setattr(layer, name, whole.gather(2, at.expand(-1, whole.shape[1], -1, whole.shape[3])))
    return cache


def batch_of(
    trees: Sequence[PromptTree],
    responses: Sequence[Sequence[Sequence[int]]],
    scores: Sequence[float],
    pad_id: int,
    tree_multiple: int = 1,
) -> dict[str, torch.Tensor]:
    """B trees with their M responses of N tokens in all, at most R each, as one batch of T positions; without a tree, a
    row of one token and nothing else (M and N are 0).

    Args:
        tree_multiple: T is a multiple of this where a tree has branches.

    Returns:
        `input_ids`, `position_ids`: [B, T]. `attention_mask`: [B, T]; where a tree has branches in its place `reach`,
        [B, T], of which `tree_mask.of` makes one. `keep`: [B, T], True where a hidden state predicts a token of a
        response. `targets`: [N] those tokens in the order of `keep`. `index`, `mask`: [M, R], where in that order each
        token of each response is, and which of these there are. `scores`: [M].
    """
    rows = [_layout(tree, own) for tree, own in zip(trees, responses, strict=True)]
    branching = any(len(tree.ends) > 1 for tree in trees)
    width = max((len(layout.input_ids) for layout in rows), default=1)
    if branching:
        width = -(-width // tree_multiple) * tree_multiple
    ids = torch.full((max(1, len(rows)), width), pad_id)
    positions, real = torch.zeros_like(ids), torch.zeros_like(ids)
    if not rows:
        real[:] = 1
    labels = torch.full_like(ids, -1)
    for b, layout in enumerate(rows):
        length = len(layout.input_ids)
        ids[b, :length] = torch.tensor(layout.input_ids)
        positions[b, :length] = torch.tensor(layout.position_ids)
        real[b, :length] = 1
        labels[b, layout.positions] = torch.tensor(layout.targets)
    keep = labels >= 0
    order = keep.flatten().cumsum(0).view_as(keep) - 1
    lengths = [len(response) for own in responses for response in own]
    mask = torch.arange(max(lengths, default=1)) < torch.tensor(lengths, dtype=torch.long)[:, None]
    index = torch.zeros(mask.shape, dtype=torch.long)
    if rows:
        index[mask] = torch.cat([order[b, layout.positions] for b, layout in enumerate(rows)])
    reach = [layout.reach for layout in rows]
    return {
        "input_ids": ids,
        "position_ids": positions,
        **({"reach": tree_mask.padded(reach, width)} if branching else {"attention_mask": real}),
        "keep": keep,
        "targets": labels[keep],
        "index": index,
        "mask": mask,
        "scores": torch.tensor(scores, dtype=torch.float32),
    }


def padded(rows: Sequence[Sequence[float]], mask: torch.Tensor) -> torch.Tensor:
    """Numbers of each token of each response as [M, R], 0 where `mask` has no token."""
    found = torch.zeros(mask.shape)
    found[mask] = torch.tensor([number for row in rows for number in row])
    return found


def _layout(tree: PromptTree, responses: Sequence[Sequence[int]]) -> Layout:
    """The prompt cut where responses branch off, and behind each of its pieces the response but for its last token."""
    starts = (0, *tree.ends[:-1])
    runs: list[Run] = []
    for m, (start, end, tokens) in enumerate(zip(starts, tree.ends, responses, strict=True)):
        targets = [Target(k - 1, token, 1.0, False, m) for k, token in enumerate(tokens)]
        runs += [Run(list(tree.ids[start:end]), 2 * (m - 1) if m else -1, []), Run(list(tokens[:-1]), 2 * m, targets)]
    return flatten(runs)


class SamplingCopy:
    """The policy in bfloat16, for sampling under mixed precision.

    Autocast leaves weights and, behind the rotary embedding, keys in float32: each token sampled would cast the weights
    and the whole cache again.
    """

    def __init__(self) -> None:
        self._model: PreTrainedModel | None = None

    @torch.no_grad()
    def of(self, policy: PreTrainedModel) -> PreTrainedModel:
        """The copy, with the weights that `policy` has now."""
        if self._model is None:
            self._model = copy.deepcopy(policy).requires_grad_(False).eval()
            for parameter in self._model.parameters():  # buffers, such as rotary frequencies, keep their precision
                parameter.data = parameter.data.to(torch.bfloat16)
        else:
            torch._foreach_copy_(list(self._model.parameters()), list(policy.parameters()))
        return self._model


def seed_of(*numbers: int) -> int:
    """A seed from a run's seed, a step and a process: a step made again after a stop has the same rollouts."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on `device`."""
    return {name: value.to(device) for name, value in batch.items()}


class RolloutSampler(torch.utils.data.Sampler[int]):
    """Indices in an order of each epoch's own; each rollout's `size` indices follow one another `repeats` times.

    With repeats the last rollout is filled from the beginning of the order, so that all have the same number of steps.
    """

    def __init__(self, count: int, size: int, repeats: int, seed: int) -> None:
        self.count, self.size, self.repeats, self.seed, self.epoch = count, size, repeats, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count if self.repeats == 1 else math.ceil(self.count / self.size) * self.size * self.repeats

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.epoch))
        order = torch.randperm(self.count, generator=generator).tolist()
        if self.repeats == 1:
            yield from order
            return
        for start in range(0, self.count, self.size):
            for _ in range(self.repeats):
                yield from (order[i % self.count] for i in range(start, start + self.size))
