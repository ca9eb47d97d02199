"""Floating point operations of a stage, and the seconds they take at a stated throughput.

A forward pass takes two operations a weight and token, a backward pass four; with activation checkpointing the forward
pass is made twice. For weights that every token meets that is 6 N T, or 8 N T (Kaplan et al. 2020, arXiv 2001.08361,
section 2.1); the head is only computed where a token is predicted. Attention adds, for each token, a product with the
keys and one with the values of half the sequence. Sampling is bound by memory: every token reads all weights once.
"""

from __future__ import annotations

from dataclasses import dataclass

from tltrain.plan.memory import Batch, Setup, key_value_cache
from tltrain.plan.shapes import Shape


@dataclass(frozen=True)
class Tokens:
    """What a whole stage computes, on all processes, in all epochs.

    Attributes:
        read: tokens of all sequences. predicted: those that are targets. length: of a sequence, on average.
        sampled: tokens of responses, of one where several are sampled together the longest counts for all.
        prefill: prompt tokens that sampling computes.
    """

    read: float
    predicted: float
    length: float
    sampled: float = 0
    prefill: float = 0


@dataclass(frozen=True)
class Speed:
    """What a device sustains: operations and bytes a second. `why` says where the numbers are from."""

    flops: float
    bandwidth: float
    why: str


CPU = Speed(1e11, 1e10, "a guess for a few CPU cores")
GPU = Speed(1.25e14, 1.2e12, "an A100 at 40 %")
KNOWN = {"A100": (312e12, 2.0e12), "H100": (989e12, 3.35e12), "H200": (989e12, 4.8e12), "B200": (2250e12, 8e12)}
"""What makers state: bfloat16 operations and bytes a second."""
SHARE = (0.4, 0.6)
"""The share of them that is expected to be reached."""


def stated(name: str | None) -> tuple[float, float] | None:
    """The entry of `KNOWN` for what torch calls a device, if there is one."""
    return next((speed for known, speed in KNOWN.items() if known in (name or "")), None)


def speed_of(device: str, name: str | None) -> Speed:
    """The expected speed of a device (`cpu` or `cuda`); `name` is what torch calls the one that is here, if any."""
    if device == "cpu":
        return CPU
    if (known := stated(name)) is None:
        return GPU
    return Speed(known[0] * SHARE[0], known[1] * SHARE[1], f"{name} at {SHARE[0]:.0%}")


def forward(shape: Shape, tokens: Tokens) -> float:
    """Operations of one forward pass over all tokens."""
    attention = 2 * shape.layers * shape.queries * tokens.length  # two products with half of the sequence each
    return (2 * shape.active + attention) * tokens.read + 2 * shape.embedding * tokens.predicted


def training(shape: Shape, tokens: Tokens, checkpointing: bool) -> float:
    """Operations of forward and backward passes."""
    return forward(shape, tokens) * (4 if checkpointing else 3)


def seconds(kind: str, shape: Shape, setup: Setup, batch: Batch, tokens: Tokens, speed: Speed) -> dict[str, float]:
    """Seconds by part: `training`, and for sampling stages `prefill` and `sampling` (decoding); irm's `scoring`.

    Args:
        kind: supervised, actor_critic, group or answering.
    """
    rate = speed.flops * setup.processes
    body = Tokens(tokens.read, 0, tokens.length)  # a critic has no head to speak of
    parts = {}
    if kind != "answering":
        models = training(shape, tokens, setup.checkpointing)
        if kind == "actor_critic":
            models += training(shape, body, setup.checkpointing)
        parts["training"] = models / rate
    if kind in ("actor_critic", "group"):
        parts["scoring"] = forward(shape, tokens) / rate
    if kind != "supervised":
        parts["prefill"] = forward(shape, Tokens(tokens.prefill, 0, tokens.length)) / rate
        steps = tokens.sampled / max(batch.samples, 1) / setup.processes
        cache = key_value_cache(shape, batch.samples, batch.prompt, setup.computing)
        parts["sampling"] = steps * (shape.parameters * setup.computing + cache) / speed.bandwidth
    return parts
