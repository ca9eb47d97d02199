"""Models with sliding windows train on trees; for recurrent or convolutional layers one line says what is done."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3TextConfig, Lfm2Config, Qwen3NextConfig

from tests.support.small_runs import FEW, SMALL

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "tie_word_embeddings": True,
}
CONFIGS = {
    "gemma3": (Gemma3TextConfig, {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}),
    "lfm2": (Lfm2Config, {"layer_types": ["conv", "full_attention"]}),
    "qwen3_next": (
        Qwen3NextConfig,
        {
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
}


@pytest.fixture
def base(run_once, tmp_path):
    """`base(name, *words) -> str`: the path of a model with random weights and the tokenizer of a run with `words`."""

    def make(name: str, *words: str) -> str:
        ran = run_once("stage=pkt", *SMALL, "data.size=8", "data.holdout=0", "stage.args.max_steps=1", *words)
        folder = tmp_path / name
        shutil.copytree(Path(ran.folder) / "model", folder, ignore=shutil.ignore_patterns("*.safetensors"))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        kind, more = CONFIGS[name]
        ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(kind(vocab_size=len(tokenizer), **SHAPE, **ids, **more))
        model.save_pretrained(folder)
        return f"model.path={folder}"

    return make


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_thinking_turns_are_trees_or_samples_of_their_own(tltrain, base, name):
    thinking = ["format=qwen3", "data.size=8", "data.holdout=0", "stage.args.max_steps=1"]
    path = base(name, "format=qwen3")
    ran = tltrain("stage=pkt", path, *thinking, "hardware.bf16=false")
    train, said = ran.metrics["train"], ran.out + ran.err
    assert train["branching"] > 1
    if name == "gemma3":
        assert "each trajectory is a tree of its contexts" in said and train["samples"] == train["given"]
        apart = tltrain("stage=pkt", path, *thinking, "hardware.bf16=false", "stage.packing=turn").metrics["train"]
        assert train["turns"] == apart["turns"] and train["tokens"] < apart["tokens"]
        return
    layers = "conv" if name == "lfm2" else "linear_attention"
    assert "each context is a sample of its own, because " in said
    assert f"has layers ({layers}) that do not attend to single tokens" in said
    assert train["samples"] == train["chains"] > train["given"]


def test_reinforcement_computes_one_prompt_a_sample_where_the_model_has_recurrent_layers(tltrain, base):
    path = base("lfm2")
    words = ["stage=irm", path, *FEW, "hardware.bf16=false", "stage.critic.share=true", "stage.args.max_steps=1"]
    ran = tltrain(*words)
    assert "stage.packing=turn instead of trajectory: Lfm2ForCausalLM has layers (conv)" in ran.out + ran.err
