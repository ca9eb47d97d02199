"""Read back wandb's offline runs: folders, metrics under their names, tables, lineage."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from tests.support.command_line import Ran, command_line
from tests.support.processes import process
from tests.support.small_runs import SMALL
from tests.support.tracked import FEW, Tracked, read, read_all
from tltrain import tracking
from tltrain.tracking import names

ASKED = ("stage.max_new_tokens=4",)


@pytest.fixture(scope="module")
def ran(once, models_cache) -> dict[str, Ran]:
    """Runs of mae -> pkt -> irm -> eval, each from the previous one's output."""
    return once("tracked chain", partial(chain, models_cache))


def chain(models_cache: Path, folder: Path) -> dict[str, Ran]:
    data, trained = f"data.path={folder / 'mae' / 'train.jsonl'}", f"model.path={folder / 'pkt' / 'model'}"
    policy = f"model.path={folder / 'irm' / 'model'}"
    words = {
        "mae": ["data.size=12", "tracking.group=mine", "tracking.tags=[a,b]"],
        "pkt": [*SMALL, *FEW, "data=tltrain", data],
        "irm": [
            *SMALL,
            *FEW,
            *ASKED,
            "stage.too_long_answer=keep",
            "data=tltrain",
            data,
            trained,
            "stage.eval_size=3",
            "stage.samples_every=1",
            "stage.critic.init=random",
        ],
        "eval": [*SMALL, *ASKED, "benchmark.size=4", "tracking.rows=3", policy],
    }
    made = {
        stage: command_line(f"stage={stage}", "tracking=wandb", *given, folder=folder / stage, cache=models_cache)
        for stage, given in words.items()
    }
    assert not any(one.status for one in made.values()), [one.err for one in made.values()]
    return made


@pytest.fixture(scope="module")
def runs(ran, once) -> dict[str, Tracked]:
    return once("tracked chain read", lambda _: {stage: read(one.folder) for stage, one in ran.items()})


# --- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_says_what_it_is(runs):
    for stage, found in runs.items():
        assert (found.run["project"], found.run["job_type"], found.run["display_name"]) == ("tltrain", stage, stage)
        assert found.of("exit")[0].get("exit_code", 0) == 0
    assert runs["mae"].run["run_group"] == "mine" and "run_group" not in runs["pkt"].run
    assert runs["mae"].run["tags"] == ["a", "b", "smollm2_135m", "toolworld"]
    assert runs["pkt"].run["tags"] == ["tiny", "tltrain"]


def test_a_run_has_the_resolved_configuration(runs):
    config = runs["pkt"].config
    assert (config["stage"]["w_max"], config["stage"]["packing"], config["tracking"]["mode"]) == (
        9,
        "trajectory",
        "offline",
    )
    assert config["model"]["random"]["hidden_size"] == 32
    assert config["cache"]["dir"] and "${" not in json.dumps(config)


def test_the_terminal_shows_only_the_folder_to_sync(ran, runs):
    for stage, one in ran.items():
        lines = [line for line in (one.out + one.err).splitlines() if "wandb" in line]
        assert lines == [f"wandb sync {shlex.quote(str(runs[stage].folder.parent))}"]


def test_metrics_are_drawn_over_their_steps(runs):
    defined = {one.get("glob_name"): one.get("step_metric") for one in runs["pkt"].of("metric")}
    assert defined["train/*"] == defined["held_out/*"] == "train/global_step" and defined["irm/*"] == "irm/step"


# --- metrics --------------------------------------------------------------------------------------------------------


def test_every_name_is_one_of_the_table(runs):
    for found in runs.values():
        assert found.names and not [name for name in found.names if not names.is_known(name)]


def test_training_logs_what_its_history_says(ran, runs):
    assert runs["pkt"].names == {*names.TRAIN, *names.HELD_OUT, *names.TOTAL, "train/global_step"}
    logged = [row for row in runs["pkt"].history if "train/loss" in row]
    steps = [entry for entry in ran["pkt"].lines("history.jsonl") if "loss" in entry]
    assert [row["train/global_step"] for row in logged] == [entry["step"] for entry in steps] == [1, 2]
    for row, entry in zip(logged, steps, strict=True):
        for name in ("loss", "key_token_loss", "grad_norm", "learning_rate"):
            assert row[f"train/{name}"] == pytest.approx(entry[name])
    (held_out,) = [row for row in runs["pkt"].history if "held_out/loss" in row]
    assert held_out["held_out/key_token_loss"] == ran["pkt"].metrics["held_out"]["held_out_key_token_loss"]


def test_irm_logs_every_step_and_the_questions_before_and_after(ran, runs):
    once = {
        f"eval/held_out_{when}/{name}" for when in ("before", "after") for name in ("reward", "ts", "pi", "cf", "n")
    }
    assert runs["irm"].names == {*names.IRM, *names.TOTAL, *once, "irm/step", "irm/samples_table"}
    logged = [row for row in runs["irm"].history if "irm/reward" in row]
    steps = [entry for entry in ran["irm"].lines("history.jsonl") if "reward" in entry]
    assert [row["irm/step"] for row in logged] == [1, 2]
    for row, entry in zip(logged, steps, strict=True):
        for name in ("reward", "kl", "policy_loss", "grade/format_error"):
            assert row[f"irm/{name}"] == pytest.approx(entry[name])
    assert {row["eval/held_out_after/ts"] for row in runs["irm"].history if "eval/held_out_after/ts" in row} == {
        ran["irm"].metrics["after"]["ts"]
    }


def test_evaluation_and_mae_log_their_numbers_once(ran, runs):
    (row,) = [row for row in runs["eval"].history if "eval/toolworld/ts" in row]
    metrics = ran["eval"].metrics
    assert {name: row[f"eval/{name}"] for name in metrics if "/" in name} == {
        name: value for name, value in metrics.items() if "/" in name
    }
    rows = metrics["details"]["toolworld"]["rows"]
    assert {name: row[f"eval/toolworld/grade/{name}"] * 4 for name in rows} == rows
    (row,) = runs["mae"].history
    assert [row[f"mae/{name}"] for name in ("calls", "kept")] == [ran["mae"].metrics[n] for n in ("calls", "kept")]
    assert row["mae/error_kind/api_message"] == ran["mae"].metrics["error_kinds"]["api_message"] > 0


def test_names_of_logs():
    logs = {
        "loss": 1.0,
        "held_out_loss": 2.0,
        "eval_loss": 3.0,
        "train_runtime": 4.0,
        "total_flos": 5.0,
        "grade/x": 6.0,
    }
    assert names.of_logs({"loss": 1.0, "train_runtime": 4.0, "total_flos": 5.0}, "sft", 7) == {
        "train/global_step": 7,
        "train/loss": 1.0,
        "total/runtime": 4.0,
        "total/flos": 5.0,
    }
    assert names.of_logs({"held_out_loss": 2.0}, "pkt", 7) == {"train/global_step": 7, "held_out/loss": 2.0}
    assert names.of_logs({"eval_loss": 3.0}, "pkt", 7) == {"train/global_step": 7, "held_out/loss": 3.0}
    assert names.of_logs(logs, "irm", 8).keys() >= {"irm/step", "irm/loss", "irm/grade/x"}
    assert not names.is_known("train/los") and not names.is_known("eval/toolworld/grade/wrong")


# --- tables ---------------------------------------------------------------------------------------------------------


def test_sampled_calls_are_a_table_for_each_step_shown(ran, runs):
    tables = runs["irm"].tables("irm/samples_table")
    assert [row["irm/step"] for row in runs["irm"].history if "irm/samples_table.path" in row] == [1, 2]
    samples = ran["irm"].lines("samples.jsonl")
    assert all(table["columns"] == list(samples[0]) for table in tables)
    assert [row for table in tables for row in table["data"]] == [list(sample.values()) for sample in samples]


def test_predictions_are_a_table_of_no_more_rows_than_asked_for(ran, runs):
    (table,) = runs["eval"].tables("eval/predictions")
    lines = ran["eval"].lines("predictions.jsonl")
    assert len(lines) == 4 and len(table["data"]) == 3
    for row, line in zip(table["data"], lines, strict=False):
        found = dict(zip(table["columns"], row, strict=True))
        assert (found["id"], found["prediction"]) == (line["id"], line["prediction"])
        assert (found["grade"], found["reward"]) == ("format_error", -2)
        assert json.loads(found["goldens"]) == line["goldens"]


def test_what_a_table_uploads_lies_with_the_run(runs):
    (table,) = [found for found in runs["eval"].of("artifact") if found["type"] == "run_table"]
    (entry,) = table["manifest"]["contents"]
    assert Path(entry["local_path"]).is_relative_to(runs["eval"].folder.parent) and Path(entry["local_path"]).is_file()


# --- lineage --------------------------------------------------------------------------------------------------------


def made_and_used(found: Tracked) -> tuple[dict, list[dict]]:
    (made,) = [one for one in found.artifacts if not one.get("use_after_commit")]
    return made, [one for one in found.artifacts if one.get("use_after_commit")]


def test_what_one_job_made_is_what_the_next_one_used(runs):
    made, used = {}, {}
    for stage, found in runs.items():
        made[stage], used[stage] = made_and_used(found)
    kinds = {stage: (one["name"], one["type"]) for stage, one in made.items()}
    assert kinds == {
        "mae": ("data", "dataset"),
        "pkt": ("model", "model"),
        "irm": ("model", "model"),
        "eval": ("evaluation", "evaluation"),
    }
    expected = {"mae": [], "pkt": ["mae"], "irm": ["mae", "pkt"], "eval": ["irm"]}
    for stage, before in expected.items():
        same = [(made[one]["name"], made[one]["digest"]) for one in before]
        assert [(one["name"], one["digest"]) for one in used[stage]] == same
        recorded = json.loads(made[stage]["metadata"])
        assert recorded["stage"] == stage
        assert [(one["kind"], one["digest"]) for one in recorded["inputs"]] == same
    assert len({one["digest"] for one in made.values()}) == 4
    assert "pkt" in made["pkt"]["aliases"]


def test_artifacts_are_references_with_digests(ran, runs):
    made, _ = made_and_used(runs["pkt"])
    entries = {entry["path"]: entry for entry in made["manifest"]["contents"]}
    assert entries.keys() == {path.name for path in (ran["pkt"].folder / "model").iterdir()}
    weights = ran["pkt"].folder / "model" / "model.safetensors"
    entry = entries["model.safetensors"]
    assert entry["ref"] == weights.as_uri() and int(entry["size"]) == weights.stat().st_size
    assert entry["digest"] == base64.b64encode(hashlib.md5(weights.read_bytes()).digest()).decode()


def test_content_is_kept_where_asked(tltrain):
    ran = tltrain("stage=mae", "data.size=3", "tracking=wandb", "tracking.upload=true")
    made, _ = made_and_used(read(ran.folder))
    (entry,) = made["manifest"]["contents"]
    assert entry["local_path"] == str(ran.folder / "train.jsonl") and "ref" not in entry


def test_a_file_is_kept_with_its_content(tltrain, monkeypatch):
    from tltrain.tracking.wandb import WandbTracker

    monkeypatch.setattr(WandbTracker, "artifact", lambda self, kind, path: self.track_file(path))
    ran = tltrain("stage=mae", "data.size=3", "tracking=wandb")
    found = read(ran.folder)
    assert "train.jsonl" in [file["path"] for record in found.of("files") for file in record["files"]]
    assert (found.folder / "files" / "train.jsonl").read_bytes() == (ran.folder / "train.jsonl").read_bytes()


# --- which tracker --------------------------------------------------------------------------------------------------


def test_a_configuration_is_sent_without_the_tables_of_maes_rules(ran, runs):
    sent = runs["mae"].config["mae"]
    kept = yaml.safe_load((ran["mae"].folder / "config.yaml").read_text(encoding="utf-8"))["mae"]
    assert len(kept["paper"]["patterns"]) == 14
    assert re.fullmatch("14 entries, sha256 [0-9a-f]{12}", sent["paper"]["patterns"])
    assert sent["strict"] == kept["strict"]  # it names its table
    assert len(json.dumps(sent)) < 300


def sync_lines(ran) -> list[str]:
    return [line for line in (ran.out + ran.err).splitlines() if line.startswith("wandb sync")]


def test_jobs_of_a_sweep_are_a_group_in_one_tree_that_one_line_uploads(tltrain, tmp_path):
    sweep = tmp_path / "my sweep"
    words = ["-m", "stage=mae", "data.size=2,3", "tracking=wandb", f"hydra.sweep.dir='{sweep}'"]
    ran = tltrain(*words)
    found = [one.run for one in read_all(sweep)]
    assert [(run["run_group"], run["display_name"]) for run in found] == [("my sweep", "0"), ("my sweep", "1")]
    assert not list(sweep.glob("*/wandb"))
    assert sync_lines(ran) == [f"wandb sync '{sweep / 'wandb'}'"]

    # The same jobs again, as after an interruption, continue their runs.
    assert sync_lines(tltrain(*words)) == sync_lines(ran)
    again = read_all(sweep)
    assert [one.run["run_id"] for one in again] == 2 * [run["run_id"] for run in found]


def test_wandb_finds_what_the_line_uploads(tltrain, tmp_path):
    sweep = tmp_path / "sweep"
    ran = tltrain("-m", "stage=mae", "data.size=2,3", "tracking=wandb", f"hydra.sweep.dir={sweep}")
    (line,) = sync_lines(ran)
    said = process([sys.executable, "-m", *shlex.split(line), "--dry-run"], tmp_path).stderr
    assert "Would sync 2 run(s)" in said


def test_a_resumed_run_is_one_run(tltrain, tmp_path):
    words = ["stage=pkt", *SMALL, *FEW, "data.size=4", "tracking=wandb", "stage.keep_checkpoints=true"]
    folder = tmp_path / "run"
    tltrain(*words, "stage.args.save_steps=1", folder=folder)
    (folder / "metrics.json").unlink()  # as if it had been stopped just before its end
    tltrain(*words, "stage.args.save_steps=1", "stage.resume=true", folder=folder)
    first, resumed = read_all(folder)
    assert first.run["run_id"] == resumed.run["run_id"]


def test_stages_of_a_pipeline_are_in_the_tree_of_its_run(tltrain, tmp_path):
    words = [
        *SMALL,
        "data.size=8",
        "stage.pkt=true",
        "stage.irm=false",
        "stage.benchmarks=[{name: toolworld, size: 2}]",
    ]
    words += ["stage.supervised.args.max_steps=1", "stage.eval.max_new_tokens=4", f"cache.dir={tmp_path / 'cache'}"]
    ran = tltrain("stage=pipeline", "tracking=wandb", *words)
    assert {one.run["job_type"] for one in read_all(ran.folder)} == {"mae", "pkt", "eval", "pipeline"}
    assert not list((tmp_path / "cache").rglob("wandb"))
    assert sync_lines(ran) == [f"wandb sync {ran.folder / 'wandb'}"]


def test_a_sweep_keeps_its_report_in_a_run_of_its_group(tltrain, tmp_path):
    sweep = tmp_path / "my_sweep"
    words = ["stage=eval", "source=golden", "benchmark.size=4", "seed=0,1", "tracking=wandb"]
    tltrain("-m", *words, f"hydra.sweep.dir={sweep}")
    *_, found = read_all(sweep)
    assert (found.run["run_group"], found.run["job_type"]) == ("my_sweep", "report")
    assert "report.html" in [file["path"] for record in found.of("files") for file in record["files"]]
    assert (found.folder / "files" / "report.html").read_bytes() == (sweep / "report.html").read_bytes()


@pytest.mark.slow
def test_without_tracking_nothing_loads_wandb(tmp_path, models_cache):
    probe = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('loaded:', [name for name in ('wandb', 'trl') if name in sys.modules]))\n"
        "from tltrain.__main__ import main\nmain()"
    )
    given = ["stage=pkt", *SMALL, *FEW, "data.size=4", "hardware.threads=1", f"cache.dir={models_cache}"]
    ran = process([sys.executable, "-c", probe, *given, "tracking=none", "certify=0", "hydra.run.dir=run"], tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("loaded: ['trl']\n")
    assert not (tmp_path / "run" / "wandb").exists()


def test_a_job_may_track_after_one_that_did_not(tmp_path):
    script = """
import importlib.util, sys, types
from omegaconf import OmegaConf
from tltrain import tracking
with tracking.prepared(OmegaConf.create({"tracking": {"name": "none", "dashboard": False}})):
    assert importlib.util.find_spec("wandb") is None
    trl = sys.modules["trl.trainer.base_trainer"] = types.ModuleType("trl met without wandb")
assert "wandb" not in sys.modules
tracking._reveal()
assert trl.wandb is sys.modules["wandb"] and trl.wandb.init
"""
    ran = process([sys.executable, "-c", script], tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_only_the_first_process_tracks(tmp_path, monkeypatch):
    cfg = OmegaConf.create({"tracking": {"name": "tensorboard"}})
    opened = []
    monkeypatch.setattr(tracking, "_open", lambda cfg, folder: opened.append(folder) or tracking.Tracker())
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        with tracking.job(cfg, tmp_path):
            pass
    assert opened == [tmp_path]


def test_tensorboard_that_is_not_there_is_said_at_once(tltrain, monkeypatch):
    found = tracking.importlib.util.find_spec
    monkeypatch.setattr(
        tracking.importlib.util, "find_spec", lambda name: None if name == "tensorboard" else found(name)
    )
    ran = tltrain("stage=pkt", "tracking=tensorboard", status=1)
    assert ran.err == (
        "tracking=tensorboard needs the package tensorboard: pip install tensorboard (or 'tltrain[tensorboard]')\n"
    )


def test_tensorboard_has_what_the_trainer_logged(tltrain):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ran = tltrain("stage=pkt", *SMALL, *FEW, "data.size=4", "tracking=tensorboard")
    found = EventAccumulator(str(ran.folder / "tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("train/loss")] == [1, 2]
    assert found.Scalars("train/key_token_loss") and not (ran.folder / "checkpoints").exists()
    ran = tltrain("stage=mae", "data.size=3", "tracking=tensorboard")
    found = EventAccumulator(str(ran.folder / "tensorboard"))
    found.Reload()
    assert found.Scalars("mae/calls")[0].value == ran.metrics["calls"]
