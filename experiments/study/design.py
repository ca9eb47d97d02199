"""The study's plan (`plan.yaml`) and the seal on its protocol (`protocol.sha256`).

`protocol.sha256` has the format of sha256sum and lists PROTOCOL.md, plan.yaml and every file of conf/. Its own digest
is the hash of the protocol, which every row carries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tltrain.errors import TltrainError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PLAN, CONF, SEAL, TUNED, ROWS = (HERE / name for name in ("plan.yaml", "conf", "protocol.sha256", "tuned.yaml", "rows"))


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train and to ask: an experiment, overrides behind it, and the tuned settings that it takes.

    Attributes:
        hours: estimate for two quiet CPU cores.
        needs: keys of `paths` that a user has to give, such as `rotbench`.
        extra: names of further evaluations of its rows.
        updates_of: the setting of PPO whose updates its supervised training has as many of.
        after: the arm whose trained model of the same seed it starts from; None: the base model.
    """

    name: str
    experiment: str
    hours: float
    words: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    after: str | None = None
    updates_of: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Arms that are run seed by seed."""

    name: str
    tier: int
    seeds: int
    arms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pilot:
    """What tells the variance of seeds from that of questions, on validation tools. `measures`: level -> evaluation."""

    arm: str
    baseline: str
    seeds: tuple[int, ...]
    measures: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DryRun:
    """Overrides of a dry run: of all its runs, then of those with PPO, of extra evaluations, and of tuning."""

    words: tuple[str, ...]
    ppo: tuple[str, ...]
    extra: tuple[str, ...]
    tuning: tuple[str, ...]

    def of(self, settings: Sequence[str], trained: bool = False) -> tuple[str, ...]:
        """The words of a run that takes these settings; one that starts from a `trained` model has its sizes."""
        words = (*self.words, *(self.ppo if "irm" in settings else ()))
        return tuple(word for word in words if not (trained and word.startswith("model.random.")))


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """`arm` is above `baseline` in each of `measures` (of an error share: below)."""

    name: str
    title: str
    arm: str
    baseline: str
    measures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of a row: the mean over the lines of `set` of their `level`, in `unit`.

    Of several sets it is the mean over sets, and questions that any row was trained on are left out.
    """

    name: str
    set: str | tuple[str, ...]
    level: str
    title: str
    unit: str = "points"
    lower_is_better: bool = False

    @property
    def sets(self) -> tuple[str, ...]:
        """Its sets."""
        return (self.set,) if isinstance(self.set, str) else self.set


@dataclass(frozen=True, slots=True)
class Candidate:
    """One choice of a step of tuning: the words that are kept if it is chosen, and those of tuning alone."""

    keep: tuple[str, ...]
    only_here: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """A step of tuning: candidates of one setting, judged by `measure` (`mean` or `reward`) on validation tools.

    Attributes:
        setting: the setting that the chosen words are added to. settings: earlier ones that the runs take.
    """

    name: str
    setting: str
    experiment: str
    measure: str
    candidates: tuple[Candidate, ...]
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Study:
    """The whole plan."""

    seeds: tuple[int, ...]
    hypotheses: dict[str, Hypothesis]
    measures: dict[str, Measure]
    secondary: tuple[tuple[str, str], ...]
    margins: tuple[tuple[str, str, float], ...]
    groups: tuple[Group, ...]
    arms: dict[str, Arm]
    tuning_seed: int
    tuning_words: tuple[str, ...]
    tuning: tuple[Step, ...]
    extra: Mapping[str, tuple[str, ...]]
    pilot: Pilot
    dry_run: DryRun

    def rows(self) -> list[tuple[Group, Arm, int]]:
        """Every row in the order in which it is run, each once."""
        found: dict[tuple[str, int], tuple[Group, Arm, int]] = {}
        for group in self.groups:
            for seed in self.seeds[: group.seeds]:
                for name in group.arms:
                    found.setdefault((name, seed), (group, self.arms[name], seed))
        return list(found.values())


def load(path: Path = PLAN) -> Study:
    """Read the plan.

    Raises:
        TltrainError: it names an arm, a measure or a setting that it does not describe.
    """
    plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    tuning = plan["tuning"]
    study = Study(
        seeds=tuple(plan["seeds"]),
        hypotheses={name: Hypothesis(name=name, **_tuples(each)) for name, each in plan["hypotheses"].items()},
        measures={name: Measure(name=name, **_tuples(each)) for name, each in plan["measures"].items()},
        secondary=tuple((arm, baseline) for arm, baseline in plan["secondary"]),
        margins=tuple((arm, baseline, float(points)) for arm, baseline, points in plan["margins"]),
        groups=tuple(Group(**_tuples(each)) for each in plan["groups"]),
        arms={name: Arm(name=name, **_tuples(each)) for name, each in plan["arms"].items()},
        tuning_seed=tuning["seed"],
        tuning_words=tuple(tuning["words"]),
        tuning=tuple(_step(each) for each in tuning["steps"]),
        extra=_tuples(plan["extra"]),
        pilot=Pilot(**_tuples(plan["pilot"])),
        dry_run=DryRun(**_tuples(plan["dry_run"])),
    )
    _check(study, path)
    return study


def _tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _tuple(value) for key, value in record.items()}


def _tuple(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return {key: _tuple(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _step(record: Mapping[str, Any]) -> Step:
    candidates = tuple(Candidate(**_tuples(each)) for each in record["candidates"])
    return Step(**_tuples({key: value for key, value in record.items() if key != "candidates"}), candidates=candidates)


def _check(study: Study, path: Path) -> None:
    named = {name for group in study.groups for name in group.arms}
    named |= {arm.after for arm in study.arms.values() if arm.after}
    pairs = [(one.arm, one.baseline) for one in study.hypotheses.values()]
    pairs += [*study.secondary, *((arm, baseline) for arm, baseline, _ in study.margins)]
    for name in sorted((named | {arm for pair in pairs for arm in pair}) - study.arms.keys()):
        raise TltrainError(f"{path}: the arm {name} is not described under arms")
    for name in sorted(study.arms.keys() - named):
        raise TltrainError(f"{path}: the arm {name} is in no group")
    measures = {measure for one in study.hypotheses.values() for measure in one.measures}
    for name in sorted(measures - study.measures.keys()):
        raise TltrainError(f"{path}: the measure {name} is not described under measures")
    for name in sorted({name for arm in study.arms.values() for name in arm.extra} - study.extra.keys()):
        raise TltrainError(f"{path}: the evaluation {name} is not described under extra")
    settings = {setting for arm in study.arms.values() for setting in arm.settings}
    for name in sorted(settings - {step.setting for step in study.tuning}):
        raise TltrainError(f"{path}: no step of tuning chooses the setting {name}")
    if {study.tuning_seed, *study.pilot.seeds} & {*study.seeds}:
        raise TltrainError(f"{path}: a seed of tuning or of the pilot is one of the study's seeds")


def asked(experiment: str, words: Sequence[str] = (), conf: Path = CONF) -> list[str]:
    """The sets that a run of an experiment is asked, by name: those of the last word that says so, else of its file.

    An experiment without any has those of the one that it builds on.
    """
    said = [word.partition("=")[2] for word in words if word.startswith("stage.benchmarks=")]
    if said:
        chosen = yaml.safe_load(said[-1])
    else:
        record = yaml.safe_load((conf / "experiment" / "study" / f"{experiment}.yaml").read_text(encoding="utf-8"))
        chosen = record.get("stage", {}).get("benchmarks")
        if chosen is None:
            above = [each for each in record["defaults"] if isinstance(each, str)]
            return asked(above[-1].rpartition("/")[2], conf=conf)
    return [each if isinstance(each, str) else each["name"] for each in chosen]


# --- the seal -------------------------------------------------------------------------------------------------------


def sealed_files(here: Path = HERE) -> Iterator[Path]:
    """The files whose content is the protocol, by name."""
    yield here / "PROTOCOL.md"
    yield from sorted((here / "conf").rglob("*.yaml"))
    yield here / "plan.yaml"


def seal_text(here: Path = HERE) -> str:
    """What `protocol.sha256` has to say: a line for each file, as `sha256sum` writes it."""
    return "".join(f"{_digest(file)}  {file.relative_to(here).as_posix()}\n" for file in sealed_files(here))


def protocol_hash(here: Path = HERE) -> str:
    """The hash of the protocol.

    Raises:
        TltrainError: the protocol is not sealed, or a file has changed since.
    """
    seal = here / "protocol.sha256"
    if not seal.is_file():
        raise TltrainError(f"{seal}: missing; `experiments/study/run.sh --seal` writes it before the first row")
    text, now = seal.read_text(encoding="utf-8"), seal_text(here)
    if text != now:
        changed = {line.split("  ")[1] for line in {*text.splitlines()} ^ {*now.splitlines()}}
        raise TltrainError(
            f"{seal}: changed since the protocol was sealed: {', '.join(sorted(changed))}. Restore it, or before the "
            "first row: `experiments/study/run.sh --seal`"
        )
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def tuned(path: Path = TUNED, protocol: str | None = None) -> tuple[dict[str, tuple[str, ...]], str]:
    """Setting -> its words, and the digest of the file.

    Raises:
        TltrainError: nothing has been tuned, or it was under another protocol.
    """
    again = "`experiments/study/run.sh --tune` chooses the settings on validation tools"
    if not path.is_file():
        raise TltrainError(f"{path}: missing; {again}")
    record = yaml.safe_load(path.read_text(encoding="utf-8"))
    if record["protocol"] != (protocol or protocol_hash()):
        raise TltrainError(f"{path}: written under another protocol; {again}")
    return {name: tuple(words) for name, words in record["settings"].items()}, _digest(path)
