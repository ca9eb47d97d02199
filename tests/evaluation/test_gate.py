"""The verdict of the gate: by how much, how certainly, and when there are too few questions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tltrain.errors import TltrainError
from tltrain.evaluation.gate import FEWEST, Verdict, cluster_sums, compare, share, too_few

OWN = list(range(12))
"""Twelve questions, each of a conversation of its own."""


def test_a_difference_in_points_with_its_interval_and_p():
    found = compare([0] * 12, [1] * 9 + [0] * 3, OWN)
    assert (found.new, found.reference, found.difference.value) == (75.0, 0.0, 75.0)
    assert 45 < found.difference.low < 60 and 90 < found.difference.high <= 100
    assert found.p == pytest.approx(2 / 2**9, abs=0.002)  # nine differences of one sign
    assert found.verdict is Verdict.ABOVE and found.passes(certain=True) and too_few(found) == ""
    back = compare([1] * 9 + [0] * 3, [0] * 12, OWN)
    assert back.verdict is Verdict.BELOW and back.difference.value == -75.0 and not back.passes(certain=False)


def test_questions_of_one_conversation_count_together():
    """The same answers are less certain where they come from three conversations."""
    before, after = [0] * 12, [1] * 9 + [0] * 3
    alone, together = compare(before, after, OWN), compare(before, after, [at // 3 for at in OWN])
    assert alone.difference.value == together.difference.value and together.conversations == 4
    assert together.p > alone.p and together.verdict is Verdict.NOT_CERTAIN
    assert cluster_sums([1, 0, 1], [7, 7, 3]).tolist() == [[1, 2], [1, 1]]


def test_the_threshold_is_what_has_to_be_surpassed():
    before, after = [0] * 12, [1] * 9 + [0] * 3
    assert compare(before, after, OWN, threshold=30).passes(certain=True)
    unsure = compare(before, after, OWN, threshold=70)
    assert unsure.verdict is Verdict.NOT_CERTAIN and unsure.passes(certain=False)
    alike = compare(after, after, OWN)
    assert not alike.passes(certain=True) and not alike.passes(certain=False)


def test_a_few_answers_alike_do_not_show_that_a_model_is_not_worse_by_five_points():
    """Of n conversations without a difference: the score interval ends at z² / (n + z²), with 73 at 5 points."""
    for n, passes in ((12, False), (72, False), (73, True)):
        found = compare([1] * n, [1] * n, list(range(n)), threshold=-5)
        assert found.passes(certain=True) is passes and found.needed == (None if passes else 73)
    assert found.p == pytest.approx(0.04998, abs=1e-5)  # z = sqrt(73 * 0.05 / 0.95)
    said = too_few(compare([1] * 12, [1] * 12, OWN, threshold=-5))
    assert said.endswith("were answered alike by both models; about 73 conversations would show the difference found.")
    assert compare([1] * 12, [1] * 12, OWN, threshold=-50).passes(certain=True)
    assert compare([1] * 24, [1] * 24, [*OWN, *[0] * 12], threshold=-50).p > 0.01  # one large conversation
    for threshold in (-100, 100):  # the ends, where the variance is 0
        assert compare([1] * 12, [0, 1] * 6, OWN, threshold=threshold).passes(certain=True) is (threshold < 0)


def test_a_model_that_is_worse_by_the_threshold_seldom_passes():
    rng = np.random.default_rng(1)
    before = (rng.random((100, 30)) < 0.8).astype(float)
    after = before * (rng.random(before.shape) >= 0.05 / 0.8)  # five points worse
    passed = [compare(*rows, list(range(30)), -5).passes(certain=True) for rows in zip(before, after, strict=True)]
    assert sum(passed) <= 5  # of 100, at 2.5 % each


@pytest.mark.parametrize("n", [3, 5, 6, 7, 9, 20])
@pytest.mark.parametrize("clustered", [True, False])
def test_exactly_the_threshold_is_a_tie(n, clustered):
    """One more right answer of n, where 100 / n points are asked for, whatever floating point makes of it."""
    for right in range(n):
        before, after = ([1] * count + [0] * (n - count) for count in (right, right + 1))
        found = compare(before, after, [0] * n if clustered else list(range(n)), threshold=100 / n)
        assert not found.passes(certain=False) and not found.passes(certain=True) and found.needed is None
        assert too_few(found)


def test_too_few_questions_are_said_in_one_line():
    few = compare([0] * 5, [1] * 5, OWN[:5])
    assert few.p == pytest.approx(2 / 32, abs=0.01) and few.verdict is Verdict.NOT_CERTAIN
    assert f"those of 5 conversations speak for one of the models, and fewer than {FEWEST} prove nothing" in too_few(
        few
    )
    five_of_ten = compare([0] * 10, [1] * 5 + [0] * 5, OWN[:10])
    assert five_of_ten.difference.low > 0 and not five_of_ten.passes(certain=True)
    assert (five_of_ten.differing, five_of_ten.needed) == (5, 12)
    unsure = compare([0, 1] * 6, [1, 1, 1, 0] * 3, OWN)
    assert unsure.differing == 9 and unsure.needed is not None and unsure.needed > 12
    assert "12 questions of 12 conversations show a difference from about" in too_few(unsure)
    assert too_few(compare([1] * 12, [1] * 12, OWN)).endswith("were answered alike by both models.")


def test_one_model_alone():
    found = share([1, 1, 0, 0], [0, 0, 1, 1])
    assert (found.value, found.low, found.high, found.n) == (50.0, 0.0, 100.0, 4)


def test_nothing_to_compare_is_an_error():
    with pytest.raises(TltrainError, match="nothing to compare"):
        compare([], [], [])


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 4)), min_size=1, max_size=20))
def test_swapping_the_models_mirrors_the_comparison(rows):
    before, after, clusters = zip(*rows, strict=True)
    there, back = compare(before, after, clusters), compare(after, before, clusters)
    assert there.difference.value == pytest.approx(-back.difference.value)
    assert there.p == pytest.approx(back.p, abs=0.02)
