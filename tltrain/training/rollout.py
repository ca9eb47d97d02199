"""Rollouts: sample a response to every prompt of a batch of trees.

Shared prefixes are computed once: sampling fills the key-value cache from each tree's longest prompt and copies to
every prompt its part of the cache.

Single calls are sampled here and conversations by continuous batching (`conversation_rollout`), because the nested
prompts of a tree are read once here and more than once there. On tiny, continuous batching takes 1.2 times as long for
17 calls of 48 tokens; on SmolLM2-135M, and for short calls, it takes as long (0.95 to 0.97 times; float32, one thread,
processor seconds: `python experiments/bench/sampling.py`).

With `stage.names=offered` the policy is a masked one: with the tokens A_t that may come next (`offered_names`),

    pi(y_t) = exp(z_t[y_t] / temperature) / sum over v in A_t of exp(z_t[v] / temperature),    0 outside of A_t

in sampling, in both passes of the ratio, in the KL divergence (the reference is masked alike) and in the entropy. The
policy gradient is then that of the policy that samples. With unmasked log-probabilities in the update it would not be
(Huang and Ontanon 2020, "A Closer Look at Invalid Action Masking in Policy Gradient Algorithms"). Names that are not on
offer are never sampled, so nothing teaches the policy to avoid them: it should be evaluated with offered names too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from transformers import Cache, GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from tltrain.inference import decoding_attention, kv_cache
from tltrain.inference.generation import ignore_generation_config
from tltrain.inference.offered_names import Offered
from tltrain.inference.token_choice import ChosenTokens, TokenChoice
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.prompts import PromptTree
from tltrain.training.reward_function import GradedResponse, Judge, graded
from tltrain.trajectory import Sample


@dataclass(frozen=True)
class Sampling:
    """Settings of sampling.

    Attributes:
        temperature: None decodes greedily.
        eos_id: the end token. other_ends: further tokens that end a response.
        offered: allows only names on offer.
        learn_thoughts: whether the tokens of a thought are response tokens of the update; else they are context.
    """

    max_new_tokens: int
    temperature: float | None
    eos_id: int
    pad_id: int
    offered: Offered | None = None
    other_ends: frozenset[int] = frozenset()
    learn_thoughts: bool = True

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end a response."""
        return self.other_ends | {self.eos_id}

    def config(self, max_new_tokens: int) -> GenerationConfig:
        """Return the settings for `generate`, whose defaults differ (such as that of `top_k`)."""
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=self.temperature is not None,
            temperature=self.temperature or 1.0,
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            eos_token_id=sorted(self.ends),
            pad_token_id=self.pad_id,
            use_cache=True,
        )


class Asked(Protocol):
    """The prompts or tasks that a policy is given in training.

    Attributes:
        rows: the items from which training draws; each becomes a row of a batch. branching: whether the update may have
            trees with branches.
    """

    @property
    def rows(self) -> Sequence[Any]: ...
    @property
    def branching(self) -> bool: ...
    @property
    def sampling(self) -> Sampling: ...


@dataclass(frozen=True)
class Prompts:
    """The prompts of a policy, the sampling settings, and the encoder that decodes responses."""

    trees: Sequence[PromptTree]
    sampling: Sampling
    encoder: Encoder

    @property
    def rows(self) -> Sequence[PromptTree]:
        """The items from which training draws; each becomes a row of a batch."""
        return self.trees

    @property
    def branching(self) -> bool:
        """Whether the update has trees with branches."""
        return any(len(tree.ends) > 1 for tree in self.trees)

    def graded(
        self, trees: Iterable[PromptTree], responses: Iterable[Sequence[Sequence[int]]], judge: Judge
    ) -> list[list[GradedResponse]]:
        """Grade the responses to each prompt of each tree."""
        return [
            [
                self.graded_response(judge, sample, tree.ids[:end], tokens)
                for sample, end, tokens in zip(tree.samples, tree.ends, own, strict=True)
            ]
            for tree, own in zip(trees, responses, strict=True)
        ]

    def graded_response(
        self, judge: Judge, sample: Sample, prompt: Sequence[int], tokens: Sequence[int]
    ) -> GradedResponse:
        """Grade a response to a prompt."""
        return graded(judge, self.encoder, sample, prompt, tokens, tokens[-1] in self.sampling.ends)

    def learned(
        self, trees: Iterable[PromptTree], responses: Iterable[Sequence[Sequence[int]]]
    ) -> list[list[list[bool]]] | None:
        """Return whether each token of each response is learned; None: all are."""
        if self.sampling.learn_thoughts:
            return None
        return [
            [learned_tokens(self.encoder, tree.ids[:end], tokens) for end, tokens in zip(tree.ends, own, strict=True)]
            for tree, own in zip(trees, responses, strict=True)
        ]


def learned_tokens(encoder: Encoder, prompt: Sequence[int], response: Sequence[int]) -> list[bool]:
    """Return for each token of a response whether it is outside the thought."""
    thought = encoder.thought(response, prompt)
    return [at not in thought for at in range(len(response))]


Timed = Callable[[str], AbstractContextManager[Any]]
"""Makes a context that measures the time of a part of the work, by its name."""


def untimed(part: str) -> AbstractContextManager[None]:
    """Measure nothing."""
    return nullcontext()


def sample(
    model: PreTrainedModel,
    trees: Sequence[PromptTree],
    sampling: Sampling,
    logprobs: list[list[float]] | None = None,
    timed: Timed = untimed,
) -> list[list[list[int]]]:
    """Sample a response to each prompt of each tree: token ids, with the end token if the model generated it.

    Args:
        logprobs: list to which the log-probabilities of each response's tokens are appended.
        timed: measures the part `prefill`.
    """
    owners = [(b, end) for b, tree in enumerate(trees) for end in tree.ends]
    width = max(end for _, end in owners)
    ids = torch.full((len(owners), width), sampling.pad_id)
    mask = torch.zeros_like(ids)
    for row, (b, end) in enumerate(owners):
        ids[row, width - end :] = torch.tensor(trees[b].ids[:end])
        mask[row, width - end :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    with torch.inference_mode(), ignore_generation_config(model), decoding_attention.enabled(model):
        with timed("prefill"):
            cache = shared_cache(model, trees, owners, width)
        choice = None
        if sampling.offered is not None:
            choice = TokenChoice([own for tree in trees for own in tree.samples], sampling.offered)
        responses = iter(_answers(model, ids, mask, cache, sampling, logprobs, choice))
        return [[next(responses) for _ in tree.ends] for tree in trees]


def tree_groups(trees: Sequence[PromptTree], limit: int | None) -> Iterator[list[PromptTree]]:
    """Yield the trees in groups of at most `limit` prompts (but at least one tree); None puts all into one group."""
    part: list[PromptTree] = []
    for tree in trees:
        if part and limit is not None and sum(len(own.ends) for own in [*part, tree]) > limit:
            yield part
            part = []
        part.append(tree)
    if part:
        yield part


PHASE = 16
"""Decoding steps between removals of finished responses from the batch: most calls are short, a few are long."""


class _DrawnLogprobs(LogitsProcessor):
    """Record the log-probabilities of the tokens that `generate` samples.

    A step's token is known only when the next step begins, so the logits of one step, [rows, V], are kept.
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
        """Return the log-probabilities of the new tokens of each row of `out`, the result of `generate`."""
        self._take(out)
        return torch.stack(self._steps, dim=1).tolist()


def _answers(
    model: PreTrainedModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    cache: Cache | None,
    sampling: Sampling,
    logprobs: list[list[float]] | None = None,
    choice: TokenChoice | None = None,
) -> list[list[int]]:
    """Sample a response to each row of `ids` [rows, T], left-padded, with `mask` [rows, T].

    Args:
        cache: key-value cache of all positions except the last, or empty; None if the model's cache does not support
            removing rows.
        logprobs: see `sample`.
        choice: which tokens may be sampled, by row; None: all.
    """
    responses: list[list[int]] = [[] for _ in ids]
    found: list[list[float]] = [[] for _ in ids]
    going, left = list(range(len(ids))), sampling.max_new_tokens
    while going and left:
        count = left if cache is None else min(PHASE, left)
        drawn = None if logprobs is None else _DrawnLogprobs(sampling.temperature or 1.0)
        processors = LogitsProcessorList()
        if choice is not None:
            processors.append(ChosenTokens(choice, going, [responses[row] for row in going], ids.shape[1]))
        if drawn is not None:
            processors.append(drawn)
        out = model.generate(
            ids,
            attention_mask=mask,
            past_key_values=cache,
            generation_config=sampling.config(count),
            logits_processor=processors,
            synced_gpus=False,  # also under ZeRO-3: the weights are gathered, and processes have different prompts
        )
        new = out[:, ids.shape[1] :].tolist()
        for row, tokens in zip(going, new, strict=True):
            responses[row] += _until_end(tokens, sampling.ends)
        if drawn is not None:
            for row, numbers in zip(going, drawn.rows(out), strict=True):
                found[row] += numbers[: len(responses[row]) - len(found[row])]
        kept = [at for at, tokens in enumerate(new) if sampling.ends.isdisjoint(tokens)]
        going, left = [going[at] for at in kept], left - count
        if going and left and cache is not None:
            ids, mask = out, torch.nn.functional.pad(mask, (0, count), value=1)
            if len(kept) < len(new):  # copy the cache only if rows have ended
                at = torch.tensor(kept, device=ids.device)
                ids, mask = ids[at], mask[at]
                cache.batch_select_indices(at)
    if logprobs is not None:
        logprobs += found
    return responses


def _until_end(tokens: list[int], ends: frozenset[int]) -> list[int]:
    end = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: end + 1]


def shared_cache(
    model: PreTrainedModel,
    trees: Sequence[PromptTree],
    owners: Sequence[tuple[int, int]],
    width: int,
) -> Cache | None:
    """Compute the key-value cache of all prompts without their last tokens, left-padded to `width - 1`.

    Each tree's longest prompt is computed once. Keys already encode their positions, so each row is a copy of the
    beginning of its tree's longest prompt.

    Args:
        owners: (tree, length) of each prompt.

    Returns:
        The cache; an empty one if every tree has a single prompt; None for models whose layers do not keep every key
        and value.
    """
    cache = kv_cache.empty(model)
    if cache is None:
        return None
    if all(len(tree.ends) == 1 for tree in trees):
        return cache
    longest = max(len(tree.ids) for tree in trees) - 1
    # Padding is on the right, to which causal attention does not attend, so no mask is needed.
    ids = torch.tensor([list(tree.ids[:-1]) + [0] * (longest - len(tree.ids) + 1) for tree in trees])
    model(ids.to(model.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
    row = torch.tensor([b for b, _ in owners], device=model.device)[:, None]
    ends = torch.tensor([end for _, end in owners], device=model.device)[:, None]
    column = (torch.arange(width - 1, device=model.device) - width + ends).clamp(min=0)  # [rows, width - 1]
    for layer in cache.layers:
        at = row.to(layer.keys.device), column.to(layer.keys.device)
        for name in ("keys", "values"):
            whole = getattr(layer, name).transpose(1, 2)  # [trees, T, heads, size]
            setattr(layer, name, whole[at].transpose(1, 2).contiguous())
    return cache


class SamplingCopy:
    """A copy of the policy in bfloat16, for sampling under mixed precision.

    Autocast leaves weights and, after the rotary embedding, keys in float32, so each sampled token would cast the
    weights and the whole cache again.
    """

    def __init__(self) -> None:
        self._model: PreTrainedModel | None = None

    @torch.no_grad()
    def synced_with(self, policy: PreTrainedModel) -> PreTrainedModel:
        """Return the copy, updated to the current weights of `policy`."""
        if self._model is None:
            self._model = copy.deepcopy(policy).requires_grad_(False).eval()
            for parameter in self._model.parameters():  # buffers, such as rotary frequencies, keep their precision
                parameter.data = parameter.data.to(torch.bfloat16)
        else:
            torch._foreach_copy_(list(self._model.parameters()), list(policy.parameters()))
        return self._model


def derive_seed(*numbers: int) -> int:
    """Derive a seed from numbers such as seed, step and process, so that a resumed step repeats its rollout."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the batch with its tensors on `device`."""
    return {name: value.to(device) for name, value in batch.items()}


class RolloutSampler(torch.utils.data.Sampler[int]):
    """Yield the indices in a new random order each epoch, with each rollout of `size` indices repeated `repeats` times.

    With repeats, the last rollout is filled from the beginning of the order, so that all rollouts have the same size.
    """

    def __init__(self, count: int, size: int, repeats: int, seed: int) -> None:
        self.count, self.size, self.repeats, self.seed, self.epoch = count, size, repeats, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count if self.repeats == 1 else math.ceil(self.count / self.size) * self.size * self.repeats

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        order = torch.randperm(self.count, generator=generator).tolist()
        if self.repeats == 1:
            yield from order
            return
        for start in range(0, self.count, self.size):
            for _ in range(self.repeats):
                yield from (order[i % self.count] for i in range(start, start + self.size))
