"""stage=demo: base, SFT, MAE + PKT and IRM in one table."""

from __future__ import annotations

import json

import pytest

from tests.support.processes import python
from tests.support.small_runs import SMALL
from tests.support.tracked import read_all


def test_the_demo_compares_base_sft_and_pkt(tltrain, tmp_path):
    sizes = ["model.demo.train_size=6", "model.demo.test_size=3", "stage.max_new_tokens=8", "stage.args.max_steps=2"]
    sizes += ["+model.demo.irm_steps=1", "model.irm.args.gradient_accumulation_steps=2"]
    ran = tltrain(*SMALL, *sizes, "stage.parallel=1", folder=tmp_path / "a run, with = and spaces")
    table = ran.out[ran.out.index("tools never trained on") :]
    assert [name in table for name in ("tiny (base)", "tiny + SFT", "tiny + MAE + PKT")] == [True, True, True]
    assert {f"{name}/{level}" for name in ("base", "sft", "pkt") for level in ("ts", "pi", "cf")} < ran.metrics.keys()
    assert ran.metrics["pkt/n"] == 3
    for stage in ("sft", "pkt", "eval_base", "eval_sft", "eval_pkt"):
        assert (ran.folder / stage / "metrics.json").is_file(), stage
    used = [json.loads((ran.folder / f"eval_{name}" / "metrics.json").read_text())["model"] for name in ("sft", "pkt")]
    assert used == [str(ran.folder / name / "model") for name in ("sft", "pkt")]
    assert str(ran.folder) in ran.out


@pytest.mark.slow  # three trainings and four evaluations more
def test_the_demo_runs_in_a_native_format(tltrain):
    sizes = ["stage.train_size=8", "stage.test_size=2", "stage.irm_steps=1", "stage.max_new_tokens=8"]
    ran = tltrain(*SMALL, *sizes, "format=qwen3")
    for name in ("sft", "pkt", "irm"):
        assert json.loads((ran.folder / name / "model" / "tltrain.json").read_text())["format"] == "qwen3"
    assert ran.metrics["irm/n"] == 2


def test_what_its_last_training_refuses_is_told_before_the_first(tltrain):
    ran = tltrain(*SMALL, "+model.irm.args.nonsense=1", status=1)
    assert "nonsense: " in ran.err and "has no such argument" in ran.err
    assert not (ran.folder / "sft").exists()


@pytest.mark.slow  # as a user starts it, at its default sizes: two minutes
def test_the_demo_on_tiny(tmp_path):
    ran = python(tmp_path, "-m", "tltrain", "model=tiny")
    folder = (tmp_path / "outputs" / "demo" / "latest").resolve()
    metrics = json.loads((folder / "metrics.json").read_text())
    table = ran.stdout[ran.stdout.index("tools never trained on") :]
    assert all(name in table for name in ("tiny (base)", "tiny + SFT", "tiny + MAE + PKT"))
    assert metrics["base/ts"] == 0
    assert metrics["base/n"] == metrics["pkt/n"] == 60
    sft, pkt = (json.loads((folder / stage / "metrics.json").read_text()) for stage in ("sft", "pkt"))
    for trained in (sft, pkt):
        assert trained["held_out"]["held_out_loss"] < 5.5  # from about 6.7
    assert (ran.stdout + ran.stderr).count(f"wandb sync {folder}/wandb") == 1
    tracked = [found.run for found in read_all(folder)]  # of several processes, in one tree
    assert {run["run_group"] for run in tracked} == {folder.name}
    evaluations = [f"eval_{model}" for model in ("base", "sft", "pkt", "irm")]
    assert sorted(run["display_name"] for run in tracked) == sorted(["sft", "pkt", "irm", *evaluations])
