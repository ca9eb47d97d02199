"""How much noise in the tools' documentation costs: the drop from RoTBench's clean level to its worst.

The levels ask the same queries (slight, medium and heavy twice each, under different noise), so their samples are not
independent. Intervals are therefore those of a bootstrap over queries: a query is drawn with all its samples, of both
levels. A query that only one of the levels asks (`benchmark.limit`) counts for that level alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
CLEAN = "clean"

Asked = Sequence[tuple[str, bool]]
"""Of each sample of a level its query, and whether the answer is right."""


@dataclass(frozen=True, slots=True)
class Drop:
    """`clean - worst`, in points of percent, with the ends of its 95 % interval; `level` is the one with the worst."""

    clean: float
    level: str
    worst: float
    drop: float
    low: float
    high: float


def drop(levels: Mapping[str, Asked], seed: int = 0) -> Drop | None:
    """From `clean` to the level with the smallest share of right answers; None without `clean` or another level.

    The worst level is chosen by these very answers, and the interval does not know of the choice: where levels differ
    little, their worst is partly bad luck.
    """
    percents = {name: 100 * sum(right for _, right in asked) / len(asked) for name, asked in levels.items() if asked}
    noisy = [name for name in percents if name != CLEAN]
    if CLEAN not in percents or not noisy:
        return None
    worst = min(noisy, key=percents.__getitem__)
    drawn = _resampled(levels[CLEAN], levels[worst], seed)
    low, high = map(float, np.percentile(drawn, [2.5, 97.5]))
    return Drop(percents[CLEAN], worst, percents[worst], percents[CLEAN] - percents[worst], low, high)


def _resampled(a: Asked, b: Asked, seed: int) -> np.ndarray:
    """`a - b` in percent, in each resample of the queries that has both."""
    number = {query: i for i, query in enumerate(dict.fromkeys(query for query, _ in (*a, *b)))}
    rights, counts = np.zeros((2, len(number))), np.zeros((2, len(number)))
    for level, asked in enumerate((a, b)):
        for query, right in asked:
            rights[level, number[query]] += right
            counts[level, number[query]] += 1
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(number), np.full(len(number), 1 / len(number)), RESAMPLES).astype(float)
    drawn = weights @ counts.T  # [resamples, 2]
    whole = (drawn > 0).all(axis=1)
    shares = 100 * (weights @ rights.T)[whole] / drawn[whole]
    return shares[:, 0] - shares[:, 1]
