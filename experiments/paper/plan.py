"""Estimate the memory and time of the paper's run on one GPU and on eight with `stage=plan`.

Tokens are counted with the tokenizer in `model.path=FOLDER`; without it, they are characters divided by
`CHARACTERS_PER_TOKEN`. Nothing is loaded or downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tltrain import config
from tltrain.entry import checks
from tltrain.runtime.durations import duration
from tltrain.stages import plan

CHARACTERS_PER_TOKEN = 3.0
"""Assumed without a tokenizer; 3.4 under SmolLM2's, whose vocabulary is larger, on RoTBench's third turns."""
MEMORY_GB = 80
MACHINES = {1: "zero3_offload", 8: "zero3"}
"""Number of GPUs -> strategy for full training; an adapter is trained with a whole copy of the model on each GPU."""
LIMIT = 8192
"""Longest sample in tokens, as in the released code."""
ANSWER = 60
"""Assumed mean number of tokens per answer."""
QUESTIONS = 840 + 114 + 240 + 5 * 382
"""RoTBench's five levels, ToolAlpaca, BFCL, and ToolEyes with an assumed five calls per conversation."""
STAGES = {"sft or pkt": ("pkt", 4), "irm": ("irm", 4), "evaluation, without `general`": ("eval", 8)}
"""Label -> the planned stage, and how often the ablation runs it."""
SETTINGS = ("stage@", "stage.supervised.", "stage.rl.", "stage.eval.", "reward")
"""Prefixes of the run's overrides that affect a plan."""


def lengths(turns: Path, words: Sequence[str]) -> tuple[list[int], str]:
    """Return the tokens of each turn of `mae_data.json`, and how they were counted."""
    count, how = counter(words)
    records = json.loads(turns.read_text(encoding="utf-8"))
    texts = ("\n".join(f"{part['role']}: {part['content']}" for part in record["conversations"]) for record in records)
    return [min(count(text), LIMIT) for text in texts], how


def counter(words: Sequence[str]) -> tuple[Callable[[str], int], str]:
    """Return a function that counts a text's tokens, and its description."""
    given = dict(word.split("=", 1) for word in words)
    file = Path(given.get("model.path", "")) / "tokenizer.json"
    if "model.path" in given and file.is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(file))
        return lambda text: len(tokenizer.encode(text).ids), f"counted by {file}"
    return lambda text: round(len(text) / CHARACTERS_PER_TOKEN), f"assuming {CHARACTERS_PER_TOKEN} characters per token"


def planned(
    of: str, processes: int, strategy: str, length: int, tokens: float, words: Sequence[str], given: Sequence[str]
) -> dict:
    """Return the metrics of `stage=plan` for one stage of `+experiment=paper`.

    Args:
        words: overrides of the plan and the experiment. given: the run's overrides; only those about the stages count.
    """
    cfg = compose(
        "config",
        [
            *("stage=plan", f"stage.of={of}", "model=codellama_7b", "hardware=gpu"),
            *(f"stage.processes={processes}", f"stage.strategy={strategy}", f"stage.memory_gb={MEMORY_GB}"),
            *(f"stage.length={length}", f"stage.tokens={tokens:g}", f"stage.response={ANSWER}", *words),
        ],
    )
    settings = [word for word in given if word.startswith(SETTINGS)]
    experiment = compose("config", ["+experiment=paper", *words, *settings])
    node = plan.NODES[of]
    cfg.stage[node] = OmegaConf.to_container(experiment.stage[node], resolve=True)
    checks.check(cfg)
    return plan.make(cfg)[1]


def table(turns: Path, words: Sequence[str] = ()) -> str:
    """Return the plan in Markdown: GiB per process and time of each stage, for one and eight GPUs.

    Args:
        turns: `mae_data.json` of the training data. words: the run's overrides.
    """
    sizes, how = lengths(turns, words)
    longest, mean = max(sizes), round(sum(sizes) / len(sizes))
    config.register()
    heads = [f"{count} × {MEMORY_GB} GB" for count in MACHINES]
    found = [
        f"{len(sizes):,} turns of {mean:,} tokens on average, the longest of {longest:,} ({how}).",
        "Peak GiB of a process, whether it fits, and the time on A100s at 40 % of their peak, without the time of",
        "transfers between GPUs and from host memory.\n",
        f"| stage | times | {' | '.join(heads)} |",
        "| --- | ---: |" + " ---: |" * len(heads),
    ]
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        for name, adapter in (("all weights", ()), ("LoRA", ("model.lora.r=8",))):
            total = dict.fromkeys(MACHINES, 0.0)
            for stage, (of, times) in STAGES.items():
                cells = []
                for count, sharded in MACHINES.items():
                    strategy = "none" if adapter or of == "eval" else sharded
                    memory = planned(of, count, strategy, longest, longest, adapter, words)
                    tokens = mean * (QUESTIONS if of == "eval" else len(sizes))
                    seconds = sum(planned(of, count, strategy, mean, tokens, adapter, words)["seconds"].values())
                    total[count] += times * seconds
                    fits = "" if memory["fits"] else ", **does not fit**"
                    host = f" + {memory['host_bytes'] / 2**30:.0f} host" if memory["host_bytes"] else ""
                    cells.append(f"{memory['peak_bytes'] / 2**30:.0f}{host} ({strategy}){fits}, {duration(seconds)}")
                found.append(f"| {name}: {stage} | {times} | {' | '.join(cells)} |")
            found.append(f"| **{name}** | | {' | '.join(duration(seconds) for seconds in total.values())} |")
    return "\n".join(found)
