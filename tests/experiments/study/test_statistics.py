"""The study's statistics against hand-computed numbers, and their promises in simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.study import statistics as st
from tltrain.errors import TltrainError


def arms(differences):
    """Two arms that differ so, seed by seed and question by question; the baseline answers everything with 0."""
    names = [str(question) for question in range(len(differences[0]))]
    arm = {seed: dict(zip(names, row, strict=True)) for seed, row in enumerate(differences)}
    return arm, {seed: dict.fromkeys(names, 0.0) for seed in arm}, {name: name for name in names}


def test_a_comparison_is_paired_by_seed():
    found = st.compare(*arms([[0, 2], [1, 3], [5, 7]]))  # means 1, 2, 6: deviation sqrt(7), t of 2 degrees 4.3027
    assert found.differences == {0: 1, 1: 2, 2: 6} and (found.value, found.seeds) == (3, 3)
    assert (found.low, found.high) == pytest.approx((3 - 6.5725, 3 + 6.5725), abs=1e-3)
    assert (found.questions, found.clusters) == (2, 2)
    assert (found.question_low, found.question_high) == (2, 4)  # the seeds' means of both questions
    assert found.sources == st.Sources(pytest.approx(7), pytest.approx(0))
    assert found.larger_source == "seeds"


def test_one_seed_has_no_interval_over_seeds():
    found = st.compare(*arms([[0, 2, 4]]))
    assert (found.value, found.p, found.detectable, found.seeds) == (2, 1, None, 1)
    assert math.isnan(found.low) and found.question_low < 2 < found.question_high
    assert found.to_json()["low"] is None


def test_more_questions_lower_nothing_where_all_variance_is_of_seeds():
    found = st.compare(*arms([[0, 0], [1, 1], [5, 5]]))
    assert found.more_questions == found.detectable_holm > found.more_seeds and found.detectable_holm > found.detectable
    assert (found.arm_mean, found.baseline_mean) == (2, 0)


def test_what_is_not_paired_is_refused():
    arm, baseline, cluster = arms([[0, 1], [1, 2]])
    with pytest.raises(TltrainError, match="no seed has both arms"):
        st.compare(arm, {}, cluster)
    with pytest.raises(TltrainError, match="seed 1: other samples"):
        st.compare(arm | {1: {"0": 1.0}}, baseline, cluster)


def test_questions_of_one_template_are_drawn_together():
    values = np.array([0.0] * 10 + [10.0] * 10)
    apart = st.over_questions(values, range(20))
    together = st.over_questions(values, ["a"] * 10 + ["b"] * 10)
    assert together == (0, 10, 2)
    assert apart[1] - apart[0] < 5 and apart[2] == 20


def test_the_variance_is_split_into_seeds_and_questions():
    # Means 3 and 5: variance 2. Residuals +-0.5: mean square 1, of which the means hold a half.
    assert st.variance_sources(np.array([[1.0, 5.0], [2.0, 8.0]])) == st.Sources(1.5, 1.0)
    assert st.variance_sources(np.array([[0.0, 4.0], [2.0, 2.0]])) == st.Sources(0.0, 4.0)
    assert st.Sources(9, 700).deviation(100) == 4


def test_the_smallest_detectable_difference_of_five_seeds():
    sources = st.Sources(9, 700)
    for alpha, t in ((0.05, 2.7764), (0.0125, 4.3147)):
        found = st.smallest_detectable(sources, seeds=5, questions=100, alpha=alpha)
        assert found == pytest.approx((t + 0.9410) * 4 / 5**0.5, abs=1e-3)


@pytest.mark.parametrize(("seeds", "questions", "larger"), [(4, 1, "seeds"), (0, 30, "questions")])
def test_more_of_what_varies_most_lowers_it(seeds, questions, larger):
    rng = np.random.default_rng(0)
    found = st.compare(*arms((rng.normal(0, seeds, (8, 1)) + rng.normal(0, questions, (8, 40))).tolist()))
    assert found.larger_source == larger
    assert found.more_seeds < found.more_questions <= found.detectable_holm and found.detectable < found.detectable_holm
    helped = found.more_questions / found.detectable_holm
    assert helped == pytest.approx(1 if larger == "seeds" else 0.5**0.5, abs=0.1)


def test_a_conjunction_needs_all_its_parts():
    assert st.both_needed([0.01, 0.04], [3, 5]) == 0.04
    assert st.both_needed([0.01, 0.001], [3, -5]) == 1


def test_holm_over_the_four():
    assert st.verdicts({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )


def test_a_margin_is_ruled_out_by_the_lower_end():
    assert st.not_inferior(-4.9, 5) and not st.not_inferior(-5, 5) and not st.not_inferior(math.nan, 5)


def test_shares_of_calls_are_means_over_conversations():
    values = st.measured_ratio([1, 0, 3], [2, 4, 4])
    assert sum(values) / 3 == pytest.approx(40)


def test_five_seeds_keep_their_promise_and_find_what_they_can_detect():
    """The level is 5 % without a difference, and the power 80 % at the smallest detectable one."""
    rng, sources = np.random.default_rng(0), st.Sources(9, 700)
    detectable = st.smallest_detectable(sources, seeds=5, questions=20)
    found = {0.0: [], detectable: []}
    for true, p_values in found.items():
        for _ in range(600):
            drawn = true + rng.normal(0, 3, 5) + rng.normal(0, 700**0.5, (20, 5)).mean(axis=0)
            p_values.append(st.mean_over_seeds(drawn.tolist()).p < 0.05)
    level, power = (np.mean(shares) for shares in found.values())
    assert level == pytest.approx(0.05, abs=0.025) and power == pytest.approx(0.8, abs=0.06)
