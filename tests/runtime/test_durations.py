"""Format durations in words."""

from __future__ import annotations

import pytest

from tltrain.runtime.durations import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (0, "–"),
        (4.24, "4.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (725, "12 min 5 s"),
        (3599.7, "1 h 0 min"),
        (12_000, "3 h 20 min"),
        (86_399, "1 d 0 h"),
        (100 * 3600, "4 d 4 h"),
    ],
)
def test_a_duration_has_the_units_that_suit_it(seconds, words):
    assert duration(seconds) == words
