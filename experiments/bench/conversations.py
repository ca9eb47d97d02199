"""How much faster conversations are held many at a time than one after the other.

    python experiments/bench/conversations.py [--quick]

`model=tiny`, after stage=sft on 200 toolworld conversations (made once, in outputs/bench/conversations), answers
`benchmark=toolworld_multi`: tools run, at most 6 calls a conversation, in float32. The same tasks with
benchmark.parallel=1 and 16, in alternating order within one process, after a round to warm up; medians over the rounds.
The transcripts of all rounds have to be the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from tltrain import config, terminal
from tltrain.environments import registry
from tltrain.environments.loop import converse
from tltrain.stages import conversations

FOLDER = Path("outputs/bench/conversations")
PARALLEL = (1, 16)
WANTED = 3.0


def trained() -> Path:
    """The checkpoint that answers."""
    folder = FOLDER / "tiny_sft"
    if not (folder / "metrics.json").is_file():
        words = ["stage=sft", "model=tiny", "data.size=200", "tracking=none", f"hydra.run.dir={folder}"]
        subprocess.run([sys.executable, "-m", "tltrain", *words], check=True, stdout=subprocess.DEVNULL)
    return folder / "model"


def configured(model: Path, size: int) -> DictConfig:
    """The configuration of the evaluation."""
    words = ["stage=eval", "benchmark=toolworld_multi", f"benchmark.size={size}", "benchmark.max_turns=6"]
    words += ["model=tiny", f"model.path={model}", "hardware.bf16=false", "stage.max_new_tokens=64"]
    config.register()
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        return compose("config", [*words, f"stage.batch_size={max(PARALLEL)}"])


def held(cfg: DictConfig, source: conversations.Source, parallel: int) -> tuple[float, list[str]]:
    """Seconds it took, and the transcripts."""
    kind = registry.kind_of(cfg.benchmark)
    start = time.perf_counter()
    found = converse(
        kind.tasks(cfg.benchmark, cfg.seed),
        kind.make(cfg.benchmark),
        lambda samples: conversations.answers(source, samples),
        max_turns=cfg.benchmark.max_turns,
        parallel=parallel,
    )
    seconds = time.perf_counter() - start
    return seconds, [json.dumps(conversations.record(one)) for one in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half the conversations and rounds")
    share = 2 if parser.parse_args().quick else 1
    size, rounds = 32 // share, max(3 // share, 1)
    cfg = configured(trained(), size)
    seconds: dict[int, list[float]] = {parallel: [] for parallel in PARALLEL}
    seen = set()
    with conversations.answerer(cfg, []) as source:
        held(cfg, source, max(PARALLEL))
        for number in terminal.track(range(rounds), "rounds"):
            for parallel in PARALLEL if number % 2 == 0 else PARALLEL[::-1]:
                elapsed, transcripts = held(cfg, source, parallel)
                seconds[parallel].append(elapsed)
                seen.add(tuple(transcripts))
    calls = sum(len(json.loads(one)["calls"]) for one in next(iter(seen)))
    medians = {parallel: statistics.median(found) for parallel, found in seconds.items()}
    faster, same = medians[PARALLEL[0]] / medians[PARALLEL[1]], len(seen) == 1
    terminal.table(
        f"tiny (fp32) on toolworld_multi: {size} conversations, {calls} calls, rounds: {rounds}",
        ["at a time", "s (median)", "calls/s"],
        [[parallel, f"{medians[parallel]:.2f}", f"{calls / medians[parallel]:.1f}"] for parallel in PARALLEL],
    )
    said = "the same transcripts" if same else "DIFFERENT transcripts"
    print(f"{max(PARALLEL)} at a time are {faster:.2f} x faster than one after the other (wanted: {WANTED}); {said}\n")
    print(
        json.dumps(
            {
                "bench": "conversations",
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "conversations": size,
                "calls": calls,
                "rounds": rounds,
                "seconds": seconds,
                "median_seconds": medians,
                "speedup": faster,
                "wanted": WANTED,
                "same_transcripts": same,
            }
        )
    )


if __name__ == "__main__":
    main()
