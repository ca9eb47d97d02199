"""Choose the settings on validation tools, by the rule of the protocol, and write them with their evidence.

Each step of the plan tries its candidates once, with a seed that the study does not use, and keeps the one with the
highest measure; of equal ones the first. What each candidate answered is kept beside `tuned.yaml`, as a row is
(`candidates/STEP.NUMBER-SEED.jsonl.gz`): tuning goes on from there on any machine. `tuned.yaml` gets the words of each
setting, and every candidate's measure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments.study import rows
from experiments.study import statistics as st
from experiments.study.design import Step, Study, protocol_hash
from experiments.study.job import Place, code
from tltrain.errors import Diverged, TltrainError
from tltrain.runtime import fingerprints, runs

Pipeline = Callable[..., None]


def tune(study: Study, place: Place, pipeline: Pipeline) -> None:
    """Run all steps and write `tuned.yaml`; finished candidates are not run again.

    Raises:
        TltrainError: rows stand, or a run failed.
    """
    if any(place.rows.glob("*.jsonl.gz")):
        raise TltrainError(f"{place.rows}: rows stand already: the settings are fixed")
    settings: dict[str, list[str]] = {}
    evidence = []
    for step in study.tuning:
        measured: list[float] = []
        candidates = step.candidates[:1] if place.dry_run else step.candidates
        for number, candidate in enumerate(candidates):
            taken = [word for name in step.settings for word in settings.get(name, ())]
            words = (*taken, *candidate.keep, *candidate.only_here, *last_words(study, place, [step.setting]))
            found = answered(place, f"{step.name}.{number}", step.experiment, study.tuning_seed, words, pipeline)
            measured.append(measure(found, step.measure))
            print(f"{step.name}: {' '.join(candidate.keep)}: {step.measure} {measured[-1]:.4f}", flush=True)
        best = choose(measured)
        settings.setdefault(step.setting, []).extend(step.candidates[best].keep)
        evidence.append(entry(step, measured, best))
    write(place.tuned, settings, evidence, pilot(study, place, settings, pipeline))


def answered(
    place: Place, name: str, experiment: str, seed: int, words: Sequence[str], pipeline: Pipeline
) -> rows.RowFile:
    """What a run answered: as it stands in `candidates/`, else after running it. A run that diverges has no lines.

    Raises:
        TltrainError: the file that stands is of another protocol or of other words, or the run failed.
    """
    file = place.tuned.parent / "candidates" / rows.name_of(name, seed)
    said = {"protocol": protocol_hash(), "words": [word for word in words if not word.startswith("paths.")]}
    made_of = {"code": code(), "versions": dict(fingerprints.versions())}
    if file.is_file():
        found = rows.read(file)
        if any(found.header.get(key) != value for key, value in said.items()):
            raise TltrainError(f"{file}: of other words or another protocol; remove it, and the candidate is run again")
        return found
    folder = place.work / "tuning" / f"{name}-{seed}"
    lines: list[rows.Line] = []
    diverged = False
    try:
        pipeline(place, folder, experiment, seed, words)
        for set_name, evaluation in rows.evaluations(folder):
            lines += rows.lines_of(set_name, evaluation)
    except Diverged:
        diverged = True
    rows.write(file, {"arm": name, "seed": seed, "diverged": diverged, **said, **made_of}, lines)
    return rows.read(file)


def pilot(
    study: Study, place: Place, settings: Mapping[str, Sequence[str]], pipeline: Pipeline
) -> list[dict[str, Any]]:
    """Run an arm and its baseline with several seeds; what each measure's variance is made of and what it can show."""
    plan, found = study.pilot, []
    runs_of: dict[tuple[str, int], rows.RowFile] = {}
    seeds = plan.seeds[:2] if place.dry_run else plan.seeds
    for seed in seeds:
        for name in (plan.baseline, plan.arm):
            arm = study.arms[name]
            taken = [word for setting in arm.settings for word in settings[setting]]
            words = (*taken, *arm.words, *last_words(study, place, arm.settings))
            runs_of[name, seed] = answered(place, f"pilot.{name}", arm.experiment, seed, words, pipeline)
    for level, set_name in plan.measures.items():
        lines = {key: run.lines[set_name] for key, run in runs_of.items()}
        cluster = {line["id"]: line["cluster"] for line in next(iter(lines.values()))}
        sides = [{seed: rows.results(lines[name, seed], level) for seed in seeds} for name in (plan.arm, plan.baseline)]
        comparison = st.compare(*sides, cluster)
        assert comparison.sources is not None
        found.append(
            {
                "measure": f"{level}, {set_name}",
                "value": round(comparison.value, 3),
                "differences": [round(value, 3) for value in comparison.differences.values()],
                "questions": comparison.questions,
                "variance_of_seeds": round(comparison.sources.seeds, 3),
                "variance_of_a_question": round(comparison.sources.questions, 3),
                "detectable_with_five_seeds": {
                    str(questions): round(st.smallest_detectable(comparison.sources, len(study.seeds), questions), 2)
                    for questions in (200, 400, 600, 1200)
                },
            }
        )
    return found


def last_words(study: Study, place: Place, settings: Sequence[str]) -> tuple[str, ...]:
    """The words behind those of a candidate: the benchmarks of tuning, and in a dry run what makes it small."""
    if not place.dry_run:
        return (*study.tuning_words, *place.words)
    return (*study.dry_run.of(settings), *study.dry_run.tuning, *place.words)


def choose(measured: Sequence[float]) -> int:
    """The position of the highest measure; of equal ones the first."""
    return max(range(len(measured)), key=lambda number: (measured[number], -number))


def measure(run: rows.RowFile, name: str) -> float:
    """The mean over a run's sets of the mean over their questions: of TS, PI and CF (`mean`), or of the reward.

    -inf if the run diverged.
    """
    if run.header["diverged"]:
        return -math.inf
    return statistics.fmean(statistics.fmean(rows.results(lines, name).values()) for lines in run.lines.values())


def entry(step: Step, measured: Sequence[float], best: int) -> dict[str, Any]:
    """What a step found, for the file."""
    return {
        "step": step.name,
        "measure": step.measure,
        "candidates": [
            {"words": list(candidate.keep), step.measure: round(value, 4) if math.isfinite(value) else "diverged"}
            for candidate, value in zip(step.candidates, measured, strict=False)
        ],
        "chosen": best,
    }


def write(
    path: Path,
    settings: Mapping[str, Sequence[str]],
    evidence: Sequence[Mapping[str, Any]],
    variance: Sequence[Mapping[str, Any]],
) -> None:
    """Write the settings, their evidence, and what the pilot says of the variance."""
    record = {
        "protocol": protocol_hash(),
        "settings": {name: list(words) for name, words in settings.items()},
        "evidence": list(evidence),
        "pilot": list(variance),
    }
    with runs.writing(path, data=True) as file:
        file.write("# Written by `experiments/study/run.sh --tune`: the words of each setting, and all candidates.\n")
        yaml.safe_dump(record, file, sort_keys=False, width=140)
