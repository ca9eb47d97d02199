"""Checkpoints, models and cache entries that are cut, altered or incomplete are never mistaken for complete."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.support.command_line import command_line
from tests.support.launched_runs import SUPERVISED, same
from tests.support.small_runs import SMALL
from tltrain.errors import TltrainError
from tltrain.training.checkpoints import (
    COMPLETE,
    changed_file,
    kept_of,
    last_checkpoint,
    mark_complete,
    resumable_checkpoint,
)
from tltrain.training.sft import TurnTrainer

WORDS = ("stage=sft", *SMALL, *SUPERVISED, "stage.args.save_steps=1", "stage.args.save_total_limit=2")


def checkpoints_of(run: Path) -> set[str]:
    return {path.name for path in (run / "checkpoints").glob("checkpoint-*")}


@pytest.fixture(scope="module")
def home(once, models_cache):
    """`whole/run`, a run that was not stopped; `stopped/run`, a run that was stopped in its fifth step."""
    return once("damaged", partial(whole_and_stopped, models_cache))


def whole_and_stopped(models_cache: Path, home: Path) -> Path:
    assert command_line(*WORDS, folder=home / "whole" / "run", cache=models_cache).status == 0
    log = TurnTrainer.log

    def log_or_stop(self, logs, start_time=None):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        log(self, logs, start_time)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TurnTrainer, "log", log_or_stop)
        assert command_line(*WORDS, folder=home / "stopped" / "run", cache=models_cache).status == 130
    assert checkpoints_of(home / "stopped" / "run") == {"checkpoint-3", "checkpoint-4"}
    return home


@pytest.fixture
def stopped(home, tmp_path) -> Path:
    """A copy of the stopped run."""
    return Path(shutil.copytree(home / "stopped" / "run", tmp_path / "run"))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def another_number(file: Path, name: str) -> None:
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {name: kept[name] + 1}))


DAMAGE = {
    "weights cut": ("model.safetensors", cut),
    "weights altered": ("model.safetensors", flip),
    "optimizer cut": ("optimizer.pt", cut),
    "optimizer altered": ("optimizer.pt", flip),
    "no schedule": ("scheduler.pt", Path.unlink),
    "history altered": ("trainer_state.json", flip),
    "empty": ("rng_state.pth", lambda file: file.write_bytes(b"")),
    "what completes it cut": (COMPLETE, cut),
    "what completes it of another shape": (COMPLETE, lambda file: file.write_text("[]")),
    "what completes it nested deep": (COMPLETE, lambda file: file.write_text("[" * 100_000)),
    "a number of what completes it altered": (COMPLETE, lambda file: another_number(file, "loss")),
}


FAST = ("weights cut", "optimizer altered", "no schedule", "what completes it cut")
"""One damage of each kind: a file cut, altered, missing; and to the list of the checkpoint's files."""


@pytest.mark.parametrize(
    "damage", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in DAMAGE]
)
def test_a_damaged_checkpoint_is_not_gone_on_from(tltrain, home, stopped, damage):
    """It is not kept either; the previous checkpoint is."""
    name, do = DAMAGE[damage]
    newest = stopped / "checkpoints" / "checkpoint-4"
    do(newest / name)
    ran = tltrain(*WORDS, "stage.resume=true", folder=stopped)
    assert f"{newest} is not used: {name} has changed since it was written" in ran.err
    assert f"continuing from {stopped / 'checkpoints' / 'checkpoint-3'}" in ran.err
    assert same(stopped.parent, home / "whole") == []


def test_without_a_whole_checkpoint_it_begins_anew(tltrain, home, stopped):
    flip(stopped / "checkpoints" / "checkpoint-4" / "model.safetensors")
    (stopped / "checkpoints" / "checkpoint-3" / COMPLETE).unlink()
    ran = tltrain(*WORDS, "stage.resume=true", folder=stopped)
    assert "there is no complete checkpoint in" in ran.err
    assert same(stopped.parent, home / "whole") == []


def test_an_undamaged_one_is_gone_on_from(tltrain, home, stopped):
    ran = tltrain(*WORDS, "stage.resume=true", folder=stopped)
    assert f"continuing from {stopped / 'checkpoints' / 'checkpoint-4'}" in ran.err and "not used" not in ran.err
    assert same(stopped.parent, home / "whole") == []
    assert not (stopped / "checkpoints").exists()


def test_a_half_written_checkpoint_of_a_later_step_does_not_push_out_whole_ones(tltrain, home, stopped):
    later = stopped / "checkpoints" / "checkpoint-900"
    later.mkdir()
    (later / "model.safetensors").write_bytes(b"half")
    tltrain(*WORDS, "stage.resume=true", "stage.keep_checkpoints=true", folder=stopped)
    assert checkpoints_of(stopped) == {"checkpoint-5", "checkpoint-6"}


def test_what_seals_a_checkpoint(tmp_path):
    folder = tmp_path / "checkpoint-7"
    (folder / "policy").mkdir(parents=True)
    (folder / "policy" / "weights").write_bytes(b"abc")
    assert last_checkpoint(tmp_path) is None and resumable_checkpoint(tmp_path) is None and not folder.exists()
    (folder / "policy").mkdir(parents=True)
    (folder / "policy" / "weights").write_bytes(b"abc")
    mark_complete(folder, {"loss": 0.1})
    kept = json.loads((folder / COMPLETE).read_text())
    xxh3_of_abc = "06b05ab6733a618578af5f94892f3950"
    assert {name: kept[name] for name in ("loss", "files")} == {
        "loss": 0.1,
        "files": {"policy/weights": [3, xxh3_of_abc]},
    }
    assert changed_file(folder) is None and resumable_checkpoint(tmp_path) == folder
    (folder / "policy" / "weights").write_bytes(b"abd")
    assert changed_file(folder) == "policy/weights"
    (folder / "policy" / "weights").write_bytes(b"abcd")
    assert changed_file(folder) == "policy/weights"


def test_a_folder_that_is_called_otherwise_is_no_checkpoint_and_stays(tmp_path):
    other, newest = tmp_path / "checkpoint-best", tmp_path / "checkpoint-10"
    for folder in (other, newest, tmp_path / "checkpoint-9"):
        folder.mkdir()
        mark_complete(folder, {"loss": 0.1})
    (tmp_path / "checkpoint-mine").mkdir()
    assert resumable_checkpoint(tmp_path) == newest and other.is_dir() and (tmp_path / "checkpoint-mine").is_dir()


@pytest.mark.parametrize("kept", ['{"loss": "x"}', "{}", "[]", "[" * 100_000])
def test_what_an_earlier_version_kept_is_checked(tmp_path, kept):
    """Its list of files has no digest."""
    (tmp_path / COMPLETE).write_text(kept)
    with pytest.raises(TltrainError, match=r"cannot be resumed from: complete.json: ") as caught:
        kept_of(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("files", ["[]", '{"a": null}', '{"a": [null, ""]}', '{"\\u0000": [1, ""]}', '{"a": [1]}'])
def test_a_list_of_files_of_another_shape_is_an_altered_one(tmp_path, files):
    (tmp_path / COMPLETE).write_text(f'{{"files": {files}}}')
    assert changed_file(tmp_path) is not None


# --- models ---------------------------------------------------------------------------------------------------------


def sharded(folder: Path) -> None:
    """Store the same weights in two files and an index."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, index = sorted(weights), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


MODELS = {
    "weights cut": lambda folder: cut(folder / "model.safetensors"),
    "weights empty": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "weights of another kind": lambda folder: (folder / "model.safetensors").write_bytes(b"PK" * 5000),
    "header altered": lambda folder: (folder / "model.safetensors").write_bytes(
        b"\xff" + (folder / "model.safetensors").read_bytes()[1:]
    ),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "a shard cut": lambda folder: (sharded(folder), cut(folder / "model-00002-of-00002.safetensors")),
    "a shard missing": lambda folder: (sharded(folder), (folder / "model-00001-of-00002.safetensors").unlink()),
    "index cut": lambda folder: (sharded(folder), cut(folder / "model.safetensors.index.json")),
    "config cut": lambda folder: cut(folder / "config.json"),
    "tokenizer cut": lambda folder: cut(folder / "tokenizer.json"),
    "tokenizer missing": lambda folder: (folder / "tokenizer.json").unlink(),
    "weights of another size": lambda folder: (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace('"hidden_size": 32', '"hidden_size": 64')
    ),
    "queries cut": lambda folder: cut(folder / "trained_on.json"),
}


@pytest.mark.parametrize(
    ("stage", "damage"), [*(("sft", damage) for damage in MODELS), ("eval", "weights cut"), ("eval", "queries cut")]
)
def test_a_damaged_model_ends_in_one_line(tltrain, home, tmp_path, stage, damage):
    model = Path(shutil.copytree(home / "whole" / "run" / "model", tmp_path / "model"))
    MODELS[damage](model)
    words = {"sft": ["data.size=4"], "eval": ["benchmark.size=1", "stage.max_new_tokens=1"]}[stage]
    ran = tltrain(f"stage={stage}", *SMALL, *words, f"model.path={model}", status=1)
    assert "Traceback" not in ran.err
    assert str(model) in ran.err.splitlines()[-1] and not (ran.folder / "metrics.json").exists()


def test_shards_as_such_are_read(tltrain, home, tmp_path):
    model = Path(shutil.copytree(home / "whole" / "run" / "model", tmp_path / "model"))
    sharded(model)
    tltrain("stage=eval", *SMALL, "benchmark.size=1", "stage.max_new_tokens=1", f"model.path={model}")


# --- the cache ------------------------------------------------------------------------------------------------------

PIPELINE = (
    "stage=pipeline",
    "stage.irm=false",
    "data.size=6",
    "stage.benchmarks=[{name: toolworld, size: 2}]",
    "stage.eval.max_new_tokens=2",
)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink], ids=["cut", "altered", "missing"])
def test_a_damaged_model_of_the_cache_is_made_anew(tltrain, tmp_path, damage):
    words = [*PIPELINE, *SMALL, f"cache.dir={tmp_path / 'cache'}"]
    first = tltrain(*words)
    (weights,) = (tmp_path / "cache" / "stages").glob("pkt-*/model/model.safetensors")
    before = weights.read_bytes()
    damage(weights)
    second = tltrain(*words)
    assert f"{weights.parents[1]} is built again: model/model.safetensors has changed" in second.err
    assert weights.read_bytes() == before
    assert [stage["reused"] for stage in second.metrics["stages"]] == [True, False, True]
    assert first.metrics["score"] == second.metrics["score"]
