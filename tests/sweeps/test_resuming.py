"""stage.resume=true resumes a run of the same configuration and reports any difference."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.composition import composed
from tests.support.small_runs import SMALL, last_line
from tltrain.errors import TltrainError
from tltrain.runtime import runs
from tltrain.sweeps import resuming
from tltrain.training.checkpoints import COMPLETE, mark_complete

SFT = ("stage=sft", *SMALL)
WORDS = (*SFT, "data.size=6")


@pytest.fixture
def stopped(tmp_path) -> Path:
    """The folder of a run of `WORDS` that was stopped after its third step, with dummy weights."""
    folder = tmp_path / "stopped"
    checkpoint = folder / "checkpoints" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_text("half of the work")
    mark_complete(checkpoint, {})
    resuming.record(composed(*WORDS, "tracking=none"), folder)
    return folder


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["seed=3"], "seed"),
        (["stage.args.max_steps=7", "data.size=7"], "data.size, stage.args.max_steps"),
        (["model.lora.r=2", "stage.w_max=2"], "model.lora.r, stage.w_max"),
    ],
)
def test_keys_that_decide_the_result_and_differ_end_in_one_line(tltrain, stopped, words, names):
    line = last_line(tltrain(*WORDS, *words, "stage.resume=true", folder=stopped, status=1))
    checkpoint = stopped / "checkpoints" / "checkpoint-3"
    assert line.startswith(f"stage.resume=true: {checkpoint} was made with different values of {names}: restore them")
    assert f"stage.args.resume_from_checkpoint={checkpoint}" in line
    assert (checkpoint / COMPLETE).is_file()


def test_the_content_of_data_is_compared_and_not_its_name(tltrain, tmp_path, stopped, write):
    data = write({"messages": [{"role": "user", "content": "one"}], "tools": []})
    words = [*SFT, "data=openai", f"data.path={data}"]
    resuming.record(composed(*words, "tracking=none"), stopped)
    copy = tmp_path / "copy.json"
    copy.write_text(data.read_text())
    resuming.check(composed(*SFT, "data=openai", f"data.path={copy}", "stage.resume=true"), stopped)
    data.write_text(data.read_text() + " ")
    assert "different values of data.path:" in last_line(tltrain(*words, "stage.resume=true", folder=stopped, status=1))


CONVERSING = ("stage=irm", *SMALL, "stage.rollout=conversation", "reward=conversation")


def test_the_tasks_and_tools_of_conversations_are_compared(tmp_path, stopped):
    module, tasks = tmp_path / "tools.py", tmp_path / "tasks.jsonl"
    module.write_text("x = 1")
    tasks.write_text("{}")
    words = [*CONVERSING, f"stage.environment={{name: python_tools, module: {module}, path: {tasks}}}"]
    resuming.record(composed(*words, "tracking=none"), stopped)
    resuming.check(composed(*words, "stage.resume=true"), stopped)
    module.write_text("x = 2")
    tasks.write_text("[]")
    with pytest.raises(TltrainError, match=r"values of stage\.environment\.module, stage\.environment\.path:"):
        resuming.check(composed(*words, "stage.resume=true"), stopped)


def test_what_the_choice_of_an_environment_says_is_compared(tmp_path, stopped):
    """`stage.environment` may give no more than the name of a choice."""
    (tmp_path / "tasks.json").write_text("[]")
    words = [*CONVERSING, f"paths.tooleyes={tmp_path}", "stage.environment={name: tooleyes}", "stage.resume=true"]
    resuming.record(composed(*words), stopped)
    (tmp_path / "tasks.json").write_text("[1]")
    with pytest.raises(TltrainError, match=r"different values of stage\.environment\.path:"):
        resuming.check(composed(*words), stopped)


def test_a_training_may_read_what_can_be_read_only_once(tmp_path, stopped, caplog):
    os.mkfifo(tmp_path / "pipe")
    resuming.record(composed(*SFT, "data=openai", f"data.path={tmp_path / 'pipe'}"), stopped)
    assert "pipe: expected a file or a folder; a resumed run could not be compared" in caplog.text
    assert not (stopped / resuming.RECORD).exists()


def test_exempt_keys_may_differ(stopped, caplog):
    words = [
        "stage.resume=true",
        "stage.keep_checkpoints=true",
        "hardware.threads=3",
        "tracking=wandb",
        "report.baseline=x",
    ]
    resuming.check(composed(*WORDS, *words), stopped)
    assert not caplog.records


def test_a_finished_run_of_another_configuration_does_not_pass_for_this_one(tltrain, stopped):
    runs.write_json(stopped / "metrics.json", {"score": 1.0})
    said = tltrain(*WORDS, "stage.resume=true", folder=stopped).err
    assert "has ended already" in said
    line = last_line(tltrain(*WORDS, "seed=3", "stage.resume=true", folder=stopped, status=1))
    assert f"the finished run in {stopped} was made with different values of seed:" in line
    assert (stopped / "metrics.json").is_file()


def test_a_finished_run_gets_the_picture_that_it_lacks(tltrain, stopped):
    """A signal may arrive after the metrics are written and before the picture is drawn."""
    train = {"turns": 3, "train_runtime": 1.0, "train_loss": 1.5}
    runs.write_json(stopped / "metrics.json", {"train": train, "held_out": {}})
    (stopped / "history.jsonl").write_text('{"step": 1, "loss": 1.5}\n')
    ran = tltrain(*WORDS, "stage.resume=true", folder=stopped)
    assert (stopped / "losses.png").is_file() and "sft: 3 turns in 1 s" in ran.out
    assert "sft: 3 turns" not in tltrain(*WORDS, "stage.resume=true", folder=stopped).out


def test_without_a_record_one_line_says_that_nothing_is_compared(stopped, caplog):
    (stopped / resuming.RECORD).write_text("[]")
    resuming.check(composed(*WORDS, "seed=3", "stage.resume=true"), stopped)
    assert "does not record its configuration" in caplog.text


def test_other_versions_of_libraries_are_told(stopped, caplog):
    record = json.loads((stopped / resuming.RECORD).read_text())
    record["versions"]["torch"] = "0.1"
    (stopped / resuming.RECORD).write_text(json.dumps(record))
    resuming.check(composed(*WORDS, "stage.resume=true"), stopped)
    assert "checkpoint-3 was made with different versions of torch: the result may differ" in caplog.text
