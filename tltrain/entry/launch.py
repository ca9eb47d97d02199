"""Start the processes of a run with torch's elastic launcher, from a single `python -m tltrain`.

The process that the user started composes the configuration once and passes it to the workers in a file that only the
user can read; workers read no command line. Under torchrun, accelerate, deepspeed or srun the processes exist already,
and this module starts none.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tltrain import config, tracking
from tltrain.config.reads import MODEL_ITSELF
from tltrain.errors import TltrainError
from tltrain.runtime import (
    advice,
    distributed,
    json_files,
    memory,
    messages,
    out_of_space,
    own_code,
    preemption,
    redact,
    shared_secret,
    terminal,
)
from tltrain.runtime.place import started
from tltrain.runtime.resolver import resolve

TRAINING = ("sft", "pkt", "irm")
"""Stages that all processes run; rank 0 runs the others, and the other ranks help where a local model answers."""
LAUNCHED = (*TRAINING, "demo", "pipeline", "gate", "eval")
"""Stages that use several processes."""
SHOWN = ("check", "mae", *TRAINING, "demo")
"""Stages whose result a module of the same name in `tltrain.views` shows; the others show their own."""
SHUTDOWN = 300
"""Seconds that workers may take to finish a step and save after SIGTERM; a scheduler may wait less."""
STDERR_LINES = 40
"""Number of lines shown of a dead worker's standard error."""


def run_stage(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage that `cfg` names in `folder` with all processes, show its result, and return its metrics.

    `tltrain.views` shows the result. It is not in the digest of a stage's code, so editing it reruns no stage.
    """
    name = cfg.stage.name
    run = f"{config.stage_module(name)}:run"
    try:
        with advice.running(cfg), out_of_space.explained(cfg):
            if name in TRAINING:
                metrics = distributed.call("tltrain.entry.launch:train", run, cfg, folder)
            else:
                metrics = resolve(run)(cfg, folder)
            if name in SHOWN:
                show(cfg, folder, metrics)
            return metrics
    finally:
        memory.give_back()  # another stage may follow in this process, with other models


def show(cfg: DictConfig, folder: Path, metrics: dict[str, Any]) -> None:
    """Show the result of a finished stage. SIGTERM is deferred, since a resumed run would not show it again."""
    with preemption.deferred():
        resolve(f"tltrain.views.{config.STAGES[cfg.stage.name]}:show")(cfg, folder, metrics)


def show_again(cfg: DictConfig, folder: Path, metrics: dict[str, Any]) -> None:
    """Show a finished training run that was stopped before its picture was drawn."""
    if cfg.stage.name in TRAINING and (folder / "history.jsonl").is_file():
        picture = resolve(f"tltrain.views.{config.STAGES[cfg.stage.name]}:PICTURE")
        if not (folder / picture).exists():
            show(cfg, folder, metrics)


def train(run: str, cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run a training stage on every process; `run` names its function (`resolver`)."""
    with out_of_space.explained(cfg):
        return _train(run, cfg, folder)


def _train(run: str, cfg: DictConfig, folder: Path) -> dict[str, Any]:
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # a warning that TRL causes
    if not cfg.hardware.deepspeed:
        return resolve(run)(cfg, folder)
    import torch

    if cfg.hardware.device.name == "cpu" or not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"  # before DeepSpeed is imported, which would look for others
    from tltrain.training import engines

    # DeepSpeed calls torch functions that are about to be renamed, and Python would warn at each call.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    try:
        return resolve(run)(cfg, folder)
    finally:
        engines.reset_deepspeed_config()


def wanted(cfg: DictConfig) -> bool:
    """Return whether this run needs workers to be started.

    Raises:
        TltrainError: processes were started already, but not the configured number.
    """
    team = distributed.team()
    if team is not None:
        asked = cfg.hardware.processes
        if asked is not None and cfg.hardware.nodes == 1 and asked not in (1, team.place.local_size, team.place.size):
            raise TltrainError(f"hardware.processes={asked}, but {team.place.size} processes were started already")
        return False
    if cfg.stage.name not in LAUNCHED:
        return False
    count = distributed.local_processes(cfg.hardware) * cfg.hardware.nodes
    if cfg.stage.name == "eval":
        alone = cfg.stage.predictions is not None or cfg.stage.compare or cfg.benchmark.name in MODEL_ITSELF
        return not alone and cfg.source.name == "model" and count > 1
    return count > 1 or bool(cfg.hardware.deepspeed)


# --- the process that starts workers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """How a worker ended. `user`: the user caused it, so no traceback is needed."""

    rank: int
    line: str
    trace: str
    user: bool
    time: float


def launch(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in workers and return its metrics.

    Raises:
        TltrainError: a worker failed (the message has its rank unless it is 0), or the machines share no secret.
    """
    secret = shared_secret.new() if cfg.hardware.nodes == 1 else shared_secret.of_user(os.environ)
    with terminal.status("loading torch"):
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import elastic_launch
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # `_why` reports failures in one line
    with tempfile.TemporaryDirectory(prefix="tltrain-") as place:
        file = Path(place) / "run.json"
        file.touch(mode=0o600)  # only the user can enter the folder either
        file.write_bytes(messages.encode((secret, cfg, HydraConfig.instance().cfg, folder)))
        with environment(distributed.local_processes(cfg.hardware), cfg.hardware.threads), _signals():
            try:
                elastic_launch(launch_config(cfg.hardware, place), sys.executable)(
                    "-u", "-m", "tltrain.entry.worker", str(file)
                )
            except ChildFailedError as error:
                codes = {failure.exitcode for failure in error.failures.values()}
                # After a failure the launcher sends SIGTERM to the other workers, which is not a preemption.
                if preemption.EXIT in codes and codes <= {preemption.EXIT, -signal.SIGTERM}:
                    preemption.stop()  # only a worker received SIGTERM, and all have saved
                raise TltrainError(_why(error.failures, Path(place))) from error
        if cfg.hardware.nodes > 1 and _node_rank(cfg.hardware) > 0:
            return {}
    return json_files.read_object(folder / "metrics.json")


def launch_config(hardware: DictConfig, place: str) -> Any:
    """Return torch's `LaunchConfig` for this machine's workers.

    Args:
        place: folder for the output of all workers but rank 0.

    Raises:
        TltrainError: there are several nodes and no rendezvous.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.launcher.api import LaunchConfig

    count, nodes = distributed.local_processes(hardware), hardware.nodes
    if nodes == 1:
        from tltrain.entry import rendezvous

        meeting: dict[str, Any] = {"rdzv_backend": rendezvous.BACKEND, "run_id": Path(place).name}
        quiet = range(1, count)
    else:
        if not hardware.rendezvous or not hardware.rendezvous.rpartition(":")[2].isdigit():
            raise TltrainError(
                f"hardware.nodes={nodes} needs hardware.rendezvous=ADDRESS:PORT of node 0, found {hardware.rendezvous}"
            )
        node_rank = _node_rank(hardware)
        meeting = {
            "rdzv_backend": "static",
            "rdzv_endpoint": hardware.rendezvous,
            "rdzv_configs": {"rank": node_rank, "timeout": 900},
            "run_id": "tltrain",
        }
        quiet = range(1 if node_rank == 0 else 0, count)
    return LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=count,
        max_restarts=0,
        monitor_interval=0.5,
        shutdown_timeout=SHUTDOWN,
        logs_specs=DefaultLogsSpecs(log_dir=place, redirects=dict.fromkeys(quiet, Std.ALL) or Std.NONE),
        **({"local_addr": "127.0.0.1"} if nodes == 1 else {}),
        **meeting,
    )


def _node_rank(hardware: DictConfig) -> int:
    """Return the rank of this node, from `hardware.node_rank` or SLURM."""
    given = hardware.node_rank if hardware.node_rank is not None else os.environ.get("SLURM_NODEID")
    if given is None or not 0 <= int(given) < hardware.nodes:
        raise TltrainError(
            f"hardware.nodes={hardware.nodes} needs hardware.node_rank, from 0 to {hardware.nodes - 1}, "
            f"on each node; found {given}"
        )
    return int(given)


@contextmanager
def environment(count: int, threads: int | None) -> Iterator[None]:
    """Set the environment that workers inherit: the path of this package, and their number of threads."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"), *own_code.found())))
    changes = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads or distributed.threads(count))}
    before = {name: os.environ.get(name) for name in changes}
    os.environ |= changes
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _signals() -> Iterator[None]:
    """Restore the signal handlers that torch's launcher replaces, and raise Python's exceptions for its own."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    names = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {name: signal.getsignal(name) for name in names}
    try:
        yield
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from error
        if error.sigval == signal.SIGTERM:
            preemption.stop()
        raise SystemExit(128 + int(error.sigval)) from error
    finally:
        for name, handler in before.items():
            with suppress(ValueError, TypeError):  # outside the main thread no handlers were set
                signal.signal(name, handler)


def _why(failures: Mapping[int, Any], place: Path) -> str:
    """Return the line of the worker that failed first, and print its traceback unless the user caused the failure.

    A worker that was killed by a signal reports nothing, and the others may only report that they lost it. If a killed
    worker reported an error first (libraries abort during teardown), that error is the cause.
    """
    reports = [Failure(**json_files.read_object(file)) for file in place.glob("failed-*.json")]
    first = min(reports, key=lambda report: report.time, default=None)
    said = "" if first is None else _line(first, reports)
    reported = {report.rank for report in reports}
    killed = {
        rank: failure
        for rank, failure in sorted(failures.items())
        if failure.exitcode < 0 and -failure.exitcode != signal.SIGTERM and rank not in reported
    }
    if killed:
        for failure in killed.values():
            _show_stderr(place, failure.local_rank)
        names = {signal.Signals(-failure.exitcode).name for failure in killed.values()}
        # The launcher also kills workers that do not end in time; then it is unknown which one failed first.
        who = f"rank {next(iter(killed))}" if len(killed) == 1 else f"ranks {' and '.join(map(str, killed))}"
        hint = "; did this machine run out of memory?" if "SIGKILL" in names else ""
        also = f" (another process failed too: {said})" if said else ""
        return f"{who}: killed by {' and '.join(sorted(names))}{hint}{also}"
    if first is None:
        rank = min(failures, key=lambda rank: (failures[rank].exitcode == -signal.SIGTERM, rank))
        _show_stderr(place, failures[rank].local_rank)
        return f"rank {rank}: ended with exit status {failures[rank].exitcode}"
    if not first.user and first.trace:
        terminal.errors.print(first.trace, markup=False)
    return said


def _line(first: Failure, reports: list[Failure]) -> str:
    """Return the line of `first`, with its rank unless rank 0 reports the same."""
    alike = any(report.rank == 0 and report.line == first.line for report in reports)
    return first.line if alike else f"rank {first.rank}: {first.line}"


def _show_stderr(place: Path, local_rank: int) -> None:
    """Print the last lines of a worker's standard error, if the launcher stored it in a file."""
    for file in place.rglob(f"attempt_*/{local_rank}/stderr.log"):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()[-STDERR_LINES:]
        terminal.errors.print("\n".join(lines), markup=False)


# --- a worker ---------------------------------------------------------------------------------------------------------


def work(file: Path) -> int:
    """Run a worker: rank 0 runs the stage, the others follow. Returns the exit status."""
    redact.install()
    faulthandler.enable()  # a crash in native code then shows where Python called it
    place = started(dict(os.environ))
    assert place is not None
    report = partial(report_failure, file.parent, place.rank)
    secret, cfg, hydra_config, folder = messages.decode(file.read_bytes())
    # With several nodes the team notices a death first; on one node the launcher does.
    team = distributed.join(place, secret, on_failure=report, on_death=lambda line: report(TltrainError(line)))
    if place.rank == 0:
        try:
            as_in_hydra(hydra_config)
            redact.begin_job(cfg)
            with preemption.handled(), tracking.prepared(cfg):
                run_stage(cfg, folder)
        except Exception as error:
            report(error)
            return 1
        except preemption.Preempted as stopped:
            print(stopped, file=sys.stderr)
            return preemption.EXIT
        finally:
            sys.stdout.flush()
    else:
        try:
            with preemption.handled():
                team.follow()
        except TltrainError as error:
            report(error)
            return 1
        except preemption.Preempted:
            return preemption.EXIT
    distributed.leave()
    return 0


def as_in_hydra(hydra_config: DictConfig) -> None:
    """Set up logging and `HydraConfig` (which `composed.compose` needs) as in a job of Hydra."""
    from hydra.core.utils import configure_log, setup_globals

    setup_globals()
    config.register()
    HydraConfig.instance().cfg = hydra_config  # type: ignore[assignment]  # Hydra too keeps a DictConfig there
    configure_log(hydra_config.hydra.job_logging, hydra_config.hydra.verbose)


def report_failure(place: Path, rank: int, error: Exception) -> None:
    """Write why a process ends into the folder `place`, where the process that started it looks."""
    user = isinstance(error, TltrainError | OSError)
    trace = "" if user else "".join(traceback.format_exception(error))
    failure = Failure(rank, distributed.in_one_line(error), trace, user, time.time())
    part = place / f".failed-{rank}"
    with suppress(OSError):  # not with `runs`, where only rank 0 writes
        part.write_text(json.dumps(asdict(failure)), encoding="utf-8")
        part.rename(place / f"failed-{rank}.json")
