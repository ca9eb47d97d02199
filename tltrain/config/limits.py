"""Limits that keys of several groups share."""

from __future__ import annotations

GENERATED = 10_000_000
"""Maximum number of generated trajectories or questions."""
TOKENS = 100_000_000
"""Maximum number of tokens of a prompt, an answer or a sample."""
ROWS = 1_000_000
"""Maximum number of rows of a batch."""
DAY = 86_400
"""One day in seconds."""
