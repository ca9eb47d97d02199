"""Generalized advantage estimation, computed from its definition."""

from __future__ import annotations

import numpy as np


def by_definition(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    """Compute equations 14 to 16 literally: the exponentially weighted mean of k-step advantages of one response.

    A_t = (1 - lam) * sum over k of lam^(k-1) * A_t^(k), where every k beyond the end includes all remaining rewards:
    A_t^(k) = r_t + gamma r_(t+1) + ... + gamma^k V_(t+k) - V_t.
    """
    n = len(rewards)
    found = np.zeros(n)
    for t in range(n):
        total = 0.0
        for k in range(1, n - t + 1):
            rest = sum(gamma**j * rewards[t + j] for j in range(k))
            bootstrap = gamma**k * values[t + k] if t + k < n else 0.0
            # all longer horizons reach the end: (1 - lam) * (lam^(k-1) + lam^k + ...) = lam^(k-1)
            weight = lam ** (k - 1) * ((1 - lam) if t + k < n else 1.0)
            total += weight * (rest + bootstrap - values[t])
        found[t] = total
    return found
