"""Print the table in docs/models.md: the memory that each hub model in `conf/model/` takes to train, by `stage=plan`.

    python experiments/models_table.py [MODEL ...]

The output is Markdown: the peak memory of `stage=pkt` on one GPU in GiB, in bold if it fits. Full training uses float32
weights and samples of 4,096 tokens, one at a time; the recipes have their own lengths and batches. Nothing is loaded or
downloaded.
"""

from __future__ import annotations

import sys

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from tltrain import config
from tltrain.entry import checks
from tltrain.stages import plan

MODELS = (
    *("qwen3_0_6b", "qwen3_1_7b", "qwen3_4b", "qwen3_8b", "llama3_2_1b", "llama3_2_3b", "smollm3_3b"),
    *("gemma3_270m", "functiongemma_270m", "gpt_oss_20b", "mistral_7b_v0_3", "codellama_7b"),
)
ALL_WEIGHTS = (
    "stage.length=4096",
    "model.dtype=float32",
    "+stage.supervised.args.activation_checkpointing=true",
)
COLUMNS: dict[str, tuple[float, tuple[str, ...]]] = {
    "all weights": (80, ALL_WEIGHTS),
    "`+recipe=lora_24gb`": (24, ("+recipe=lora_24gb",)),
    "`+recipe=lora_80gb`": (80, ("+recipe=lora_80gb",)),
}
"""Column -> memory of the GPU in GiB, and the command line's words."""


def composed(model: str, memory: float, words: tuple[str, ...]) -> DictConfig:
    """Compose and check the configuration of a plan for one GPU."""
    given = ["stage=plan", f"model={model}", "hardware=gpu", "stage.processes=1", f"stage.memory_gb={memory}", *words]
    cfg = compose("config", overrides=given)
    checks.check(cfg)
    return cfg


def row(model: str) -> list[str]:
    """Return a model's cells."""
    cells, adapter = [], ""
    for name, (memory, words) in COLUMNS.items():
        cfg = composed(model, memory, words)
        _, found = plan.make(cfg)
        size = f"{found['peak_bytes'] / 2**30:.0f}"
        cells.append(f"**{size}**" if found["fits"] else size)
        if "recipe" in name:
            adapter = f"{found['trained']['model'] / 1e6:.1f} M"
    parameters = f"{found['parameters'] / 1e9:.2f} B"
    return [f"`{model}`", f"`{cfg.model.hub}`", parameters, f"`{cfg.format.name}`", adapter, *cells]


def main() -> None:
    config.register()
    heads = ["`model=`", "hub", "parameters", "format", "adapter", *COLUMNS]
    print(f"| {' | '.join(heads)} |")
    print("| --- | --- | ---: | --- | ---: |" + " ---: |" * len(COLUMNS))
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        for model in sys.argv[1:] or MODELS:
            print(f"| {' | '.join(row(model))} |", flush=True)


if __name__ == "__main__":
    main()
