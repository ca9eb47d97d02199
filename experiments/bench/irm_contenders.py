"""The contenders of `irm.py`: each trains in its own process and returns what its steps cost."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from processes import ROOT, TLTRAIN, outcome, run

from tltrain.runtime import runs, terminal

FOLDER = ROOT / "outputs" / "bench"
PARTS = ("prefill", "decoding", "grading", "reference", "policy", "critic", "backward", "optimizer", "other")
"""Parts of a step: sampling (two parts), grading, forward passes of three models, backward, clipping and optimizer."""
TRL_PACKAGES = (
    "torch==2.13.0",  # first and separately: for this exact version the package indexes have a CPU build
    "trl==1.12.0",
    "transformers==5.23.0",
    "accelerate==1.15.0",
    "datasets==5.2.0",
    "numpy==2.4.6",
)
"""The packages of the contender trl, with the library versions that tltrain was tested with."""


def measure(contender: str, work: dict, folder: Path) -> dict:
    """Train with one contender in its own process.

    Args:
        work: settings and prompts; the workers read it from a file.
        folder: for the processes' input, output and logs.

    Returns:
        `samples`, `response_tokens`, `seconds` (of all measured ones) and its parts `seconds_generation` and
        `seconds_scoring`; `peak_gib`; and sanity checks such as `reward` and `kl`.
    """
    if contender == "tltrain":
        return measure_tltrain(work, folder, ROOT)
    if contender == "commit":
        return measure_tltrain(work, folder, worktree(work["commit"]))
    if contender == "kl0":
        return measure_tltrain(work | {"kl": 0}, folder, ROOT)
    if contender == "shared":
        return measure_tltrain(work, folder, ROOT, "stage.critic.share=true")
    written, result = folder / "work.json", folder / "result.json"
    runs.write_json(written, work)
    python = trl_python() if contender == "trl" else sys.executable
    worker = Path(__file__).with_name(f"{contender}_ppo_worker.py")
    environment = {"PYTHONPATH": str(ROOT)}  # for tltrain's modules that need no library, mainly grading
    if contender == "trl":
        # Set as by `accelerate launch --cpu --mixed_precision`; PPOTrainer does not pass its own arguments on.
        precision = "bf16" if work["bf16"] else "no"
        environment |= {"ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": precision}
        environment["TRL_EXPERIMENTAL_SILENCE"] = "1"
    peak = run([python, str(worker), str(written), str(result)], folder / "log.txt", environment)
    return json.loads(result.read_text()) | {"peak_gib": peak}


def worktree(commit: str) -> Path:
    """Return a folder with the code of a commit of this repository, made if missing."""
    folder = FOLDER / f"commit_{commit}"
    if not (folder / "tltrain").is_dir():
        run(["git", "worktree", "add", "--force", "--detach", str(folder), commit], folder.with_suffix(".log"))
    return folder


def parts_of(steps: Sequence[dict]) -> dict[str, float]:
    """Return the seconds of a step by part (`PARTS`), means over steps; empty for code that does not log them."""
    if "seconds_backward" not in steps[0]:
        return {}
    mean = {name: statistics.mean(step[name] for step in steps) for name in steps[0] if name.startswith("seconds")}
    found = {name: mean[f"seconds_{name}"] for name in PARTS if f"seconds_{name}" in mean}
    found["decoding"] = mean["seconds_generation"] - mean["seconds_prefill"]
    found["grading"] = mean["seconds_scoring"]
    found["other"] = mean["seconds"] - sum(found.values())
    return {name: found[name] for name in PARTS}


def measure_tltrain(work: dict, folder: Path, root: Path, *words: str) -> dict:
    """Measure stage=irm with the code in `root`; the times are in its `history.jsonl`, one line per step."""
    peak = run([*tltrain_command(work, folder), *words], folder / "log.txt", {"PYTHONPATH": str(root)}, root)
    lines = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    steps = [line for line in lines if "seconds_generation" in line and line["step"] > 1]  # the first step warms up
    if not steps:
        raise SystemExit(f"{folder / 'history.jsonl'} has no step with `seconds_generation` after the first")
    summed = ("samples", "response_tokens", "seconds", "seconds_generation", "seconds_scoring")
    means = [name for name in ("reward", "kl") if name in steps[0]]
    return (
        {name: sum(step[name] for step in steps) for name in summed}
        | {name: statistics.mean(step[name] for step in steps) for name in means}
        | {
            "peak_gib": peak,
            "parts": parts_of(steps),
            "padding": statistics.mean(s.get("update_padding", 0) for s in steps),
        }
    )


def tltrain_command(work: dict, folder: Path) -> list[str]:
    """Return the command line that a user would type; a step takes every trajectory, one at a time."""
    return [
        *TLTRAIN,
        "stage=irm",
        "stage.mae=false",
        f"model.path={work['model']}",
        "data=tltrain",
        f"data.path={work['trajectories']}",
        "data.holdout=0",
        f"stage.max_new_tokens={work['max_new_tokens']}",
        "stage.too_long_answer=keep",  # the contenders use every prompt
        f"stage.temperature={work['temperature']}",
        f"stage.kl={work['kl']}",
        "stage.eval_size=0",
        f"stage.args.max_steps={1 + work['steps']}",
        "stage.args.per_device_train_batch_size=1",
        f"stage.args.gradient_accumulation_steps={1 + work['prompts'][-1]['trajectory']}",
        f"stage.args.learning_rate={work['learning_rate']}",
        "stage.args.lr_scheduler_type=constant",
        "stage.args.warmup_steps=0",
        f"stage.critic.learning_rate={work['learning_rate']}",
        "hardware=cpu",
        f"hardware.bf16={str(work['bf16']).lower()}",
        f"seed={work['seed']}",
        *outcome(folder),
    ]


def trl_python() -> str:
    """Return the Python of the environment with trl 1.12.0, which is made if missing or if its packages differ."""
    folder = FOLDER / "trl112"
    python, made = str(folder / "bin" / "python"), folder / "packages.json"
    if not made.is_file() or json.loads(made.read_text()) != list(TRL_PACKAGES):
        with terminal.status(f"making {folder}, once"):
            log = FOLDER / "trl112.log"
            run([sys.executable, "-m", "venv", "--clear", str(folder)], log)
            for packages in (TRL_PACKAGES[:1], TRL_PACKAGES):
                run([python, "-m", "pip", "install", *packages], log)
        runs.write_json(made, list(TRL_PACKAGES))
    return python
