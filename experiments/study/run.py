"""Run the study row by row, one job at a time; skip what is done, continue what was interrupted.

    experiments/study/run.sh --list               what is done, what is next, estimated hours
    experiments/study/run.sh --seal               write protocol.sha256, before the first row
    experiments/study/run.sh --tune               choose rates, clipping, KL and rollout size on validation tools
    experiments/study/run.sh                      every row that is missing, in the plan's order
    experiments/study/run.sh --tier 1 --rows-at-most 1
    experiments/study/run.sh --arm pkt --seed 2
    experiments/study/run.sh --dry-run FOLDER     the chain on next to nothing; its rows stay in FOLDER

A row is one run of `stage=pipeline` with an experiment of conf/ (and one for each extra evaluation), in a folder of its
own under --work, with the study's own cache of stages: a stage that an earlier row made is not made again, and an
interrupted training run continues from its checkpoint. Then `rows/ARM-SEED.jsonl.gz` is written.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments.study import costs, design, histories, rows, tuning
from experiments.study.design import ROOT, ROWS, TUNED, Arm, Group, Study
from experiments.study.job import Interrupted, Place, code, is_finished, pathless, pipeline, seconds_spent
from tltrain.errors import Diverged, TltrainError
from tltrain.runtime import fingerprints, json_files, runs

INTERRUPTED = 75
"""Exit status where time ran out before the work did: start it again (EX_TEMPFAIL)."""
UPDATES = ("stage.rl.args.gradient_accumulation_steps=", "stage.rl.args.max_steps=")
"""Words that say how many updates PPO makes, and of how many trajectories."""
ONE_QUESTION = "stage.benchmarks=[{name: questions, split: validation, size: 1}]"
"""What a model is asked that is trained for another arm alone; a pipeline asks something."""


# --- a row ------------------------------------------------------------------------------------------------------------


def arm_words(arm: Arm, settings: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """An arm's overrides: the tuned settings that it takes, then its own."""
    words = [word for name in arm.settings for word in settings[name]]
    for word in settings[arm.updates_of] if arm.updates_of else ():
        if word.startswith(UPDATES):
            words.append(word.replace("stage.rl.", "stage.supervised.", 1))
    return (*words, *arm.words)


def trained_before(
    place: Place, study: Study, arm: Arm, seed: int, settings: Mapping[str, Sequence[str]]
) -> Path | None:
    """The run whose trained model an arm starts from; it is trained again if only its row was kept.

    Raises:
        Diverged: it has no model.
    """
    if arm.after is None:
        return None
    start = study.arms[arm.after]
    main, again = (place.work / f"{start.name}-{seed}" / name for name in ("main", "model"))
    small = study.dry_run.of(start.settings) if place.dry_run else ()
    words = (*arm_words(start, settings), *small)
    if is_finished(main, start.experiment, seed, (*words, *place.words)):
        return main
    pipeline(place, again, start.experiment, seed, (*words, ONE_QUESTION, *place.words))
    return again


def make_row(place: Place, study: Study, arm: Arm, seed: int) -> Path:
    """Run one row and write its file; return the file.

    Raises:
        TltrainError: the protocol has changed, nothing is tuned, a path is missing, the code changed meanwhile, or a
            run failed.
        Interrupted: the deadline came first.
    """
    protocol, made_of = design.protocol_hash(), code()
    made_by = "" if place.dry_run else commit()
    settings, tuned_digest = design.tuned(place.tuned, protocol)
    given = {word.partition("=")[0] for word in place.words}
    for name in arm.needs:
        if f"paths.{name}" not in given:
            raise TltrainError(f"arm {arm.name}: needs --path {name}=FOLDER")
    for word in place.words:
        key, _, folder = word.partition("=")
        if key == "paths.toolalpaca" and (Path(folder) / "eval_simulated.json").is_file():
            raise TltrainError(f"--path toolalpaca={folder}: the protocol asks the real half: name its eval_real.json")
    words = (
        *arm_words(arm, settings),
        *(study.dry_run.of(arm.settings, arm.after is not None) if place.dry_run else ()),
        *place.words,
    )
    folder = place.work / f"{arm.name}-{seed}"
    small = study.dry_run.extra if place.dry_run else ()
    jobs = {"": ()} | {name: (*study.extra[name], *small) for name in arm.extra}
    own = {name: folder / (name or "main") for name in jobs}
    found = Found()
    try:
        start = trained_before(place, study, arm, seed, settings)
        if start is not None:
            words = (*words, f"model.path={next(iter(sorted(start.glob('model_*/model'))))}")
            found.stages |= {f"{arm.after}/{name}": cost for name, cost in costs.of_run(start)["stages"].items()}
        for name, more in jobs.items():
            pipeline(place, own[name], arm.experiment, seed, (*words, *more))
            found.add(f"{name}_" if name else "", own[name])
    except Diverged:  # it counts: the analysis takes every answer as wrong
        found.diverged = True
    if code() != made_of:
        raise TltrainError(f"{ROOT}: the code changed while {arm.name}, seed {seed}, was running; start it again")
    header = {
        "arm": arm.name,
        "seed": seed,
        "protocol": protocol,
        "tuned": tuned_digest,
        "dry_run": place.dry_run,
        "fingerprint": fingerprints.fingerprint(found.fingerprints),
        "commit": made_by,
        "code": made_of,
        "versions": dict(fingerprints.versions()),
        "machine": machine(),
        "words": pathless(words),
        "diverged": found.diverged,
        "asked": [
            f"{name}_{each}" if name else each
            for name, more in jobs.items()
            for each in design.asked(arm.experiment, (*words, *more))
        ],
        "costs": {
            "stages": found.stages,
            "processor_seconds": round(sum(map(seconds_spent, own.values())), 1),
        },
        "metrics": found.metrics,
    }
    file = place.row(arm.name, seed)
    rows.write(file, header, [] if found.diverged else found.lines)
    histories.copy_row(rows.read(file), own[""], place.rows)
    return file


@dataclass
class Found:
    """What the runs of a row have left."""

    lines: list[rows.Line] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    stages: dict[str, Any] = field(default_factory=dict)
    fingerprints: list[str] = field(default_factory=list)
    diverged: bool = False

    def add(self, prefix: str, folder: Path) -> None:
        """Add a finished run; `prefix` goes before the names of its sets."""
        for name, evaluation in rows.evaluations(folder):
            self.lines += rows.lines_of(prefix + name, evaluation)
        self.metrics |= {prefix + key: value for key, value in rows.metrics_of(folder).items()}
        if not prefix:
            self.stages |= costs.of_run(folder)["stages"]
            self.fingerprints += rows.fingerprints_of(folder)


DECIDES = ("tltrain", "conf", "experiments/study", "pyproject.toml", "constraints.txt")
"""What can change a row's result."""
RECORDS = tuple(f"experiments/study/{name}" for name in ("rows", "histories", "candidates", "tuned.yaml"))
"""What the study itself writes there."""


def commit() -> str:
    """The last commit that changed anything that decides results, with `+` if it is modified.

    Raises:
        TltrainError: this is no checkout of git.
    """
    paths = (*DECIDES, *(f":!{name}" for name in RECORDS))
    try:
        last = _git("log", "-1", "--format=%H", "--", *paths)
    except (OSError, subprocess.CalledProcessError) as error:
        raise TltrainError(f"{ROOT}: rows say their commit, so they are run in a checkout of git: {error}") from None
    return last.strip() + ("+" if _git("status", "--porcelain", "--", *paths).strip() else "")


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True, timeout=30
    ).stdout


def machine() -> dict[str, Any]:
    """What computes, without names: kind and number of processors, and the GPU."""
    gpu = None
    if (query := shutil.which("nvidia-smi")) is not None:
        asked = subprocess.run([query, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
        gpu = asked.stdout.strip() or None
    return {"processors": os.cpu_count(), "machine": platform.machine(), "gpu": gpu}


# --- all rows ---------------------------------------------------------------------------------------------------------


def wanted(
    study: Study, place: Place, arms: Sequence[str] = (), seeds: Sequence[int] = (), tier: int | None = None
) -> Iterator[tuple[Group, Arm, int]]:
    """The rows that are missing, in order; of these arms, seeds and tier alone where given.

    Raises:
        TltrainError: there is no such arm or seed.
    """
    for name in arms:
        if name not in study.arms:
            raise TltrainError(f"--arm {name}: there is no such arm; there are: {', '.join(study.arms)}")
    for seed in seeds:
        if seed not in study.seeds:
            raise TltrainError(f"--seed {seed}: the study's seeds are {', '.join(map(str, study.seeds))}")
    for group, arm, seed in study.rows():
        chosen = (not arms or arm.name in arms) and (not seeds or seed in seeds) and tier in (None, group.tier)
        if chosen and not place.row(arm.name, seed).is_file():
            yield group, arm, seed


def listing(study: Study, place: Place) -> str:
    """What stands and what is next, with estimated hours of two quiet cores."""
    missing = {(arm.name, seed) for _, arm, seed in wanted(study, place)}
    lines, following = [], next(wanted(study, place), None)
    for group in study.groups:
        lines.append(f"tier {group.tier}, {group.name}")
        for name in group.arms:
            seeds = study.seeds[: group.seeds]
            marks = " ".join(f"{seed}{'.' if (name, seed) in missing else '*'}" for seed in seeds)
            left = study.arms[name].hours * sum((name, seed) in missing for seed in seeds)
            lines.append(f"  {name:16} {marks:16} {left:5.1f} h left")
    for tier in sorted({group.tier for group in study.groups}):
        hours = sum(arm.hours for _, arm, _ in wanted(study, place, tier=tier))
        lines.append(f"tier {tier}: {hours:.1f} h left (an estimate)")
    lines.append("next: " + (f"{following[1].name}, seed {following[2]}" if following else "nothing, all rows stand"))
    return "\n".join([*lines, "* stands   . is missing"])


@contextmanager
def alone(work: Path) -> Iterator[None]:
    """Hold the study's lock: one job at a time.

    Raises:
        TltrainError: another study runs there, or it was made on another kind of machine.
    """
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TltrainError(f"{work}: another study job is going on there; one at a time") from None
    try:
        _of_this_machine(work)
        yield
    finally:
        lock.release()


def _of_this_machine(work: Path) -> None:
    """Stages of a GPU and of a CPU have the same fingerprint, so one cache has those of one kind of machine alone."""
    kind = {"gpu": machine()["gpu"] is not None}
    file = work / "machine.json"
    if not file.is_file():
        runs.write_json(file, kind)
    elif json_files.read_object(file) != kind:
        here = "a GPU" if kind["gpu"] else "no GPU"
        raise TltrainError(
            f"{work}: made on another kind of machine than this one, which has {here}; give another --work"
        )


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="experiments/study/run.sh", description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="what is done, what is next, estimated hours")
    what.add_argument("--seal", action="store_true", help="write protocol.sha256, before the first row")
    what.add_argument("--tune", action="store_true", help="choose settings on validation tools, write tuned.yaml")
    parser.add_argument("--arm", action="append", default=[], help="this arm alone (may be repeated)")
    parser.add_argument("--seed", action="append", default=[], type=int, help="this seed alone (may be repeated)")
    parser.add_argument("--tier", type=int, help="this tier alone")
    parser.add_argument("--rows-at-most", type=int, help="stop after so many rows")
    parser.add_argument("--minutes", type=float, help=f"stop after so long, with status {INTERRUPTED}; start it again")
    parser.add_argument("--path", action="append", default=[], metavar="NAME=FOLDER", help="public data: paths.NAME")
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "study", help="runs and cache")
    parser.add_argument("--dry-run", type=Path, metavar="FOLDER", help="next to nothing, rows and all in FOLDER")
    return parser.parse_args(arguments)


def place_of(options: argparse.Namespace) -> Place:
    """Where to work.

    Raises:
        TltrainError: a dry run would write among the study's rows.
    """
    paths = tuple(f"paths.{one}" for one in options.path)
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    if options.dry_run is None:
        return Place(options.work.resolve(), ROWS, TUNED, paths, False, deadline)
    folder = options.dry_run.resolve()
    if folder.is_relative_to(design.HERE):
        raise TltrainError(f"--dry-run {options.dry_run}: expected a folder outside of {design.HERE}")
    return Place(folder, folder / "rows", folder / "tuned.yaml", paths, True, deadline)


def seal() -> None:
    """Write `protocol.sha256`.

    Raises:
        TltrainError: rows stand, so the protocol is fixed.
    """
    if any(ROWS.glob("*.jsonl.gz")):
        raise TltrainError("rows stand, so the protocol is fixed; note departures in experiments/results/study")
    design.SEAL.write_text(design.seal_text(), encoding="utf-8")
    print(f"{design.SEAL}: {design.protocol_hash()}")


def run(options: argparse.Namespace) -> None:
    """Do what the command line says. Raises TltrainError and Interrupted."""
    study, place = design.load(), place_of(options)
    if options.list:
        print(listing(study, place))
        return
    if options.seal:
        seal()
        return
    with alone(place.work):
        if options.tune:
            tuning.tune(study, place, pipeline)
            return
        for done, (_, arm, seed) in enumerate(wanted(study, place, options.arm, options.seed, options.tier)):
            if options.rows_at_most is not None and done >= options.rows_at_most:
                return
            start = time.monotonic()
            print(f"{arm.name}, seed {seed} ...", flush=True)
            file = make_row(place, study, arm, seed)
            print(f"{file} in {(time.monotonic() - start) / 60:.0f} minutes", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and return the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(INTERRUPTED))
    try:
        run(parsed(arguments))
    except TltrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as stopped:
        print(f"time is up in {stopped}; start again to go on", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
