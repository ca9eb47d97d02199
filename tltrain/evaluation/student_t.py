"""Student's t distribution for whole degrees of freedom: p-values and quantiles, without scipy.

For whole degrees of freedom the distribution has a closed form (M. Abramowitz and I. Stegun, "Handbook of Mathematical
Functions", 26.7.3 and 26.7.4), a finite sum of powers of a cosine. Nothing else here would need scipy.
"""

from __future__ import annotations

import math
from functools import cache

MANY = 10_000
"""From this many degrees of freedom on, the normal distribution is used; its quantiles differ by less than 0.0003."""


def within(t: float, df: int) -> float:
    """Return the probability that |T| <= |t|, for `df` >= 1 degrees of freedom."""
    if df < 1:
        raise ValueError(f"degrees of freedom: expected at least 1, found {df}")
    if df >= MANY:
        return math.erf(abs(t) / math.sqrt(2))
    theta = math.atan2(abs(t), math.sqrt(df))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = df % 2 == 1
    term = total = cosine if odd else 1.0
    for n in range(2 if odd else 1, df - 1, 2):
        term *= n / (n + 1) * cosine**2
        total += term
    if odd:
        return 2 / math.pi * (theta + (sine * total if df > 1 else 0.0))
    return sine * total


def two_sided_p(t: float, df: int) -> float:
    """Return the probability that |T| >= |t|."""
    return max(0.0, 1 - within(t, df))


@cache
def critical(alpha: float, df: int) -> float:
    """Return the t >= 0 that |T| exceeds with probability `alpha`, by bisection to a relative precision of 1e-12.

    Raises:
        ValueError: alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: expected a number between 0 and 1, found {alpha}")
    low, high = 0.0, 1.0
    while within(high, df) < 1 - alpha:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, df) < 1 - alpha else (low, middle)
    return high
