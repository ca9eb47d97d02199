"""Rejection sampling: supervised training on those sampled calls that are correct.

The policy first samples all calls, then it is trained on them. This is a control for PPO: prompts, sampler and grading
are the same, but only the correctness of a call matters, and wrong calls teach nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from tltrain.tokens.layout import Layout
from tltrain.tokens.prompts import PromptTree
from tltrain.training import rollout, update_batches
from tltrain.training.reward_function import GradedResponse, Judge
from tltrain.training.rollout import Prompts, RolloutSampler

TOGETHER = 32
"""Calls sampled at the same time unless the configuration says otherwise."""


@dataclass(frozen=True)
class SampledTree:
    """A tree with a response to each of its prompts: token ids, and their grades.

    `learned`: which tokens of each response are learned; None: all.
    """

    tree: PromptTree
    responses: list[list[int]]
    judged: list[GradedResponse]
    learned: list[list[bool]] | None = None


@dataclass(frozen=True)
class SampledCounts:
    """What was sampled and kept, for `metrics.json`."""

    sampled_calls: int
    kept_calls: int
    sampled_tokens: int


def order(trees: Sequence[PromptTree], calls: int | None, seed: int) -> list[PromptTree]:
    """Return the trees in the order in which PPO takes them, until they have `calls` prompts; None: each tree once."""
    sampler = RolloutSampler(len(trees), 1, 1, seed)
    found: list[PromptTree] = []
    while True:
        for index in sampler:
            found.append(trees[index])
            if calls is None:
                continue
            calls -= len(trees[index].ends)
            if calls <= 0:
                if calls:  # the last tree has more prompts than are left
                    found[-1] = pruned(found[-1], range(len(found[-1].ends) + calls))
                return found
        if calls is None:
            return found
        sampler.set_epoch(sampler.epoch + 1)


def pruned(tree: PromptTree, prompts: Sequence[int]) -> PromptTree:
    """Return the tree with only these of its prompts, given by their indices, ascending and at least one."""
    ends = tuple(tree.ends[i] for i in prompts)
    return PromptTree(tree.ids[: ends[-1]], ends, tuple(tree.samples[i] for i in prompts))


def sample(
    model: PreTrainedModel, trees: Sequence[PromptTree], asked: Prompts, together: int | None, seed: int, bf16: bool
) -> Iterator[list[list[int]]]:
    """Yield the responses to the prompts of each tree.

    Args:
        together: number of calls sampled at the same time; each such group has its own seed.
        bf16: sample from a copy in bfloat16, as PPO does under mixed precision.
    """
    if bf16 and model.dtype != torch.bfloat16:
        model = rollout.SamplingCopy().synced_with(model)
    for number, part in enumerate(rollout.tree_groups(trees, together or TOGETHER)):
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(rollout.derive_seed(seed, number))
            yield from rollout.sample(model, part, asked.sampling)


def graded(
    trees: Iterable[PromptTree], responses: Iterable[list[list[int]]], asked: Prompts, judge: Judge
) -> Iterator[SampledTree]:
    """Yield a `SampledTree` for each tree with its responses."""
    for tree, own in zip(trees, responses, strict=True):
        ((judged,), learned) = asked.graded([tree], [own], judge), asked.learned([tree], [own])
        yield SampledTree(tree, own, judged, None if learned is None else learned[0])


def is_kept(one: GradedResponse) -> bool:
    """Return whether a response is learned: it is correct and has an end token."""
    return one.ended and one.is_correct


def layouts(sampled: Iterable[SampledTree], branches: bool) -> Iterator[Layout]:
    """Yield the training samples: each tree with its kept responses, in which each response counts as a turn.

    Args:
        branches: whether the model can compute several responses of one tree; if not, each is a separate sample.
    """
    for one in sampled:
        kept = [m for m, judged in enumerate(one.judged) if is_kept(judged)]
        for prompts in [kept] if branches and kept else [[m] for m in kept]:
            learned = None if one.learned is None else [one.learned[m] for m in prompts]
            yield update_batches.layout(pruned(one.tree, prompts), [one.responses[m] for m in prompts], learned)


def counts(sampled: Iterable[SampledTree]) -> SampledCounts:
    """Count the sampled calls, the kept ones, and the sampled tokens."""
    total = SampledCounts(0, 0, 0)
    for one in sampled:
        total = replace(
            total,
            sampled_calls=total.sampled_calls + len(one.judged),
            kept_calls=total.kept_calls + sum(map(is_kept, one.judged)),
            sampled_tokens=total.sampled_tokens + sum(map(len, one.responses)),
        )
    return total
