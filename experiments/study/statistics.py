"""What a hypothesis rests on: differences paired by seed, their t interval, the questions, what could have been seen.

Results of an arm are `Outcomes`: seed -> sample -> number in percent. Two arms answer the same samples in every seed,
so a difference is paired by seed and by sample. `compare` gives its t interval over seeds (S - 1 degrees of freedom,
the confirmatory one) and, beside it, a bootstrap over samples, drawn by cluster (a task template), with the seeds as
they are. The first holds for other seeds, the second for other questions.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

import numpy as np

from tltrain.errors import TltrainError
from tltrain.evaluation import student_t
from tltrain.evaluation.intervals import ALPHA, holm, mean_over_seeds, ratios

POWER = 0.8
"""The probability with which a smallest detectable difference is found."""

Outcomes = Mapping[int, Mapping[str, float]]
"""Seed -> sample -> result in percent."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the variance of per-seed differences comes from, in points squared.

    Attributes:
        seeds: of the seeds themselves: what would be left with endless questions.
        questions: of one question in one seed; a seed's mean over Q of them holds a Q-th.
    """

    seeds: float
    questions: float

    def deviation(self, questions: int) -> float:
        """The standard deviation of per-seed differences over so many questions, in points."""
        return math.sqrt(self.seeds + self.questions / questions)


@dataclass(frozen=True, slots=True)
class Comparison:
    """An arm minus its baseline on one measure, in points.

    Attributes:
        value: the mean over seeds. arm_mean, baseline_mean: what it is the difference of.
        differences: seed -> difference. low, high, p: Student's over seeds; NaN and 1 for one seed.
        question_low, question_high: 95 % bootstrap over clusters of samples, with the seeds as they are.
        questions: samples of a seed. clusters: of them.
        detectable: smallest difference that is found with a power of 80 % at a two-sided level of 5 %, and at a quarter
            of that, which Holm asks of the smallest p of four; None for one seed.
        more_seeds, more_questions: the second of these with twice the seeds, and with twice the questions.
            Twice the seeds always lower it more, and cost twice as much; more questions cost their answers alone.
        larger_source: which holds more of the variance, `seeds` or `questions`: where it is seeds, more questions help
            little.
    """

    value: float
    arm_mean: float
    baseline_mean: float
    low: float
    high: float
    p: float
    differences: dict[int, float]
    question_low: float
    question_high: float
    questions: int
    clusters: int
    sources: Sources | None
    detectable: float | None
    detectable_holm: float | None
    more_seeds: float | None
    more_questions: float | None
    larger_source: str | None

    @property
    def seeds(self) -> int:
        """How many seeds both arms have."""
        return len(self.differences)

    def to_json(self) -> dict[str, object]:
        """As plain values, rounded, NaN as null."""
        record = asdict(self) | {"differences": {str(seed): value for seed, value in self.differences.items()}}
        return _rounded(record)


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def compare(arm: Outcomes, baseline: Outcomes, cluster: Mapping[str, Hashable], families: int = 4) -> Comparison:
    """Compare an arm with its baseline in the seeds and samples that both have.

    Args:
        cluster: sample -> what it is resampled with.
        families: hypotheses that Holm's correction is over.

    Raises:
        TltrainError: they share no seed, or the samples differ between seeds or arms.
    """
    seeds = sorted(arm.keys() & baseline.keys())
    if not seeds:
        raise TltrainError("no seed has both arms: nothing to compare")
    samples = sorted(baseline[seeds[0]])
    for seed in seeds:
        for results in (arm[seed], baseline[seed]):
            if sorted(results) != samples:
                raise TltrainError(f"seed {seed}: other samples than in seed {seeds[0]}: not a paired comparison")
    table = np.array([[arm[seed][sample] - baseline[seed][sample] for sample in samples] for seed in seeds])
    over_seeds = mean_over_seeds(table.mean(axis=1).tolist())
    low, high, clusters = over_questions(table.mean(axis=0), [cluster[sample] for sample in samples])
    sources = variance_sources(table) if len(seeds) > 1 else None
    count, questions = len(seeds), len(samples)
    found: dict[str, float | str | None] = dict.fromkeys(
        ("detectable", "detectable_holm", "more_seeds", "more_questions", "larger_source")
    )
    if sources is not None:
        now, more_seeds, more_questions = (
            smallest_detectable(sources, seeds=s, questions=q, alpha=ALPHA / families)
            for s, q in ((count, questions), (2 * count, questions), (count, 2 * questions))
        )
        found = {
            "detectable": smallest_detectable(sources, seeds=count, questions=questions),
            "detectable_holm": now,
            "more_seeds": more_seeds,
            "more_questions": more_questions,
            "larger_source": "seeds" if sources.seeds >= sources.questions / questions else "questions",
        }
    return Comparison(
        value=over_seeds.value,
        arm_mean=fmean(fmean(arm[seed].values()) for seed in seeds),
        baseline_mean=fmean(fmean(baseline[seed].values()) for seed in seeds),
        low=over_seeds.low,
        high=over_seeds.high,
        p=over_seeds.p,
        differences=dict(zip(seeds, table.mean(axis=1).tolist(), strict=True)),
        question_low=low,
        question_high=high,
        questions=questions,
        clusters=clusters,
        sources=sources,
        **found,  # type: ignore[arg-type]
    )


def over_questions(values: np.ndarray, clusters: Sequence[Hashable]) -> tuple[float, float, int]:
    """The ends of the 95 % bootstrap of the mean, samples drawn with all others of their cluster, and the clusters."""
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    position = [names[name] for name in clusters]
    sums = np.bincount(position, weights=values, minlength=len(names))
    sizes = np.bincount(position, minlength=len(names))
    (found,) = ratios(sums[:, None], sizes[:, None].astype(float))
    return found.low, found.high, len(names)


def variance_sources(differences: np.ndarray) -> Sources:
    """Split the variance of per-seed differences into seeds and questions.

    The questions are fixed, so what varies from seed to seed is the seed's own effect and, question by question, the
    interaction of both, whose mean square is `questions`; the variance of the seeds' means holds a Q-th of it.

    Args:
        differences: [S, Q], S >= 2 and Q >= 2.
    """
    seeds, questions = differences.shape
    residuals = differences - differences.mean(axis=0) - differences.mean(axis=1, keepdims=True) + differences.mean()
    interaction = float(np.sum(residuals**2)) / ((seeds - 1) * (questions - 1))
    between = float(np.var(differences.mean(axis=1), ddof=1))
    return Sources(max(0.0, between - interaction / questions), interaction)


def smallest_detectable(
    sources: Sources, seeds: int, questions: int, alpha: float = ALPHA, power: float = POWER
) -> float:
    """The smallest true difference that the t test over seeds finds with probability `power`, in points.

    (t at alpha + t at the power) x standard error, the usual approximation of the noncentral t distribution.
    """
    df = seeds - 1
    quantiles = student_t.critical(alpha, df) + student_t.critical(2 * (1 - power), df)
    return quantiles * sources.deviation(questions) / math.sqrt(seeds)


def both_needed(p_values: Sequence[float], values: Sequence[float]) -> float:
    """The p of a hypothesis that needs all of its differences to be above 0: the largest (intersection-union test).

    No correction is needed among them (R. L. Berger, 1982). A difference of 0 or below makes it 1.
    """
    return 1.0 if min(values) <= 0 else max(p_values)


def verdicts(p_values: Mapping[str, float]) -> dict[str, float]:
    """Hypothesis -> its p after Holm's correction over all of them."""
    return dict(zip(p_values, holm(list(p_values.values())), strict=True))


def not_inferior(low: float, margin: float) -> bool:
    """Whether an interval rules out a loss of `margin` points or more."""
    return not math.isnan(low) and low > -margin


def measured_ratio(numerators: Sequence[int], denominators: Sequence[int]) -> list[float]:
    """Each conversation's number, in percent, whose mean is `sum(numerators) / sum(denominators)`.

    Conversations have unlike numbers of calls; linearized, the mean over conversations is the share of calls, and
    resampling them is resampling the share (as `tltrain.evaluation.conversation_lines` does).
    """
    from tltrain.evaluation.conversation_lines import linearized

    return [100 * value for value in linearized(list(numerators), list(denominators))]
