"""What a sampled call earns, and how that is shown: the same for every algorithm of stage=irm."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tltrain.config import Matching
from tltrain.evaluation.scoring import count_outcomes
from tltrain.formats import joined
from tltrain.formats.calls import render_call
from tltrain.formats.tl import TL
from tltrain.grading import Grade, Outcome, RewardTable, grade
from tltrain.runtime import distributed, runs
from tltrain.trajectory import Sample


@dataclass(frozen=True, slots=True)
class GradedResponse:
    """A sampled response with its grade and reward."""

    sample: Sample
    response: str
    grade: Grade
    reward: float


class RewardFunction:
    """Grades responses against the golden call and prices them by a reward table (the paper, IRM)."""

    def __init__(self, table: RewardTable, values: Matching | str = Matching.strict) -> None:
        self.table, self.values = table, values

    def __call__(self, sample: Sample, response: str) -> GradedResponse:
        found = grade(response, sample.goldens, sample.tools, self.values)
        return GradedResponse(sample, response, found, found.reward(self.table))


GRADES = tuple(f"grade/{outcome.value}" for outcome in Outcome)
"""Names under which the shares of outcomes are logged, from worst to best."""


def grade_counts(judged: Sequence[GradedResponse]) -> dict[str, int]:
    """How many responses ended in each outcome, under the names of `GRADES`."""
    return {f"grade/{name}": count for name, count in count_outcomes(one.grade for one in judged).items()}


class SampleLog:
    """Sampled calls beside the golden ones, some of every `every` steps: to `samples.jsonl` and to a tracker.

    Args:
        every: steps between two entries, counted from the first step. count: samples an entry.
        table: called with a table's name, columns, rows and step.
    """

    COLUMNS = ("step", "id", "prompt", "sampled", "golden", "grade", "reward", "reason")

    def __init__(
        self, path: Path, every: int, count: int, table: Callable[..., None] = lambda *args, **kwargs: None
    ) -> None:
        self.path, self.every, self.count, self.table = path, every, count, table

    def forget_after(self, step: int) -> None:
        """Remove what steps after `step` left: they are made again."""
        if distributed.leads() and self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step(line) <= step]
            runs.write_lines(self.path, kept)

    def __call__(self, step: int, judged: Sequence[GradedResponse]) -> None:
        """Keep some of the samples of step `step` (from 1), if it is its turn."""
        if (step - 1) % self.every:
            return
        rows = [self._row(step, one) for one in judged[: self.count]]
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self.table("irm/samples_table", self.COLUMNS, [list(row.values()) for row in rows], step=step)

    @staticmethod
    def _row(step: int, one: GradedResponse) -> dict[str, Any]:
        return {
            "step": step,
            "id": one.sample.id,
            "prompt": joined(TL.prompt_segments(one.sample)),
            "sampled": one.response,
            "golden": " | ".join(render_call(golden) for golden in one.sample.goldens),
            "grade": one.grade.row,
            "reward": one.reward,
            "reason": one.grade.reason,
        }


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except ValueError:  # the line that was being written when the run was stopped
        return float("inf")
