"""Print the table in docs/gpus.md: whether CodeLlama-7B can be trained on several machines, by `stage=plan`.

    python experiments/plan_table.py [key=value ...]

The output is Markdown: a process's peak memory in GiB, and whether it fits. Unless overridden, samples have 2,048
tokens, a quarter of them targets (pkt), or four calls of at most 128 tokens each (irm). Nothing is loaded or
downloaded.
"""

from __future__ import annotations

import sys

from hydra import compose, initialize_config_dir

from tltrain import config
from tltrain.entry import checks
from tltrain.stages import plan

MACHINES = [(1, 80), (4, 80), (8, 80), (1, 141)]
STRATEGIES = ("none", "zero2", "zero3", "zero3_offload", "fsdp")
SAMPLED = "stage.rl.max_new_tokens=128"
ROWS = {
    "pkt": ("pkt", []),
    "irm, PPO": ("irm", [SAMPLED]),
    "irm, GRPO": ("irm", [SAMPLED, "stage.rl.algorithm=grpo"]),
}


def cell(of: str, processes: int, memory: float, strategy: str, words: list[str]) -> str:
    """Return the peak in GiB: bold if it fits, in brackets if the training run would refuse to start (lost updates)."""
    cfg = compose(
        "config",
        overrides=[
            "stage=plan",
            f"stage.of={of}",
            "model=codellama_7b",
            "hardware=gpu",
            "stage.length=2048",
            f"stage.processes={processes}",
            f"stage.memory_gb={memory}",
            f"stage.strategy={strategy}",
            *words,
        ],
    )
    checks.check(cfg)
    found, metrics = plan.make(cfg)
    gib = f"{metrics['peak_bytes'] / 2**30:.0f}"
    host = f" (+{found.host / 2**30:.0f} host)" if found.host else ""
    if metrics["refused"]:
        return f"({gib})"
    return f"**{gib}**{host}" if metrics["fits"] else gib + host


def main() -> None:
    config.register()
    machines = [f"{processes} × {memory} GB" for processes, memory in MACHINES]
    print(f"| stage | strategy | {' | '.join(machines)} |")
    print("| --- | --- |" + " ---: |" * len(machines))
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        for name, (of, words) in ROWS.items():
            for strategy in STRATEGIES if of == "pkt" else STRATEGIES[:-1]:  # FSDP trains sft and pkt
                cells = [
                    cell(of, processes, memory, strategy, [*words, *sys.argv[1:]])
                    if processes > 1 or strategy in ("none", "zero3_offload")
                    else ""
                    for processes, memory in MACHINES
                ]
                print(f"| {name} | {strategy} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
