"""Test whether `stage=plan` predicts the peak memory that training really takes.

    python experiments/bench/plan.py [--only WORD]

Each case is a short real training run (`stage=pkt` or `stage=irm`) in its own process, long enough that every sample is
used after the optimizer has allocated its states. The measured peak is that within `Trainer.train`: the kernel's
high-water mark of the process (VmHWM), or torch's on a GPU. The memory of the process with libraries imported and warm,
before a model was loaded, replaces the plan's own figure for it; the last column excludes it from both. A plan reads
only the model's configuration.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PKT, IRM = "supervised", "rl"
CASES: dict[str, tuple[str, list[str], dict[str, object]]] = {}


def case(name: str, node: str, words: str, **stage: object) -> None:
    CASES[name] = (node, words.split(), stage)


BATCH, STEPS, SUM = "args.per_device_train_batch_size", "args.max_steps", "args.gradient_accumulation_steps"


def short(tokens: int) -> dict[str, object]:
    """Return overrides for answers of at most `tokens` tokens that keep prompts with a longer golden call."""
    return {"max_new_tokens": tokens, "too_long_answer": "keep"}


SMOLLM = "model=smollm2_135m data.size=2 hardware.bf16="
case("tiny pkt fp32, batch 8", PKT, "model=tiny data.size=16 hardware.bf16=false", **{BATCH: 8, SUM: 1, STEPS: 4})
case("tiny pkt bf16, batch 8", PKT, "model=tiny data.size=16 hardware.bf16=true", **{BATCH: 8, SUM: 1, STEPS: 4})
case(
    "tiny irm fp32, batch 4",
    IRM,
    "model=tiny data.size=8 hardware.bf16=false",
    **{BATCH: 4, SUM: 2, STEPS: 2, **short(64)},
)
case(
    "tiny irm bf16, batch 4",
    IRM,
    "model=tiny data.size=8 hardware.bf16=true",
    **{BATCH: 4, SUM: 2, STEPS: 2, **short(64)},
)
case("smollm2 pkt fp32", PKT, f"{SMOLLM}false", **{STEPS: 3})
case("smollm2 pkt bf16", PKT, f"{SMOLLM}true", **{STEPS: 3})
case("smollm2 pkt bf16, checkpointing", PKT, f"{SMOLLM}true", **{STEPS: 3, "args.activation_checkpointing": True})
case("smollm2 irm fp32", IRM, f"{SMOLLM}false", **{SUM: 2, STEPS: 2, **short(16)})
case("smollm2 irm bf16", IRM, f"{SMOLLM}true", **{SUM: 2, STEPS: 2, **short(16)})


def words_of(name: str, plan: bool, cache: str, folder: str) -> list[str]:
    """Return the command line of a case or of its plan."""
    node, words, stage = CASES[name]
    prefix = f"stage.{node}" if plan else "stage"
    kind = {PKT: "pkt", IRM: "irm"}[node]
    chosen = {"data.holdout": 0, "tracking": "none", "cache.dir": cache, "hydra.run.dir": f"'{folder}'"}
    if node == IRM:
        stage = stage | {"eval_size": 0}
    return [
        *(["stage=plan", f"stage.of={kind}"] if plan else [f"stage={kind}"]),
        *words,
        *(f"++{prefix}.{key}={value}" for key, value in stage.items()),
        *(f"{key}={value}" for key, value in chosen.items()),
    ]


def worker(words: list[str], result: Path) -> None:
    """Train in this process; write the memory used before and at the peak."""
    import transformers

    from tltrain import __main__
    from tltrain.runtime import memory
    from tltrain.stages import irm, supervised  # noqa: F401
    from tltrain.training import group, ppo, sft  # noqa: F401

    warm_up()
    before = resident()
    train = transformers.Trainer.train

    def measured(self, *args, **kwargs):
        with memory.peak() as peak:
            outcome = train(self, *args, **kwargs)
        result.write_text(json.dumps({"before": before, "peak": peak.bytes}))
        return outcome

    transformers.Trainer.train = measured
    sys.argv = ["tltrain", *words]
    __main__.main()


def warm_up() -> None:
    """Train a very small model, so that the libraries load what they load on first use."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.arange(32)[None]
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()


def resident() -> int:
    """Return VmRSS of this process in bytes."""
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def run(name: str, cache: str) -> dict:
    """Return a case's predicted and measured bytes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        result, said = Path(folder) / "result.json", Path(folder) / "run"
        commands = (
            [sys.executable, "-m", "tltrain", *words_of(name, True, cache, str(said / "plan"))],
            [sys.executable, __file__, "--worker", str(result), *words_of(name, False, cache, str(said / "train"))],
        )
        for command in commands:
            ran = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
            if ran.returncode:
                raise SystemExit(f"{name}: {ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
        plan = json.loads((said / "plan" / "plan.json").read_text())
        measured = json.loads(result.read_text())
    alone = plan["peak_bytes"] - plan["setup"]["process"]
    on_gpu = plan["setup"]["device"] == "cuda"  # on a GPU torch counts only tensors
    process = 0 if on_gpu else measured["before"]
    found = {
        "case": name,
        "moment": plan["peak_moment"],
        "tokens": plan["batch"]["rows"] * plan["batch"]["length"],
        "process": process,
        "predicted": alone + process,
        "measured": measured["peak"],
        "ratio": (alone + process) / measured["peak"],
        "ratio_without_process": alone / (measured["peak"] - process),
        "moments": plan["moments"],
    }
    print(
        f"{name}: {found['ratio']:.2f}, without process {found['ratio_without_process']:.2f}",
        file=sys.stderr,
        flush=True,
    )
    return found


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[3:], Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run only cases whose name contains this")
    parser.add_argument("--cache", default="outputs/cache", help="cache.dir of the runs")
    options = parser.parse_args()
    from tltrain.runtime import terminal

    results = [
        run(name, str(Path(options.cache).resolve()))
        for name in terminal.track([name for name in CASES if options.only in name], "training")
    ]
    terminal.table(
        "Peak memory of a training process, MiB",
        ["", "tokens at once", "process", "predicted", "measured", "ratio", "ratio without process"],
        [
            [
                one["case"],
                one["tokens"],
                *(round(one[key] / 2**20) for key in ("process", "predicted", "measured")),
                f"{one['ratio']:.2f}",
                f"{one['ratio_without_process']:.2f}",
            ]
            for one in results
        ],
    )
    print(json.dumps({"bench": "plan", "results": results}))


if __name__ == "__main__":
    main()
