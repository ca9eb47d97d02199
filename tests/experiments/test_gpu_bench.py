"""The GPU benchmark without a GPU: its data and operation counts checked by hand, and its CPU counterpart."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from types import ModuleType

import pytest
import torch

from tests.support.paths import ROOT

BENCH = ROOT / "experiments" / "bench"


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # dataclasses look up their module
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    sys.path.insert(0, str(BENCH))
    try:
        yield module("gpu_worker")
    finally:
        sys.path.remove(str(BENCH))


SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def job(worker, **more):
    fields = {"section": "pkt", "shape": "s", "sizes": SIZES, "variant": "", "device": "cpu", "packing": "trajectory"}
    fed = {"length": 101, "rows": 2, "accumulation": 1, "call": 6, "group": 3, "dtype": "float32"}
    return worker.Job(**fields | fed | {"warm": 1, "steps": 2} | more)


def test_random_trajectories_have_the_length_that_is_asked_for_and_begin_alike_in_their_group(worker):
    import gpu_data

    source = gpu_data.RandomTrajectories(job(worker))
    trajectories = [source.runs(number, 9.0) for number in range(6)]
    for runs in trajectories:
        assert sum(len(run.ids) for run in runs) == 101
        assert [len(run.targets) for run in runs if run.targets] == [7] * worker.CALLS
        assert runs[-1].targets  # nothing follows the last call
    first = [runs[0].ids[:45] for runs in trajectories]  # half, minus its last tenth
    assert first[0] == first[1] == first[2] != first[3] == first[4] == first[5]
    assert len({tuple(runs[0].ids) for runs in trajectories}) == 6


@pytest.mark.parametrize(("packing", "rows"), [("trajectory", 6), ("turn", 8), ("prefix_tree", 6)])
def test_there_are_rows_for_every_step(worker, packing, rows):
    items = worker.layouts(job(worker, packing=packing))
    assert len(items) == rows
    if packing == "prefix_tree":
        assert len(items[0].input_ids) == 45 + 3 * (101 - 45)
        seen = sum(range(46)) + 3 * sum(range(46, 102))  # through the 45 shared tokens, and three times through 56
        assert worker.tokens_of(items, 1.0).length == pytest.approx(2 * seen / (45 + 3 * 56), rel=1e-2)


def test_operations_are_those_of_the_model_by_hand(worker):
    from tltrain.plan import compute, shapes

    items = worker.layouts(job(worker))
    tokens = worker.tokens_of(items, 1000)
    assert tokens.length == pytest.approx(102)  # a token attends to (101 + 1) / 2 of them on average, including itself
    assert tokens.predicted == pytest.approx(1000 * 28 / 101)
    shape = shapes.shape_of(worker.LlamaConfig(**SIZES))
    matrices = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    attention = 2 * 2 * 32 * 102 / 2 * 2  # two layers, two products, 32 elements with 51 tokens, two operations each
    by_hand = 3 * (1000 * (2 * matrices + attention) + 2 * 50 * 32 * 1000 * 28 / 101)
    assert compute.training(shape, tokens, checkpointing=False) == pytest.approx(by_hand)


def test_the_operations_of_a_step_of_ppo_are_three_models_and_what_is_sampled(worker):
    from tltrain.plan import compute, shapes
    from tltrain.plan.compute import Tokens

    asked = job(worker, section="irm")
    shape = shapes.shape_of(worker.LlamaConfig(**SIZES))
    found = worker.ppo_flops(shape, asked, samples=8, responses=48)
    read = 2 * 101 + 48 - 8
    whole = compute.forward(shape, Tokens(read, 48, 0))
    body = compute.forward(shape, Tokens(read, 0, 0))
    linear = 4 * whole + 3 * body  # three passes of the policy, one of the reference, three of the critic (no head)
    assert linear < found["update"] < 1.5 * linear
    assert found["generation"] > compute.forward(shape, Tokens(2 * 101 + 48, 48, 0))


def test_for_trl_a_label_is_the_token_that_is_fed_in_next(worker):
    items = worker.layouts(job(worker))
    row = worker.plain_rows(items)[0]
    assert len(row["labels"]) == 101
    assert all(label in (-100, token) for label, token in zip(row["labels"], row["input_ids"], strict=True))
    assert sum(label != -100 for label in row["labels"]) == worker.CALLS * 6  # the end token is not among them


def bench(*words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCH / "gpu.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line():
    ran = bench()
    assert (ran.returncode, ran.stdout.count("\n")) == (0, 1)
    assert "no CUDA device" in ran.stdout


@pytest.mark.slow
def test_the_cpu_twin_measures_everything_and_a_second_time_nothing(tmp_path):
    words = ["--device", "cpu", "--shapes", "tiny", "--quick", "--peak", "1e12", "--out", str(tmp_path / "g.jsonl")]
    ran = bench(*words)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])["results"]
    assert [one.get("error") for one in found] == [None] * len(found)
    results = {(one["job"]["section"], one["job"]["packing"], one["job"]["variant"]): one["result"] for one in found}
    packings = {packing for section, packing, _ in results if section == "pkt"}
    assert packings == {"trajectory", "turn", "prefix_tree"}
    assert {section for section, *_ in results} == {"pkt", "irm", "trl", "memory"}
    for (section, *_), result in results.items():
        assert result["tokens_per_second"] > 0 and result["peak_bytes"] > 0
        if section == "irm":
            shares = [result[f"share_{part}"] for part in ("generation", "scoring", "update")]
            assert sum(shares) == pytest.approx(1) and min(shares) > 0
            assert result["samples_a_step"] == 16
    one = results["pkt", "trajectory", "bf16, none"]
    assert one["tokens_per_step"] == 4 * 160
    assert one["flops_per_second"] == pytest.approx(one["flops_per_token"] * one["tokens_per_second"])
    lines = (tmp_path / "g.jsonl").read_text().splitlines()
    assert len(lines) == len(found)
    again = bench(*words)
    assert (tmp_path / "g.jsonl").read_text().splitlines() == lines
    assert json.loads(again.stdout.splitlines()[-1])["results"] == found


@pytest.mark.slow
def test_a_job_that_fails_leaves_the_others_alone(tmp_path):
    out = tmp_path / "g.jsonl"
    words = ["--device", "cpu", "--shapes", "tiny", "--quick", "--only", "pkt", "--match", "trajectory"]
    ran = bench(*words, "--kernels", "liger", "--out", str(out))
    found = json.loads(ran.stdout.splitlines()[-1])["results"]
    errors = {one["job"]["kernels"]: one.get("error", "") for one in found}
    assert "liger" in errors["liger"].lower() and errors["none"] == ""
    assert "liger" in ran.stdout and ran.returncode == 0
