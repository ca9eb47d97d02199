"""stage=irm in a model's own format, through the command line."""

from __future__ import annotations

import json
import math

import pytest
from transformers import AutoTokenizer

from tests.support.small_runs import ALGORITHMS, FEW, SMALL, steps
from tltrain.training import reward_function

FORMATS = ("qwen3", "llama3")


@pytest.fixture(scope="module")
def native_runs(run_once):
    """A run of PPO in each format."""
    return {name: run_once("stage=irm", *SMALL, *FEW, *ALGORITHMS["ppo"], f"format={name}") for name in FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_ppo_learns_from_what_it_sampled(native_runs, name):
    ran = native_runs[name]
    assert [entry["step"] for entry in steps(ran)] == [1, 2]
    for entry in steps(ran):
        assert math.isfinite(entry["loss"]) and math.isfinite(entry["grad_norm"])
        assert sum(entry[outcome] for outcome in reward_function.GRADES) == pytest.approx(1)
        assert entry["trailing_text"] == 0
        # The update computes the answers as they were sampled, token by token, in float32.
        assert entry["sampling_logprob_difference_max"] < 1e-5
    train = ran.metrics["train"]
    assert train["prompts"] > train["trajectories"] and ran.metrics["before"]["n"] == 3
    assert json.loads((ran.folder / "model" / "tltrain.json").read_text())["format"] == name


@pytest.mark.parametrize("name", FORMATS)
def test_samples_show_the_prompt_of_a_server_and_what_the_model_wrote(native_runs, name):
    ran = native_runs[name]
    tokenizer = AutoTokenizer.from_pretrained(ran.folder / "model")
    opening = {"qwen3": "<|im_start|>assistant\n", "llama3": "<|start_header_id|>assistant<|end_header_id|>\n\n"}[name]
    for row in ran.lines("samples.jsonl"):
        assert row["prompt"].endswith(opening) and '"function"' in row["prompt"]
        assert len(tokenizer(row["sampled"], add_special_tokens=False)["input_ids"]) >= 1
        assert row["golden"].endswith(")") and row["grade"] in ("cut", "format_error") and row["reward"] == -2
