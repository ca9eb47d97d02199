"""Measure what sharing prefixes saves in supervised training: `stage.packing=prefix_tree` against `trajectory`.

    python experiments/bench/prefix_tree.py [--quick] [--data FOLDER]

The data is instructions from ToolAlpaca's `eval_real.json` (11 sets of tools, 114 instructions), with the golden call
as target:
  16 queries   the set with the longest documentation and 16 instructions: its own, filled up with others', which
               share nothing with them
  as released  every instruction with its own tools, 6 to 17 per set
SmolLM2-135M makes one optimizer step over all of them (learning rate 0, so all rounds do the same work) in rows of one
trajectory or one tree, alternating within one run; results are medians over the rounds. Losses of single turns are
compared in float32. The folder is $TLTRAIN_SHARED/data/toolalpaca (default ../shared).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from sft import load, trainer_of

from tltrain.data import toolalpaca
from tltrain.formats import tl
from tltrain.runtime import terminal
from tltrain.tokens import prefix_tree
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Layout, flatten
from tltrain.training import sft, tree_mask
from tltrain.trajectory import Message, Sample, Trajectory

SHARED = Path(os.environ.get("TLTRAIN_SHARED", Path(__file__).parents[2].parent / "shared"))
MODEL, QUERIES, MAX_LENGTH = "smollm2_135m", 16, 4096


def trajectory(sample: Sample, tools_of: Sample) -> Trajectory:
    """Make a trajectory from the sample's query and golden call, with the tools of another sample."""
    messages = (*sample.messages, Message.calling(sample.goldens[0]))
    return Trajectory(sample.id, tools_of.tools, messages)


def trajectories(samples: list[Sample], which: str) -> list[Trajectory]:
    """Return the trajectories of one of the two choices above."""
    if which == "as released":
        return [trajectory(sample, sample) for sample in samples]
    longest = max(samples, key=lambda sample: len(tl.system_text(sample)))
    own = [sample for sample in samples if sample.tools == longest.tools]
    others = [sample for sample in samples if sample.tools != longest.tools]
    return [trajectory(sample, longest) for sample in [*own, *others[:: len(others) // QUERIES]][:QUERIES]]


def layouts(items: list[Trajectory], encoder: Encoder, dense_until: float) -> dict[str, tuple[list[Layout], list[int]]]:
    """Return each packing's rows and the trajectory number of each of their turns."""
    chains = [encoder.runs(item, None) for item in items]
    groups = prefix_tree.groups(chains, prefix_tree.Limits(QUERIES, MAX_LENGTH, dense_until))
    return {
        "trajectory": ([flatten(chain) for chain in chains], list(range(len(chains)))),
        "prefix_tree": (
            [flatten(prefix_tree.tree([chains[at] for at in group])) for group in groups],
            [at for group in groups for at in group],
        ),
    }


@torch.no_grad()
def turn_losses(model: torch.nn.Module, rows: list[Layout], owners: list[int]) -> list[float]:
    """Return the loss of every trajectory's single turn, in the order of the trajectories."""
    found: list[float] = []
    for row in terminal.track(sft.dataset(rows), "losses"):
        batch = sft.Collator(0)([row])
        nll = sft.target_nll(model, batch, fused=False)
        found += sft.turn_losses(nll, batch["weights"], batch["turns"], int(batch["turns"].max()) + 1).tolist()
    return [loss for _, loss in sorted(zip(owners, found, strict=True))]


def bench(samples: list[Sample], which: str, bf16: bool, rounds: int, cache: str) -> dict:
    """Measure both packings on one choice of trajectories, for one table."""
    items = trajectories(samples, which)
    models = {}
    for name in ("trajectory", "prefix_tree"):  # TRL patches a model's forward, so each packing has its own model
        models[name], tokenizer, encoder = load(MODEL, items, cache)
    packed = layouts(items, encoder, tree_mask.dense_until(models["trajectory"]))
    tokens = {name: sum(len(row.input_ids) for row in rows) for name, (rows, _) in packed.items()}
    difference = None  # computed once for each choice
    if not bf16 or which == "as released":
        one, other = (turn_losses(models[name].eval(), *packed[name]) for name in packed)
        difference = max(abs(a - b) for a, b in zip(one, other, strict=True))
    seconds: dict[str, list[float]] = {name: [] for name in packed}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {
            name: trainer_of("tltrain", models[name], tokenizer, sft.dataset(rows), bf16, folder)
            for name, (rows, _) in packed.items()
        }
        for turn in terminal.track(range(rounds), f"{which}, {'bf16' if bf16 else 'fp32'}"):
            for name in sorted(trainers, reverse=bool(turn % 2)):
                start = time.perf_counter()
                trainers[name].train()
                seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    result = {
        "which": which,
        "precision": "bf16" if bf16 else "fp32",
        "turns": len(items),
        "rows": {name: len(rows) for name, (rows, _) in packed.items()},
        "tokens": tokens,
        "longest_row": {name: max(len(row.input_ids) for row in rows) for name, (rows, _) in packed.items()},
        "rounds": rounds,
        "seconds": seconds,
        "turns_per_second": {name: len(items) / median[name] for name in median},
        "speedup": median["trajectory"] / median["prefix_tree"],
        "by_tokens": tokens["trajectory"] / tokens["prefix_tree"],
        "largest_loss_difference_fp32": difference,
    }
    terminal.table(
        f"{which}, {result['precision']}: {len(items)} turns, {rounds} rounds",
        ["packing", "rows", "tokens", "s (median)", "turns/s"],
        [
            [name, result["rows"][name], tokens[name], f"{median[name]:.2f}", f"{len(items) / median[name]:.2f}"]
            for name in packed
        ],
    )
    print(
        f"prefix_tree is {result['speedup']:.2f} x trajectory, the number of tokens would allow "
        f"{result['by_tokens']:.2f} x"
        + ("\n" if difference is None else f"; largest difference in a turn's loss (fp32) {difference:.1e}\n"),
        flush=True,
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the 16 queries, one round each")
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "toolalpaca", help="the folder of the file")
    parser.add_argument("--cache", default="outputs/cache", help="folder of the converted model, like cache.dir")
    options = parser.parse_args()
    samples = toolalpaca.read_samples(toolalpaca.files(options.data)["real"], "real")
    runs = [("16 queries", False, 2), ("16 queries", True, 2), ("as released", True, 1)]
    if options.quick:
        runs = [(which, bf16, 1) for which, bf16, _ in runs[:2]]
    results = [bench(samples, which, bf16, rounds, options.cache) for which, bf16, rounds in runs]
    versions = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    print(json.dumps({"bench": "prefix_tree", "model": MODEL, **versions, "results": results}))


if __name__ == "__main__":
    main()
