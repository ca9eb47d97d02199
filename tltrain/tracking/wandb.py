"""`tracking=wandb`: a run of Weights & Biases for each job, offline unless `tracking.mode=online`.

The run lies in `RUN_FOLDER/wandb`; an offline one is uploaded by the `wandb sync ...` that is printed at its end.

Lineage. What a job made is logged as a version of the artifact `data`, `model` or `evaluation`, by reference (`file://`
with each file's MD5) unless `tracking.upload=true`; what it read is logged likewise and marked as used. A version is
known by its content, so the model that one job made is the one that the next job used, whichever was uploaded first.
wandb's `use_artifact` refuses to work offline; the mark it sets is a field of the record that `log_artifact` writes,
which offline runs keep until they are synced. Name and digest of what was read stand in the artifact's metadata too.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from tltrain.runtime import redact
from tltrain.tracking import Tracker, guarded, names, one_line

log = logging.getLogger(__name__)

TYPES = {"data": "dataset", "model": "model", "evaluation": "evaluation"}
CELL = 4000
"""Characters of a table's cell; a prompt with many tools would make a table that no browser shows."""

_unreachable: set[str] = set()
"""Servers that did not answer in this process: the next job does not wait for them again."""


class WandbTracker(Tracker):
    """One run of wandb, begun here."""

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        self.cfg, self.folder = cfg, folder
        words, sys.argv = sys.argv, redact.command(sys.argv)  # wandb keeps the command line
        try:
            self._begin()
        finally:
            sys.argv = words

    # --- beginning and end -----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        wandb.setup(wandb.Settings(silent=True))
        mode, why = self.cfg.tracking.mode.name, ""
        if mode == "online" and (why := self._obstacle()):
            mode = "offline"
        id, before = self._id(), set(self.folder.glob("wandb/run-*"))
        try:
            self.run = self._init(mode, id)
        except Exception as error:
            if mode != "online":
                raise
            why = one_line(error)
            for begun in set(self.folder.glob(f"wandb/run-*-{id}")) - before:  # not what a stopped job has tracked
                shutil.rmtree(begun, ignore_errors=True)
            self.run = self._init("offline", new_id())  # the other is taken, for wandb, by the run that failed
        if why:
            log.warning("wandb: %s; tracking goes on offline, upload it with: wandb sync %s", why, self._sync_dir)
        elif mode == "online":
            log.info("wandb: %s", self.run.url)
        for group in dict.fromkeys(names.STEPS.values()):
            self.run.define_metric(group, hidden=True)
        for group, step in names.STEPS.items():
            self.run.define_metric(f"{group}/*", step_metric=step)

    def _obstacle(self) -> str:
        """Why there is no use in trying to reach the server, if there is none.

        Asked before wandb is, which would wait for a server that is silent once more when the process ends.
        """
        url = wandb.setup().settings.base_url
        try:
            if not wandb.login(prompt=False, verify=False):
                return "there is no API key: set WANDB_API_KEY or run `wandb login`"
        except wandb.Error as error:
            return one_line(error)
        if url in _unreachable:
            return f"{url} cannot be reached"
        try:
            urllib.request.urlopen(url, timeout=self.cfg.tracking.timeout).close()
        except urllib.error.HTTPError:  # an answer
            return ""
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            if not isinstance(reason, ssl.SSLError):  # wandb may trust certificates that Python does not
                _unreachable.add(url)
                return f"{url} cannot be reached ({one_line(reason)})"
        return ""

    def _init(self, mode: Literal["online", "offline", "disabled", "shared"], id: str) -> Any:
        tracking, stage, config = self.cfg.tracking, self.cfg.stage.name, redact.config(self.cfg)
        group, name = place(self.cfg, self.folder)
        tags = [*config["tracking"]["tags"], config["model"]["name"]]
        tags.append(config["benchmark" if stage == "eval" else "data"]["name"])
        return wandb.init(
            entity=tracking.entity and redact.text(tracking.entity),
            project=tracking.project and redact.text(tracking.project),
            id=id,
            mode=mode,
            group=group and redact.text(group),
            name=redact.text(name),
            job_type=stage,
            tags=list(dict.fromkeys(tags)),
            dir=str(self.folder),
            config=config,
            resume="allow" if self.cfg.stage.get("resume") else None,
            reinit="create_new",  # a stage may run within another's job
            settings=wandb.Settings(
                silent=True,
                console="off",
                save_code=False,
                init_timeout=tracking.timeout,
                finish_timeout=0 if tracking.upload else tracking.finish_timeout,
                finish_timeout_raises=True,
            ),
        )

    def _id(self) -> str:
        """Of the run; that of the earlier one where `stage.resume=true` goes on with it."""
        found = sorted(self.folder.glob("wandb/*run-*-*"), key=lambda path: path.name.split("-")[-2])
        if self.cfg.stage.get("resume") and found:
            return found[-1].name.rpartition("-")[2]
        return new_id()

    @property
    def _sync_dir(self) -> Path:
        return Path(self.run.settings.sync_dir)

    @guarded
    def preempted(self) -> None:
        self.run.mark_preempting()

    def close(self, failed: bool) -> None:
        if self.cfg.tracking.dashboard and not failed:
            self._dashboard()
        left = self.run.offline
        try:
            self.run.finish(exit_code=int(failed))
        except Exception as error:
            self.complain(error)
            left = True
        if left:
            log.info("wandb sync %s", self._sync_dir)

    @guarded
    def _dashboard(self) -> None:
        from tltrain.tracking import dashboard

        if self.run.offline:
            log.info("tracking.dashboard=true: a dashboard is made by an online run")
            return
        for url in dashboard.save(self.cfg, self.run.entity, self.run.project):
            log.info("wandb: %s", url)

    # --- what is tracked -------------------------------------------------------------------------------------------

    def callbacks(self) -> list[Any]:
        from tltrain.tracking.callback import LogCallback

        return [LogCallback(self._log)]

    @guarded
    def _log(self, logs: Mapping[str, Any], step: int) -> None:
        self.run.log(names.of_logs(logs, self.cfg.stage.name, step))

    @guarded
    def metrics(self, numbers: Mapping[str, float]) -> None:
        if numbers:
            self.run.log(dict(numbers))

    @guarded
    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], step: int | None = None) -> None:
        cells = [[_cell(value) for value in row] for row in islice(rows, self.cfg.tracking.rows)]
        if cells:
            own = {} if step is None else {names.STEPS[name.partition("/")[0]]: step}
            with staging(self.folder / "wandb"):
                self.run.log({name: wandb.Table(columns=list(columns), data=cells), **own})

    @guarded
    def artifact(self, kind: str, path: Path) -> None:
        used = []
        for input_kind, input_path in inputs(self.cfg):
            found = self._artifact(input_kind, input_path)
            self.run._log_artifact(found, aliases=[], is_user_created=True, use_after_commit=True)
            used.append({"kind": input_kind, "path": str(input_path), "digest": found.digest})
        made = self._artifact(kind, path)
        made.metadata = {"stage": self.cfg.stage.name, "path": str(path), "inputs": used}
        self.run.log_artifact(made, aliases=["latest", _alias(self.run.name)])

    def _artifact(self, kind: str, path: Path) -> Any:
        artifact = wandb.Artifact(kind, TYPES[kind])
        if not self.cfg.tracking.upload:
            artifact.add_reference(path.resolve().as_uri())
        elif path.is_dir():
            artifact.add_dir(str(path), policy="immutable")
        else:
            artifact.add_file(str(path), policy="immutable")
        return artifact

    @guarded
    def evaluation(
        self, metrics: Mapping[str, Any], predictions: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        self.metrics(names.of_evaluation(metrics))
        self.table("eval/predictions", columns, rows)
        self.artifact("evaluation", predictions)

    @guarded
    def track_file(self, path: Path) -> None:
        self.run.save(str(path.resolve()), base_path=str(path.resolve().parent), policy="now")


def new_id() -> str:
    return secrets.token_hex(4)


@contextmanager
def staging(folder: Path) -> Iterator[None]:
    """Have wandb keep a table's content until it is uploaded: with the run, not at home, unless the user says where."""
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    os.environ["WANDB_DATA_DIR"] = str(folder)
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]


def place(cfg: DictConfig, folder: Path) -> tuple[str | None, str]:
    """A run's group and name: the sweep's folder, or that of the job whose stage this is; the run folder below it."""
    hydra = HydraConfig.get()
    above: Path | None = None
    if hydra.mode == RunMode.MULTIRUN:
        above = Path(hydra.sweep.dir).resolve()
    elif folder.resolve() != Path(hydra.runtime.output_dir).resolve():
        above = Path(hydra.runtime.output_dir).resolve()
    own = folder.resolve()
    name = str(own.relative_to(above)) if above is not None and above in own.parents else own.name
    return cfg.tracking.group or (above.name if above is not None else None), name


def inputs(cfg: DictConfig) -> list[tuple[str, Path]]:
    """Files and folders that the stage reads, by kind: data or benchmark, saved predictions, models."""
    stage = cfg.stage
    if stage.name == "eval":
        answered = ("data", stage.predictions) if stage.predictions else ("model", cfg.model.path)
        found = [("data", cfg.benchmark.get("path")), answered]
    elif stage.name == "mae":
        found = [("data", cfg.data.get("path"))]
    else:
        found = [
            ("data", cfg.data.get("path")),
            ("model", cfg.model.path),
            ("model", (stage.get("critic") or {}).get("path")),
        ]
    return [(kind, Path(path)) for kind, path in found if path and Path(path).exists()]


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    words = redact.text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return words if len(words) <= CELL else words[: CELL - 1] + "…"


def _alias(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)
