"""Arguments that make training faster or smaller, by the libraries' own names: each works or ends in a clear error."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tests.support.composition import composed
from tests.support.paths import ROOT
from tests.support.small_runs import SHORT, SMALL
from tltrain.errors import TltrainError
from tltrain.stages.training_runs import check_lost_updates
from tltrain.training.arguments import lost_updates

STAGES = {
    "pkt": ("stage=pkt", *SMALL, "data.size=6", "stage.args.max_steps=2"),
    "irm": (
        *("stage=irm", *SMALL, *SHORT, "data.size=6", "stage.args.max_steps=2", "stage.eval_size=0"),
        *("stage.args.save_strategy=no", "stage.critic.init=random", "stage.args.gradient_accumulation_steps=2"),
    ),
}

BACKEND = "stage.args.torch_compile_backend=aot_eager"
"""A torch.compile backend that traces and differentiates like the default, but does not build kernels (a minute)."""


def steps(ran) -> list[dict]:
    return [line for line in ran.lines("history.jsonl") if "loss" in line]


@pytest.fixture(params=STAGES)
def words(request) -> tuple[str, ...]:
    return STAGES[request.param]


@pytest.fixture
def plain(run_once, words) -> list[dict]:
    return steps(run_once(*words))


@pytest.mark.parametrize("name", ["activation_checkpointing", "gradient_checkpointing"])
def test_checkpointing_recomputes_the_same(tltrain, words, plain, monkeypatch, name):
    recomputed = []

    def counted(*args, **kwargs):
        recomputed.append(1)
        return checkpoint(*args, **kwargs)

    monkeypatch.setattr("transformers.modeling_utils.checkpoint", counted)
    found = steps(tltrain(*words, f"++stage.args.{name}=true"))
    assert recomputed
    assert [one["loss"] for one in found] == pytest.approx([one["loss"] for one in plain], rel=1e-5)


def test_eager_attention_gives_the_same_losses(tltrain, words, plain):
    found = steps(tltrain(*words, "model.attn_implementation=eager"))
    assert [one["loss"] for one in found] == pytest.approx([one["loss"] for one in plain], rel=1e-3)


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="the package is installed")
@pytest.mark.parametrize("stage", STAGES)
def test_flash_attention_without_its_package_is_said_in_one_line(tltrain, stage):
    more = ["stage.packing=turn"] if stage == "irm" else []
    ran = tltrain(*STAGES[stage], *more, "model.attn_implementation=flash_attention_2", status=1)
    assert "flash" in ran.err.splitlines()[-1].lower() and "Traceback" not in ran.err


@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is not None, reason="the package is installed")
def test_liger_kernels_without_their_package_are_said_in_one_line(tltrain, words):
    ran = tltrain(*words, "stage.args.use_liger_kernel=true", status=1)
    assert "liger-kernel" in ran.err.splitlines()[-1] and "Traceback" not in ran.err


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="the package is installed")
def test_an_8_bit_optimizer_without_its_package_is_said_in_one_line(tltrain, words):
    ran = tltrain(*words, "stage.args.optim=adamw_bnb_8bit", status=1)
    assert "bitsandbytes" in ran.err.splitlines()[-1] and "Traceback" not in ran.err


def test_liger_kernels_reach_every_model_of_ppo(monkeypatch):
    from tltrain.training import actor_critic

    given = []
    monkeypatch.setattr(
        "transformers.integrations.liger.apply_liger_kernel", lambda model, kernels: given.append((model, kernels))
    )
    actor_critic.apply_liger_kernels(["policy", "critic"], {"rope": False})
    assert given == [(name, {"rope": False, "fused_linear_cross_entropy": False}) for name in ("policy", "critic")]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_torch_compile_gives_the_same_losses(tltrain, tmp_path, models_cache, stage):
    plain = steps(tltrain(*STAGES[stage]))
    folder = tmp_path / "compiled"
    command = [*STAGES[stage], "tracking=none", "certify=0", f"cache.dir={models_cache}", f"hydra.run.dir='{folder}'"]
    ran = subprocess.run(  # in its own process: the Trainer changes the environment
        [sys.executable, "-m", "tltrain", *command, "stage.args.torch_compile=true", BACKEND],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = [line for line in map(json.loads, (folder / "history.jsonl").read_text().splitlines()) if "loss" in line]
    assert [one["loss"] for one in found] == pytest.approx([one["loss"] for one in plain], rel=1e-3)


@pytest.fixture
def cfg():
    return composed("stage=irm", "model=tiny", "model.irm.critic_learning_rate=0.1")


@pytest.mark.parametrize(
    ("dtype", "rate", "lost"),
    [("float32", 1e-9, False), ("bfloat16", 1e-6, True), ("bfloat16", 1e-4, False), ("float16", 1e-5, False)],
)
def test_updates_that_16_bits_would_lose(cfg, dtype, rate, lost):
    cfg.model.dtype = dtype
    found = lost_updates(cfg, rate, float32_copy=False)
    assert (found is not None) is lost
    if lost:  # a typical weight stays the same
        weight = torch.tensor(0.02, dtype=getattr(torch, dtype))
        assert weight - rate == weight
        assert f"stage.args.learning_rate={rate:g}" in found
        assert lost_updates(cfg, rate, float32_copy=True) is None
        cfg.model.lora.r = 8
        assert lost_updates(cfg, rate, float32_copy=False) is None


def test_the_critics_updates_count_too(cfg):
    cfg.model.dtype, cfg.stage.critic.learning_rate = "bfloat16", 1e-7
    assert "stage.critic.learning_rate=1e-07" in lost_updates(cfg, 1e-3, float32_copy=False)
    cfg.stage.algorithm = "grpo"  # grpo has none
    assert lost_updates(cfg, 1e-3, float32_copy=False) is None


def test_a_training_that_would_lose_its_updates_stops_and_names_the_remedies(tltrain):
    with pytest.raises(TltrainError, match=r"learning_rate=1e-06.*zero2.*float32.*model.allow_lost_updates=true"):
        check_lost_updates(composed("stage=pkt", "model=tiny", "model.dtype=bfloat16"), 1e-6)
    ran = tltrain(*STAGES["pkt"], "model.dtype=bfloat16", "stage.args.learning_rate=1e-6", status=1)
    assert "stage.args.learning_rate=1e-06: bfloat16 weights would lose most updates to rounding" in ran.err


def test_a_training_may_lose_its_updates_where_that_is_wanted(caplog):
    words = ["stage=pkt", "model=tiny", "model.dtype=bfloat16", "model.allow_lost_updates=true"]
    with caplog.at_level(logging.WARNING):
        check_lost_updates(composed(*words), 1e-6)
    assert "would lose most updates" in caplog.text
