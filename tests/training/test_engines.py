"""Engines on the CPU: two processes compared with one, every algorithm in bfloat16, and a process that dies."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.paths import ROOT
from tests.support.small_runs import SMALL
from tests.support.traps import trap

pytestmark = pytest.mark.slow

COMMON = ["tracking=none", "certify=0", "model=tiny", "hardware.device=cpu", "cache.dir=cache"]
FLOAT32 = "hardware.bf16=false"
PKT = ["stage=pkt", "data.size=8", "stage.args.num_train_epochs=1"]  # 7 trajectories are trained on
PPO = ["stage=irm", "data.size=6", "data.holdout=0.2", "stage.do_sample=false"]
PPO += ["stage.max_new_tokens=12", "stage.too_long_answer=keep"]
TWO = "hardware.processes=2"


def accumulate(count: int) -> str:
    return f"stage.args.gradient_accumulation_steps={count}"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("engines")


def command(place: Path, folder: str, *words: str, before: tuple[str, ...] = (sys.executable,)) -> Path:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    precision = [] if any(word.startswith("hardware.bf16") for word in words) else [FLOAT32]
    line = [*before, "-m", "tltrain", *COMMON, *precision, *words, f"hydra.run.dir={folder}"]
    ran = subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, f"{words}:\n{ran.stdout}\n{ran.stderr}"
    return place / folder


@pytest.fixture(scope="module")
def alone(place) -> Path:
    """stage=pkt on one process."""
    return command(place, "alone", *PKT, accumulate(4))


@pytest.fixture(scope="module")
def ppo_alone(place, alone) -> Path:
    return command(place, "ppo_alone", *PPO, f"model.path={alone / 'model'}", accumulate(2))


def steps(folder: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line]


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def same_weights(one: Path, other: Path) -> None:
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert weight.dtype == theirs[name].dtype
        torch.testing.assert_close(theirs[name], weight, rtol=1e-3, atol=1e-4)
    assert {path.name for path in (one / "model").iterdir()} == {path.name for path in (other / "model").iterdir()}
    config, other_config = (json.loads((folder / "model" / "config.json").read_text()) for folder in (one, other))
    assert config == other_config


@pytest.mark.parametrize("engine", ["zero2", "zero3"])
def test_pkt_by_two_processes_is_pkt_by_one(place, alone, engine):
    found = command(place, engine, *PKT, f"hardware={engine}", TWO, accumulate(2))
    one, two = steps(alone), steps(found)
    assert len(one) == len(two) == 2  # of 4 and 3 trajectories: the last step is uneven
    for name in ("loss", "grad_norm", "key_token_loss", "mean_weight"):
        assert [step[name] for step in two] == pytest.approx([step[name] for step in one], rel=1e-3)
    assert metrics(found)["held_out"]["held_out_loss"] == pytest.approx(
        metrics(alone)["held_out"]["held_out_loss"], rel=1e-3
    )
    same_weights(alone, found)


@pytest.mark.parametrize("engine", ["zero2", "zero3"])
def test_ppo_by_two_processes_is_ppo_by_one(place, alone, ppo_alone, engine):
    """In the last step the second process has no prompts left. ZeRO-2 under torchrun, which starts the processes."""
    words = [*PPO, f"model.path={alone / 'model'}", f"hardware={engine}", accumulate(1)]
    if engine == "zero2":
        torchrun = (str(Path(sys.executable).with_name("torchrun")), "--nproc_per_node", "2", "--no-python")
        found = command(place, "ppo_zero2", *words, before=(*torchrun, sys.executable))
    else:
        found = command(place, "ppo_zero3", *words, TWO)
    one, two = steps(ppo_alone), steps(found)
    assert len(one) == len(two) == 3
    for name in ("loss", "policy_loss", "value_loss", "reward", "samples", "response_tokens", "entropy", "grad_norm"):
        assert [step[name] for step in two] == pytest.approx([step[name] for step in one], rel=1e-3, abs=1e-6)
    for when in ("before", "after"):
        assert metrics(found)[when] == metrics(ppo_alone)[when]
    same_weights(ppo_alone, found)
    assert len((found / "samples.jsonl").read_text().splitlines()) > 0


TALK = ["stage=irm", "stage.rollout=conversation", "reward=conversation", "data.size=6", "stage.max_new_tokens=12"]
TALK += ["stage.environment={size: 3, max_turns: 2}", "stage.eval_size=0"]


@pytest.mark.parametrize("engine", ["auto", "zero2"])
def test_conversations_of_two_processes_are_those_of_one(place, engine):
    """In the last step the second process has no task left."""
    words = [*TALK, *(word for word in SMALL if word.startswith("model.random")), "stage.critic.init=random"]
    if not (place / "talk_alone").is_dir():
        command(place, "talk_alone", *words, accumulate(2))
    found = command(place, f"talk_{engine}", *words, f"hardware={engine}", TWO, accumulate(1))
    one, two = steps(place / "talk_alone"), steps(found)
    assert len(one) == len(two) == 2
    for name in ("loss", "policy_loss", "value_loss", "reward", "turns", "samples", "response_tokens", "grad_norm"):
        assert [step[name] for step in two] == pytest.approx([step[name] for step in one], rel=1e-3, abs=1e-6), name
    same_weights(place / "talk_alone", found)


def test_two_processes_hold_other_conversations_about_the_same_task(place):
    """A rollout of four tasks from three, with two epochs on it: both processes take the first task."""
    words = [*TALK, *(word for word in SMALL if word.startswith("model.random")), "stage.critic.init=random"]
    words += ["stage.ppo_epochs=2", "stage.args.max_steps=2"]
    one = steps(command(place, "talk_twice_alone", *words, accumulate(4)))
    two = steps(command(place, "talk_twice", *words, TWO, accumulate(2)))
    assert len(one) == len(two) == 2 and one[0]["conversations"] == 4
    for name in ("loss", "policy_loss", "value_loss", "policy_clip_fraction", "advantage", "grad_norm"):
        assert [step[name] for step in two] == pytest.approx([step[name] for step in one], rel=1e-3, abs=1e-6), name
    same_weights(place / "talk_twice_alone", place / "talk_twice")


LORA = "model.lora.r=2"
SMALL_MODEL = [word for word in SMALL if word.startswith("model.random")]  # a CPU without bfloat16 is slow in it
GROUP = ["stage=irm", "data.size=6", "stage.max_new_tokens=8", "stage.args.max_steps=1", "data.holdout=0.2"]
BFLOAT16 = {
    "pkt": PKT,
    "pkt_lora": [*PKT, LORA],
    "ppo": [*PPO, "stage.args.max_steps=1"],
    "ppo_lora": [*PPO, "stage.args.max_steps=1", LORA],
    "grpo": [*GROUP, "stage.algorithm=grpo"],
    "grpo_lora": [*GROUP, "stage.algorithm=grpo", LORA],
    "rloo": [*GROUP, "stage.algorithm=rloo"],
    "rloo_lora": [*GROUP, "stage.algorithm=rloo", LORA],
}


@pytest.mark.parametrize("engine", ["auto", "zero2", "zero3"])
@pytest.mark.parametrize("algorithm", BFLOAT16)
def test_every_algorithm_trains_in_bfloat16(place, engine, algorithm):
    """The default on a GPU and on newer CPUs. The saved weights are float32, as they were loaded."""
    words = [*SMALL_MODEL, *BFLOAT16[algorithm], f"hardware={engine}", "hardware.bf16=true"]
    found = command(place, f"bf16_{engine}_{algorithm}", *words)
    assert all(math.isfinite(step["loss"]) for step in steps(found))
    assert {weight.dtype for weight in load_file(found / "model" / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize("engine", ["zero2", "zero3"])
def test_pkt_in_bfloat16_has_the_losses_of_float32(place, alone, engine):
    """Token weights and losses stay float32: only the rounding of the forward pass differs."""
    found = command(place, f"bf16_losses_{engine}", *PKT, f"hardware={engine}", "hardware.bf16=true", accumulate(4))
    for name, tolerance in (("loss", 2e-2), ("mean_weight", 1e-6)):
        assert [step[name] for step in steps(found)] == pytest.approx(
            [step[name] for step in steps(alone)], rel=tolerance
        )


@pytest.mark.parametrize("engine", ["zero2", "zero3"])
def test_two_processes_train_at_the_default_precision(place, engine):
    """The documented command, which does not set the precision."""
    words = [*PKT, f"hardware={engine}", TWO, accumulate(2), "hardware.bf16=null"]
    assert len(steps(command(place, f"default_{engine}", *words))) == 2


def test_evaluation_by_two_processes_is_that_of_one(place, alone):
    words = ["stage=eval", f"model.path={alone / 'model'}", "benchmark.size=9", "stage.max_new_tokens=8"]
    one = command(place, "eval_one", *words, "stage.batch_size=2")
    two = command(place, "eval_two", *words, "stage.batch_size=2", TWO)
    assert (two / "predictions.jsonl").read_bytes() == (one / "predictions.jsonl").read_bytes()
    read = "tokens_prefilled_per_sample"  # each process prefills shared prompts once
    assert metrics(two) | {read: 0} == metrics(one) | {read: 0}


def test_fewer_samples_than_processes(place):
    found = command(place, "few", "stage=pkt", "data.size=4", "data.limit=1", "data.holdout=0", TWO, accumulate(1))
    assert [step["epoch"] for step in steps(found)] == [1.0]
    assert metrics(found)["train"]["samples"] == 1


def test_a_process_that_dies_ends_the_run_with_its_rank(place):
    words = ["stage=pkt", "data.size=400", "hydra.run.dir=dead", TWO, accumulate(1)]
    line = [sys.executable, "-m", "tltrain", *COMMON, FLOAT32, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(line, cwd=place, env=environment, stderr=subprocess.PIPE, text=True) as run:
        workers = _workers(run.pid)
        os.kill(workers[1], signal.SIGKILL)
        killed = time.monotonic()
        said = run.stderr.read()
        assert run.wait(60) == 1
    assert time.monotonic() - killed < 60
    # On a slow machine rank 0 may wait where no signal reaches it, and is killed too.
    line = r"rank(s 0 and)? 1: killed by SIGKILL"
    assert re.match(line, said.splitlines()[-1]) and re.match(line, (place / "dead" / "error.txt").read_text())
    assert not (place / "dead" / "metrics.json").exists()
    assert not Path(f"/proc/{workers[0]}").exists()


@pytest.mark.parametrize("engine", ["zero2", "zero3"])
def test_a_resumed_run_under_deepspeed_runs_no_code_of_a_checkpoint(place, engine):
    """DeepSpeed reads any pickle by itself."""
    words = [*PKT, f"hardware={engine}", TWO, accumulate(1), "stage.args.save_steps=1", "stage.keep_checkpoints=true"]
    run = command(place, f"kept_{engine}", *words, "stage.args.max_steps=1")
    checkpoint = run / "checkpoints" / "checkpoint-1"
    given = f"stage.args.resume_from_checkpoint={checkpoint}"
    again = command(place, f"again_{engine}", *words, "stage.args.max_steps=2", given)
    assert [step["step"] for step in steps(again)][-1] == 2
    states = sorted(checkpoint.rglob("*_states.pt"))
    assert states
    for file in states:
        file.write_bytes(trap(place / "trap"))
    line = [sys.executable, "-m", "tltrain", *COMMON, FLOAT32, *words, given, f"hydra.run.dir=refused_{engine}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 1
    assert "it contains a pickle of something other than tensors, which is never loaded" in ran.stderr.splitlines()[-1]
    assert not (place / "trap").exists()


def _workers(parent: int) -> dict[int, int]:
    """Return the processes of the workers that `parent` started, by rank, once they are running."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                status, words = (folder / "stat").read_text(), (folder / "cmdline").read_bytes().split(b"\0")
                if int(status.rpartition(")")[2].split()[1]) == parent and b"tltrain.entry.worker" in words:
                    names = dict(word.split(b"=", 1) for word in (folder / "environ").read_bytes().split(b"\0") if word)
                    found[int(names[b"RANK"])] = int(folder.name)
            except (OSError, ValueError, KeyError):
                continue
        if len(found) == 2:
            time.sleep(10)  # they load their libraries and begin
            return found
        time.sleep(0.5)
    raise AssertionError("no workers were started")
