"""stage=eval benchmark=general: a model's abilities other than tool calls, measured by lm-eval.

    python -m tltrain stage=eval benchmark=general model.path=outputs/pkt/TIME/model
    python -m tltrain stage=eval benchmark=general benchmark.tasks=[mine] benchmark.include_path=FOLDER

Training on calls may cost other abilities: run it on the model before and after. Tasks, prompts, numbers of examples
and seeds are lm-eval's own, so that the numbers are comparable with published ones. No chat template is applied: a
trained model has the TL format's, which knows only tools, instead of its base model's. All models read the same plain
text.

Writes `metrics.json`: `general/TASK/METRIC` in lm-eval's own units (most are shares from 0 to 1) for every requested
task and group, METRIC with the name of its filter unless that is `none` (`exact_match,strict-match`); under `details`
the same with standard errors and sample counts, also for the members of groups.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain.config import GeneralBenchmark
from tltrain.data import trajectories
from tltrain.data.reading import ReadReport
from tltrain.errors import TltrainError, suggestion
from tltrain.runtime import runs, terminal
from tltrain.views import evaluation_tables

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the benchmark in `folder` and return what it wrote to `metrics.json`."""
    if not installed():
        raise TltrainError('benchmark=general needs lm-eval: pip install "tltrain[general]"')
    if cfg.stage.predictions is not None:
        raise TltrainError("stage.predictions: benchmark=general asks the model itself, it cannot score saved answers")
    if not cfg.benchmark.tasks:
        raise TltrainError("benchmark.tasks: expected names of lm-eval's tasks, found none")
    with terminal.status("loading lm-eval"):
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns about every default it uses

    manager = task_manager(cfg.benchmark)
    refused = refuse_unsafe(cfg, manager)
    # lm-eval's code execution checks this variable, which the user's shell may have set too.
    os.environ["HF_ALLOW_CODE_EVAL"] = "1" if cfg.benchmark.unsafe_code else "0"
    tasks = [task for name in cfg.benchmark.tasks if name not in refused for task in load(manager, name)]
    check_together(cfg, manager, tasks)
    model, encoder, path = local_model(cfg)
    found = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=encoder.tokenizer, batch_size=cfg.stage.batch_size),
        tasks=tasks,
        task_manager=manager,
        num_fewshot=cfg.benchmark.fewshot,
        limit=cfg.benchmark.limit,
        log_samples=False,
        confirm_run_unsafe_code=cfg.benchmark.unsafe_code,
    )
    details = {name: measures(numbers, found["n-samples"].get(name)) for name, numbers in found["results"].items()}
    members = {name for children in found["group_subtasks"].values() for name in children}
    metrics = {
        f"general/{name}/{metric}": one["value"]
        for name, measured in details.items()
        if name not in members
        for metric, one in measured["metrics"].items()
    }
    metrics |= {"model": path, "refused": refused, "lm_eval": found.get("lm_eval_version"), "details": details}
    runs.finish(folder, cfg, metrics)
    evaluation_tables.show_general(details, members)
    terminal.console.print(f"Written to {folder}", markup=False)
    return metrics


def installed() -> bool:
    """Return whether lm-eval is installed."""
    return importlib.util.find_spec("lm_eval") is not None


# --- tasks ------------------------------------------------------------------------------------------------------------


def task_manager(benchmark: GeneralBenchmark) -> Any:
    """Return lm-eval's index of tasks.

    Its own tasks are left out if `benchmark.include_path` has all requested ones, as reading thousands of definitions
    takes a while.
    """
    from lm_eval.tasks import TaskManager

    own, names = benchmark.include_path, list(benchmark.tasks)
    if own is not None:
        if not Path(own).is_dir():
            raise TltrainError(f"benchmark.include_path={own}: there is no such folder")
        manager = TaskManager(include_path=own, include_defaults=False)
        if set(names) <= set(manager.all_tasks):
            return manager
    with terminal.status("reading lm-eval's tasks"):
        manager = TaskManager(include_path=own)
    for name in names:
        if name not in manager.task_index:
            raise TltrainError(f"benchmark.tasks: lm-eval has no task {name}{suggestion(name, manager.all_tasks)}")
    return manager


def refuse_unsafe(cfg: DictConfig, manager: Any) -> list[str]:
    """Return the names in `benchmark.tasks` that execute code written by the model, unless that is allowed.

    They are found from the definitions, because loading such a task already runs code.

    Raises:
        TltrainError: there is no other task.
    """
    if cfg.benchmark.unsafe_code:
        return []
    refused = [name for name in cfg.benchmark.tasks if executes_code(manager.task_index, name)]
    for name in refused:
        log.warning(
            "%s is left out: it executes code that the model writes; benchmark.unsafe_code=true allows it", name
        )
    if len(refused) == len(cfg.benchmark.tasks):
        raise unsafe(refused)
    return refused


def executes_code(index: dict[str, Any], name: str) -> bool:
    """Return whether a task's definition, or that of any member of a group or tag, has `unsafe_code`."""
    entry = index.get(name)
    if entry is None:
        return False
    config = entry.cfg or {}
    members = config.get("task") if "group" in config else entry.tags if not config else ()
    return bool(config.get("unsafe_code")) or any(_member_executes_code(index, member) for member in members or ())


def _member_executes_code(index: dict[str, Any], member: Any) -> bool:
    """Check a member of a group: a name, or an inline definition."""
    if isinstance(member, str):
        return executes_code(index, member)
    names = member.get("task", [])
    names = [names] if isinstance(names, str) else names
    return bool(member.get("unsafe_code")) or any(_member_executes_code(index, inner) for inner in names)


def load(manager: Any, name: str) -> list[Any]:
    """Load the task or group of this name, or the tasks of a tag, with their data.

    Raises:
        TltrainError: its definition, its data or a package it needs is missing; the message names the task.
    """
    try:
        with terminal.status(f"loading {name}"):
            found = manager.load([name])
    except Exception as error:  # from the task's own code, or from the library that fetches its data
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise TltrainError(f"benchmark.tasks: {name} cannot be loaded: {reason}") from error
    return [found["groups"][name]] if name in found["groups"] else list(found["tasks"].values())


def check_together(cfg: DictConfig, manager: Any, tasks: Sequence[Any]) -> None:
    """Raise a TltrainError if a task is named twice, or turns out only now to execute code."""
    try:
        found = manager.load(list(tasks))["tasks"]
    except ValueError as error:
        raise TltrainError(f"benchmark.tasks: {error}") from error
    risky = [name for name, task in found.items() if getattr(task, "UNSAFE_CODE", False)]
    if risky and not cfg.benchmark.unsafe_code:
        raise unsafe(risky)


def unsafe(names: Sequence[str]) -> TltrainError:
    return TltrainError(
        f"benchmark.tasks: {', '.join(names)} would execute code that the model writes on this machine; "
        "benchmark.unsafe_code=true allows it"
    )


# --- the model --------------------------------------------------------------------------------------------------------


def local_model(cfg: DictConfig) -> tuple[Any, Any, str]:
    """Return the configured model, its encoder, and where they came from."""
    import torch

    from tltrain.models import devices, encoders, loading
    from tltrain.models.loading import corpus

    device, bf16 = devices.device_and_dtype(cfg.hardware)
    path = loading.resolve(
        cfg.model,
        cfg.cache.dir,
        lambda: corpus(list(trajectories(cfg.data, cfg.seed, ReadReport())), cfg.format),
        cfg.format,
    )
    model = loading.load_model(path, cfg.model, torch.bfloat16 if bf16 else torch.float32, device)
    return model, encoders.load_own_encoder(path, cfg.model, cfg.format), path


# --- results ----------------------------------------------------------------------------------------------------------


def measures(numbers: dict[str, Any], samples: dict[str, int] | None) -> dict[str, Any]:
    """Convert lm-eval's flat numbers of a task (`acc,none`, `acc_stderr,none`, ...) to metrics with standard errors."""
    metrics: dict[str, dict[str, float]] = {}
    for key, value in numbers.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        stderr = numbers.get(f"{metric}_stderr,{filter_name}")
        name = metric if filter_name == "none" else key
        metrics[name] = {"value": value} | ({"stderr": stderr} if isinstance(stderr, int | float) else {})
    return {"n": (samples or {}).get("effective", numbers.get("sample_len")), "metrics": metrics}
