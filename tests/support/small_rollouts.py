"""Prompt trees, responses and a model size for tests of rollouts."""

from __future__ import annotations

from transformers import PreTrainedModel

from tests.support.trajectories import OTHER, TRAJECTORY
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.prompts import PromptReport, PromptTree, prompt_trees
from tltrain.training import tree_mask

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,  # so that most likely tokens and probabilities differ
}
PAD, NEVER = 1, 10**6
"""Padding, and an end token that no model produces."""


def trees_of(byte_level, packing: str) -> list[PromptTree]:
    """Make five prompts: three from one trajectory, two from the other."""
    found = prompt_trees(
        [TRAJECTORY, OTHER],
        Encoder(byte_level),
        packing=packing,
        max_length=10**6,
        truncation="error",
        report=PromptReport(),
    )
    return list(found)


def with_mask(batch: dict, model: PreTrainedModel) -> dict:
    """Return the batch in the form that models take."""
    if "reach" in batch:
        batch["attention_mask"] = tree_mask.attention_mask(model, batch.pop("reach"), batch["position_ids"])
    return batch


RESPONSES = [[11, 12, 13, 14], [15], [16, 17], [18, 19, 20], [21]]
"""Responses to the five prompts; two of them have one token."""
