"""From rows to numbers: `Summary`, the content of `summary.json`.

Everything is computed from the files in `rows/`, by the rules of the protocol.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.study import design, histories, rows
from experiments.study import statistics as st
from experiments.study.design import ROWS, Group, Hypothesis, Measure, Study
from experiments.study.rows import RowFile
from tltrain.errors import TltrainError
from tltrain.evaluation.intervals import ALPHA

Summary = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Results:
    """One measure of all arms: arm -> seed -> sample -> number, and what each sample is resampled with."""

    arms: Mapping[str, st.Outcomes]
    cluster: Mapping[str, Hashable]


SAMPLED_CALLS = 1500
"""Of every row with PPO, at least: a row with fewer is a departure (section 2 of the protocol)."""


def checked(study: Study, found: Sequence[RowFile], protocol: str) -> None:
    """Raise a TltrainError where rows do not belong together."""
    for key in ("protocol", "tuned", "dry_run"):
        values = {str(row.header.get(key)) for row in found}
        if len(values) > 1:
            raise TltrainError(f"the rows differ in {key}: {', '.join(sorted(values))}; they are no one study")
    for row in found:
        if row.header["protocol"] != protocol:
            raise TltrainError(f"{rows.name_of(row.arm, row.seed)}: of another protocol, {row.header['protocol']}")
    for row in found:
        if row.arm not in study.arms or row.seed not in study.seeds:
            raise TltrainError(f"{rows.name_of(row.arm, row.seed)}: the plan has no such row")
    made_on = {(row.arm, row.seed): "a GPU" if row.header["machine"]["gpu"] else "a CPU" for row in found}
    for arm, baseline in compared_pairs(study):
        for seed in study.seeds:
            kinds = [made_on.get((name, seed)) for name in (arm, baseline)]
            if None not in kinds and kinds[0] != kinds[1]:
                raise TltrainError(
                    f"{arm} is from {kinds[0]} and {baseline} from {kinds[1]} in seed {seed}: they are compared, "
                    "so they come from the same kind of machine; run one of them again"
                )


def compared_pairs(study: Study) -> list[tuple[str, str]]:
    """Every pair of arm and baseline, those of the hypotheses first."""
    return list(dict.fromkeys([*((one.arm, one.baseline) for one in study.hypotheses.values()), *study.secondary]))


def results_of(found: Iterable[RowFile], measure: Measure) -> Results:
    """The measure in all rows that have it.

    A run that diverged has no model: every answer counts as wrong in the sets that its row was to be asked.
    """
    having = [row for row in found if all(row.lines.get(name) for name in measure.sets)]
    several = len(measure.sets) > 1
    seen = {
        f"{name}/{line['id']}"
        for row in having
        for name in measure.sets
        for line in row.lines[name]
        if line.get("seen")
    }
    arms: dict[str, dict[int, dict[str, float]]] = {}
    cluster: dict[str, Hashable] = {}
    for row in having:
        numbers: dict[str, float] = {}
        sizes: dict[str, int] = {}
        for name in measure.sets:
            own = {
                f"{name}/{sample}": value
                for sample, value in rows.results(row.lines[name], measure.level).items()
                if not several or f"{name}/{sample}" not in seen
            }
            sizes |= dict.fromkeys(own, len(own))
            numbers |= own
            cluster |= {f"{name}/{line['id']}": (name, line["cluster"]) for line in row.lines[name]}
        if several:  # the plain mean of these is the mean over sets
            numbers = {
                sample: value * len(numbers) / (len(measure.sets) * sizes[sample]) for sample, value in numbers.items()
            }
        arms.setdefault(row.arm, {})[row.seed] = numbers
    samples = {sample for seeds in arms.values() for numbers in seeds.values() for sample in numbers}
    for row in found:
        was_asked = set(measure.sets) <= set(row.header.get("asked", ()))
        if samples and row.header.get("diverged") and was_asked and measure.unit == "points":
            wrong = 100.0 if measure.lower_is_better else 0.0
            arms.setdefault(row.arm, {})[row.seed] = dict.fromkeys(sorted(samples), wrong)
    return Results(arms, cluster)


def compared(results: Results, arm: str, baseline: str) -> st.Comparison | None:
    """An arm's comparison with its baseline; None where no seed has both."""
    ours, theirs = results.arms.get(arm, {}), results.arms.get(baseline, {})
    return st.compare(ours, theirs, results.cluster) if ours.keys() & theirs.keys() else None


def summarize(
    study: Study, found: Sequence[RowFile], digests: Mapping[str, str], trained: Sequence[RowFile] = ()
) -> Summary:
    """All numbers of the study, as plain values.

    Args:
        digests: name of a row's file -> digest of its content.
        trained: histories of rows with PPO.
    """
    measured = {name: results_of(found, measure) for name, measure in study.measures.items()}
    hypotheses = {name: _hypothesis(one, measured) for name, one in study.hypotheses.items()}
    whole = len(study.seeds)  # one that is not complete has p = 1 in the correction, like one that was not run
    corrected = st.verdicts({name: one["p"] if one["seeds"] >= whole else 1.0 for name, one in hypotheses.items()})
    for name, one in hypotheses.items():
        one["p_holm"] = round(corrected[name], 6)
        one["verdict"] = verdict(one, whole)
    pairs = compared_pairs(study)
    secondary = [
        {"arm": arm, "baseline": baseline, "measure": name, **comparison.to_json()}
        for arm, baseline in pairs
        for name, results in measured.items()
        if (comparison := compared(results, arm, baseline)) is not None
    ]
    return {
        "protocol": found[0].header["protocol"],
        "tuned": found[0].header["tuned"],
        "rows": digests,
        "commits": sorted({str(row.header["commit"]) for row in found}),
        "planned": {
            group.name: {"rows": group.seeds * len(group.arms), "stand": _stand(group, study.seeds, found)}
            for group in study.groups
        },
        "few_calls": few_calls(study, found),
        "versions": _distinct(row.header["versions"] for row in found),
        "machines": _distinct(row.header["machine"] for row in found),
        "hypotheses": hypotheses,
        "secondary": secondary,
        "changed": [entry for arm, baseline in pairs for entry in changed_grades(found, arm, baseline)],
        "ppo": histories.in_parts(sorted(trained, key=lambda one: list(study.arms).index(one.arm))),
        "margins": _margins(study, measured),
        "arms": {arm: _arm(arm, found, measured) for arm in study.arms if any(row.arm == arm for row in found)},
    }


def _distinct(values: Iterable[Mapping[str, Any]]) -> list[Any]:
    return [json.loads(text) for text in sorted({json.dumps(value, sort_keys=True) for value in values})]


def _stand(group: Group, seeds: Sequence[int], found: Sequence[RowFile]) -> int:
    wanted = {(arm, seed) for arm in group.arms for seed in seeds[: group.seeds]}
    return sum((row.arm, row.seed) in wanted for row in found)


def few_calls(study: Study, found: Sequence[RowFile]) -> dict[str, int]:
    """ARM-SEED -> its sampled calls, of rows with PPO that have fewer than `SAMPLED_CALLS`.

    Arms whose own words set the number of updates have fewer by design.
    """
    few = {}
    for row in found:
        arm = study.arms[row.arm]
        calls = sum(stage.get("sampled_calls") or 0 for stage in row.header["costs"]["stages"].values())
        whole = "irm" in arm.settings and not any(".max_steps=" in word for word in arm.words)
        if whole and 0 < calls < SAMPLED_CALLS:
            few[f"{row.arm}-{row.seed}"] = calls
    return few


def changed_grades(found: Sequence[RowFile], arm: str, baseline: str) -> list[dict[str, Any]]:
    """How an arm grades what its baseline answered, in the seeds and sets of single calls that both have.

    Returns:
        An entry for each set: `asked` (questions times seeds), `same` (with the same grade in both), `before` and
        `after` (grade -> how many, in the baseline and in the arm), `reward` (the mean reward of the answers, in the
        baseline and in the arm), and `grades`: [grade in the baseline, grade in the arm, how many], the most frequent
        first.
    """
    of_arm, of_baseline = ({row.seed: row.lines for row in found if row.arm == name} for name in (arm, baseline))
    pairs: dict[str, list[tuple[rows.Line, rows.Line]]] = {}
    for seed in sorted(of_arm.keys() & of_baseline.keys()):
        for name, lines in of_baseline[seed].items():
            ours = {line["id"]: line for line in of_arm[seed].get(name, []) if "grade" in line}
            pairs.setdefault(name, []).extend((line, ours[line["id"]]) for line in lines if line["id"] in ours)
    counted = {name: Counter((before["grade"], after["grade"]) for before, after in own) for name, own in pairs.items()}
    return [
        {
            "arm": arm,
            "baseline": baseline,
            "set": name,
            "asked": counts.total(),
            "same": sum(count for (before, after), count in counts.items() if before == after),
            "before": dict(sorted(Counter(before["grade"] for before, _ in pairs[name]).items())),
            "after": dict(sorted(Counter(after["grade"] for _, after in pairs[name]).items())),
            "reward": [round(statistics.fmean(answers[at]["reward"] for answers in pairs[name]), 4) for at in range(2)],
            "grades": [
                [before, after, count]
                for (before, after), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
                if before != after
            ],
        }
        for name, counts in counted.items()
        if counts
    ]


def ends(found: Sequence[RowFile], arm: str) -> dict[str, dict[str, int]]:
    """How an arm's conversations end, over its seeds: how, then sums over those that end so.

    Returns:
        How a conversation ended -> `conversations`, `success` (its task was solved), `no_error` (no call failed),
        `calls`, and of these `de` and `ce`.
    """
    sums: dict[str, Counter[str]] = {}
    for line in (line for row in found if row.arm == arm for line in row.lines.get("conversations", [])):
        own = sums.setdefault(line["ended"], Counter())
        own.update({"conversations": 1, "success": line.get("success", 0), "no_error": int(line["ce"] == 0)})
        own.update({name: line[name] for name in ("calls", "de", "ce")})
    return {end: dict(own) for end, own in sorted(sums.items())}


def _hypothesis(one: Hypothesis, measured: Mapping[str, Results]) -> dict[str, Any]:
    comparisons = {name: compared(measured[name], one.arm, one.baseline) for name in one.measures}
    there = {name: comparison for name, comparison in comparisons.items() if comparison is not None}
    p = 1.0
    if len(there) == len(comparisons):
        p = st.both_needed([each.p for each in there.values()], [each.value for each in there.values()])
    return {
        "title": one.title,
        "arm": one.arm,
        "baseline": one.baseline,
        "seeds": min((each.seeds for each in there.values()), default=0) if len(there) == len(comparisons) else 0,
        "measures": {name: comparison.to_json() for name, comparison in there.items()},
        "p": round(p, 6),
    }


def verdict(one: Mapping[str, Any], seeds: int) -> str:
    """What a hypothesis' numbers say, by the rules of the protocol."""
    if one["seeds"] < seeds:
        return f"descriptive: {one['seeds']} of {seeds} seeds"
    parts = one["measures"].values()
    if one["p_holm"] < ALPHA:
        return "shown" if all(part["question_low"] > 0 for part in parts) else "shown for these questions alone"
    if any(part["high"] < 0 for part in parts):
        return "not shown: worse on a measure"
    return "not shown"


def _margins(study: Study, measured: Mapping[str, Results]) -> list[dict[str, Any]]:
    found = []
    for arm, baseline, points in study.margins:
        comparison = compared(measured["pooled"], arm, baseline)
        if comparison is not None:
            low = comparison.to_json()["low"]
            known = not isinstance(low, float) or st.not_inferior(low, points)
            found.append(
                {
                    "arm": arm,
                    "baseline": baseline,
                    "margin": points,
                    "low": low,
                    "not_inferior": known if isinstance(low, float) else None,
                }
            )
    return found


def _arm(arm: str, found: Sequence[RowFile], measured: Mapping[str, Results]) -> dict[str, Any]:
    own = [row for row in found if row.arm == arm]
    numbers = {}
    for name, results in measured.items():
        values = [statistics.fmean(samples.values()) for _, samples in sorted(results.arms.get(arm, {}).items())]
        if values:
            deviation = round(statistics.stdev(values), 4) if len(values) > 1 else None
            numbers[name] = {"mean": round(statistics.fmean(values), 4), "deviation": deviation, "n": len(values)}
    grades = Counter(line["grade"] for row in own for line in row.lines.get("questions", []))
    named = {key for row in own for key in row.header["metrics"] if _is_shown(key)}
    metrics = {
        key: round(statistics.fmean(row.header["metrics"][key] for row in own if key in row.header["metrics"]), 4)
        for key in sorted(named)
    }
    return {
        "seeds": sorted(row.seed for row in own),
        "measures": numbers,
        "grades": dict(sorted(grades.items())),
        "ends": ends(found, arm),
        "metrics": metrics,
        "costs": {str(row.seed): row.header["costs"] for row in sorted(own, key=lambda row: row.seed)},
    }


def _is_shown(key: str) -> bool:
    """Whether a flat metric of a row is in the summary: of recorded calls, and the key tokens of a golden call."""
    return key.startswith("recorded/") or key.endswith("/key_tokens")


def load(folder: Path = ROWS, protocol: str | None = None) -> Summary | None:
    """The summary of the rows in a folder; None where there is none. Raises TltrainError."""
    found = rows.read_all(folder)
    if not found:
        return None
    checked(design.load(), found, protocol or design.protocol_hash())
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.jsonl.gz"))}
    return summarize(design.load(), found, digests, histories.read_all(folder, found))
