"""What a policy earns before it learns: where a critic that knows nothing begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

from tltrain.tokens.prompts import PromptTree
from tltrain.training import rollout
from tltrain.training.rollout import Sampling
from tltrain.trajectory import Sample


def mean_reward(
    policy: PreTrainedModel,
    trees: Sequence[PromptTree],
    sampling: Sampling,
    grade: Callable[[Sample, list[int]], float],
    *,
    bf16: bool,
    seed: int,
    prompts: int = 16,
) -> float:
    """What the policy's responses to some of the prompts earn: a first guess of the value of a token.

    A critic that begins at 0, where most rewards are negative, calls every sampled token bad until it has learned the
    mean, and the policy flees from whatever it says.

    Args:
        grade: (sample, response) -> reward. prompts: about so many are asked, spread over the trees.
    """
    per_tree = sum(len(tree.ends) for tree in trees) / len(trees)
    stride = max(int(len(trees) * per_tree / prompts), 1)
    asked = trees[::stride]
    with (
        torch.random.fork_rng(devices=[policy.device] if policy.device.type == "cuda" else []),
        torch.autocast(policy.device.type, torch.bfloat16, enabled=bf16),
    ):
        torch.manual_seed(seed)
        responses = rollout.sample(policy.eval(), asked, sampling)
    rewards = [
        grade(sample, tokens)
        for tree, own in zip(asked, responses, strict=True)
        for sample, tokens in zip(tree.samples, own, strict=True)
    ]
    return sum(rewards) / len(rewards)
