"""model.lora: what is trained and saved, and that the base weights are the reference of stage=irm."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from safetensors.torch import load_file

from tests.support.small_runs import SMALL

pytest.importorskip("peft")

TRAIN = ["stage=pkt", *SMALL, "hardware=cpu", "data.size=6", "stage.args.max_steps=2"]
LORA = ["model.lora.r=4", "stage.args.learning_rate=1e-2", "stage.args.warmup_steps=0"]


@pytest.fixture(scope="module")
def base(models_cache):
    """The weights before training, by name."""

    def weights(ran):
        path = json.loads((ran.folder / "metrics.json").read_text())["base_model"]
        return load_file(f"{path}/model.safetensors")

    return weights


def test_a_merged_adapter_is_a_whole_model_that_differs_where_it_was_trained(tltrain, base):
    ran = tltrain(*TRAIN, *LORA)
    before, after = base(ran), load_file(ran.folder / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith(("q_proj.weight", "v_proj.weight"))}
    for name in changed:  # the update has rank 4
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= 4
    assert not list(ran.folder.glob(".*.adapter"))
    again = tltrain(*TRAIN, *LORA)
    assert all(
        torch.equal(after[name], value) for name, value in load_file(again.folder / "model/model.safetensors").items()
    )


def test_an_adapter_alone_is_read_with_its_model(tltrain):
    ran = tltrain(*TRAIN, *LORA, "model.lora.merge=false", "model.lora.target_modules=all-linear")
    model = ran.folder / "model"
    assert (model / "adapter_model.safetensors").is_file()
    assert not (model / "model.safetensors").exists()
    assert json.loads((model / "adapter_config.json").read_text())["r"] == 4
    whole = tltrain(*TRAIN, *LORA, "model.lora.target_modules=all-linear")
    asked = [
        "stage=eval",
        *SMALL,
        "hardware=cpu",
        "benchmark.size=2",
        "stage.max_new_tokens=6",
    ]
    found = [tltrain(*asked, f"model.path={one.folder / 'model'}").lines("predictions.jsonl") for one in (ran, whole)]
    assert found[0] == found[1]


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_irm_with_an_adapter_needs_no_second_model(tltrain, base, monkeypatch, algorithm):
    from tltrain.models import loading

    loaded = []
    load = loading.load_model
    monkeypatch.setattr(
        loading, "load_model", lambda path, *rest, **more: loaded.append(path) or load(path, *rest, **more)
    )
    small = [
        "stage.max_new_tokens=6",
        "stage.too_long_answer=keep",
        "stage.eval_size=0",
        f"stage.algorithm={algorithm}",
        "stage.args.save_strategy=no",
    ]
    if algorithm == "grpo":
        small += ["stage.args.per_device_train_batch_size=4", "stage.args.num_generations=2"]
    else:  # untrained, all answers are equally bad: a critic initialized to their reward would have nothing to learn
        small += ["stage.critic.init=random"]
    ran = tltrain("stage=irm", *TRAIN[1:], *LORA, *small)
    assert len(loaded) == 2  # the policy, and at the end the base that the adapter is merged into
    steps = [line for line in ran.lines("history.jsonl") if "loss" in line]
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-5)  # a new adapter changes nothing
    before, after = base(ran), load_file(ran.folder / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    if algorithm == "ppo":
        assert steps[1]["kl"] != pytest.approx(0, abs=1e-5)
        assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="the package is installed")
def test_without_bitsandbytes_there_is_no_qlora(tltrain):
    assert "needs the package bitsandbytes" in tltrain(*TRAIN, *LORA, "model.lora.quantize=4bit", status=1).err


def test_modules_that_the_model_does_not_have(tltrain):
    assert (
        "Target modules {'nope'} not found" in tltrain(*TRAIN, *LORA, "model.lora.target_modules=[nope]", status=1).err
    )


def test_an_optimizer_whose_package_is_missing_is_said_in_one_line(tltrain):
    if importlib.util.find_spec("bitsandbytes") is not None:
        pytest.skip("the package is installed")
    ran = tltrain(*TRAIN, "stage.args.optim=adamw_bnb_8bit", status=1)
    assert "bitsandbytes" in ran.err.splitlines()[-1]
