"""stage=plan on the command line, and the log line at the start of a training."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from transformers import LlamaConfig

from tltrain import plan
from tltrain.config import Device, Hardware, Model
from tltrain.plan import configured, memory
from tltrain.tokens.layout import Layout
from tltrain.training.sft import dataset

GPU = ("model=codellama_7b", "hardware=gpu", "stage.memory_gb=80")


def test_a_model_of_the_hub_is_planned_without_it(tltrain):
    ran = tltrain("stage=plan", *GPU, "stage.length=2048", "stage.tokens=1e7", "model.allow_lost_updates=true")
    found = ran.metrics
    assert found == json.loads((ran.folder / "plan.json").read_text())
    assert found["parameters"] == 6_738_546_688
    step = found["moments"]["step"]  # model.dtype=bfloat16: weights, gradients and two moments of two bytes each
    assert (step["weights"], step["optimizer"]) == (2 * found["parameters"], 4 * found["parameters"])
    assert found["setup"]["checkpointing"] and found["setup"]["fused_head"]
    assert found["peak_bytes"] == max(sum(moment.values()) for moment in found["moments"].values())
    assert found["fits"] is True
    assert "fits: " in ran.out and "of 80.0 GiB" in ran.out
    assert "6.74 B parameters; 1 process on cuda, bfloat16, sdpa, activation checkpointing" in ran.out
    # nearly 8 N T at the given throughput: the embedding costs nothing, attention is added
    assert found["seconds"]["training"] == pytest.approx(8 * found["parameters"] * 1e7 / 1.25e14, rel=0.08)


def test_irm_does_not_fit_on_one_gpu_but_on_eight(tltrain):
    words = ("stage=plan", "stage.of=irm", *GPU, "stage.length=2048", "stage.calls=4")
    one = tltrain(*words)
    assert one.metrics["fits"] is False and "does not fit: " in one.out
    assert set(one.metrics["moments"]) == {"sampling", "forward", "backward (policy)", "backward", "step"}
    assert one.metrics["seconds"] == {} and "no time estimate without tokens" in one.out
    eight = tltrain(*words, "stage.processes=8", "stage.strategy=zero3").metrics
    assert eight["fits"] is True
    assert eight["setup"]["processes"] == 8
    group = tltrain(*words, "stage.rl.algorithm=grpo").metrics
    assert group["moments"].keys() == {"sampling", "forward", "backward", "step"}
    batch = group["batch"]  # 16 answers to prompts of 2,048 tokens at a time
    assert (batch["samples"], batch["prefill"], batch["length"]) == (16, 16 * 2048, 2048 + 512)
    assert not batch["tree"]


def test_lengths_are_those_of_the_data_where_they_can_be_known(tltrain):
    words = ("model=tiny", "hardware=cpu", "data.size=6", "data.holdout=0")
    found = tltrain("stage=plan", "stage.of=sft", *words, "++stage.supervised.args.num_train_epochs=2").metrics
    assert found["lengths"].startswith("data=toolworld: 6 samples, the longest of ")
    trained = tltrain("stage=sft", *words, "++stage.args.max_steps=1").metrics
    assert found["tokens"]["read"] == 2 * trained["train"]["tokens"]
    asked = tltrain(
        "stage=plan", "stage.of=irm", *words, "stage.rl.max_new_tokens=8", "stage.rl.too_long_answer=keep"
    ).metrics
    assert asked["batch"]["tree"] and asked["batch"]["new"] == 8
    assert asked["seconds"].keys() == {"training", "scoring", "prefill", "sampling"}


def test_conversations_are_planned_by_the_longest_allowed(tltrain):
    words = ("stage=plan", "stage.of=irm", "model=tiny", "hardware=cpu", "stage.rl.rollout=conversation")
    found = tltrain(*words, "stage.rl.group_size=2", "stage.length=100", "stage.rl.max_new_tokens=8").metrics
    assert found["lengths"].startswith("2 conversations of at most 100 tokens a row (stage.length), 4 answers each")
    assert found["batch"]["tree"] and found["batch"]["length"] >= 200
    compared = tltrain(*words, "stage.rl.algorithm=rloo", "stage.length=100", "stage.rl.max_new_tokens=8").metrics
    assert compared["trained"]["critic"] < found["trained"]["critic"] / 100  # no critic of its own


def test_answering_is_planned_by_its_batch(tltrain):
    words = ("stage=plan", "stage.of=eval", "model=smollm2_135m", "hardware=cpu", "hardware.bf16=false")
    found = tltrain(*words, "stage.length=100", "stage.eval.batch_size=2", "stage.eval.max_new_tokens=28").metrics
    cache = 2 * 30 * (3 * 64) * 4 * 2 * 128
    assert found["moments"]["answering"]["key-value cache"] == cache + cache // 30
    assert found["moments"]["answering"]["weights"] == 4 * 134_515_008


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage.of=train"], "stage.of: Invalid value 'train'"),
        (["stage.supervised.args.lr=1"], "stage.supervised.args.lr: trl.SFTConfig has no such argument"),
        (["stage.of=irm", "++stage.rl.kl=-1"], "stage.rl.kl: expected 0 or more"),
        (["stage.processes=0"], "stage.processes: expected a number from 1 to 100000, found 0"),
        (["stage.strategy=zero9"], "stage.strategy: Invalid value 'zero9'"),
        (["model.path=/no/where"], "model.path=/no/where: there is no such folder"),
        (["+model.sizes.model_type=lama"], "model=tiny, its sizes: "),
    ],
)
def test_mistakes_end_in_one_line(words, said, tltrain):
    model = ["model=tiny"] if "model_type" not in words[0] else ["model=tiny", "model.random=null"]
    (line,) = tltrain("stage=plan", *model, *(f"+{w}" if ".lr=" in w else w for w in words), status=1).err.splitlines()[
        -1:
    ]
    assert line.startswith(said)


# --- announce ---------------------------------------------------------------------------------------------------------

CONFIG = LlamaConfig(
    vocab_size=10,
    hidden_size=4,
    intermediate_size=6,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    tie_word_embeddings=True,
)


def settings(**hardware):
    return OmegaConf.create(
        {
            "stage": {"name": "pkt", "args": {}},
            "model": OmegaConf.structured(Model),
            "hardware": OmegaConf.merge(Hardware(device=Device.cpu, bf16=False), hardware),
        }
    )


ROWS = dataset([Layout([1] * n, list(range(n)), [n] * n, [0], [1], [1.0], [0], [0]) for n in (3, 9, 5)])


def test_a_training_says_its_plan(caplog):
    with caplog.at_level(logging.INFO):
        plan.announce(settings(), CONFIG, ROWS)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("plan: 300 parameters; memory peaks at about 0.6 of ")


def test_it_warns_when_it_will_not_fit(caplog, monkeypatch):
    monkeypatch.setattr(configured, "memory_here", lambda device, processes: 0.1 * memory.GiB)
    with caplog.at_level(logging.INFO):
        plan.announce(settings(), CONFIG, ROWS)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "of 0.1 GiB: it will not fit" in record.getMessage()


def test_its_own_failure_stops_nothing(caplog):
    with caplog.at_level(logging.INFO):
        plan.announce(settings(), None, ROWS)
        plan.announce(OmegaConf.create({}), CONFIG, ROWS)
    assert not caplog.records


def test_hardware_says_processes_and_strategy():
    cfg = settings(processes=4, nodes=2, deepspeed={"zero_optimization": {"stage": 3}})
    setup = configured.setup_of(cfg, configured.shape_of(CONFIG))
    assert (setup.processes, setup.strategy) == (8, "zero3")


@pytest.mark.parametrize(
    ("keys", "strategy"),
    [
        ({}, "none"),
        ({"fsdp": {"version": 2}}, "fsdp"),
        ({"deepspeed": {"zero_optimization": {"stage": 2}}}, "zero2"),
        ({"deepspeed": {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}}, "zero3_offload"),
    ],
)
def test_strategies_of_engines(keys, strategy):
    assert configured.strategy_of(settings(**keys).hardware) == strategy


def test_an_adapter_has_the_weights_of_the_modules_it_is_beside():
    """Rank 2 on queries (4 -> 4) and values (4 -> 2) of each of 3 layers: 2 x 3 x (8 + 6)."""
    shape = SimpleNamespace(hidden=4, queries=4, keys=2, intermediate=8, gated=True, layers=3, experts=0)
    assert configured.adapter(shape, 2, ["q_proj", "v_proj"]) == 84
    assert configured.adapter(shape, 2, "all-linear") == 2 * 3 * (8 + 6 + 6 + 8 + 12 + 12 + 12)


def test_rows_of_a_dataset():
    assert configured.rows_of("pkt", ROWS) == configured.SampleSizes([3, 9, 5], [1, 1, 1])
