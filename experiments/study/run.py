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
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments.study import costs, design, rows, tuning
from experiments.study.design import ROOT, ROWS, TUNED, Arm, Diverged, Group, Study
from experiments.study.job import Interrupted, Place, last_of_each_key, pipeline, seconds_spent
from tltrain.errors import TltrainError
from tltrain.runtime import fingerprints, json_files

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


def model_words(
    place: Place, study: Study, arm: Arm, seed: int, settings: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """The override that starts an arm from another's model, which is trained again if only its row was kept."""
    if arm.after is None:
        return ()
    start = study.arms[arm.after]
    folder = place.work / f"{start.name}-{seed}" / "main"
    if not (folder / "metrics.json").is_file():
        folder = place.work / f"{start.name}-{seed}" / "model"
        small = study.dry_run.of(start.settings) if place.dry_run else ()
        pipeline(
            place, folder, start.experiment, seed, (*arm_words(start, settings), *small, ONE_QUESTION, *place.words)
        )
    model = next(iter(sorted(folder.glob("model_*/model"))))
    return (f"model.path={model}",)


def make_row(place: Place, study: Study, arm: Arm, seed: int) -> Path:
    """Run one row and write its file; return the file.

    Raises:
        TltrainError: the protocol has changed, nothing is tuned, a path is missing, or a run failed.
        Interrupted: the deadline came first.
    """
    protocol = design.protocol_hash()
    settings, tuned_digest = design.tuned(place.tuned, protocol)
    given = {word.partition("=")[0] for word in place.words}
    for name in arm.needs:
        if f"paths.{name}" not in given:
            raise TltrainError(f"arm {arm.name}: needs --path {name}=FOLDER")
    words = (
        *arm_words(arm, settings),
        *model_words(place, study, arm, seed, settings),
        *(study.dry_run.of(arm.settings, arm.after is not None) if place.dry_run else ()),
        *place.words,
    )
    folder = place.work / f"{arm.name}-{seed}"
    small = study.dry_run.extra if place.dry_run else ()
    jobs = {"": words} | {name: (*words, *study.extra[name], *small) for name in arm.extra}
    lines: list[rows.Line] = []
    metrics: dict[str, float] = {}
    spent = 0.0
    diverged = False
    for name, overrides in jobs.items():
        own = folder / name if name else folder / "main"
        try:
            pipeline(place, own, arm.experiment, seed, overrides)
        except Diverged:  # it counts: the analysis takes every answer as wrong
            diverged = True
            break
        prefix = f"{name}_" if name else ""
        for set_name, evaluation in rows.evaluations(own):
            lines += rows.lines_of(prefix + set_name, evaluation)
        metrics |= {prefix + key: value for key, value in rows.metrics_of(own).items()}
        spent += seconds_spent(own)
    stages = [] if diverged else json_files.read_object(folder / "main" / "metrics.json")["stages"]
    header = {
        "arm": arm.name,
        "seed": seed,
        "protocol": protocol,
        "tuned": tuned_digest,
        "dry_run": place.dry_run,
        "fingerprint": fingerprints.fingerprint([stage["fingerprint"] for stage in stages]),
        "commit": commit(),
        "versions": dict(fingerprints.versions()),
        "machine": machine(),
        "words": [word for word in last_of_each_key(words) if not word.startswith(("paths.", "model.path="))],
        "diverged": diverged,
        "costs": ({"stages": {}} if diverged else costs.of_run(folder / "main"))
        | {"processor_seconds": round(spent, 1)},
        "metrics": metrics,
    }
    file = place.row(arm.name, seed)
    rows.write(file, header, lines)
    return file


def commit() -> str:
    """The last commit that changed anything but rows and results, with `+` if the code is modified."""
    apart = (":!experiments/study/rows", ":!experiments/results")
    try:
        last = _git("log", "-1", "--format=%H", "--", ".", *apart).strip()
        return last + ("+" if _git("status", "--porcelain", "--untracked-files=no", "--", ".", *apart) else "")
    except (OSError, subprocess.SubprocessError):
        return ""


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
        TltrainError: another study runs there.
    """
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TltrainError(f"{work}: another study job is going on there; one at a time") from None
    try:
        yield
    finally:
        lock.release()


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
