"""Measure how much faster many conversations run in parallel than one after another.

    python experiments/bench/conversations.py [--quick]

`benchmark=toolworld_multi`, with its tools running, is measured at benchmark.parallel=1 and 16, with the same tasks in
alternating order within one process, in float32, after a warm-up round; results are medians over the rounds. The
transcripts of all rounds must be identical. The models:
  tiny       `model=tiny` untrained, with random weights: every answer takes all of stage.max_new_tokens (256)
  tiny_sft   the same after stage=sft on 200 conversations (trained once, in outputs/bench/conversations): short
             answers, so most of the time is spent on prefilling the history, which parallelism does not save
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

from tltrain import config
from tltrain.environments import registry
from tltrain.environments.loop import ConversationSettings, converse
from tltrain.evaluation.records import to_line
from tltrain.evaluation.transcription import transcript
from tltrain.runtime import terminal
from tltrain.sources import Source
from tltrain.stages.evaluations import conversations

FOLDER = Path("outputs/bench/conversations")
PARALLEL = (1, 16)
CONTENDERS = {"tiny": {"turns": 4, "size": 16}, "tiny_sft": {"turns": 6, "size": 32}}
WANTED = 3.0


def trained() -> Path:
    """Return the checkpoint of `tiny_sft`."""
    folder = FOLDER / "tiny_sft"
    if not (folder / "metrics.json").is_file():
        words = ["stage=sft", "model=tiny", "data.size=200", "tracking=none", "certify=0", f"hydra.run.dir={folder}"]
        subprocess.run([sys.executable, "-m", "tltrain", *words], check=True, stdout=subprocess.DEVNULL)
    return folder / "model"


def configured(contender: str, size: int, turns: int) -> DictConfig:
    """Return the configuration of the evaluation."""
    words = ["stage=eval", "benchmark=toolworld_multi", f"benchmark.size={size}", f"benchmark.max_turns={turns}"]
    words += ["model=tiny", "hardware.bf16=false", f"stage.batch_size={max(PARALLEL)}"]
    words += [f"model.path={trained()}"] if contender == "tiny_sft" else ["data.size=200"]
    config.register()
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        return compose("config", words)


def held(cfg: DictConfig, source: Source, parallel: int) -> tuple[float, list[str]]:
    """Run the conversations; return the seconds they took and the transcripts."""
    world = registry.World(cfg.benchmark)
    tasks = world.tasks(cfg.seed)
    start = time.perf_counter()
    found = converse(tasks, world.environment, source, ConversationSettings(cfg.benchmark.max_turns), parallel=parallel)
    return time.perf_counter() - start, [to_line(transcript(one)) for one in found]


def bench(contender: str, size: int, turns: int, rounds: int) -> dict:
    """Measure both ways for one model."""
    cfg = configured(contender, size, turns)
    seconds: dict[int, list[float]] = {parallel: [] for parallel in PARALLEL}
    with conversations.answering_source(cfg, [], registry.World(cfg.benchmark)) as source:
        seen = {tuple(held(cfg, source, max(PARALLEL))[1])}
        for number in terminal.track(range(rounds), contender):
            for parallel in PARALLEL if number % 2 == 0 else PARALLEL[::-1]:
                elapsed, transcripts = held(cfg, source, parallel)
                seconds[parallel].append(elapsed)
                seen.add(tuple(transcripts))
    medians = {parallel: statistics.median(found) for parallel, found in seconds.items()}
    return {
        "who": contender,
        "conversations": size,
        "calls": sum(len(json.loads(one)["calls"]) for one in next(iter(seen))),
        "rounds": rounds,
        "seconds": seconds,
        "median_seconds": medians,
        "speedup": medians[PARALLEL[0]] / medians[PARALLEL[1]],
        "same_transcripts": len(seen) == 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half the calls and rounds")
    share = 2 if parser.parse_args().quick else 1
    results = [
        bench(who, setting["size"], setting["turns"] // share, max(3 // share, 1))
        for who, setting in CONTENDERS.items()
    ]
    terminal.table(
        f"Conversations on toolworld_multi, fp32, {results[0]['rounds']} rounds",
        ["who", "calls", *(f"s, {parallel} at a time" for parallel in PARALLEL), "faster", "same transcripts"],
        [
            [
                found["who"],
                found["calls"],
                *(f"{found['median_seconds'][parallel]:.2f}" for parallel in PARALLEL),
                f"{found['speedup']:.2f} x",
                "yes" if found["same_transcripts"] else "NO",
            ]
            for found in results
        ],
    )
    about = {"bench": "conversations", "torch": torch.__version__, "threads": torch.get_num_threads()}
    print(json.dumps({**about, "wanted": {"tiny": WANTED}, "results": results}))


if __name__ == "__main__":
    main()
