"""Measure how much noise in the tools' documentation costs: the drop from RoTBench's clean level to its worst.

The levels ask the same queries (slight, medium and heavy twice each, under different noise), so their samples are not
independent. The intervals therefore come from a bootstrap over queries: a query is drawn with all its samples of both
levels. A query that only one of the levels asks (`benchmark.limit`) counts for that level alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tltrain.evaluation.intervals import Interval, ratio_difference

CLEAN = "clean"

Asked = Sequence[tuple[str, bool]]
"""For each sample of a level its query, and whether the answer is right."""


@dataclass(frozen=True, slots=True)
class Drop(Interval):
    """`clean - worst` in percentage points, over `n` queries; `level` is the one with the worst percentage."""

    clean: float
    level: str
    worst: float

    def to_json(self) -> dict[str, Any]:
        """Return rounded plain values."""
        numbers = {"clean": self.clean, "worst": self.worst, "drop": self.value, "low": self.low, "high": self.high}
        return {"level": self.level} | {key: round(number, 4) for key, number in numbers.items()}


def drop(levels: Mapping[str, Asked], seed: int = 0) -> Drop | None:
    """Return the drop from `clean` to the level with the fewest right answers; None without `clean` or another level.

    The worst level is chosen by the same answers, and the interval ignores this selection: if levels differ little,
    the worst one is partly bad luck.
    """
    percents = {name: 100 * sum(right for _, right in asked) / len(asked) for name, asked in levels.items() if asked}
    noisy = [name for name in percents if name != CLEAN]
    if CLEAN not in percents or not noisy:
        return None
    worst = min(noisy, key=percents.__getitem__)
    queries = list(dict.fromkeys(query for level in (CLEAN, worst) for query, _ in levels[level]))
    difference = ratio_difference(_by_query(levels[CLEAN], queries), _by_query(levels[worst], queries), seed)
    return Drop(
        value=percents[CLEAN] - percents[worst],
        low=100 * difference.low,
        high=100 * difference.high,
        n=difference.n,
        clean=percents[CLEAN],
        level=worst,
        worst=percents[worst],
    )


def _by_query(asked: Asked, queries: Sequence[str]) -> np.ndarray:
    """Return [queries, 2]: how many of a query's samples are right, and how many there are."""
    counts, position = np.zeros((len(queries), 2)), {query: i for i, query in enumerate(queries)}
    for query, right in asked:
        counts[position[query]] += (right, 1)
    return counts
