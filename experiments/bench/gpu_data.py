"""The jobs of `gpu.py`, and their training data: random tokens in the layout of real trajectories."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset

from tltrain import pkt, toolworld
from tltrain.plan.compute import Tokens
from tltrain.tokens.layout import Layout, Run, Target
from tltrain.tokens.packing import PackingReport, PackingSettings, pack
from tltrain.tokens.prefix_tree import Limits
from tltrain.tokens.prompts import PromptTree, questions

CALLS = 4
"""Calls per trajectory."""
W_MAX = 9.0
IGNORED = -100


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes:
        section: pkt, trl, memory or irm. shape: its name. sizes: for `LlamaConfig`. variant: distinguishes jobs.
        packing: tltrain's or TRL's (padded, wrapped, bfd). kernels: none, liger or compile.
        length: tokens per trajectory. rows, accumulation: samples per micro-batch, micro-batches per step.
        call: tokens per call. group: number of trajectories with a common prefix, and their maximum in one tree.
        warm, steps: optimizer steps before the timing, and timed steps. args: further trainer arguments.
    """

    section: str
    shape: str
    sizes: dict[str, Any]
    variant: str
    device: str
    packing: str
    length: int
    rows: int
    accumulation: int
    call: int
    group: int = 1
    dtype: str = "bfloat16"
    attention: str = "sdpa"
    kernels: str = "none"
    optimizer: str = "adamw_torch_fused"
    checkpointing: bool = False
    warm: int = 2
    steps: int = 5
    args: dict[str, Any] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return self.warm + self.steps


# --- data ------------------------------------------------------------------------------------------------------------


class RandomTrajectories:
    """A stand-in for `Encoder` that returns trajectory number n as runs of random tokens.

    The first half is tools and query; all but its last tenth is the same within a group. Then calls and answers
    alternate. The last call ends the trajectory, which has `length` tokens in all.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.vocab = job, job.sizes["vocab_size"]

    def chains(self, number: int, w_max: float | None, *_: Any) -> list[list[Run]]:
        return [self.runs(number, w_max)]

    def runs(self, number: int, w_max: float | None) -> list[Run]:
        job = self.job
        draw = random.Random(number)
        shared = random.Random(-1 - number // job.group)
        head = job.length // 2
        own = head // 10
        ids = [*self.tokens(shared, head - own), *self.tokens(draw, own)]
        found = [Run(ids, -1, [])]
        left = job.length - head
        for turn in range(CALLS):
            part = left // (CALLS - turn)
            left -= part
            call = min(job.call, part - 3)
            answer = part - 3 - call if turn < CALLS - 1 else 0
            if turn == CALLS - 1:  # nothing follows the last call: the rest goes before it
                found[-1] = found[-1]._replace(ids=[*found[-1].ids, *self.tokens(draw, part - 3 - call)])
            found.append(Run(self.tokens(draw, 3), len(found) - 1, [], opens_turn=True))
            found.append(self.call(draw, call, len(found) - 1, turn, w_max))
            if answer:
                found.append(Run(self.tokens(draw, answer), len(found) - 1, []))
        return found

    def call(self, draw: random.Random, length: int, parent: int, turn: int, w_max: float | None) -> Run:
        """Make a call of `length` tokens plus the end token; its first two tokens are key tokens."""
        ids = self.tokens(draw, length)
        targets, keys = [*ids, 0], frozenset((0, 1))
        weights = [1.0] * len(targets) if w_max is None else pkt.token_weights(len(targets), keys, w_max)
        return Run(
            ids,
            parent,
            [Target(at - 1, token, weights[at], at in keys, turn) for at, token in enumerate(targets)],
        )

    def tokens(self, draw: random.Random, count: int) -> list[int]:
        """Return random tokens other than 0 and 1, the end and the padding token."""
        return [draw.randrange(2, self.vocab) for _ in range(count)]


def layouts(job: Job) -> list[Layout]:
    """Return rows for all steps of the job, with trees of whole groups regardless of the cost of a dense mask."""
    wanted = job.rows * job.accumulation * job.total
    each = {"turn": 1 / CALLS, "prefix_tree": job.group}.get(job.packing, 1)  # trajectories per row
    settings = PackingSettings(job.packing, W_MAX, truncation="error", limits=Limits(job.group, 10**6))
    return list(pack(range(int(-(-wanted * each // 1))), RandomTrajectories(job), settings, PackingReport()))


def plain_rows(items: Sequence[Layout]) -> Dataset:
    """Return the same trajectories as token ids and labels for TRL, without the end token, which is not an input."""
    rows = []
    for item in items:
        labels = [IGNORED] * len(item.input_ids)
        for position, token in zip(item.positions, item.targets, strict=True):
            if position + 1 < len(labels) and item.input_ids[position + 1] == token:
                labels[position + 1] = token
        rows.append({"input_ids": item.input_ids, "labels": labels})
    return Dataset.from_list(rows)


def tokens_of(items: Sequence[Layout], read: float) -> Tokens:
    """Return the `Tokens` of `read` tokens in sequences like `items`.

    On average, a token sees half of its sequence of `length`; in a tree, half of its own branch.
    """
    count = sum(len(item.input_ids) for item in items)
    seen = sum(position + 1 for item in items for position in item.position_ids)
    predicted = sum(len(item.targets) for item in items)
    return Tokens(read, read * predicted / count, 2 * seen / count)


def trees(job: Job) -> list[PromptTree]:
    """Return a trajectory's prompts as one tree, for every row of every step."""
    real = [sample for item in toolworld.generate(CALLS, seed=0) for _, sample in questions(item)]
    source, found = RandomTrajectories(job), []
    for number in range(job.rows * job.accumulation * job.total):
        ids = source.tokens(random.Random(number), job.length)
        ends = tuple(job.length - (CALLS - 1 - call) * (job.length // (2 * CALLS)) for call in range(CALLS))
        found.append(PromptTree(tuple(ids), ends, tuple(real[call % len(real)] for call in range(CALLS))))
    return found
