"""A short run of every stage in the registry and of the stages' variants.

A new stage runs as `stage=NAME` with the common sizes until it has its own words here.
"""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path

from tests.support.composition import mistake
from tests.support.launched_runs import ALWAYS, RECIPES
from tests.support.prediction_lines import line
from tests.support.reader_samples import CHAT
from tests.support.typed import settled
from tltrain import config

SIZES = ("data.size=6", "hydra.run.dir=run")
EVALUATED = ("benchmark.size=2", "stage.max_new_tokens=4")
TRAINED = "model.path=trained/model"
"""The word of stages that begin with the folder of a trained model; see `prepare`."""
GROUPS = tuple(word for word in RECIPES["irm"] if not any(ppo in word for ppo in ("ppo", "critic", "batch_size")))
"""A run of stage=irm by a group trainer, `stage.algorithm` left open."""
WORDS: dict[str, tuple[str, ...]] = {
    "demo": (
        *("stage.train_size=12", "stage.test_size=2", "stage.max_new_tokens=4", "stage.irm_steps=1"),
        "hydra.run.dir=run",
    ),
    "sft": RECIPES["sft"][1:],
    "pkt": RECIPES["pkt"][1:],
    "irm": RECIPES["irm"][1:],
    "pipeline": RECIPES["pipeline"][1:],
    "eval": (*SIZES, *EVALUATED),
    "predict": (*SIZES, "stage.max_new_tokens=4", "data.path=messages.json"),
    "report": ("report.path=sweep", "hydra.run.dir=run"),
    "analyze": (*SIZES, "stage.models=[base]"),
    "cache": ("stage.prune=unfinished", "hydra.run.dir=run"),
    "plan": ("hydra.run.dir=run",),
    "certify": (*SIZES, "certify=1", TRAINED),
    "chat": (*SIZES, "stage.tools=tools.json", "stage.max_new_tokens=4"),
    "gate": (
        *(*SIZES, "stage.max_new_tokens=4", "stage.supervised.args.max_steps=1"),
        *("stage.threshold=-100", "stage.certain=false"),  # passes whatever the result
    ),
    "export": (TRAINED, "hydra.run.dir=run"),
}
"""A stage's words, in addition to its name."""
VARIANTS: dict[str, tuple[str, ...]] = {
    **{
        algorithm.name: (*GROUPS, f"stage.algorithm={algorithm.name}", "stage.args.per_device_train_batch_size=4")
        for algorithm in config.Algorithm
        # PPO is the recipe irm; of random weights' calls none is right, so rejection would have nothing to learn.
        if algorithm not in (config.Algorithm.ppo, config.Algorithm.rejection)
    },
    "eval, conversations": ("stage=eval", "benchmark=toolworld_multi", "benchmark.max_turns=2", *SIZES, *EVALUATED),
    "eval, two results": ("stage=eval", "stage.compare=[a,b]", "hydra.run.dir=run"),
    "sweep": RECIPES["sweep"],
}


NAMES = (*config.STAGES, *VARIANTS)
"""All stages in the registry, and the variants."""
NOT_READ = re.compile(r"(\S+): (?:stage=\w+ reads no such key|nothing is asked with )")


@cache
def words_of(name: str) -> tuple[str, ...]:
    """Return the command line of a stage or variant, without common sizes that it does not read and would refuse."""
    own = VARIANTS.get(name, (f"stage={name}", *WORDS.get(name, SIZES)))
    given = {word.partition("=")[0] for word in own}
    words = settled([*(word for word in ALWAYS if word.partition("=")[0] not in given), *own])
    while "sweep" not in name and (refused := NOT_READ.match(mistake(*words))):
        words = [word for word in words if word.partition("=")[0] != refused[1]]
    return tuple(words)


def in_process(name: str) -> list[str]:
    """Return the same for the fixture `tltrain`, which sets the folders of the run and the base models."""
    return [word for word in words_of(name) if not word.startswith(("hydra.run.dir=", "cache.dir="))]


def prepare(home: Path, trained: Path | None = None) -> None:
    """Write the files that some of these runs read to the folder in which they run.

    Args:
        trained: a model's folder for a run with `TRAINED`.
    """
    home.mkdir(parents=True, exist_ok=True)
    if trained is not None:
        shutil.copytree(trained, home / "trained" / "model", dirs_exist_ok=True)
    (home / "messages.json").write_text(json.dumps({**CHAT, "messages": CHAT["messages"][:-1]}))
    (home / "tools.json").write_text(json.dumps(CHAT["tools"]))
    for name, grade in (("a", "correct"), ("b", "wrong_tool")):
        (home / name).mkdir(exist_ok=True)
        lines = [line(str(number), grade if number else "correct") for number in range(3)]
        (home / name / "predictions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        job = home / "sweep" / name
        (job / ".hydra").mkdir(parents=True, exist_ok=True)
        (job / ".hydra" / "config.yaml").write_text("stage: {name: eval}\nseed: 0\n")
        (job / ".hydra" / "overrides.yaml").write_text(f"- stage.name={name}\n")
        (job / "metrics.json").write_text(json.dumps({"set/ts": 50.0, "details": {"set": {"rows": {}}}}))
        (job / "predictions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    unfinished = home / "cache" / "stages" / "sft-0123456789abcdef"
    if not unfinished.exists():
        unfinished.mkdir(parents=True)
        (unfinished / ".tltrain-entry").touch()
