"""Student's t against the printed tables."""

from __future__ import annotations

import pytest

from tltrain.evaluation.student_t import MANY, critical, two_sided_p, within


@pytest.mark.parametrize(
    ("alpha", "df", "printed"),
    [
        (0.05, 1, 12.706),
        (0.05, 2, 4.303),
        (0.05, 3, 3.182),
        (0.05, 4, 2.776),
        (0.01, 4, 4.604),
        (0.0125, 4, 4.315),
        (0.4, 4, 0.941),
        (0.05, 5, 2.571),
        (0.05, 29, 2.045),
        (0.05, 120, 1.980),
        (0.05, MANY, 1.960),
    ],
)
def test_critical_values_are_those_of_the_tables(alpha, df, printed):
    assert critical(alpha, df) == pytest.approx(printed, abs=6e-4)
    assert two_sided_p(critical(alpha, df), df) == pytest.approx(alpha)
    assert two_sided_p(-printed, df) == two_sided_p(printed, df)


def test_closed_forms():
    assert within(1, 1) == pytest.approx(0.5)  # Cauchy: 2 / pi * atan(1)
    assert within(2, 2) == pytest.approx(2 / 6**0.5)  # t / sqrt(2 + t^2)
    assert (within(0, 7), two_sided_p(0, 7)) == (0, 1)
    assert within(float("inf"), 4) == pytest.approx(1)


def test_what_has_no_distribution_is_refused():
    with pytest.raises(ValueError, match="degrees of freedom"):
        within(1, 0)
    with pytest.raises(ValueError, match="alpha"):
        critical(0, 3)
