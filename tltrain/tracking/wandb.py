"""`tracking=wandb`: a Weights & Biases run for each job, offline unless `tracking.mode=online`.

All runs that one command starts are in one tree: `wandb/` in the sweep's folder or in the folder of the single run.
`wandb sync FOLDER/wandb`, printed once at the end, uploads all offline runs. A job that is run again to be completed
(in an interrupted sweep, or with `stage.resume=true`) continues its run, whose id is in `.wandb_id` in its folder. An
offline job leaves a second file with the same id, which `wandb sync` uploads to the same run, in order of start.

Lineage: a job's output is logged as a version of the artifact `data`, `model` or `evaluation`, by reference (`file://`
with each file's MD5) unless `tracking.upload=true`; its inputs are logged in the same way and marked as used. A version
is identified by its content, so the model that one job made is the one that the next job used, whichever was uploaded
first. wandb's `use_artifact` does not work offline; the mark it sets is a field of the record that `log_artifact`
writes, which offline runs keep until they are synced. Names and digests of inputs are also in the artifact's metadata.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shlex
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
from omegaconf import DictConfig

from tltrain.runtime import redact
from tltrain.tracking import Tracker, guarded, names, one_line
from tltrain.tracking import wandb_folders as folders

log = logging.getLogger(__name__)

TYPES = {"data": "dataset", "model": "model", "evaluation": "evaluation"}
CELL = 4000
"""Maximum characters in a table cell; whole prompts with many tools would make a table that no browser can show."""

_unreachable: set[str] = set()
"""Servers that did not answer in this process, so that the next job does not wait for them again."""


class WandbTracker(Tracker):
    """One wandb run."""

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        self.cfg, self.folder = cfg, folder
        words, sys.argv = sys.argv, redact.command(sys.argv)  # wandb stores the command line
        try:
            self._begin()
        finally:
            sys.argv = words

    # --- start and end ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        wandb.setup(wandb.Settings(silent=True))
        mode, why = self.cfg.tracking.mode.name, ""
        if mode == "online" and (why := self._obstacle()):
            mode = "offline"
        self.home = folders.home()
        earlier = folders.earlier_id(self.cfg, self.folder)
        id, before = earlier or new_id(), set(self.home.glob("wandb/run-*"))
        try:
            self.run = self._init(mode, id, continues=earlier is not None)
        except Exception as error:
            if mode != "online":
                raise
            why = one_line(error)
            for begun in set(self.home.glob(f"wandb/run-*-{id}")) - before:  # a stopped job's data is kept
                shutil.rmtree(begun, ignore_errors=True)
            id = new_id()  # wandb considers the other id taken by the failed run
            self.run = self._init("offline", id)
        folders.record_id(self.folder, id)
        if why:
            log.warning(
                "wandb: %s; tracking continues offline; upload it with: %s", why, folders.sync_command(self.home)
            )
        elif mode == "online":
            log.info("wandb: %s", self.run.url)
        for group in dict.fromkeys(names.STEPS.values()):
            self.run.define_metric(group, hidden=True)
        for group, step in names.STEPS.items():
            self.run.define_metric(f"{group}/*", step_metric=step)

    def _obstacle(self) -> str:
        """Return why the server cannot be used, or an empty string.

        This is checked before wandb starts, which would wait for an unresponsive server again when the process ends.
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
        except urllib.error.HTTPError:  # the server answered
            return ""
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            if not isinstance(reason, ssl.SSLError):  # wandb may trust certificates that Python does not
                _unreachable.add(url)
                return f"{url} cannot be reached ({one_line(reason)})"
        return ""

    def _init(self, mode: Literal["online", "offline", "disabled", "shared"], id: str, continues: bool = False) -> Any:
        tracking, stage, config = self.cfg.tracking, self.cfg.stage.name, sent_config(self.cfg)
        group, name = folders.group_and_name(self.cfg, self.folder)
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
            dir=str(self.home),
            config=config,
            resume="allow" if continues else None,
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

    @guarded
    def preempted(self) -> None:
        self.run.mark_preempting()

    def close(self, failed: bool) -> None:
        if self.cfg.tracking.dashboard and not failed:
            self._dashboard()
        offline, ended = self.run.offline, True
        try:
            self.run.finish(exit_code=int(failed))
        except Exception as error:
            self.warn(error)
            ended = False
        if not offline:
            if not ended:
                log.info("wandb sync --include-online %s", shlex.quote(self.run.settings.sync_dir))
        # A sweep prints this once, at its end; so does a job, unless one of its stages fails and ends it.
        elif not folders.in_sweep() and (failed or self.folder.resolve() == self.home):
            log.info("%s", folders.sync_command(self.home))

    @guarded
    def _dashboard(self) -> None:
        from tltrain.tracking import dashboard

        if self.run.offline:
            log.info("tracking.dashboard=true: only an online run makes a dashboard")
            return
        for url in dashboard.save(self.cfg, self.run.entity, self.run.project):
            log.info("wandb: %s", url)

    # --- tracking --------------------------------------------------------------------------------------------------

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
            with staging(self.home / "wandb"):
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


def sent_config(cfg: DictConfig) -> dict[str, Any]:
    """Return the configuration without secrets and without the tables of MAE's rules, which are long and rarely differ.

    A table is replaced by its number of entries and its digest, which distinguishes tables; the run's `config.yaml`
    has it in full.
    """
    sent = redact.config(cfg)
    rules = sent.get("mae")
    if isinstance(rules, dict):
        sent["mae"] = {name: _without_tables(rule) for name, rule in rules.items()}
    return sent


def _without_tables(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_tables(value) for key, value in node.items()}
    if isinstance(node, list) and len(node) > 1:
        digest = hashlib.sha256(json.dumps(node, ensure_ascii=False).encode()).hexdigest()[:12]
        return f"{len(node)} entries, sha256 {digest}"
    return node


@contextmanager
def staging(folder: Path) -> Iterator[None]:
    """Make wandb keep a table's content in the run's folder until it is uploaded, unless the user set a folder."""
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    os.environ["WANDB_DATA_DIR"] = str(folder)
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]


def inputs(cfg: DictConfig) -> list[tuple[str, Path]]:
    """Return the files and folders that the stage reads, with their kind: data or benchmark, predictions, models."""
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
