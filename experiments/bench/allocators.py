"""Measure how much of a training step on a CPU is the memory allocator's: the C library's against others.

    python experiments/bench/allocators.py LIBRARY... [--rounds 3] [--steps 8]
    python experiments/bench/allocators.py /usr/lib/x86_64-linux-gnu/libtcmalloc.so.4

SmolLM2-135M's shape with random weights learns random tokens in rows of 300 to 600, as trajectories of toolworld are
long, in bfloat16, with one thread and AdamW. Each contender runs in its own process, preloaded (LD_PRELOAD), in a new
order each round; CPU seconds of a step, median over the rounds, and of them the kernel's (clearing pages). The first
steps are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path

WARM_UP = 3
"""Number of steps that are not counted; the allocator has filled its lists by then."""


def work(steps: int) -> None:
    """Train, and print the CPU seconds per step, in total and in the kernel."""
    import torch
    from omegaconf import OmegaConf
    from transformers import LlamaConfig, LlamaForCausalLM

    from tltrain.config import CONF_DIR
    from tltrain.runtime import memory

    memory.reuse_freed()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes: dict = OmegaConf.to_container(OmegaConf.load(CONF_DIR / "model" / "smollm2_135m.yaml").sizes)
    model = LlamaForCausalLM(LlamaConfig(**sizes)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    draw = random.Random(0)
    lengths = [draw.randint(300, 600) for _ in range(WARM_UP + steps)]
    for number, length in enumerate(lengths):
        if number == WARM_UP:
            start = os.times()
        tokens = torch.randint(model.config.vocab_size, (1, length))
        targets = torch.randperm(length)[: length // 4].sort().values
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=tokens, logits_to_keep=targets, use_cache=False).logits[0]
        torch.nn.functional.cross_entropy(logits.float(), tokens[0, targets]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    end = os.times()
    kernel = end.system - start.system
    print(json.dumps({"step": (end.user - start.user + kernel) / steps, "kernel": kernel / steps}))


def main() -> None:
    """Alternate the contenders and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libraries", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.steps)
        return
    if missing := [str(path) for path in arguments.libraries if not path.is_file()]:
        sys.exit(f"{missing[0]}: no such library")
    contenders = {"the C library's": ""} | {path.name: str(path) for path in arguments.libraries}
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for number in range(arguments.rounds):
        for name in random.Random(number).sample(list(contenders), len(contenders)):
            environment = os.environ | {"LD_PRELOAD": contenders[name], "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, "--worker", "--steps", str(arguments.steps)]
            ran = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            seen[name].append(json.loads(ran.stdout.splitlines()[-1]))
            print(f"round {number + 1}: {name}: {seen[name][-1]['step']:.2f} s", file=sys.stderr)
    base = statistics.median(one["step"] for one in seen["the C library's"])
    print(f"{'allocator':<28}{'CPU s / step':>14}{'in the kernel':>15}{'ratio':>8}")
    for name, found in seen.items():
        step, kernel = (statistics.median(one[key] for one in found) for key in ("step", "kernel"))
        print(f"{name:<28}{step:>14.2f}{kernel:>15.2f}{base / step:>8.2f}")


if __name__ == "__main__":
    main()
