"""Multiruns: rows from jobs, a report at the end, and a failed job as a row that says why."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hydra.core.plugins import Plugins

from tltrain.errors import TltrainError
from tltrain.evaluation.predictions import Prediction
from tltrain.report import gather
from tltrain.report.sweep import FILE, save
from tltrain.sweeps import callback


@pytest.fixture
def written(monkeypatch) -> list:
    """The sweeps for which a report was written."""
    reports: list = []
    monkeypatch.setattr(callback, "write", lambda sweep, folder: reports.append(sweep))
    return reports


@pytest.fixture
def sweep(tltrain, tmp_path):
    """`sweep(words...)` runs a multirun of an experiment in `tmp_path/sweep`, with its own cache."""
    where = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    return lambda *words, **more: tltrain(*words, f"cache.dir={tmp_path / 'cache'}", where, "model=tiny", **more)


@pytest.mark.slow
def test_the_ablation_is_eight_rows_from_two_data_passes_and_eight_trainings(sweep, made, written):
    ran = sweep("+experiment=ablation")
    assert Counter(stage for stage, _ in made) == {"mae": 2, "sft": 2, "pkt": 2, "irm": 4, "eval": 8}
    (found,) = written
    labels = [row.label for row in found.rows]
    assert labels == [
        "standard SFT",
        "MAE",
        "PKT",
        "IRM",
        "MAE + PKT",
        "MAE + IRM",
        "PKT + IRM",
        "MAE + PKT + IRM",
    ]
    assert found.baseline == "standard SFT" and found.axes == {name: [False, True] for name in ("mae", "pkt", "irm")}
    assert found.rows[6].axes == {"mae": False, "pkt": True, "irm": True}
    assert found.rows[6].seeds[0].metrics["toolworld/ts"] == 30.0
    assert found.rows[6].seeds[0].predictions == [Prediction("toolworld", "1")]
    assert (found.cache["built"], found.cache["reused"]) == (18, 10)
    assert "MAE + PKT + IRM" in ran.out and "job 8 of 8" in ran.err
    assert "job 2 of 8 done after" in ran.err and "2 done, 6 waiting" in ran.err
    sweep("+experiment=ablation")  # the same command again builds nothing
    assert len(made) == 18 and written[1].cache["built"] == 0


def test_seeds_are_jobs_of_one_row_and_a_failed_one_says_why(sweep, made, written):
    ran = sweep("+experiment=demo", "seed=1,13", status=1)
    (found,) = written
    assert len(found.rows) == 2
    for row in found.rows:
        assert [job.seed for job in row.seeds] == [1, 13]
        assert row.seeds[0].error is None and row.seeds[1].error == "an unlucky number"
    assert "failed" in ran.out and "an unlucky number" in ran.err
    assert "job 2 of 4 failed after" in ran.err and ran.err.rindex("2 done, 2 failed") > ran.err.rindex("waiting")


def test_what_the_command_line_fixes_is_not_swept_over_nor_counted(sweep, made, written):
    ran = sweep("+experiment=ablation", "stage.irm=false", "stage.mae=true")
    assert [row.label for row in written[0].rows] == ["MAE", "MAE + PKT"]
    assert "job 2 of 2 done after" in ran.err and ran.err.rindex("2 done") > ran.err.rindex("1 waiting")


def test_a_bug_in_one_job_does_not_stop_the_others(sweep, made, written, monkeypatch):
    from tltrain.stages import pipeline

    real = pipeline.supervised

    def broken(cfg):
        if cfg.stage.pkt:
            raise ZeroDivisionError("a bug")
        return real(cfg)

    monkeypatch.setattr(pipeline, "supervised", broken)
    sweep("+experiment=demo", "seed=1,2", status=1)
    errors = [[job.error for job in row.seeds] for row in written[0].rows]
    assert errors == [[None] * 2, ["ZeroDivisionError: a bug"] * 2]
    assert "Traceback" in (Path(written[0].rows[1].seeds[0].folder) / "tltrain.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "labels", "baseline"),
    [
        ("w_max", ["w_max=1", "w_max=3", "w_max=9", "w_max=27"], "w_max=1"),
        ("reward_ablation", ["reward=paper", "reward=coarse", "reward=binary"], "reward=paper"),
        ("demo", ["standard SFT", "MAE + PKT + IRM"], "standard SFT"),
    ],
)
def test_other_experiments(sweep, made, written, experiment, labels, baseline):
    sweep(f"+experiment={experiment}")
    assert [row.label for row in written[0].rows] == labels
    assert written[0].baseline == baseline and written[0].name == experiment


@pytest.mark.slow
def test_robustness_asks_for_all_levels_of_both_models(sweep, made, written, tmp_path):
    (tmp_path / "rotbench").mkdir()
    (tmp_path / "rotbench" / "file").touch()
    sweep("+experiment=robustness", f"paths.rotbench={tmp_path / 'rotbench'}", "benchmark.levels=[clean,union]")
    assert [row.label for row in written[0].rows] == ["standard SFT", "MAE + PKT + IRM"]


def test_every_experiment_composes(sweep, made, written, tmp_path):
    from tltrain.config import CONF_DIR

    for file in (CONF_DIR / "experiment").glob("*.yaml"):
        first = file.read_text().splitlines()
        assert first[0] == "# @package _global_" and first[1].startswith(f"# python -m tltrain +experiment={file.stem}")
        assert "stage:" in sweep("--cfg", "job", f"+experiment={file.stem}").out


def test_a_sweep_of_another_stage_ends_in_the_table_alone(sweep, written):
    ran = sweep("-m", "stage=mae", "data.size=3", "stage.rule=paper,strict")
    assert "rule=paper" in ran.out and "2 jobs" in ran.out and not written


def test_rows_without_the_baseline_that_their_experiment_names_are_reported_too(sweep, made, written):
    ran = sweep("+experiment=reward_ablation", "reward=coarse")
    assert len(written[0].rows) == 1 and written[0].baseline is None
    assert "report.baseline=reward=paper: no row has this label" in ran.err + ran.out


def test_the_report_stage_gathers_folders_of_jobs(sweep, tltrain, made, written, tmp_path):
    sweep("+experiment=demo")
    ran = tltrain("stage=report", f"report.path={tmp_path / 'sweep'}")
    assert ran.metrics == {"rows": 2, "jobs": 2, "failed": 0}
    assert [row.label for row in written[1].rows] == ["standard SFT", "MAE + PKT + IRM"]
    assert "no such folder" in tltrain("stage=report", f"report.path={tmp_path / 'nothing'}", status=1).err
    assert "no job folder" in tltrain("stage=report", f"report.path={tmp_path / 'cache'}", status=1).err
    assert "report.path=" in tltrain("stage=report", status=1).err
    wrong = tltrain("stage=report", f"report.path={tmp_path / 'sweep'}", "report.baseline=nobody", status=1)
    assert "report.baseline=nobody: no row has this label; expected one of: standard SFT" in wrong.err


@pytest.mark.slow
def test_a_report_made_again_keeps_what_the_sweep_says_of_its_making(sweep, tltrain, made, written, tmp_path):
    sweep("+experiment=demo")
    save(replace(written[0], commit="abc", created="2026-01-02T03:04:05+00:00"), tmp_path / "sweep" / FILE)
    tltrain("stage=report", f"report.path={tmp_path / 'sweep'}")
    again = written[1]
    assert (again.name, again.command, again.commit) == ("demo", written[0].command, "abc")
    assert again.created == "2026-01-02T03:04:05+00:00" and len(again.rows) == 2


def test_a_job_that_was_stopped_is_a_failed_row(tmp_path):
    folder = tmp_path / "0"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump({"stage": {"name": "eval"}, "seed": 4}))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(["stage=eval", "seed=4"]))
    found = gather.gather([folder], "x", "y")
    assert found.rows[0].seeds[0].error == "stopped before it finished" and found.rows[0].seeds[0].seed == 4
    (folder / "metrics.json").write_text(json.dumps({"toolworld/ts": 1.0, "details": {}}))
    assert gather.gather([folder], "x", "y").rows[0].seeds[0].error is None
    with pytest.raises(TltrainError, match="no job folder"):
        gather.gather([tmp_path], "x", "y")


@pytest.mark.slow
def test_jobs_run_at_once_in_processes_of_joblib(sweep, written, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["hydra/launcher=joblib", "stage=mae", "data.size=3", "stage.rule=paper,strict", "tracking=none"]
    ran = sweep("-m", *words)
    assert "2 jobs" in ran.out and all((tmp_path / "sweep" / name / "metrics.json").is_file() for name in "01")
    ran = sweep("-m", *words, "data.error_rate=0.1", "data=openai", "data.path=/nowhere", status=1)
    assert ran.out.count("failed") == 2


def test_the_configurations_of_jobs_that_have_ended_are_let_go(tltrain, tmp_path, monkeypatch):
    """Hydra's launcher keeps all jobs' return values until the sweep ends."""
    launcher = Plugins.instance().class_name_to_class["hydra._internal.core_plugins.basic_launcher.BasicLauncher"]
    launch, returned = launcher.launch, []

    def launch_and_keep(self, *args, **kwargs):
        returned.extend(launch(self, *args, **kwargs))
        return returned

    monkeypatch.setattr(launcher, "launch", launch_and_keep)
    tltrain("-m", "stage=mae", "data.size=2", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert [(one.cfg, one.hydra_cfg) for one in returned] == [(None, None)] * 2
