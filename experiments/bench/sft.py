"""Measure how fast supervised training on trajectories is, compared with existing implementations.

    python experiments/bench/sft.py [--quick]

The same trajectories, with every turn a target, go through
  released   one turn per sample, batch 1, the model's own loss over the whole sequence's logits (as the authors' code)
  trl        TRL's SFTTrainer on prompt/completion turns, batch 1
  trl_whole  TRL's SFTTrainer on whole conversations with the loss on the assistant's turns (what assistant_only_loss
             computes), one per row; each turn ends with the end token, which all later turns then read
  trl_packed the same with packing=True, rows of up to 4096 tokens
  tltrain    stage=sft: one trajectory per sample, logits only at targets
  pkt        stage=pkt: the same with weighted key tokens
each for one epoch and one optimizer step over the same turns (learning rate 0, so all rounds do the same work),
alternating within one run; results are medians over the rounds. Peak memory is measured in a separate process for each
contender. Losses of single turns are compared in float32. `share` is the time that the model's operations would need at
the rate of matrix products (2048 x 2048) that the machine reached between the rounds, divided by the measured time. The
RoTBench folder is $TLTRAIN_SHARED/data/rotbench (default ../shared); without it that half is skipped with a message.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine
import torch
from datasets import Dataset
from machine import MatmulRate, operations
from omegaconf import OmegaConf
from transformers import PrinterCallback, Trainer, default_data_collator
from trl import SFTConfig, SFTTrainer, pack_dataset

from tltrain import config, toolworld
from tltrain.data import rotbench
from tltrain.data.reading import ReadReport
from tltrain.models import devices, loading
from tltrain.models.encoders import load_encoder
from tltrain.models.loading import corpus
from tltrain.runtime import terminal
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Layout
from tltrain.tokens.packing import PackingReport, PackingSettings, pack
from tltrain.training import sft
from tltrain.trajectory import Trajectory

ROTBENCH = Path(os.environ.get("TLTRAIN_SHARED", Path(__file__).parents[2].parent / "shared")) / "data" / "rotbench"
CONTENDERS = ("released", "trl", "trl_whole", "trl_packed", "tltrain", "pkt")
TRL = ("trl", "trl_whole", "trl_packed")
PACKED_LENGTH = 4096
SIZES = {"smollm2_135m": (3, 5), "tiny": (12, 7)}
"""Model -> trajectories, rounds."""
IGNORED = -100


def trajectories(source: str, count: int) -> list[Trajectory]:
    """Return the first `count` trajectories of a source."""
    if source == "toolworld":
        return list(toolworld.generate(count, seed=0))
    return list(rotbench.read_training(ROTBENCH, ["clean"], "stop", ReadReport()))[:count]


def load(model_name: str, items: list[Trajectory], cache: str = "outputs/cache", format: Any = None):
    """Load model (float32), tokenizer and TL encoder of a `conf/model/` choice.

    Args:
        format: the configured format, whose tokens are added to the tokenizer of a model with random weights.
    """
    cfg = OmegaConf.merge(
        OmegaConf.structured(config.Model),
        {
            key: value
            for key, value in OmegaConf.load(config.CONF_DIR / "model" / f"{model_name}.yaml").items()
            if key != "defaults"
        },
    )
    path = loading.resolve(cfg, cache, lambda: corpus(items, format), format)
    encoder = load_encoder(path, cfg)
    return loading.load_model(path, cfg, torch.float32, torch.device("cpu")), encoder.tokenizer, encoder


def datasets_of(items: list[Trajectory], encoder: Encoder) -> dict[str, Dataset]:
    """Return each contender's training data, made from the same token ids."""

    def packed(packing: str, w_max: float | None) -> list:
        return list(pack(items, encoder, PackingSettings(packing, w_max, truncation="error"), PackingReport()))

    rows = plain_turns(packed("turn", None))
    whole = packed("trajectory", None)
    conversations = Dataset.from_list([whole_row(layout) for layout in whole])
    return {
        "released": rows,
        "trl": rows,
        "trl_whole": conversations,
        "trl_packed": pack_dataset(conversations, PACKED_LENGTH, "bfd"),
        "tltrain": sft.dataset(whole),
        "pkt": sft.dataset(packed("trajectory", 9.0)),
    }


def plain_turns(layouts: list[Layout]) -> Dataset:
    """Return samples of one turn as ids and labels; the end token is part of the input, as in the released code."""
    turns = []
    for layout in layouts:
        ids = [*layout.input_ids, layout.targets[-1]]
        labels = [IGNORED] * len(ids)
        for position, token in zip(layout.positions, layout.targets, strict=True):
            labels[position + 1] = token
        turns.append({"input_ids": ids, "labels": labels})
    return Dataset.from_list(turns)


def whole_row(layout: Layout) -> dict[str, list[int]]:
    """Return a trajectory as ids and labels that equal the next input, so each turn's end token has to be in it."""
    ids: list[int] = []
    labels: list[int] = []
    targets = dict(zip(layout.positions, layout.targets, strict=True))
    expected = IGNORED
    for position, token in enumerate(layout.input_ids):
        if expected not in (IGNORED, token):
            ids.append(expected)
            labels.append(expected)
            expected = IGNORED
        ids.append(token)
        labels.append(expected)
        expected = targets.get(position, IGNORED)
    if expected != IGNORED:
        ids.append(expected)
        labels.append(expected)
    return {"input_ids": ids, "labels": labels}


def trainer_of(contender: str, model, tokenizer, rows: Dataset, bf16: bool, folder: str) -> Trainer:
    """Make a trainer that makes one optimizer step over all rows."""
    args = arguments(len(rows), bf16, folder, packing=contender == "trl_packed")
    if contender == "released":
        return Trainer(model, args, default_data_collator, rows)
    if contender in TRL:
        return quiet(SFTTrainer(model, args, train_dataset=rows, processing_class=tokenizer))
    return sft.TurnTrainer(model, args, sft.Collator(tokenizer.pad_token_id), rows, processing_class=tokenizer)


def quiet(trainer: Trainer) -> Trainer:
    """Return the trainer after making it silent."""
    trainer.remove_callback(PrinterCallback)
    return trainer


def arguments(rows: int, bf16: bool, folder: str, **more: Any) -> SFTConfig:
    """Return the arguments of one optimizer step over all rows, one at a time."""
    ours = {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": rows,
        "num_train_epochs": 1,
        "learning_rate": 0.0,
        "bf16": bf16,
        "use_cpu": True,
        "activation_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "max_length": None,
        "dataloader_pin_memory": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    if more.get("packing"):
        more = {"max_length": PACKED_LENGTH, **more}
    return SFTConfig(output_dir=folder, **(ours | more))


def timed(trainer: Trainer) -> float:
    """Return the seconds of one epoch."""
    start = machine.now()
    trainer.train()
    return machine.now() - start


def turn_losses(contender: str, trainer: Trainer) -> list[float]:
    """Return the loss of every turn, in order, without training."""
    losses = []
    trainer.model.eval()
    with torch.no_grad():
        for row in trainer.train_dataset:
            batch = trainer.data_collator([row])
            if contender not in ("released", *TRL, "trl_turn"):
                nll = sft.target_nll(trainer.model, batch, fused=False)
                count = int(batch["turns"].max()) + 1
                losses += sft.turn_losses(nll, batch["weights"], batch["turns"], count).tolist()
            elif contender == "released":
                losses.append(trainer.model(**batch).loss.item())
            else:
                losses.append(trainer.compute_loss(trainer.model, batch).item())
    trainer.model.train()
    return losses


def peak_memory(contender: str, source: str, model_name: str, count: int, bf16: bool) -> float:
    """Return the peak resident memory in GiB of a process that trains only this contender."""
    command = [
        sys.executable,
        __file__,
        "--alone",
        contender,
        "--source",
        source,
        "--model",
        model_name,
        "--count",
        str(count),
        *([] if bf16 else ["--fp32"]),
    ]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def bench(source: str, model_name: str, count: int, rounds: int, bf16: bool) -> dict:
    """Measure the contenders on `count` trajectories of `source`, for one table."""
    items = trajectories(source, count)
    _, tokenizer, encoder = load(model_name, items)
    rows = datasets_of(items, encoder)
    tokens = {name: sum(map(len, rows[name]["input_ids"])) for name in CONTENDERS}
    turns = len(rows["released"])
    rate, precision = MatmulRate(), "bf16" if bf16 else "fp32"
    losses, seconds, needed = {}, {name: [] for name in CONTENDERS}, {}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {}
        for name in CONTENDERS:
            # TRL patches the model's forward, so each contender has a model of its own.
            own, _, _ = load(model_name, items)
            trainers[name] = trainer_of(name, own, tokenizer, rows[name], bf16, folder)
            if name not in ("trl_whole", "trl_packed"):  # whose turns read end tokens
                losses[name] = turn_losses(name, trainers[name])
            lengths = list(map(len, rows["trl_whole" if name == "trl_packed" else name]["input_ids"]))
            needed[name] = operations(own.config, lengths, sum(map(len, rows["tltrain"]["targets"])))
        for turn in terminal.track(range(rounds + 1), f"{model_name} on {source}"):
            rate.measure()
            for name in random.Random(turn).sample(CONTENDERS, len(CONTENDERS)):  # none always follows the same
                elapsed = timed(trainers[name])
                if turn:  # the first round is a warm-up
                    seconds[name].append(elapsed)
        pairs = []  # PKT's cost is small: more rounds, in alternating order
        for turn in terminal.track(range(2 * rounds), "pkt against sft"):
            first, second = ("pkt", "tltrain") if turn % 2 else ("tltrain", "pkt")
            times = {first: timed(trainers[first]), second: timed(trainers[second])}
            pairs.append(times["pkt"] / times["tltrain"])
    memory = {name: peak_memory(name, source, model_name, count, bf16) for name in CONTENDERS}
    median = {name: statistics.median(seconds[name]) for name in CONTENDERS}
    best = min(TRL, key=lambda name: median[name])
    result = {
        "source": source,
        "model": model_name,
        "precision": precision,
        "trajectories": count,
        "turns": turns,
        "rounds": rounds,
        "tokens": tokens,
        "median_seconds": median,
        "turns_per_second": {name: turns / median[name] for name in CONTENDERS},
        "speedup_over_released": median["released"] / median["tltrain"],
        "speedup_over_trl": median["trl"] / median["tltrain"],
        "best_of_trl": best,
        "speedup_over_best_of_trl": median[best] / median["tltrain"],
        "share_of_matmul_rate": {name: needed[name] / median[name] / rate(precision) for name in CONTENDERS},
        "matmul_rate": rate.to_json(),
        "floor_by_tokens": tokens["released"] / tokens["tltrain"],
        "pkt_cost": statistics.median(pairs) - 1,
        "peak_memory_gib": memory,
        "largest_loss_difference": max(
            abs(a - b) for other in ("released", "trl") for a, b in zip(losses[other], losses["tltrain"], strict=True)
        ),
    }
    terminal.table(
        f"{model_name} ({result['precision']}) on {source}: {count} trajectories, {turns} turns, {rounds} rounds",
        ["contender", "tokens", "s (median)", "turns/s", "share", "peak GiB"],
        [
            [name, tokens[name], f"{median[name]:.2f}", f"{turns / median[name]:.2f}",
             f"{result['share_of_matmul_rate'][name]:.0%}", f"{memory[name]:.2f}"]
            for name in CONTENDERS
        ],
    )  # fmt: skip
    print(
        f"tltrain is {result['speedup_over_released']:.2f} x released, {result['speedup_over_trl']:.2f} x trl, "
        f"{result['speedup_over_best_of_trl']:.2f} x {best}, TRL's best; the machine multiplies matrices at "
        f"{rate('bf16') / 1e9:.0f} (bf16) and {rate('fp32') / 1e9:.0f} (fp32) billion operations per second; the "
        f"number of tokens would allow {result['floor_by_tokens']:.2f} x; pkt costs {result['pkt_cost']:+.1%}; "
        f"largest difference in a turn's loss (fp32) {result['largest_loss_difference']:.1e}\n"
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half the rounds and trajectories")
    parser.add_argument("--fp32", action="store_true", help="train in float32 (default: bfloat16 if the CPU has it)")
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, help="default: 5 for smollm2_135m, 7 for tiny")
    parser.add_argument("--processor-time", action="store_true", help="count CPU seconds (with OMP_NUM_THREADS=1)")
    parser.add_argument("--alone", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--source", default="", help=argparse.SUPPRESS)
    parser.add_argument("--model", default="", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.processor_time:
        machine.use_processor_time()
    bf16 = not options.fp32 and devices.device_and_dtype(OmegaConf.structured(config.Hardware))[1]
    if options.alone:
        items = trajectories(options.source, options.count)
        model, tokenizer, encoder = load(options.model, items)
        rows = datasets_of(items, encoder)[options.alone]
        with tempfile.TemporaryDirectory() as folder:
            trainer_of(options.alone, model, tokenizer, rows, bf16, folder).train()
        status = Path("/proc/self/status").read_text()  # getrusage would give the parent's peak if that is higher
        print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**20)
        return
    sources = ["toolworld"]
    if ROTBENCH.is_dir():
        sources.insert(0, "rotbench")
    else:
        print(f"rotbench skipped: there is no {ROTBENCH}; set TLTRAIN_SHARED")
    results = []
    for model_name in options.models:
        count, rounds = SIZES[model_name]
        rounds = options.rounds or rounds
        for source in sources:
            share = 2 if options.quick else 1
            results.append(bench(source, model_name, max(count // share, 1), max(rounds // share, 1), bf16))
    print(
        json.dumps(
            {
                "bench": "sft",
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "clock": "processor" if options.processor_time else "wall",
                "results": results,
            }
        )
    )


if __name__ == "__main__":
    main()
