"""The code that determines a stage's result: its digest covers everything the stage loads, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from tests.support.paths import ROOT
from tltrain import config
from tltrain.runtime import source_digest

CACHED = ("mae", "sft", "pkt", "irm", "eval")

RUN_STAGES = """
import json, os, sys
from pathlib import Path
import hydra, matplotlib.pyplot, transformers.trainer, trl  # once; each stage then begins in a fork without tltrain
from transformers.models.llama import modeling_llama

def run(name, words, folder):
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict
    from tltrain import config
    from tltrain.entry import launch
    config.register()
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        cfg = compose("config", [*words, f"hydra.runtime.output_dir={folder}"], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            cfg.pop("hydra")
        folder.mkdir(parents=True)
        launch.run_stage(cfg, folder)
    loaded = sorted(name for name in sys.modules if name.partition(".")[0] == "tltrain")
    (folder / "loaded.json").write_text(json.dumps(loaded))

for name, words in json.loads(sys.argv[1]).items():
    if (child := os.fork()) == 0:
        try:
            run(name, words, Path(sys.argv[2]) / name)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
"""


@pytest.fixture(scope="module")
def loaded(once) -> dict[str, list[str]]:
    """Stage -> the package's modules in `sys.modules` after it ran on a tiny model."""
    return once("modules that stages load", run_stages)


def run_stages(folder: Path) -> dict[str, list[str]]:
    always = ["tracking=none", "certify=0", f"cache.dir={folder / 'cache'}", "hardware.threads=1"]
    small = [
        *always,
        "model=tiny",
        "hardware.bf16=false",
        *(f"model.random.{key}={value}" for key, value in SIZES.items()),
    ]
    model = f"model.path={folder / 'sft' / 'model'}"
    few = ["data.size=6", "data.holdout=0.3", "stage.args.max_steps=1"]
    words = {
        "mae": ["stage=mae", "data.size=6"],
        "sft": ["stage=sft", *few],
        "pkt": ["stage=pkt", *few],
        "irm": ["stage=irm", *few, model, "stage.eval_size=2", "stage.max_new_tokens=4", "stage.too_long_answer=keep"],
        "eval": ["stage=eval", "benchmark.size=2", model, "stage.max_new_tokens=4"],
    }
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            RUN_STAGES,
            json.dumps({name: [*own, *(always if name == "mae" else small)] for name, own in words.items()}),
            folder,
        ],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return {name: json.loads((folder / name / "loaded.json").read_text()) for name in words}


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", CACHED)
def test_all_that_a_stage_loads_is_in_its_digest(loaded, stage, monkeypatch):
    reached = source_digest.reached([config.stage_module(stage), "tltrain.entry.launch"])
    counted = {name for name in loaded[stage] if not source_digest.is_without_effect(name)}
    assert config.stage_module(stage) in counted
    monkeypatch.setattr(source_digest, "WITHOUT_EFFECT", ())
    for_display = source_digest.reached(set(loaded[stage]) - counted)  # what only display modules need is loaded too
    assert counted <= reached | for_display
    grades = {
        f"tltrain.{name}" for name in ("grades", "grading", "formats.calls", "formats.matching", "formats.reasons")
    }
    assert (counted - reached) <= grades | {"tltrain.formats.values", "tltrain.evaluation.metrics"}


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("copy") / "tltrain"
    return Path(shutil.copytree(ROOT / "tltrain", folder, ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture
def copy(package, monkeypatch) -> Path:
    """Make a copy of the package for which digests are computed."""
    monkeypatch.setattr(source_digest, "PACKAGE", package)
    return package


def digest_of(stage: str) -> str:
    return source_digest.digest([config.stage_module(stage), "tltrain.entry.launch"])


@pytest.fixture(scope="module")
def digests(package) -> dict[str, str]:
    """Stage -> the digest of the unchanged copy."""
    with mock.patch.object(source_digest, "PACKAGE", package):
        return {stage: digest_of(stage) for stage in CACHED}


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("training/ppo.py", {"irm"}),
        ("training/sft.py", {"sft", "pkt", "irm"}),  # rejection sampling trains with it
        ("evaluation/scoring.py", {"irm", "eval"}),
        ("environments/sandbox_child.py", {"irm", "eval"}),  # a script, found only by its file name
        ("sources/local.py", {"irm", "eval"}),
        ("data/judged.py", {"mae", "sft", "pkt", "irm"}),
        ("trajectory.py", set(CACHED)),
        ("entry/launch.py", set(CACHED)),
        ("stages/cache.py", set()),
        ("stages/pipeline.py", set()),
        ("report/page.py", set()),
        ("views/plots.py", set()),
        ("tracking/wandb.py", set()),
        ("config/keys.py", set()),
    ],
)
def test_an_edit_makes_anew_the_stages_that_it_reaches_and_no_other(copy, digests, file, stages):
    append(copy / file, "\n\ndef added() -> int:\n    return 1\n")
    after = {stage: digest_of(stage) for stage in CACHED}
    shutil.copy(ROOT / "tltrain" / file, copy / file)
    assert {stage for stage in CACHED if after[stage] != digests[stage]} == stages


def test_comments_and_layout_do_not_count_but_docstrings_do(copy):
    before = digest_of("mae")
    append(copy / "trajectory.py", "\n\n# a comment\n")
    assert digest_of("mae") == before
    file = copy / "toolworld" / "domains" / "shop.py"
    text = file.read_text()
    docstring = re.search(r'(?<=    """)\w[^"]+(?=\.""")', text)[0]
    file.write_text(text.replace(docstring, docstring + " now", 1))
    after = digest_of("mae")
    shutil.copy(ROOT / "tltrain" / "toolworld" / "domains" / "shop.py", file)
    assert after != before


def test_configured_objects_count_wherever_they_come_from(tmp_path, monkeypatch):
    (tmp_path / "ours_of_this_test.py").write_text("def price(): return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    stage = [config.stage_module("mae")]
    named = {"reward": {"parts": [{"_target_": "ours_of_this_test.price"}]}}
    first = source_digest.digest(stage, named)
    assert first != source_digest.digest(stage)
    (tmp_path / "ours_of_this_test.py").write_text("def price(): return 2\n")
    assert source_digest.digest(stage, named) != first
    inside = source_digest.digest(stage, {"_target_": "tltrain.training.ppo.PPOTrainer"})
    assert inside != source_digest.digest(stage)


def test_one_place_imports_what_a_string_names():
    uses = {
        file.relative_to(ROOT / "tltrain").as_posix(): file.read_text(encoding="utf-8").count("import_module(")
        for file in (ROOT / "tltrain").rglob("*.py")
    }
    workers = {"environments/bfcl_worker.py": 3, "environments/sandbox_worker.py": 1}  # they do not import this package
    assert {name: count for name, count in uses.items() if count} == {"runtime/resolver.py": 1, **workers}
