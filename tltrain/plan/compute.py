"""Floating point operations of a stage, and the time they take at a given throughput.

A forward pass takes two operations per weight and token, a backward pass four; activation checkpointing adds a second
forward pass. For weights that every token uses this makes 6 N T, or 8 N T with checkpointing (Kaplan et al. 2020, arXiv
2001.08361, section 2.1); the head is computed only at target positions. Attention adds, for each token, a product with
the keys and one with the values of half the sequence. Sampling is memory-bound: every token reads all weights once.
"""

from __future__ import annotations

from dataclasses import dataclass

from tltrain.plan.memory import key_value_cache
from tltrain.plan.setup import Batch, Setup
from tltrain.plan.shapes import Shape


@dataclass(frozen=True)
class Tokens:
    """Tokens that a whole stage computes, over all processes and epochs.

    Attributes:
        read: tokens of all sequences. predicted: target tokens. length: mean tokens per sequence.
        sampled: tokens of responses; of a batch that is sampled together, the longest response counts for each.
        prefill: prompt tokens computed for sampling.
    """

    read: float
    predicted: float
    length: float
    sampled: float = 0
    prefill: float = 0


@dataclass(frozen=True)
class Speed:
    """Sustained operations and bytes per second of a device; `why` names the source of the numbers."""

    flops: float
    bandwidth: float
    why: str


CPU = Speed(1e11, 1e10, "a guess for a few CPU cores")
GPU = Speed(1.25e14, 1.2e12, "an A100 at 40 %")
PEAK_SPEEDS = {"A100": (312e12, 2.0e12), "H100": (989e12, 3.35e12), "H200": (989e12, 4.8e12), "B200": (2250e12, 8e12)}
"""Manufacturers' peak bfloat16 operations and bytes per second."""
EXPECTED_UTILIZATION = (0.4, 0.6)
"""The shares of these two peaks that we expect to reach."""


def peak_speed(name: str | None) -> tuple[float, float] | None:
    """Return the `PEAK_SPEEDS` entry for a device name of torch's, or None."""
    return next((speed for known, speed in PEAK_SPEEDS.items() if known in (name or "")), None)


def speed_of(device: str, name: str | None) -> Speed:
    """Return the expected speed of `cpu` or `cuda`; `name` is torch's name of the GPU, if there is one here."""
    if device == "cpu":
        return CPU
    if (known := peak_speed(name)) is None:
        return GPU
    return Speed(
        known[0] * EXPECTED_UTILIZATION[0],
        known[1] * EXPECTED_UTILIZATION[1],
        f"{name} at {EXPECTED_UTILIZATION[0]:.0%}",
    )


def forward(shape: Shape, tokens: Tokens) -> float:
    """Return the operations of one forward pass over all tokens."""
    attention = 2 * shape.layers * shape.queries * tokens.length  # two products with half of the sequence each
    return (2 * shape.active + attention) * tokens.read + 2 * shape.embedding * tokens.predicted


def training(shape: Shape, tokens: Tokens, checkpointing: bool) -> float:
    """Return the operations of forward and backward passes."""
    return forward(shape, tokens) * (4 if checkpointing else 3)


def seconds(kind: str, shape: Shape, setup: Setup, batch: Batch, tokens: Tokens, speed: Speed) -> dict[str, float]:
    """Return seconds by part: `training`, for sampling stages `prefill` and `sampling` (decoding), for irm `scoring`.

    Args:
        kind: supervised, actor_critic, group or answering.
    """
    rate = speed.flops * setup.processes
    body = Tokens(tokens.read, 0, tokens.length)  # the size of a critic's head is negligible
    parts = {}
    if kind != "answering":
        models = training(shape, tokens, setup.checkpointing)
        if kind == "actor_critic" and not setup.shared_critic:
            models += training(shape, body, setup.checkpointing)
        parts["training"] = models / rate
    if kind == "group" or (kind == "actor_critic" and setup.reference):
        parts["scoring"] = forward(shape, tokens) / rate
    if kind != "supervised":
        parts["prefill"] = forward(shape, Tokens(tokens.prefill, 0, tokens.length)) / rate
        steps = tokens.sampled / max(batch.samples, 1) / setup.processes
        cache = key_value_cache(shape, batch.samples, batch.prompt, setup.compute_bytes)
        parts["sampling"] = steps * (shape.parameters * setup.compute_bytes + cache) / speed.bandwidth
    return parts
