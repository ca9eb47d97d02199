"""Measure how fast PPO with the rule reward is, compared with two existing implementations and with an earlier commit.

    python experiments/bench/irm.py [--quick]
    python experiments/bench/irm.py --data toolworld --trajectories 8 --only commit tltrain --commit 3110bc8

The same prompts (every call of the first RoTBench third-turn trajectories), checkpoint, reward and settings go through
  released   the authors' order of work: one sample at a time, logits of whole sequences from actor and reference and
             values from the critic, then a forward, backward and optimizer step of actor and critic
             (`released_ppo_worker.py`)
  trl        PPOTrainer of trl 1.12.0, the last version that had one, with the rule as its reward model
             (`trl_ppo_worker.py`), in its own environment, which is made at the first use
  tltrain    stage=irm: a step is one rollout of all prompts
  commit     the same with the code of `--commit`, from a worktree of this repository; only if requested
  kl0        tltrain without the KL penalty, and so without a reference; only if requested
  shared     tltrain with the critic as a head on the policy, a different method; only if requested
at temperature 0.7, with one PPO epoch per rollout, a learning rate that leaves the policy unchanged, and bfloat16
autocast over float32 weights if the CPU supports it. Every round restarts each of them, in a different order. Times are
measured inside the processes, without loading and without the first sample or step. Peak memory is VmHWM of each
process. A second table breaks down the time of a step of tltrain, from what every run logs.

The checkpoint comes from a short `stage=sft`, trained once, so that answers end; --model chooses another. --tiny
--quick tests the script itself in a minute or two. The RoTBench folder is $TLTRAIN_SHARED/data/rotbench (default
../shared).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from irm_contenders import FOLDER, PARTS, measure, trl_python
from omegaconf import OmegaConf
from processes import ROOT, TLTRAIN, outcome, run
from transformers import AutoTokenizer

from tltrain import config, mae, toolworld
from tltrain.data import native, rotbench
from tltrain.data.reading import ReadReport
from tltrain.models import devices
from tltrain.runtime import runs, terminal
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.prompts import questions
from tltrain.trajectory import Trajectory

ROTBENCH = Path(os.environ.get("TLTRAIN_SHARED", ROOT.parent / "shared")) / "data" / "rotbench"
CONTENDERS = ("released", "trl", "tltrain")
ASKED_FOR = ("commit", "kl0", "shared")
"""Further contenders, which run only if `--only` names them."""
SETTINGS = {
    "max_new_tokens": 64,
    "temperature": 0.7,
    "kl": 0.3,
    "gamma": 1.0,
    "lam": 0.95,
    "clip": 0.2,
    "learning_rate": 1e-7,
}
BACKWARD = 2
"""A backward pass costs two forward passes: gradients with respect to inputs and to weights."""


# --- training data --------------------------------------------------------------------------------------------------


def trajectories(generated: bool, count: int) -> list[Trajectory]:
    """Return the first `count` trajectories, from toolworld if `generated`, in which every call is to be sampled."""
    if generated:
        items = list(toolworld.generate(count))
    elif ROTBENCH.is_dir():
        items = list(rotbench.read_training(ROTBENCH, ["clean"], "stop", ReadReport()))[:count]
    else:
        raise SystemExit(f"there is no {ROTBENCH}: set TLTRAIN_SHARED to the folder with data/rotbench in it")
    return [mae.apply(item, None) for item in items]


def prompts_of(items: Sequence[Trajectory], encoder: Encoder) -> list[dict]:
    """Return each call's history as token ids, its reward data, and the number of its trajectory."""
    return [
        {
            "trajectory": number,
            "ids": encoder.prompt(sample),
            "golden": {"name": sample.goldens[0].name, "arguments": dict(sample.goldens[0].arguments)},
            "tools": [
                {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
                for tool in sample.tools
            ],
        }
        for number, item in enumerate(items)
        for _, sample in questions(item)
    ]


def checkpoint(tiny: bool) -> Path:
    """Return a model that has learned to answer with a call and the end token; trained once."""
    folder = FOLDER / ("irm_sft_tiny" if tiny else "irm_sft")
    if not (folder / "metrics.json").is_file():
        source = ["data=toolworld", "data.size=150"] if tiny else ["data=rotbench", f"data.path={ROTBENCH}"]
        limit = [] if tiny else ["data.limit=16"]
        model = f"model={'tiny' if tiny else 'smollm2_135m'}"
        with terminal.status("training a checkpoint that ends its answers, once"):
            words = ["stage=sft", model, *source, *limit, *outcome(folder), "certify=0"]
            run([*TLTRAIN, *words], folder.with_suffix(".log"))
    return folder / "model"


# --- results --------------------------------------------------------------------------------------------------------


def summary(rounds: Sequence[dict]) -> dict:
    """Summarize one contender over the rounds: medians, the largest peak, and means of what sampling varies."""
    result = {
        "samples_per_second": statistics.median(one["samples"] / one["seconds"] for one in rounds),
        "generation_share": statistics.median(one["seconds_generation"] / one["seconds"] for one in rounds),
        "response_tokens_per_sample": statistics.mean(one["response_tokens"] / one["samples"] for one in rounds),
        "calls_per_hour": statistics.median(3600 * one["samples"] / one["seconds"] for one in rounds),
        "peak_gib": max(one["peak_gib"] for one in rounds),
    }
    if rounds[0].get("parts"):
        result["parts"] = {name: statistics.median(one["parts"][name] for one in rounds) for name in PARTS}
        result["padding"] = statistics.mean(one["padding"] for one in rounds)
    for name in ("reward", "kl", "ratio", "ratio_error", "approximate_kl"):
        if name in rounds[0]:
            result[name] = statistics.mean(one[name] for one in rounds)
    return result


def floor(prompts: Sequence[dict], released: Sequence[dict]) -> dict:
    """Estimate the time of computing every token once, from what `released` measured on these prompts.

    The histories of one trajectory's calls are prefixes of one another: of P prompt tokens, D are distinct; R are
    sampled. In passes of one token through one model, where a backward pass counts as two forward passes,

        released   sampling 1, scoring 3 (actor, reference, critic), updates 2 x 3, each over P + R       10 (P + R)
        at least   sampling 1, reference 1, updates 2 x 3, each over D + R                                 8 (D + R)

    because the update's own forward pass gives old log-probabilities and values if a rollout is used once. The time is
    that of these tokens at the rates of `released`: forward and backward of a model without its logits (the critic), as
    many decoding steps as the longest response has tokens, and one optimizer step of each model.

    Returns:
        `tokens`: P, D and R; `ratio_of_tokens`: ratio of the two lines above; `rates`: tokens/s of a forward pass and
        of forward and backward, seconds of a decoding step and of both optimizer steps; `samples_per_second`.
    """
    passes = sum(one["samples"] for one in released) / len(prompts)  # over all prompts
    laps = {name: sum(one["laps"][name] for one in released) / passes for name in released[0]["laps"]}
    p = sum(len(prompt["ids"]) for prompt in prompts)
    longest = {prompt["trajectory"]: len(prompt["ids"]) for prompt in prompts}  # a trajectory's last prompt is longest
    d, r = sum(longest.values()), sum(one["response_tokens"] for one in released) / passes
    forward, update = (p + r) / laps["critic_forward"], (p + r) / laps["critic_update"]
    decoding = max(laps["generation"] - p / forward, 0) / r
    step = (laps["actor_step"] + laps["critic_step"]) / len(prompts)
    steps = statistics.mean(one["longest_response"] for one in released)
    seconds = (d + d + r) / forward + steps * decoding + 2 * (d + r) / update + step
    return {
        "tokens": {"prompts": p, "distinct": d, "responses": r},
        "ratio_of_tokens": (1 + 3 + 2 * (1 + BACKWARD)) * (p + r) / ((1 + 1 + 2 * (1 + BACKWARD)) * (d + r)),
        "rates": {
            "forward_tokens_per_second": forward,
            "forward_and_backward_tokens_per_second": update,
            "decoding_step_seconds": decoding,
            "optimizer_steps_seconds": step,
        },
        "samples_per_second": len(prompts) / seconds,
    }


def show(title: str, results: Mapping[str, dict]) -> None:
    def cell(result: dict, name: str) -> str:
        return f"{result[name]:.4f}" if name in result else "-"

    terminal.table(
        title,
        ["contender", "samples/s", "s/sample", "generation", "response tokens", "peak GiB", "reward", "KL"],
        [
            [
                name,
                f"{one['samples_per_second']:.3f}",
                f"{1 / one['samples_per_second']:.2f}",
                f"{one['generation_share']:.0%}",
                f"{one['response_tokens_per_sample']:.1f}",
                f"{one['peak_gib']:.2f}",
                cell(one, "reward"),
                cell(one, "kl"),
            ]
            for name, one in results.items()
        ],
    )


def show_parts(result: dict) -> None:
    """Print the parts of a step's time."""
    parts = result["parts"]
    whole = sum(parts.values())
    terminal.table(
        f"a step of tltrain, {whole:.1f} s; padding in the update {result['padding']:.0%}",
        ["part", "s", "share"],
        [[name, f"{seconds:.2f}", f"{seconds / whole:.0%}"] for name, seconds in parts.items()],
    )


def comparison(results: Mapping[str, dict], least: dict | None) -> dict:
    """Compute and print the relevant ratios of the contenders that ran."""
    found = {}
    ours = results.get("tltrain")
    if ours:
        for name in [other for other in results if other != "tltrain"]:
            found[f"speedup_over_{name}"] = ours["samples_per_second"] / results[name]["samples_per_second"]
            found[f"memory_over_{name}"] = ours["peak_gib"] / results[name]["peak_gib"]
            print(
                f"tltrain makes {found[f'speedup_over_{name}']:.2f} x the samples/s of {name} "
                f"in {found[f'memory_over_{name}']:.2f} x its peak memory"
            )
    if least:
        tokens, rates = least["tokens"], least["rates"]
        print(
            f"floor: {tokens['prompts']} prompt tokens, {tokens['distinct']} of them distinct, and "
            f"{tokens['responses']:.0f} sampled; the number of passes would allow "
            f"{least['ratio_of_tokens']:.2f} x released; at {rates['forward_tokens_per_second']:.0f} tokens/s forward, "
            f"{rates['forward_and_backward_tokens_per_second']:.0f} forward and backward, "
            f"{rates['decoding_step_seconds']:.3f} s a decoding step and {rates['optimizer_steps_seconds']:.2f} s for "
            f"the optimizer, {least['samples_per_second']:.3f} samples/s"
        )
        if ours:
            found["share_of_floor"] = ours["samples_per_second"] / least["samples_per_second"]
            print(f"tltrain reaches {found['share_of_floor']:.0%} of it")
    return found


def largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of `number` that is at most `limit`."""
    return max(divisor for divisor in range(1, max(limit, 1) + 1) if number % divisor == 0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half the rounds and trajectories")
    parser.add_argument("--tiny", action="store_true", help="a random model on toolworld, to try the script")
    parser.add_argument("--fp32", action="store_true", help="float32 (default: bfloat16 if the CPU has it)")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="the checkpoint to start from")
    parser.add_argument("--trl-batch", type=int, default=4, metavar="N", help="trl: maximum samples per micro-batch")
    parser.add_argument(
        "--trl-rollout-batch", type=int, default=4, metavar="N", help="trl: maximum samples per rollout forward"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1, help="measured steps (passes over the prompts) per round")
    parser.add_argument(
        "--only", nargs="+", choices=(*CONTENDERS, *ASKED_FOR), default=CONTENDERS, help="run only these"
    )
    parser.add_argument("--commit", metavar="COMMIT", default="3110bc8", help="the code of the contender commit")
    parser.add_argument("--data", choices=("rotbench", "toolworld"), default="rotbench")
    parser.add_argument("--trajectories", type=int, default=5, metavar="N", help="trajectories per step")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    share = 2 if options.quick else 1
    count, rounds = max(options.trajectories // share, 1), max(options.rounds // share, 1)
    bf16 = (
        not options.fp32
        and devices.device_and_dtype(OmegaConf.structured(config.Hardware(device=config.Device.cpu)))[1]
    )
    model = (options.model or checkpoint(options.tiny)).resolve()
    if not (model / "config.json").is_file():
        raise SystemExit(f"--model: {model} has no config.json, expected the folder of a model")
    if "trl" in options.only:
        trl_python()
    items = trajectories(options.tiny or options.data == "toolworld", count)
    prompts = prompts_of(items, Encoder(AutoTokenizer.from_pretrained(model)))
    folder = FOLDER / "irm" / time.strftime("%Y-%m-%d_%H-%M-%S")
    runs.write_lines(folder / "trajectories.jsonl", map(native.dumps, items))
    work = SETTINGS | {
        "model": str(model),
        "bf16": bf16,
        "steps": options.steps,
        "micro_batch": largest_divisor(len(prompts), options.trl_batch),
        "rollout_batch": min(options.trl_rollout_batch, len(prompts)),
        "trajectories": str(folder / "trajectories.jsonl"),
        "commit": options.commit,
        "prompts": prompts,
    }
    measured: dict[str, list[dict]] = {name: [] for name in options.only}
    for turn in terminal.track(range(rounds), "rounds"):
        for name in in_turn(options.only, turn):
            measured[name].append(measure(name, work | {"seed": turn}, folder / f"{turn}_{name}"))
    results = {name: summary(found) for name, found in measured.items()}
    precision = "bf16" if bf16 else "fp32"
    show(f"{len(prompts)} prompts of {count} trajectories, {rounds} rounds, {precision}: {model}", results)
    if results.get("tltrain", {}).get("parts"):
        show_parts(results["tltrain"])
    least = floor(prompts, measured["released"]) if "released" in measured else None
    found = comparison(results, least)
    print(
        json.dumps(
            {
                "bench": "irm",
                "model": model.parent.name if model.name == "model" else model.name,
                "precision": precision,
                "trajectories": count,
                "prompts": len(prompts),
                "rounds": rounds,
                "steps": options.steps,
                "trl_micro_batch": work["micro_batch"],
                "trl_rollout_batch": work["rollout_batch"],
                "contenders": results,
                **found,
                "floor": least,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
            }
        )
    )


def in_turn(contenders: Iterable[str], turn: int) -> list[str]:
    """Return the order for a round; it varies so that no contender always follows the same one."""
    names = list(contenders)
    return random.Random(turn).sample(names, len(names))


if __name__ == "__main__":
    main()
