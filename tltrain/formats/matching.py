"""Find the best matching of two lists by the ranks of all pairs: the assignment problem, exact and deterministic.

This is the Hungarian algorithm with potentials (H. W. Kuhn, 1955; J. Munkres, 1957), in O(rows^2 * columns). It is
implemented here because the weights are integers of any size, which libraries convert to floating-point numbers.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def best_pairs(ranks: Sequence[Sequence[int]]) -> list[int | None]:
    """Return for each row the column matched to it; None for a row without one, if there are too few columns.

    As many rows as possible are matched. Among these matchings, the best has the most pairs of the highest rank, then
    the most of the next rank, and so on. Among equally good matchings, the first row gets the earliest column, then the
    second row; having no column counts as later than all columns.

    Args:
        ranks: [rows, columns] of numbers from 0, the higher the better; at least one row.
    """
    rows, columns = len(ranks), len(ranks[0])
    pairs = min(rows, columns)
    levels = sorted({rank for row in ranks for rank in row})
    worth = {rank: (pairs + 1) ** level for level, rank in enumerate(levels)}
    top = worth[levels[-1]] if levels else 0
    order = (columns + 1) ** rows  # larger than the sum of all tie-breaking terms of a matching
    costs = [
        [(top - worth[rank]) * order + at * (columns + 1) ** (rows - 1 - number) for at, rank in enumerate(row)]
        for number, row in enumerate(ranks)
    ]
    # A row never needs a column beyond its `rows` cheapest, since one of those is always free.
    kept = sorted({at for row in costs for at in heapq.nsmallest(rows, range(columns), key=row.__getitem__)})
    nothing = [columns * (columns + 1) ** (rows - 1 - number) for number in range(rows)]
    free = max(rows - columns, 0)
    found = _assignment([[*(row[at] for at in kept), *[none] * free] for row, none in zip(costs, nothing, strict=True)])
    return [kept[at] if at < len(kept) else None for at in found]


def _assignment(costs: Sequence[Sequence[int]]) -> list[int]:
    """Return the column of each row in an assignment of least cost; there must be at least as many columns as rows."""
    rows, columns = len(costs), len(costs[0])
    of_row, of_column = [0] * (rows + 1), [0] * (columns + 1)  # potentials; index 0 means none
    row_of = [0] * (columns + 1)
    for row in range(1, rows + 1):
        row_of[0], at = row, 0
        least: list[int | None] = [None] * (columns + 1)
        came_from, done = [0] * (columns + 1), [False] * (columns + 1)
        while row_of[at]:
            done[at] = True
            here, step, following = row_of[at], None, 0
            for column in range(1, columns + 1):
                if done[column]:
                    continue
                reduced = costs[here - 1][column - 1] - of_row[here] - of_column[column]
                known = least[column]
                if known is None or reduced < known:
                    least[column] = known = reduced
                    came_from[column] = at
                if step is None or known < step:
                    step, following = known, column
            assert step is not None
            for column in range(columns + 1):
                if done[column]:
                    of_row[row_of[column]] += step
                    of_column[column] -= step
                elif (known := least[column]) is not None:
                    least[column] = known - step
            at = following
        while at:
            row_of[at] = row_of[came_from[at]]
            at = came_from[at]
    found = [0] * rows
    for column in range(1, columns + 1):
        if row_of[column]:
            found[row_of[column] - 1] = column - 1
    return found
