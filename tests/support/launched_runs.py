"""Run commands in processes that a test may kill, and compare their results bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.small_runs import SMALL
from tests.support.typed import settled

ALWAYS = (
    *SMALL,
    "hardware=cpu",
    "hardware.bf16=false",
    "hardware.threads=1",
    "tracking=none",
    "certify=0",
    "cache.dir=cache",
)
SUPERVISED = ("data.size=16", "data.holdout=0.25", "stage.args.gradient_accumulation_steps=2")
RECIPES: dict[str, tuple[str, ...]] = {
    "sft": ("stage=sft", *SUPERVISED, "stage.args.save_steps=1", "hydra.run.dir=run", "stage.resume=true"),
    # With dropout, so that random states matter, and with values not yet logged when a checkpoint is saved.
    "pkt": (
        "stage=pkt",
        *SUPERVISED,
        "model.lora.r=2",
        "stage.args.num_train_epochs=2",
        "stage.args.logging_steps=3",
        "stage.args.save_steps=2",
        "hydra.run.dir=run",
        "stage.resume=true",
    ),
    "irm": (
        "stage=irm",
        "data.size=12",
        "data.holdout=0.2",
        "stage.max_new_tokens=4",
        "stage.too_long_answer=keep",
        "stage.eval_size=2",
        "stage.args.max_steps=4",
        "stage.args.save_steps=1",
        "stage.args.per_device_train_batch_size=2",
        "stage.args.gradient_accumulation_steps=2",
        "stage.critic.init=random",
        "stage.ppo_epochs=2",
        "stage.samples_every=1",
        "hydra.run.dir=run",
        "stage.resume=true",
    ),
    "conversations": (
        "stage=irm",
        "stage.rollout=conversation",
        "reward=conversation",
        "data.size=12",
        "stage.environment={size: 6, max_turns: 3}",
        "stage.max_new_tokens=4",
        "stage.eval_size=1",
        "stage.args.max_steps=4",
        "stage.args.save_steps=1",
        "stage.args.per_device_train_batch_size=2",
        "stage.args.gradient_accumulation_steps=2",
        "stage.critic.init=random",
        "stage.ppo_epochs=2",
        "stage.samples_every=1",
        "hydra.run.dir=run",
        "stage.resume=true",
    ),
    "pipeline": (
        "stage=pipeline",
        "data.size=16",
        "stage.benchmarks=[{name: toolworld, size: 2}]",
        "stage.eval.max_new_tokens=4",
        "stage.supervised.args.save_steps=1",
        "stage.rl.max_new_tokens=4",
        "stage.rl.too_long_answer=keep",
        "stage.rl.args.max_steps=3",
        "stage.rl.args.save_steps=1",
        "hydra.run.dir=run",
    ),
    "sweep": (
        "+experiment=smoke",
        "stage.mae=true",
        "data.size=6",
        "stage.benchmarks=[{name: toolworld, size: 2}]",
        "stage.eval.max_new_tokens=4",
        "stage.supervised.args.save_steps=1",
        "stage.rl.max_new_tokens=4",
        "hydra.sweep.dir=run",
    ),
}
"""Recipes of commands, each run in its own folder with `run/` and `cache/` below it. If repeated, each continues."""
TIMES = (
    *("seconds", "seconds_generation", "seconds_scoring", "seconds_update", "tokens_per_second", "step_time"),
    *(f"seconds_{part}" for part in ("prefill", "sampling", "reference", "policy", "critic", "backward", "optimizer")),
    *("train_runtime", "train_samples_per_second", "train_steps_per_second", "created", "stages", "cache", "folder"),
    *("samples_per_second", "peak_memory_bytes", "processor_seconds"),
)
"""Keys whose values are times, or say what was built and what was reused."""
ANSWERS = ("predictions.jsonl", "samples.jsonl", "transcripts.jsonl", "train.jsonl")
"""Files that are compared byte for byte, beside weights."""


def context() -> Any:
    """Return the context for processes forked from one that has loaded all libraries."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.support.preloaded"])
    return found


def start(home: Path, *words: str, before: Callable[[], None] | None = None) -> Any:
    """Start `python -m tltrain words...` in the folder `home`; its output is appended to `home/said`.

    Args:
        before: a module's function that the process calls first.
    """
    home.mkdir(parents=True, exist_ok=True)
    process = context().Process(target=_run, args=(str(home), words, before))
    process.start()
    return process


def marking_steps(seconds: float = 0.0) -> None:
    """Make each optimizer step write its number to the file `step` and take this many seconds longer."""
    from transformers.trainer_callback import DefaultFlowCallback

    on_step_end, count = DefaultFlowCallback.on_step_end, 0

    def mark(self, args, state, control, **kwargs):
        nonlocal count
        count += 1
        Path("step.part").write_text(str(count))
        os.replace("step.part", "step")
        time.sleep(seconds)
        return on_step_end(self, args, state, control, **kwargs)

    DefaultFlowCallback.on_step_end = mark


def _run(home: str, words: tuple[str, ...], before: Callable[[], None] | None = None) -> None:
    os.chdir(home)
    said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(said, stream.fileno())
    if before is not None:
        before()
    sys.argv = ["tltrain", *settled(words)]
    from tltrain.__main__ import main

    main()


def end(process: Any, home: Path, status: int = 0, timeout: float = 300) -> str:
    """Wait for a run to end, and return all output in its folder so far."""
    process.join(timeout)
    said = (home / "said").read_text(errors="replace") if (home / "said").is_file() else ""
    assert process.exitcode == status, f"{home}: exit status {process.exitcode}, not {status}\n{said}"
    return said


def steps(home: Path) -> int:
    """Return the number of optimizer steps made by a run with `marking_steps`."""
    try:
        return int((home / "step").read_text())
    except FileNotFoundError:
        return 0


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run: its folder and output, and when (in s) it started, made each optimizer step, and ended."""

    home: Path
    words: tuple[str, ...]
    times: tuple[float, ...]


def whole(home: Path, recipe: str) -> Whole:
    """Run a recipe to its end (after another command, so that the fork server is running)."""
    end(start(home / "first", "stage=mae", "data.size=2", "hydra.run.dir=run", "tracking=none"), home / "first")
    words, began, times = (*ALWAYS, *RECIPES[recipe]), time.monotonic(), [0.0]
    process = start(home / "whole", *words, before=marking_steps)
    while process.is_alive():
        times += [time.monotonic() - began] * (steps(home / "whole") - len(times) + 1)
        time.sleep(0.002)
    end(process, home / "whole")
    return Whole(home / "whole", words, (*times, time.monotonic() - began))


def same(home: Path, uninterrupted: Path) -> list[str]:
    """Return the names of the results that differ between two runs of one command."""
    left, right = contents(home), contents(uninterrupted)
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def contents(home: Path) -> dict[str, Any]:
    """Return weights and answers as bytes, histories and metrics without times and `home`, by name; also the cache."""
    found: dict[str, Any] = {}
    for place in (home / "run", home / "cache" / "stages"):
        for file in sorted(place.rglob("*")):
            name = file.relative_to(home).as_posix()
            if file.name.startswith(".") or not file.is_file():
                continue
            if file.parent.name == "model" or file.name in ANSWERS:
                found[name] = file.read_bytes()
            elif file.name == "history.jsonl":
                found[name] = [_timeless(json.loads(line)) for line in file.read_text().splitlines()]
            elif file.name in ("metrics.json", "sweep.json", "before.json"):
                found[name] = _timeless(json.loads(file.read_text().replace(f"{home}/", "")))
    assert found, f"{home}: nothing was left"
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in TIMES}
    return [_timeless(item) for item in value] if isinstance(value, list) else value
