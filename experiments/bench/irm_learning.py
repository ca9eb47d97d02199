"""Test whether stage=irm learns: held-out reward before and after, for each algorithm and seed.

    python experiments/bench/irm_learning.py [--quick] [--only tiny|smollm2_135m] [--jobs 2]

A model is first trained by stage=sft on toolworld. From that checkpoint, ppo, rloo and grpo continue with three seeds
each (`tiny`), or ppo with one (SmolLM2-135M). A seed changes the conversations, their held-out tenth, and the rollouts.
Every run answers its held-out questions greedily before and after. The interval of a run's mean difference is a paired
bootstrap over questions, that of an algorithm Student's t over its seeds. Runs use the ordinary command line, each in
its own folder under outputs/bench/irm_learning; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tltrain.evaluation.intervals import grouped_mean, mean_over_seeds
from tltrain.runtime import terminal

FOLDER = Path("outputs/bench/irm_learning")
TRAINING = {
    "tiny": ["data.size=500"],
    "smollm2_135m": ["data.size=60"],
}
RUNS = {
    "tiny": {
        "algorithms": ("ppo", "rloo", "grpo"),
        "seeds": (1, 2, 3),
        "words": ["data.size=1500", "stage.max_new_tokens=64", "stage.eval_size=200", "stage.eval_batch_size=16"],
        "steps": {"ppo": 40, "rloo": 40, "grpo": 40},
        "threads": 1,
    },
    "smollm2_135m": {
        "algorithms": ("ppo",),
        "seeds": (1,),
        "words": [
            "data.size=1500",
            "stage.max_new_tokens=64",
            "stage.eval_size=400",
            "stage.eval_batch_size=16",
            "stage.args.gradient_accumulation_steps=8",  # trajectories per rollout: about 24 calls
            "stage.kl=0.1",  # at 0.3 the penalty soon outweighs what few calls can teach
        ],
        "steps": {"ppo": 80},
        "threads": 2,
    },
}
WANTED = {"tiny": 0.2, "smollm2_135m": 0.1}


def command(folder: Path, *words: str) -> float:
    """Run the command line in `folder` unless it has finished there; return the seconds it took."""
    start = time.perf_counter()
    if not (folder / "metrics.json").is_file():
        subprocess.run(
            [sys.executable, "-m", "tltrain", *words, "tracking=none", "certify=0", f"hydra.run.dir={folder}"],
            check=True,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    return time.perf_counter() - start


def trained(model: str) -> Path:
    """Return the checkpoint that all runs of a model start from."""
    folder = FOLDER / f"{model}_sft"
    command(folder, "stage=sft", f"model={model}", "seed=0", *TRAINING[model])
    return folder / "model"


def learned(model: str, algorithm: str, seed: int, share: float) -> dict:
    """Return one run's held-out rewards before and after."""
    setting = RUNS[model]
    steps = max(int(setting["steps"][algorithm] * share), 1)
    folder = FOLDER / f"{model}_{algorithm}_{seed}_{steps}"
    seconds = command(
        folder,
        "stage=irm",
        f"stage.algorithm={algorithm}",
        f"model={model}",
        f"model.path={FOLDER / f'{model}_sft' / 'model'}",
        f"seed={seed}",
        f"stage.args.max_steps={steps}",
        "stage.args.save_strategy=no",
        f"hardware.threads={setting['threads']}",
        *setting["words"],
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    return {
        "model": model,
        "algorithm": algorithm,
        "seed": seed,
        "steps": steps,
        "seconds": round(seconds, 1),
        "before": metrics["before"],
        "after": metrics["after"],
    }


def differences(run: dict) -> np.ndarray:
    """Return the reward after minus the reward before, for each held-out question."""
    return np.array(run["after"]["rewards"]) - np.array(run["before"]["rewards"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half the steps")
    parser.add_argument("--only", choices=tuple(RUNS), help="run only this model")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (for models that use one thread)")
    options = parser.parse_args()
    share = 0.5 if options.quick else 1.0
    results, rows = [], []
    for model in [options.only] if options.only else RUNS:
        setting = RUNS[model]
        trained(model)
        jobs = [(model, algorithm, seed, share) for algorithm in setting["algorithms"] for seed in setting["seeds"]]
        with ThreadPoolExecutor(options.jobs if setting["threads"] == 1 else 1) as pool:
            runs = list(terminal.track(pool.map(lambda job: learned(*job), jobs), model, len(jobs)))
        for algorithm in setting["algorithms"]:
            own = [run for run in runs if run["algorithm"] == algorithm]
            for label, members in [*((f"seed {run['seed']}", [run]) for run in own), ("all seeds", own)]:
                if len(members) > 1:
                    reward = mean_over_seeds([float(differences(run).mean()) for run in members])
                else:
                    reward = grouped_mean([differences(run) for run in members])
                before, after = (np.mean([run[when]["reward"] for run in members]) for when in ("before", "after"))
                met = (
                    ""
                    if len(members) == 1 < len(own)
                    else ("yes" if reward.low > 0 and reward.value >= WANTED[model] else "no")
                )
                rows.append(
                    [
                        *(model, algorithm, label, own[0]["steps"], f"{before:.3f}", f"{after:.3f}"),
                        *(f"{reward.value:+.3f} [{reward.low:+.3f}, {reward.high:+.3f}]", met),
                    ]
                )
                results.append(
                    {"model": model, "algorithm": algorithm, "runs": label, "steps": own[0]["steps"]}
                    | {
                        "before": before,
                        "after": after,
                        "difference": reward.value,
                        "low": reward.low,
                        "high": reward.high,
                    }
                    | {"seconds": [run["seconds"] for run in members]}
                    | {
                        f"{level}_{when}": np.mean([run[when][level] for run in members])
                        for level in ("ts", "pi", "cf")
                        for when in ("before", "after")
                    }
                )
    terminal.table(
        "Held-out reward (greedy answers), mean difference [95 % interval]",
        ["model", "algorithm", "runs", "steps", "before", "after", "difference", "met"],
        rows,
    )
    print(json.dumps({"bench": "irm_learning", "wanted": WANTED, "results": results}))


if __name__ == "__main__":
    main()
