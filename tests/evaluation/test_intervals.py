"""Every bootstrap: compared with hand-computed numbers, and properties that hold for any results."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tltrain.errors import TltrainError
from tltrain.evaluation.intervals import (
    NOTHING,
    RESAMPLES,
    Percentage,
    SeedPairs,
    cluster_percentage,
    difference_over_seeds,
    grouped_mean,
    holm,
    mean_over_seeds,
    paired_difference,
    percentage,
    ratio_difference,
    ratios,
    resampled_sums,
    spread_over_seeds,
)

few = settings(max_examples=25, deadline=None)


def test_half_right_has_an_interval_of_ten_points_each_way():
    half = percentage([True, False] * 50)
    assert (half.value, half.right, half.n) == (50.0, 50, 100)
    assert half.low == pytest.approx(40, abs=1.5)  # 1.96 * sqrt(0.5 * 0.5 / 100) = 9.8 points
    assert half.high == pytest.approx(60, abs=1.5)
    assert half == percentage([True, False] * 50)
    in_part = percentage([0.5] * 10 + [True, False] * 5)
    assert (in_part.value, in_part.right, in_part.n) == (50, 10, 20)
    assert in_part.low > percentage([True, False] * 10).low  # half of them do not vary
    assert percentage([1.0, 0.0] * 50) == half


def test_intervals_at_the_ends():
    assert (percentage([True] * 7).value, percentage([True] * 7).low, percentage([True] * 7).high) == (100, 100, 100)
    assert (percentage([False] * 7).low, percentage([False] * 7).high) == (0, 0)
    nothing = percentage([])
    assert (nothing.value, nothing.n, nothing.low, nothing.high) == (0, 0, 0, 100)


def test_a_paired_difference_has_an_interval_and_a_p_value():
    a = [0] * 60 + [100] * 40
    b = [100] * 20 + [0] * 40 + [100] * 40  # 20 of 100 improve, none gets worse
    found = paired_difference(a, b)
    assert (found.value, found.n) == (20, 100)
    assert (found.low, found.high) == (pytest.approx(12, abs=1.5), pytest.approx(28, abs=1.5))  # 1.96 * 4 points
    assert found.p == 1 / 10_001  # 2 ** -19 of all swaps
    assert found == paired_difference(a, b)
    back = paired_difference(b, a)
    assert (back.value, back.p) == (-20, found.p)


def test_differences_in_both_directions_are_weaker_evidence():
    assert paired_difference([0] * 100, [1] * 6 + [0] * 94).p == pytest.approx(
        2 / 64, abs=0.01
    )  # all six swaps on one side
    mixed = paired_difference([1] * 47 + [0] * 53, [0] * 47 + [1] * 53)
    assert mixed.value == pytest.approx(0.06)
    assert mixed.p == pytest.approx(0.62, abs=0.05)  # 53 or more of 100 coins on one side


def test_a_single_sample_or_none_that_differs_proves_nothing():
    assert paired_difference([0], [100]).p == 1
    same = paired_difference([1, 0, 1], [1, 0, 1])
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    with pytest.raises(TltrainError, match="1 and 2 results: expected the same number of both"):
        paired_difference([1], [1, 2])


def test_intervals_of_calls_come_from_drawing_conversations():
    # All calls of one conversation are wrong, none of the other's: a resample has 0, half or all of them wrong.
    assert cluster_percentage([10, 0], [10, 10]) == Percentage(50.0, 0.0, 100.0, 20, 10)
    # The same with a hundred conversations: the standard error of the share is 5 points.
    many = cluster_percentage([10, 0] * 50, [10] * 100)
    assert many.value == 50 and many.low == pytest.approx(40, abs=2) and many.high == pytest.approx(60, abs=2)
    # Identical conversations leave no uncertainty, however many calls they have.
    assert cluster_percentage([1, 2, 3], [2, 4, 6]) == Percentage(50.0, 50.0, 50.0, 12, 6)


def test_a_ratio_with_few_items_or_none():
    assert cluster_percentage([], []) == cluster_percentage([0, 0], [0, 0]) == NOTHING
    assert cluster_percentage([0, 3], [0, 4]).value == 75  # a conversation without calls is drawn too, and adds nothing
    assert cluster_percentage([0, 3], [0, 4]).low == 75
    assert cluster_percentage([1, 0, 2], [3, 3, 3], seed=1) == cluster_percentage([1, 0, 2], [3, 3, 3], seed=1)


# --- what holds for any results -------------------------------------------------------------------------------------

results = st.lists(st.integers(-8, 8).map(lambda eighths: eighths / 8), min_size=1, max_size=30)
pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30)


@few
@given(st.lists(st.booleans()), st.integers(0, 5))
def test_an_interval_of_a_percentage_contains_it_and_lies_within_its_bounds(answers, seed):
    found = percentage(answers, seed)
    assert 0 <= found.low <= found.value <= found.high <= 100
    assert (found.n, found.right) == (len(answers), sum(answers))
    if answers and len(set(answers)) == 1:
        assert found.low == found.high == found.value


@few
@given(pairs, st.integers(0, 5))
def test_swapping_two_systems_mirrors_everything(results, seed):
    a, b = zip(*results, strict=True)
    forth, back = paired_difference(a, b, seed), paired_difference(b, a, seed)
    assert (back.value, back.p) == (-forth.value, forth.p)
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low), abs=1e-9)
    assert forth.low - 1e-9 <= forth.value <= forth.high + 1e-9
    samples = [tuple(range(len(a)))] * 2
    sides = [np.array(side, dtype=float) for side in (a, b)]
    forth = difference_over_seeds(SeedPairs(samples, [sides[0]] * 2, [sides[1]] * 2), seed)
    back = difference_over_seeds(SeedPairs(samples, [sides[1]] * 2, [sides[0]] * 2), seed)
    assert (back.value, back.p) == (-forth.value, forth.p)
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low), abs=1e-9)


@few
@given(results, st.integers(1, 30))
def test_results_that_differ_by_the_same_everywhere_leave_no_doubt(results, shift):
    found = paired_difference(results, [result + shift for result in results])
    assert (found.value, found.low, found.high) == pytest.approx((shift,) * 3)


@few
@given(results)
def test_samples_with_equal_values_are_drawn_as_if_one_by_one(values):
    """The sums of a resample have the mean and variance of drawing with replacement."""
    column = np.array(values)
    sums = resampled_sums(column[:, None], np.random.default_rng(0))
    assert sums.shape == (RESAMPLES, 1)
    error = np.sqrt(len(column) * column.var() / RESAMPLES)
    assert sums.mean() == pytest.approx(column.sum(), abs=5 * error + 1e-9)
    assert sums.var() == pytest.approx(len(column) * column.var(), rel=0.12, abs=1e-9)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_corrects_upwards_and_keeps_the_order(values):
    found = holm(values)
    assert all(p <= corrected <= 1 for p, corrected in zip(values, found, strict=True))
    assert all(corrected <= min(1, len(values) * p) for p, corrected in zip(values, found, strict=True))
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [found[i] for i in order] == sorted(found)


# --- clusters -------------------------------------------------------------------------------------------------------


def test_ratios_are_drawn_together():
    """A column that is twice another has the same interval, doubled: both use the same resamples."""
    rng = np.random.default_rng(0)
    tops, bottoms = rng.integers(0, 5, 40), rng.integers(5, 9, 40)
    one, two = ratios(np.stack([tops, 2 * tops], axis=1), np.stack([bottoms, bottoms], axis=1))
    assert (two.value, two.low, two.high) == pytest.approx((2 * one.value, 2 * one.low, 2 * one.high))
    assert (one.value, one.n) == (tops.sum() / bottoms.sum(), bottoms.sum())


def test_a_cluster_counts_for_both_ratios_of_a_difference():
    counts = np.array([[1, 1], [0, 1]] * 50)
    same = ratio_difference(counts, 2 * counts)
    assert (same.value, same.low, same.high, same.n) == (0, 0, 0, 100)
    a, b = np.array([[1, 1], [0, 0]] * 50), np.array([[0, 0], [1, 2]] * 50)
    assert ratio_difference(a, b).value == 0.5


def test_a_mean_over_groups_is_resampled_within_them():
    """Two groups without spread, however far apart, leave nothing to resample."""
    found = grouped_mean([np.array([1.0, 1.0]), np.array([4.0])])
    assert (found.value, found.low, found.high, found.n) == (2, 2, 2, 3)


# --- seeds ----------------------------------------------------------------------------------------------------------


def test_seeds_with_the_same_samples_share_their_draws():
    """A second seed with the same answers adds nothing: the interval stays that of one seed."""
    rng = np.random.default_rng(3)
    ours, theirs = rng.integers(0, 2, (2, 200)) * 100.0
    one = difference_over_seeds(SeedPairs([tuple(range(200))], [ours], [theirs]))
    two = difference_over_seeds(SeedPairs([tuple(range(200))] * 2, [ours] * 2, [theirs] * 2))
    apart = difference_over_seeds(SeedPairs([tuple(range(200)), tuple(range(200, 400))], [ours] * 2, [theirs] * 2))
    width = one.high - one.low
    assert two.high - two.low == pytest.approx(width, rel=0.08) and (two.n, two.seeds) == (200, 2)
    # Seeds with their own samples: 400 samples; resampling the seeds restores half of their variance.
    assert apart.high - apart.low < 0.9 * width and (apart.n, apart.seeds) == (400, 2)


def test_strata_weigh_the_same_whatever_their_sizes():
    samples = (("a", 0), ("a", 1), ("a", 2), ("b", 0))
    pairs = SeedPairs([samples], [np.array([30.0, 30.0, 30.0, 10.0])], [np.zeros(4)])
    found = difference_over_seeds(pairs, stratum=lambda sample: sample[0])
    assert (found.value, found.low, found.high) == pytest.approx((20, 20, 20))  # no spread within either
    assert difference_over_seeds(pairs).value == 25


def test_strata_are_drawn_independently():
    """Two strata with the same results have the interval of all of them together."""
    samples = tuple((name, number) for name in "ab" for number in range(100))
    values = np.array([0.0, 100.0] * 100)
    pairs = SeedPairs([samples], [values], [np.zeros(200)])
    apart = difference_over_seeds(pairs, stratum=lambda sample: sample[0])
    together = difference_over_seeds(pairs)
    assert apart.high - apart.low == pytest.approx(together.high - together.low, rel=0.06)


def test_a_mean_over_seeds_has_students_interval():
    found = mean_over_seeds([1, 2, 6])  # standard deviation sqrt(7), t of 2 degrees of freedom: 4.3027
    assert (found.value, found.n, found.seeds) == (3, 3, 3)
    assert (found.low, found.high) == pytest.approx((3 - 6.5725, 3 + 6.5725), abs=1e-3)
    t = 3 / (7 / 3) ** 0.5
    assert found.p == pytest.approx(1 - t / (2 + t**2) ** 0.5)  # the closed form for 2 degrees of freedom
    single = mean_over_seeds([4])
    assert (single.value, single.p, single.has_ends) == (4, 1, False)
    assert [mean_over_seeds([value] * 3).p for value in (0, 2)] == [1, 0]
    with pytest.raises(TltrainError, match="expected one for each seed"):
        mean_over_seeds([])


def test_the_spread_of_seeds_and_samples_is_that_of_a_two_way_analysis_of_variance():
    samples, labels = [("a", "b")] * 2, [[None] * 2] * 2
    both, alone = spread_over_seeds(samples, [np.array([1.0, 5.0]), np.array([2.0, 8.0])], labels)
    # A = var(3, 5) / 2 = 1; B = var(1.5, 6.5) / 2 = 6.25; residuals +-0.5, so C = 1 / 2 / 2 = 0.25
    # Satterthwaite: 7 ** 2 / (1 + 6.25 ** 2 + 0.25 ** 2) = 1.2
    assert both == (pytest.approx(7**0.5), 1) and alone == (pytest.approx(2.5), 1)
    both, alone = spread_over_seeds(samples, [np.array([0.0, 4.0]), np.array([2.0, 2.0])], labels)
    assert both == (0, 1) and alone == (1, 1)  # the means agree by chance: B = C = 1
    both, _ = spread_over_seeds([("a", "b"), ("c", "d")], [np.array([1.0, 5.0]), np.array([2.0, 8.0])], labels)
    assert both == (1, 1)  # samples of their own are in A already


def percentile_interval_over_seeds(differences):
    """Return the interval of a percentile bootstrap over seeds, from all S ** S draws with replacement."""
    seeds = differences.shape[1]
    draws = np.array(list(itertools.product(range(seeds), repeat=seeds)))
    mean = differences.mean(axis=1, keepdims=True)
    widened = mean + (differences - mean) * (seeds / (seeds - 1)) ** 0.5
    return np.percentile(widened[:, draws].mean(axis=2), (2.5, 97.5), axis=1)


@pytest.mark.parametrize(("seeds", "covered"), [(3, 0.75), (5, 0.86)])
def test_a_percentile_bootstrap_over_few_seeds_promises_too_much_and_students_interval_does_not(seeds, covered):
    drawn = np.random.default_rng(0).normal(size=(1000, seeds))  # the true difference is 0
    low, high = percentile_interval_over_seeds(drawn)
    assert np.mean((low <= 0) & (high >= 0)) == pytest.approx(covered, abs=0.04)
    found = [mean_over_seeds(row) for row in drawn]
    assert np.mean([one.low <= 0 <= one.high for one in found]) == pytest.approx(0.95, abs=0.02)
    assert np.mean([one.p < 0.05 for one in found]) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_the_interval_over_three_seeds_covers_other_seeds_and_other_questions(spread):
    """Questions differ in difficulty, and seeds shift a system by `spread`; the true difference is 0."""
    rng, covered, runs = np.random.default_rng(1), 0, 150
    names = tuple(range(60))
    for _ in range(runs):
        easier = rng.normal(0, 0.15, (2, 60))
        results = [
            [(rng.random(60) < 0.5 + easier[side] + rng.normal(0, spread)) * 100.0 for _ in range(3)] for side in (0, 1)
        ]
        found = difference_over_seeds(SeedPairs([names] * 3, *results))
        covered += found.low <= 0 <= found.high
    assert covered / runs >= 0.92  # 0.95 is promised; two standard errors are 0.036
