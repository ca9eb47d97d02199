"""Run stages at the same time, each in its own process with its share of the cores.

On a CPU a second thread speeds up a small model little, while a second process does twice the work. Each process is
`python -m tltrain.entry.stage_process FILE`; the file, which only the user can read, has the composed configuration.
What the processes print is shown line by line behind the name of the stage's folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import IO, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from tltrain import tracking
from tltrain.entry import launch
from tltrain.errors import TltrainError
from tltrain.runtime import distributed, json_files, messages, preemption, redact, terminal

LAST_STEP = 20.0
"""Seconds that the other stages may take to save after one has failed or the run was stopped; less than
`preemption.LIMIT`, so that this process ends after them."""


@dataclass(frozen=True)
class Job:
    """A stage to run.

    Attributes:
        cfg: its whole configuration. folder: its run folder, whose name is shown. title: what is shown beside the name.
    """

    cfg: DictConfig
    folder: Path
    title: str


def possible(at_a_time: int, threads: int | None) -> int:
    """Return how many of `at_a_time` stages can run at the same time: at most one per thread of this machine.

    Args:
        threads: `hardware.threads`.
    """
    if distributed.team() is not None:  # its processes already share the cores
        return 1
    return max(1, min(at_a_time, threads or distributed.threads(1)))


def run(jobs: Sequence[Job], at_a_time: int) -> list[dict[str, Any]]:
    """Run the stages, at most `at_a_time` at once, and return their metrics in the order of `jobs`.

    Raises:
        TltrainError: a stage failed; the others were stopped and saved what they can continue from.
    """
    at_a_time = possible(at_a_time, jobs[0].cfg.hardware.threads if jobs else None)
    if at_a_time == 1 or len(jobs) < 2:
        return [_run_here(job) for job in jobs]
    threads = max(1, (jobs[0].cfg.hardware.threads or distributed.threads(1)) // at_a_time)
    started: list[subprocess.Popen[bytes]] = []
    with (
        tempfile.TemporaryDirectory(prefix="tltrain-") as place,
        launch.environment(at_a_time, threads),
        ThreadPoolExecutor(at_a_time) as pool,
    ):
        running = [pool.submit(_run, job, Path(place) / str(at), threads, started) for at, job in enumerate(jobs)]
        try:
            for one in as_completed(running):
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _stop(started)
            raise
    if any(process.returncode == preemption.EXIT for process in started):
        preemption.stop()  # only a stage's process received SIGTERM
    return [json_files.read_object(job.folder / "metrics.json") for job in jobs]


def _run_here(job: Job) -> dict[str, Any]:
    _announce(job)
    return launch.run_stage(job.cfg, job.folder)


def _announce(job: Job) -> None:
    terminal.errors.rule(Text(f"{job.folder.name}: {job.title}"), align="left")


def _run(job: Job, place: Path, threads: int, started: list[subprocess.Popen[bytes]]) -> None:
    cfg = job.cfg.copy()
    cfg.hardware.threads = threads
    place.mkdir()
    file = place / "run.json"
    file.touch(mode=0o600)  # only the user can enter the folder either
    file.write_bytes(messages.encode((cfg, HydraConfig.instance().cfg, job.folder)))
    _announce(job)
    pipe = subprocess.PIPE
    command = [sys.executable, "-u", "-m", "tltrain.entry.stage_process", str(file)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        started.append(process)
        assert process.stdout is not None and process.stderr is not None
        shown = [
            threading.Thread(target=_show, args=(stream, job.folder.name, console))
            for stream, console in ((process.stdout, terminal.console), (process.stderr, terminal.errors))
        ]
        for thread in shown:
            thread.start()
        for thread in shown:
            thread.join()
        status = process.wait()
    if status == preemption.EXIT:
        return
    if status:
        raise TltrainError(f"{job.folder.name}: {_why(place, status)}")


def _show(stream: IO[bytes], name: str, console: Console) -> None:
    """Print each line behind the stage's name; of what a progress bar wrote over a line, only the end."""
    for line in stream:
        said = line.decode("utf-8", errors="replace").rstrip("\n").rpartition("\r")[2]
        console.print(Text(redact.text(f"{name}: {said}" if said.strip() else "")))


def _why(place: Path, status: int) -> str:
    with suppress(OSError):
        failure = launch.Failure(**json_files.read_object(place / "failed-0.json"))
        if not failure.user and failure.trace:
            terminal.errors.print(failure.trace, markup=False)
        return failure.line
    if status >= 0:
        return f"ended with exit status {status}"
    hint = "; did this machine run out of memory? stage.parallel=1" if -status == Signals.SIGKILL else ""
    return f"killed by {Signals(-status).name}{hint}"


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the processes, which save first; those that take too long are killed."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(LAST_STEP)
        except subprocess.TimeoutExpired:
            process.kill()


def work(file: Path) -> int:
    """Run the stage of `file` in this process. Returns the exit status."""
    redact.install()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cfg, hydra_config, folder = messages.decode(file.read_bytes())
    try:
        launch.as_in_hydra(hydra_config)
        redact.begin_job(cfg)
        with preemption.handled(), tracking.prepared(cfg):
            launch.run_stage(cfg, folder)
    except Exception as error:
        launch.report_failure(file.parent, 0, error)
        return 1
    except preemption.Preempted as stopped:
        print(stopped, file=sys.stderr)
        return preemption.EXIT
    except KeyboardInterrupt:  # the terminal sends it to all processes, and the one that started this reports it
        return preemption.EXIT
    return 0


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, and with it the other end of standard input."""
    while os.read(0, 1):  # `sys.stdin` would be locked at the end
        pass
    os._exit(1)
