"""The one entry: `python -m tltrain [group=choice ...] [key=value ...]`.

Composes the configuration from `conf/`, checks it, and calls the stage it names (`tltrain/stages/`). Mistakes of the
user end in one line and exit status 1; a traceback is a bug of ours.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from functools import partial
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tltrain import config, tracking
from tltrain.config.stages import CERTIFIED
from tltrain.entry import checks, launch, own_rule, program, usage, words
from tltrain.entry.command_line_errors import of_composition, one_line
from tltrain.errors import NotPassed, TltrainError
from tltrain.runtime import advice, distributed, out_of_space, preemption, redact, runs, shared_secret, terminal
from tltrain.runtime.place import started
from tltrain.runtime.resolver import resolve
from tltrain.sweeps import callback, resuming

log = logging.getLogger("tltrain")


def run_job(cfg: DictConfig) -> float | None:
    """Check the configuration and run the stage it names; returns the one number that a sweeper optimizes, if any."""
    if HydraConfig.get().mode is RunMode.MULTIRUN:  # of a run the callback asks, before Hydra writes anything
        runs.check_stage(runs.folder(), cfg)
    if cfg.stage.get("resume"):
        checks.check_run(cfg)
        resuming.check(cfg, runs.folder())
        if (metrics := runs.ended(runs.folder())) is not None:
            log.info("stage.resume=true: the run in %s has ended already", runs.folder())
            launch.show_again(cfg, runs.folder(), metrics)
            return certified(cfg, metrics).get("score")
    for name in ("metrics.json", "error.txt"):  # of an earlier run into the same folder: this one is not finished
        (runs.folder() / name).unlink(missing_ok=True)
    checks.check_run(cfg)
    checks.check_places(cfg)
    with tracking.prepared(cfg):
        run = launch.launch if launch.wanted(cfg) else launch.run_stage
        metrics = run(cfg, runs.folder())
    if metrics.get("passed") is False:
        raise NotPassed(metrics["verdict"], metrics["exit_status"])
    return certified(cfg, metrics).get("score")


def certified(cfg: DictConfig, metrics: dict[str, Any]) -> dict[str, Any]:
    """Serve the model of a training that has ended well and compare it with the training; return all metrics.

    Nothing is served for the stages of a pipeline, and in sweeps only where `certify` says so.
    """
    count = cfg.certify
    if count is None:
        count = 0 if HydraConfig.get().mode is RunMode.MULTIRUN else CERTIFIED
    if not count or not metrics or "certificate" in metrics or cfg.stage.name not in launch.TRAINING:
        return metrics
    with advice.running(cfg):
        return resolve("tltrain.stages.certify:after_training")(cfg, runs.folder(), metrics, count)


def main() -> None:
    """Run the command line in `sys.argv`; exits with status 1 after a user's mistake."""
    redact.begin(sys.argv[1:])
    if {"--help", "-h"} & set(sys.argv[1:]):
        print_help(sys.argv[1:])
        return
    if "--version" in sys.argv[1:]:
        print(program.version())
        return
    try:
        place = started(dict(os.environ), sys.argv[1:])
        secret = "" if place is None else shared_secret.of_user(os.environ)
    except TltrainError as error:
        sys.exit(redact.text(str(error)))
    if place is None:
        lead()
        return
    # deepspeed's launcher adds a word that is none of ours.
    sys.argv[1:] = [word for word in sys.argv[1:] if not word.startswith("--local_rank")]
    failure = partial(_tell_failure, place.rank)
    try:
        joined = distributed.join(place, secret, on_failure=failure, on_death=_tell_death)
    except TltrainError as error:
        sys.exit(str(error))
    if place.rank == 0:
        try:
            lead()
        finally:
            distributed.leave()
    else:
        terminal.silence()
        try:
            with preemption.handled():
                joined.follow()
        except TltrainError as error:
            sys.exit(f"rank {place.rank}: {error}")
        except preemption.Preempted:
            sys.exit(preemption.EXIT)
        distributed.leave()


def _tell_failure(rank: int, error: Exception) -> None:
    """Report why this process, one of several, ends."""
    print(redact.text(f"rank {rank}: {distributed.in_one_line(error)}"), file=sys.stderr, flush=True)


def _tell_death(line: str) -> None:
    """Report, on rank 0 only, that another process has died."""
    if distributed.leads():
        print(line, file=sys.stderr, flush=True)
        with suppress(Exception):
            runs.write_lines(runs.folder() / "error.txt", [redact.text(line)])


def lead() -> None:
    """Compose the configuration from the command line and run it."""
    try:
        words.check(sys.argv[1:])
    except TltrainError as error:
        print(redact.text(str(error)), file=sys.stderr)
        sys.exit(1)
    sys.argv[1:] = own_rule.expanded(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach us whole; we say them in one line
    config.register()
    failed: list[str] = []
    refused: list[NotPassed] = []
    callback.failed_jobs.clear()
    callback.refusals.clear()

    def fail(line: str) -> None:
        line = redact.text(line)
        failed.append(line)
        log.error("%s", line)
        with suppress(OSError):  # a full disk has no room for it either
            runs.write_lines(runs.folder() / "error.txt", [line])

    def task(cfg: DictConfig) -> float | None:
        try:
            with preemption.handled():  # of a job that a launcher of Hydra's has started in a process of its own
                return run_job(cfg)
        except NotPassed as verdict:
            refused.append(verdict)
            return None
        except (TltrainError, OSError) as error:
            # Caught here: Hydra would add a line, and end a sweep at its first failure.
            fail(str(error))
            return None
        except Exception as error:  # a bug of ours or of a library: the traceback is wanted
            if HydraConfig.get().mode is not RunMode.MULTIRUN:
                raise
            logging.getLogger().error("%s", error, exc_info=True)  # the root logger writes to the file only
            fail(f"{type(error).__name__}: {error}")
            return None

    try:
        with preemption.handled():
            hydra.main(version_base="1.3", config_path=str(config.CONF_DIR), config_name="config")(task)()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:  # first: some of Hydra's are OSErrors too
        print(redact.text(one_line(error, sys.argv[1:])), file=sys.stderr)
        sys.exit(1)
    except AssertionError as error:
        if not of_composition(error):
            raise
        print(redact.text(one_line(error, sys.argv[1:])), file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # the run's folder cannot be written to
        print(redact.text(str(out_of_space.of_disk(error) or error)), file=sys.stderr)
        sys.exit(1)
    except preemption.Preempted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(preemption.EXIT)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    finally:
        runs.release()
    if failed or callback.failed_jobs:
        sys.exit(1)
    # The stage has said why. A launcher of Hydra's may have run the jobs in other processes.
    if statuses := [*(verdict.status for verdict in refused), *callback.refusals]:
        sys.exit(statuses[0])


def print_help(typed: list[str]) -> None:
    """The help for a command line; exits with status 1 where it names a choice that there is not."""
    try:
        print(usage.text(typed))
    except (HydraException, OmegaConfBaseException) as error:
        print(redact.text(one_line(error)), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
