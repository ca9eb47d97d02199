"""Measure what IRM for whole conversations saves by computing shared parts once.

    python experiments/bench/conversation_rl.py [--quick] [--model tiny|smollm2_135m] [--processor-time]

The same conversations on toolworld are sampled and learned from by stage=irm stage.rollout=conversation, as
  tltrain        all conversations of a step at once, each continuing from its own cache; a task's conversations are one
                 row of the update, in which their common history is computed once
  fresh_prompts  the same batch without the caches of earlier turns: every turn reads its whole history again
  one_by_one     one conversation after the other, with a fresh prompt per turn, and one row of the update per turn
with temperature 0.7, one PPO epoch per rollout, a learning rate that leaves the policy unchanged, and float32. Every
round restarts each of them in its own process, in a different order; times are measured inside, without loading and
without the first step. All must sample the same tokens. Peak memory is VmHWM of each process. A second table breaks
down the time of a step.

The checkpoint comes from a short `stage=sft` on toolworld, trained once in outputs/bench/conversation_rl, so that
answers end; --checkpoint names another one. On a busy machine --processor-time counts CPU seconds, with one thread.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import processes
import torch

from tltrain.runtime import terminal

FOLDER = Path("outputs/bench/conversation_rl")
CONTENDERS: dict[str, tuple[list[str], list[str]]] = {
    "tltrain": ([], []),
    "fresh_prompts": (["fresh_prompts"], []),
    "one_by_one": (["fresh_prompts"], ["stage.packing=turn"]),
}
"""Contender -> switches of the worker, and words of the command line."""
WANTED = {"fresh_prompts": 1.5, "one_by_one": 4.0}
"""Target: least ratio of a step's time to tltrain's."""
PARTS = ("sampling", "environments", "scoring", "reference", "policy", "critic", "backward", "optimizer", "other")
"""Parts of a step: answering, tools and prompts, grading and packing, three forward passes, backward, optimizer."""
SFT = {
    "tiny": ["data.size=200"],
    "smollm2_135m": ["data.size=40"],
}
SIZES = {"tiny": {"tasks": 8, "group_size": 4}, "smollm2_135m": {"tasks": 4, "group_size": 2}}
"""Model -> tasks in a step, and conversations about each. With four conversations about a task, one row per turn of
SmolLM2 takes more than 24 GiB."""
MOST_TURNS = 6
MAX_NEW_TOKENS = 64


def checkpoint(model: str) -> Path:
    """Return a model that has learned to answer with a call and the end token; trained once."""
    folder = FOLDER / f"sft_{model}"
    if not (folder / "metrics.json").is_file():
        words = ["stage=sft", f"model={model}", *SFT[model], "tracking=none", "certify=0", f"hydra.run.dir={folder}"]
        subprocess.run([sys.executable, "-m", "tltrain", *words], check=True, stdout=subprocess.DEVNULL)
    return folder / "model"


def measure(contender: str, work: Mapping, folder: Path) -> dict:
    """Train with one contender in a separate process and return the costs of its steps."""
    switches, words = CONTENDERS[contender]
    parallel = 1 if contender == "one_by_one" else work["tasks"] * work["group_size"]
    switches = [*switches, *(["processor_time"] if work["processor_time"] else [])]
    command = [
        *(sys.executable, str(Path(__file__).with_name("conversation_rl_worker.py"))),
        *(*switches, "--", "stage=irm", "stage.rollout=conversation", "reward=conversation"),
        f"model.path={work['model']}",
        f"stage.environment={{name: toolworld_multi, size: {work['tasks']}, max_turns: {MOST_TURNS}, "
        f"parallel: {parallel}}}",
        f"stage.group_size={work['group_size']}",
        f"stage.max_new_tokens={MAX_NEW_TOKENS}",
        "stage.eval_size=0",
        f"stage.args.max_steps={1 + work['steps']}",
        "+stage.args.logging_steps=1",
        "stage.args.per_device_train_batch_size=1",
        f"stage.args.gradient_accumulation_steps={work['tasks']}",
        "stage.args.learning_rate=1e-7",
        "stage.args.lr_scheduler_type=constant",
        "stage.args.warmup_steps=0",
        "stage.args.save_strategy=no",
        "stage.critic.learning_rate=1e-7",
        "hardware=cpu",
        "hardware.bf16=false",
        "certify=0",
        *(["hardware.threads=1"] if work["processor_time"] else []),
        f"seed={work['seed']}",
        *words,
        *processes.outcome(folder),
    ]
    peak = processes.run(command, folder / "log.txt", {"PYTHONPATH": str(processes.ROOT)})
    lines = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    steps = [line for line in lines if "seconds_generation" in line and line["step"] > 1]  # the first step warms up
    return {
        "seconds": sum(step["seconds"] for step in steps),
        "conversations": sum(step["conversations"] for step in steps),
        "turns": sum(step["samples"] for step in steps),
        "response_tokens": sum(step["response_tokens"] for step in steps),
        "reward": statistics.mean(step["reward"] for step in steps),
        "loss": statistics.mean(step["loss"] for step in steps),
        "padding": statistics.mean(step["update_padding"] for step in steps),
        "parts": parts_of(steps),
        "peak_gib": peak,
    }


def parts_of(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the seconds of a step by part (`PARTS`), means over steps."""
    mean = {name: statistics.mean(step[name] for step in steps) for name in steps[0] if name.startswith("seconds")}
    found = {name: mean[f"seconds_{name}"] for name in PARTS if f"seconds_{name}" in mean}
    found["environments"] = mean["seconds_generation"] - mean["seconds_sampling"]
    found["other"] = mean["seconds"] - sum(found.values())
    return {name: found.get(name, 0.0) for name in PARTS}


def summary(rounds: Sequence[dict]) -> dict:
    """Summarize one contender over the rounds: medians, and the largest peak."""
    return {
        "conversations_per_second": statistics.median(one["conversations"] / one["seconds"] for one in rounds),
        "seconds": statistics.median(one["seconds"] for one in rounds),
        "turns": statistics.mean(one["turns"] / one["conversations"] for one in rounds),
        "response_tokens": statistics.mean(one["response_tokens"] / one["turns"] for one in rounds),
        "padding": statistics.mean(one["padding"] for one in rounds),
        "parts": {name: statistics.median(one["parts"][name] for one in rounds) for name in PARTS},
        "peak_gib": max(one["peak_gib"] for one in rounds),
    }


def show(title: str, results: Mapping[str, dict]) -> None:
    terminal.table(
        title,
        ["contender", "conversations/s", "s", "turns", "tokens per turn", "peak GiB", "tltrain is faster"],
        [
            [
                name,
                f"{one['conversations_per_second']:.3f}",
                f"{one['seconds']:.2f}",
                f"{one['turns']:.1f}",
                f"{one['response_tokens']:.1f}",
                f"{one['peak_gib']:.2f}",
                f"{one['seconds'] / results['tltrain']['seconds']:.2f} x",
            ]
            for name, one in results.items()
        ],
    )
    terminal.table(
        "Seconds per step",
        ["part", *results],
        [[part, *(f"{one['parts'][part]:.2f}" for one in results.values())] for part in PARTS],
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half the rounds and tasks")
    parser.add_argument("--model", choices=sorted(SFT), default="tiny")
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="folder of another model to start from")
    parser.add_argument("--processor-time", action="store_true", help="count CPU seconds, with one thread")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="measured steps per round")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    share, sizes = 2 if options.quick else 1, SIZES[options.model]
    rounds = max(options.rounds // share, 1)
    work = {
        "model": str((options.checkpoint or checkpoint(options.model)).resolve()),
        "tasks": sizes["tasks"] // share,
        "group_size": sizes["group_size"],
        "steps": options.steps,
        "processor_time": options.processor_time,
    }
    folder = FOLDER / time.strftime("%Y-%m-%d_%H-%M-%S")
    measured: dict[str, list[dict]] = {name: [] for name in CONTENDERS}
    for turn in terminal.track(range(rounds), "rounds"):
        for name in random.Random(turn).sample(list(CONTENDERS), len(CONTENDERS)):
            measured[name].append(measure(name, work | {"seed": turn}, folder / f"{turn}_{name}"))
    results = {name: summary(found) for name, found in measured.items()}
    same = all(
        len({(one[turn]["turns"], one[turn]["response_tokens"], one[turn]["reward"]) for one in measured.values()}) == 1
        for turn in range(rounds)
    )
    clock = "processor seconds" if options.processor_time else "seconds"
    conversations = f"{work['tasks']} tasks x {work['group_size']} conversations"
    show(f"{options.model}, {conversations}, {options.steps} steps, {rounds} rounds, fp32, {clock}", results)
    print(f"All sampled the same: {'yes' if same else 'NO'}")
    print(
        json.dumps(
            {
                "bench": "conversation_rl",
                "model": options.model,
                "clock": clock,
                "rounds": rounds,
                "steps": options.steps,
                "tasks": work["tasks"],
                "group_size": work["group_size"],
                "contenders": results,
                "same_samples": same,
                "wanted": WANTED,
                **{
                    f"speedup_over_{name}": one["seconds"] / results["tltrain"]["seconds"]
                    for name, one in results.items()
                    if name != "tltrain"
                },
                "torch": torch.__version__,
                "threads": 1 if options.processor_time else torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
