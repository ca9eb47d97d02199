"""Print the estimates in experiments/README.md: the sweeps' cost on GPUs, from `stage=plan` and the overheads below.

    python experiments/cost_table.py [KEY=VALUE ...]

The output is Markdown. RoTBench's folder is `$TLTRAIN_SHARED/data/rotbench` (default `../shared`) or
`paths.rotbench=FOLDER`; if it does not exist, experiments that train on RoTBench are left out.

Models this small are limited by kernel launches, not arithmetic. The launch overhead is assumed here, not measured: a
GPU takes at least PASS seconds for each forward and backward pass and DECODE seconds for each token that a batch
samples, and a stage takes START seconds to begin (libraries, weights, data). The operations are added at the expected
share of the manufacturers' figures (`tltrain.plan.compute`). Stages run one after another; several GPUs share a stage's
passes.
"""

from __future__ import annotations

import math
import os
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir

from tltrain import config
from tltrain.entry import checks
from tltrain.models import loading
from tltrain.plan.compute import EXPECTED_UTILIZATION, PEAK_SPEEDS
from tltrain.runtime.durations import duration
from tltrain.stages import plan

START, PASS, DECODE = 20.0, 0.1, 0.025
MACHINES = {"1 × H200": (1, "H200"), "4 × A100": (4, "A100")}
PASSES = {"pkt": 1, "irm": 3}
"""Forward and backward passes per micro-batch: PPO trains two models and scores with three."""


@dataclass(frozen=True)
class Experiment:
    """A sweep's words, training runs (`pkt`, `irm`) and evaluations, with `questions` and tokens per `answer` each."""

    words: list[str]
    pkt: int
    irm: int
    evaluations: int
    questions: int
    answer: int = 60

    @property
    def stages(self) -> int:
        return self.pkt + self.irm + self.evaluations


TINY = ["model=tiny", "data.size=350", "stage.rl.args.max_steps=10"]
SMOLLM2 = ["model=smollm2_135m"]
ROTBENCH = ["data=rotbench", "data.levels=[clean,union]", "stage.rl.args.gradient_accumulation_steps=4"]
EXPERIMENTS = {
    "ablation model=tiny": Experiment(TINY, 4, 4, 8, 100),
    "w_max model=tiny": Experiment(TINY, 4, 0, 4, 100),
    "reward_ablation model=tiny": Experiment(TINY, 1, 3, 3, 100),
    "demo": Experiment([*SMOLLM2, "data.size=200"], 2, 1, 2, 80),
    "robustness": Experiment([*SMOLLM2, "data=rotbench"], 2, 1, 2, 735),
    "main_results": Experiment(SMOLLM2, 0, 0, 3, 153, 96),
    "rotbench_ablation": Experiment([*SMOLLM2, *ROTBENCH], 4, 4, 8, 531),
}


def seconds(experiment: Experiment, processes: int, device: str, words: list[str]) -> float:
    """Return the total seconds of all stages."""
    total = START * experiment.stages
    for of, count in (("pkt", experiment.pkt), ("irm", experiment.irm)):
        if not count:
            continue
        flops, bandwidth = (
            figure * share for figure, share in zip(PEAK_SPEEDS[device], EXPECTED_UTILIZATION, strict=True)
        )
        own = [f"stage.of={of}", f"stage.processes={processes}", f"stage.flops={flops}", f"stage.bandwidth={bandwidth}"]
        own += ["stage.rl.max_new_tokens=128", "stage.rl.too_long_answer=keep"]  # few golden calls are longer
        cfg = compose("config", overrides=["stage=plan", "hardware=gpu", *experiment.words, *own, *words])
        checks.check(cfg)
        found, metrics = plan.make(cfg)
        tokens, batch = metrics["tokens"], metrics["batch"]
        passes = math.ceil(tokens["read"] / tokens["length"] / batch["rows"] / processes) * PASSES[of]
        sampled = tokens["sampled"] / max(batch["samples"], 1) / processes
        total += count * (passes * PASS + sampled * DECODE + sum(found.seconds.values()))
    return (
        total + experiment.evaluations * math.ceil(experiment.questions / 16 / processes) * experiment.answer * DECODE
    )


def main() -> None:
    config.register()
    words, experiments = sys.argv[1:], EXPERIMENTS
    if not any(word.startswith("paths.rotbench=") for word in words):
        folder = Path(os.environ.get("TLTRAIN_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "rotbench"
        words = [f"paths.rotbench={folder}", *words]
        if not folder.is_dir():
            experiments = {name: one for name, one in EXPERIMENTS.items() if "data=rotbench" not in one.words}
            missing = ", ".join(name for name in EXPERIMENTS if name not in experiments)
            print(f"left out, because {folder} is missing: {missing}", file=sys.stderr)
    print(f"| experiment | {' | '.join(MACHINES)} |")
    print("| --- |" + " ---: |" * len(MACHINES))
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        cfg = compose("config", overrides=[*SMOLLM2, *words])
        with redirect_stdout(sys.stderr):  # the libraries' output
            loading.resolve(cfg.model, cfg.cache.dir, list)  # its tokenizer measures the prompts
        for name, experiment in experiments.items():
            cells = [duration(round(seconds(experiment, *machine, words))) for machine in MACHINES.values()]
            print(f"| `{name}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
