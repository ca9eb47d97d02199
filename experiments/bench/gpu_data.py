"""What the jobs of `gpu.py` are, and the data they train on: random tokens in the layout of real trajectories."""

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
"""Calls of a trajectory."""
W_MAX = 9.0
IGNORED = -100


@dataclass(frozen=True)
class Job:
    """What is measured.

    Attributes:
        section: pkt, trl, memory or irm. shape: its name. sizes: of `LlamaConfig`. variant: what tells it from others.
        packing: of tltrain, or of TRL (padded, wrapped, bfd). kernels: none, liger or compile.
        length: tokens of a trajectory. rows, accumulation: samples of a micro-batch, micro-batches of a step.
        call: tokens of a call. group: trajectories that begin alike, and how many of them make a tree at most.
        warm, steps: optimizer steps before those that are timed, and timed. args: more arguments of the trainer.
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
    """In the place of an `Encoder`: trajectory number n as runs of random tokens.

    The first half is tools and query, of which all but the last tenth is the same within a group; then come calls and
    answers in turn. The last call ends the trajectory, `length` tokens in all.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.vocab = job, job.sizes["vocab_size"]

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
            if turn == CALLS - 1:  # nothing follows the last call: the whole part is before it
                found[-1] = found[-1]._replace(ids=[*found[-1].ids, *self.tokens(draw, part - 3 - call)])
            found.append(Run(self.tokens(draw, 3), len(found) - 1, [], opens_turn=True))
            found.append(self.call(draw, call, len(found) - 1, turn, w_max))
            if answer:
                found.append(Run(self.tokens(draw, answer), len(found) - 1, []))
        return found

    def call(self, draw: random.Random, length: int, parent: int, turn: int, w_max: float | None) -> Run:
        """A call of `length` tokens and the end token, its first two tokens being key tokens."""
        ids = self.tokens(draw, length)
        targets, keys = [*ids, 0], frozenset((0, 1))
        weights = [1.0] * len(targets) if w_max is None else pkt.token_weights(len(targets), keys, w_max)
        return Run(
            ids,
            parent,
            [Target(at - 1, token, weights[at], at in keys, turn) for at, token in enumerate(targets)],
        )

    def tokens(self, draw: random.Random, count: int) -> list[int]:
        """None of them is 0 or 1, the end and the pad token."""
        return [draw.randrange(2, self.vocab) for _ in range(count)]


def layouts(job: Job) -> list[Layout]:
    """Rows for all steps of the job; trees of whole groups, whatever a dense mask would cost."""
    wanted = job.rows * job.accumulation * job.total
    each = {"turn": 1 / CALLS, "prefix_tree": job.group}.get(job.packing, 1)  # trajectories a row
    settings = PackingSettings(job.packing, W_MAX, truncation="error", limits=Limits(job.group, 10**6))
    return list(pack(range(int(-(-wanted * each // 1))), RandomTrajectories(job), settings, PackingReport()))


def plain_rows(items: Sequence[Layout]) -> Dataset:
    """The same trajectories as token ids and labels, for TRL; the end token, which is not fed in, is left out."""
    rows = []
    for item in items:
        labels = [IGNORED] * len(item.input_ids)
        for position, token in zip(item.positions, item.targets, strict=True):
            if position + 1 < len(labels) and item.input_ids[position + 1] == token:
                labels[position + 1] = token
        rows.append({"input_ids": item.input_ids, "labels": labels})
    return Dataset.from_list(rows)


def tokens_of(items: Sequence[Layout], read: float) -> Tokens:
    """What `compute` needs to know of `read` tokens that are like those of `items`.

    A token of a sequence of `length` sees half of them on average, and one of a tree those of its own branch.
    """
    count = sum(len(item.input_ids) for item in items)
    seen = sum(position + 1 for item in items for position in item.position_ids)
    predicted = sum(len(item.targets) for item in items)
    return Tokens(read, read * predicted / count, 2 * seen / count)


def trees(job: Job) -> list[PromptTree]:
    """A trajectory's prompts as one tree, for every row of every step."""
    real = [sample for item in toolworld.generate(CALLS, seed=0) for _, sample in questions(item)]
    source, found = RandomTrajectories(job), []
    for number in range(job.rows * job.accumulation * job.total):
        ids = source.tokens(random.Random(number), job.length)
        ends = tuple(job.length - (CALLS - 1 - call) * (job.length // (2 * CALLS)) for call in range(CALLS))
        found.append(PromptTree(tuple(ids), ends, tuple(real[call % len(real)] for call in range(CALLS))))
    return found
