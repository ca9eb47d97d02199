"""The paper's own run: every command of it composes, its tables, and the whole chain at minimal size."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments.paper import plan, run
from tests.support.composition import composed
from tests.support.paths import ROOT
from tests.support.rotbench_records import FIRST
from tests.support.toolalpaca_records import API
from tltrain import config
from tltrain.data.rotbench import EXPECTED_COUNTS
from tltrain.entry import words as command_line_words
from tltrain.runtime import runs

pytestmark = pytest.mark.slow

WORDS = ("data.path=raw_data.json", "paths.rotbench=FOLDER", "paths.toolalpaca=FOLDER", "paths.tooleyes=FOLDER")
CASES = {
    "as documented": WORDS,
    "one GPU, a local model": (*WORDS, "hardware=zero3_offload", "model.path=FOLDER", "seed=1"),
    "dry": ("--dry-run", "--out", "/out", "paths.rotbench=FOLDER", "paths.tooleyes=FOLDER"),
    "dry, with data": ("--dry-run", "--out", "/out", "data.path=raw_data.json"),
}


@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_every_command_composes(words):
    asked, steps, _ = run.parsed(words)
    commands = list(run.commands(asked, steps))
    for command in commands:
        command_line_words.check(command.words)
        trained = f"model.path={asked.out}"  # by an earlier command
        cfg = composed(*("model.path=FOLDER" if word.startswith(trained) else word for word in command.words))
        if command.step in run.SWEEPS and not asked.dry_run:
            assert cfg.model.name == "codellama_7b" and cfg.stage.supervised.packing.name == "turn"
            assert cfg.data.holdout == 0 and cfg.model.lora.r == (8 if command.step == "lora" else None)
            assert {choice.name for choice in cfg.stage.benchmarks} == set(run.BENCHMARKS)
    assert {command.step for command in commands} >= {"check", "full", "lora"}


def test_settings_of_the_adapter_are_for_the_sweep_with_the_adapter_alone():
    asked, steps, _ = run.parsed((*WORDS, "model.lora.r=16", "model.path=FOLDER"))
    ranks = {
        (command.step, command.words[-1].rpartition("/")[2]): "model.lora.r=16" in command.words
        for command in run.commands(asked, steps)
        if command.step in (*run.SWEEPS, "general")
    }
    assert [key[0] for key, given in ranks.items() if given] == ["lora"] and len(ranks) == 5


def test_a_finished_evaluation_of_other_words_or_of_another_model_is_run_again(tmp_path, monkeypatch, capsys):
    ran: list[tuple[str, ...]] = []

    def tltrain(words, **_):
        ran.append(tuple(words[3:]))
        folder = next(word.removeprefix("hydra.run.dir=") for word in words if word.startswith("hydra.run.dir="))
        runs.write_json(Path(folder) / "metrics.json", {})
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(run.subprocess, "run", tltrain)
    trained = tmp_path / "full" / str(run.ALL) / "model_irm" / "model"
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    trained.parent.mkdir(parents=True)
    trained.symlink_to(tmp_path / "first")

    def start(*words: str) -> int:
        asked, steps, _ = run.parsed(("--out", str(tmp_path), "--steps", "general", *WORDS, *words))
        before = len(ran)
        for command in run.commands(asked, steps):
            if command.step == "general" and "general/lora" not in command.words[-1]:
                run.execute(command)
        return len(ran) - before

    assert start() == 2  # the base model and the trained one
    assert start() == 0 and capsys.readouterr().out.count("done before") == 2
    assert start("seed=1") == 2 and "again, since the last result is of another command" in capsys.readouterr().out
    assert start("seed=1") == 0
    trained.unlink()
    trained.symlink_to(tmp_path / "second")  # trained anew, with other settings
    assert start("seed=1") == 1 and "general/full" in ran[-1][-1]


def test_the_sweep_is_the_papers_ablation():
    cfg = composed("+experiment=paper", *WORDS)
    assert cfg.stage.rl.kl == 0.4 and not cfg.stage.rl.do_sample and cfg.reward.redundant_missing == 1.0
    cfg = composed("+experiment=paper", *WORDS, "stage@stage.rl=irm", "reward=paper")
    assert cfg.stage.rl.kl == 0.3 and cfg.stage.rl.do_sample and cfg.reward.redundant_missing == -1.0
    for number, methods in enumerate((irm, mae, pkt) for irm in (0, 1) for mae in (0, 1) for pkt in (0, 1)):
        assert number != run.ALL or all(methods)


@pytest.mark.parametrize(
    ("words", "line"), [(["--steps", "chek"], "expected some of"), (["data"], "expected KEY=VALUE")]
)
def test_mistakes_are_told_before_anything_runs(words, line, capsys):
    with pytest.raises(SystemExit):
        run.parsed(words)
    assert line in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("seed=0,1",), "full: seed=0,1: several values need a sweep"),
        (("overwite=true",), "full: overwite: no such key; did you mean"),
        (("model.args.learning_rat=1e-5",), "full: model.args.learning_rat"),
        (("stage.rl.kll=0.3",), "full: stage.rl.kll"),
        (("benchmark.limt=2",), "full: benchmark.limt"),
    ],
)
def test_a_mistake_in_any_command_is_told_before_the_first_one_runs(words, line, monkeypatch, capsys):
    monkeypatch.setattr(run.general, "installed", lambda: True)
    monkeypatch.setattr(run.subprocess, "run", lambda *_, **__: pytest.fail("a command was started"))
    assert run.main(["--steps", "full,checkpoint,general", *WORDS, *words]) == 1
    assert capsys.readouterr().err.startswith(f"error: {line}")


def test_settings_of_training_do_not_reach_evaluations(monkeypatch, capsys):
    """An evaluation refuses keys that it does not read, and would do so after days of training."""
    ran = []
    monkeypatch.setattr(run.general, "installed", lambda: True)
    monkeypatch.setattr(run, "execute", ran.append)
    monkeypatch.setattr(run, "data_check", str)
    more = ("model.args.learning_rate=1e-5", "+stage.supervised.args.optim=adamw_torch", "report.texts=false", "seed=1")
    assert run.main(["--steps", "check,full,lora,checkpoint,general", *WORDS, *more, "model.lora.r=16"]) == 0
    assert [command.step for command in ran].count("general") == 3 and len(ran) == 11
    for command in ran:
        assert (set(more) <= set(command.words)) is (command.step in run.SWEEPS)
        assert ("seed=1" in command.words) is (command.step != "check")


def test_a_missing_package_is_told_before_the_first_command_runs(monkeypatch, capsys):
    monkeypatch.setattr(run.general, "installed", lambda: False)
    assert run.main(["--steps", "general", *WORDS]) == 1
    assert "the step general needs the extra general: pip install 'tltrain[general]'" in capsys.readouterr().err


def check(out, trajectories, calls, failed):
    (out / "check").mkdir(parents=True)
    found = {"conversations": trajectories, "calls": calls, "error_calls": {"paper": failed, "strict": failed}}
    (out / "check" / "metrics.json").write_text(json.dumps(found))


def test_other_data_than_the_papers_is_told(tmp_path):
    check(tmp_path / "same", 1217, 1000, 170)
    assert "17.0 % failed" in run.data_check(tmp_path / "same") and "not the paper's" not in run.data_check(
        tmp_path / "same"
    )
    check(tmp_path / "other", 1217, 1000, 230)
    assert "This is not the paper's data" in run.data_check(tmp_path / "other")


def test_the_tables_stand_beside_the_papers(tmp_path):
    (tmp_path / "full").mkdir()
    heads = ["mae", "pkt", "irm", "name", *(f"tooleyes_multi_{level}" for level in ("de", "ce", "va"))]
    (tmp_path / "full" / "ablation.csv").write_text(f"{','.join(heads)}\nfalse,false,false,standard SFT,1.0,2.0,\n")
    folder = tmp_path / "checkpoint" / "rotbench"
    folder.mkdir(parents=True)
    asked = {f"rotbench_clean/{level}": 50.0 for level in ("ts", "pi", "cf")}
    (folder / "metrics.json").write_text(json.dumps({**asked, "details": {"rotbench_clean": {}}}))
    for name, value in (("before", 0.25), ("full", 0.5)):
        (tmp_path / "general" / name).mkdir(parents=True)
        (tmp_path / "general" / name / "metrics.json").write_text(json.dumps({"general/mmlu/acc": value}))
    page = run.comparison(tmp_path)
    assert "| standard SFT | 1.0 / 2.0 / – | 0.7 / 9.1 / 59.3 |" in page
    assert "| rotbench_clean, TS / PI / CF | 50.0 / 50.0 / 50.0 | 83.8 / 54.3 / 42.9 |" in page
    assert "| general/mmlu/acc | 0.250 | 0.500 |  |" in page


def test_tokens_of_the_plan_are_counted_by_a_tokenizer_that_is_here(tmp_path, byte_level):
    file = tmp_path / "mae_data.json"
    text = "Find papers. " * 20
    file.write_text(json.dumps([{"id": "1", "conversations": [{"role": "user", "content": text}]}]))
    assert plan.lengths(file, [])[0] == [round((len(text) + len("user: ")) / plan.CHARACTERS_PER_TOKEN)]
    byte_level.save_pretrained(tmp_path)
    counted, how = plan.lengths(file, [f"model.path={tmp_path}"])
    assert counted == [len(byte_level(f"user: {text}").input_ids)] and "tokenizer.json" in how


def test_the_plan_takes_the_settings_of_the_experiment():
    config.register()
    from hydra import initialize_config_dir

    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        found = plan.planned("irm", 8, "zero3", 1000, 1e5, (), ())
        sampled = plan.planned("irm", 8, "zero3", 1000, 1e5, (), ("stage.rl.max_new_tokens=64",))
    assert found["batch"]["new"] == 512 and sampled["batch"]["new"] == 64 and found["fits"] and found["seconds"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_chain_on_next_to_nothing(tmp_path):
    rotbench, toolalpaca = tmp_path / "rotbench" / "first_turn", tmp_path / "toolalpaca"
    rotbench.mkdir(parents=True)
    toolalpaca.mkdir()
    records = [{**FIRST, "id": f"Turn {number}: a"} for number in range(EXPECTED_COUNTS["first"]["clean"])]
    (rotbench / "clean.json").write_text(json.dumps(records))
    apis = [{**API, "Name": f"{API['Name']} {number}"} for number in range(114 // len(API["Instructions"]))]
    (toolalpaca / "eval_real.json").write_text(json.dumps(apis))
    given = [f"paths.rotbench={rotbench.parent}", f"paths.toolalpaca={toolalpaca}", "hardware.threads=1"]

    def start() -> subprocess.CompletedProcess:
        words = [shutil.which("sh"), "experiments/paper/run.sh", "--dry-run", "--out", str(tmp_path / "out"), *given]
        environment = os.environ | {"PYTHON": shlex.quote(os.sys.executable), "PYTHONPATH": str(ROOT)}
        return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)

    first = start()
    assert first.returncode == 0, first.stdout + first.stderr
    assert "left out, because paths.NAME= is missing: bfcl, tooleyes" in first.stdout
    page = (tmp_path / "out" / "table.md").read_text()
    assert page.count("MAE + PKT + IRM") == 2 and "83.8 / 54.3 / 42.9" in page and "12 trajectories" in page
    assert "rotbench_clean, TS / PI / CF" in page and "8 × 80 GB" in first.stdout
    entries = sorted((tmp_path / "out" / "cache" / "stages").iterdir())
    again = start()
    assert again.returncode == 0 and "done before" in again.stdout
    assert sorted((tmp_path / "out" / "cache" / "stages").iterdir()) == entries
