"""One job of the study: a run of `stage=pipeline` in a folder of its own, until it ends or time runs out."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.study import rows
from experiments.study.design import CONF, ROOT
from tltrain.errors import Diverged, TltrainError
from tltrain.runtime import fingerprints, json_files, runs

JOB = "job.json"
"""What a folder's run is of: its command's words and the code."""
QUIET = {"OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false"}
"""Environment of a job that others share the machine with."""


class Interrupted(Exception):
    """Time ran out; what was done stands, and the next start goes on from there."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a study works and where its rows go.

    Attributes:
        work: runs and the cache of stages. rows: the rows' files. tuned: the chosen settings.
        words: overrides behind all others, of `paths` and of a dry run. dry_run: whether this is one.
        deadline: monotonic time at which a job is stopped.
    """

    work: Path
    rows: Path
    tuned: Path
    words: tuple[str, ...] = ()
    dry_run: bool = False
    deadline: float | None = None

    def row(self, arm: str, seed: int) -> Path:
        """The file of a row."""
        return self.rows / rows.name_of(arm, seed)


def command(place: Place, folder: Path, experiment: str, seed: int, words: Sequence[str]) -> list[str]:
    """The command line of one run of the pipeline."""
    return [
        *(sys.executable, "-m", "tltrain", "--config-dir", str(CONF), f"+experiment=study/{experiment}"),
        *(f"seed={seed}", *last_of_each_key(words)),
        f"cache.dir={place.work / 'cache'}",
        f"hydra.run.dir={folder}",
    ]


def last_of_each_key(words: Sequence[str]) -> list[str]:
    """The words without those that a later word of the same key replaces: tltrain refuses a key that is given twice."""
    return list({word.partition("=")[0]: word for word in words}.values())


def pipeline(place: Place, folder: Path, experiment: str, seed: int, words: Sequence[str]) -> None:
    """Run the pipeline in `folder`, or go on with it there; nothing happens if it has finished there.

    What a run of other words or of other code left there is removed; the cache keeps the stages that are still right.
    Processor seconds are added up over interruptions in `processor.json`.

    Raises:
        Diverged: the training did. TltrainError: it failed otherwise; the end of its log is in the message.
        Interrupted: the deadline came first.
    """
    if is_finished(folder, experiment, seed, words):
        return
    own = record(experiment, seed, words)
    if folder.exists() and ((folder / "metrics.json").is_file() or _recorded(folder) != own):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    runs.write_json(folder / JOB, own)
    before = _processor_seconds()
    with (folder / "job.log").open("ab") as log:
        job = subprocess.Popen(
            command(place, folder, experiment, seed, words),
            cwd=ROOT,
            env=os.environ | QUIET,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            status = job.wait(None if place.deadline is None else max(0.0, place.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Interrupted(str(folder)) from None
        finally:  # also where this process is interrupted or told to end: no job is left behind
            _stop(job)
            spent = seconds_spent(folder) + _processor_seconds() - before
            runs.write_json(folder / "processor.json", {"seconds": round(spent, 1)})
    if status:
        said = _last_lines(folder / "job.log")
        kind = Diverged if Diverged.SAYS in said else TltrainError
        raise kind(f"{folder}: exit status {status}: {said}")


def record(experiment: str, seed: int, words: Sequence[str]) -> dict[str, Any]:
    """What `JOB` says of a run."""
    return {"experiment": experiment, "seed": seed, "words": pathless(words), "code": code()}


def _recorded(folder: Path) -> dict[str, Any] | None:
    return json_files.read_object(folder / JOB) if (folder / JOB).is_file() else None


def is_finished(folder: Path, experiment: str, seed: int, words: Sequence[str]) -> bool:
    """Whether the run of these words and this code has finished in `folder`, and the cache still has its stages."""
    if not (folder / "metrics.json").is_file() or _recorded(folder) != record(experiment, seed, words):
        return False
    return all(each.exists() for each in folder.iterdir())  # a link to what was removed leads nowhere


def pathless(words: Sequence[str]) -> list[str]:
    """The words that decide a result: the last of each key, without those that name places of this machine."""
    return [word for word in last_of_each_key(words) if not word.startswith(("paths.", "model.path="))]


def code() -> str:
    """A digest of what is run: the package and its configuration."""
    return fingerprints.fingerprint([fingerprints.of_path(ROOT / name) for name in ("tltrain", "conf")])


def _processor_seconds() -> float:
    """Processor seconds of all jobs that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _stop(job: subprocess.Popen) -> None:
    """Ask a job that still runs to end, which saves what it resumes from; after a minute end it."""
    if job.poll() is None:
        job.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            job.wait(60)
    if job.poll() is None:
        job.kill()
    job.wait()


def seconds_spent(folder: Path) -> float:
    """Processor seconds that interrupted runs in `folder` took."""
    file = folder / "processor.json"
    return float(json_files.read_object(file)["seconds"]) if file.is_file() else 0.0


def _last_lines(log: Path, characters: int = 600) -> str:
    return " ".join(log.read_text(encoding="utf-8", errors="replace").split())[-characters:]
