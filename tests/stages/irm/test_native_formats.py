"""stage=irm in a model's own format, through the command line."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from transformers import AutoTokenizer

from tests.support.small_runs import ALGORITHMS, FEW, SMALL, last_line, steps
from tltrain.inference.offered_calls import OfferedCalls
from tltrain.tokens.native import NativeEncoder
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


def test_trees_are_as_many_as_contexts_and_a_line_says_so(native_runs):
    ran = native_runs["qwen3"]
    assert ran.metrics["train"]["branching"] == 0 and "the chat template writes earlier turns" not in ran.err


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_a_thought_may_be_context(tltrain, monkeypatch, algorithm):
    monkeypatch.setattr(NativeEncoder, "thought", lambda self, ids, prompt: range(1))
    ran = tltrain("stage=irm", *SMALL, *FEW, *ALGORITHMS[algorithm], "format=qwen3", "stage.learn_thoughts=false")
    costs = ran.metrics["costs"]
    assert costs["target_tokens"] == costs["sampled_tokens"] - costs["sampled_calls"] > 0
    assert all(math.isfinite(entry["loss"]) for entry in steps(ran))


def test_answers_that_are_nothing_but_a_thought_teach_nothing(tltrain):
    words = ("format=qwen3_5", "stage.learn_thoughts=false")  # its prompt opens a thought, which four tokens do not end
    ran = tltrain("stage=irm", *SMALL, *FEW, *ALGORITHMS["ppo"], *words)
    assert ran.metrics["costs"]["target_tokens"] == 0 < ran.metrics["costs"]["sampled_tokens"]
    assert [entry["loss"] for entry in steps(ran)] == [0, 0]


def test_thoughts_as_context_need_a_format_and_a_trainer_that_have_them(tltrain):
    words = ("stage=irm", *SMALL, *FEW, "stage.learn_thoughts=false")
    assert last_line(tltrain(*words, status=1)).startswith("stage.learn_thoughts=false: answers in the TL format have")
    ran = tltrain(*words, *ALGORITHMS["rloo"], "format=qwen3", status=1)
    assert last_line(ran).startswith("stage.learn_thoughts=false: TRL's RLOO learns whole answers")


@pytest.mark.slow
def test_rloo_samples_until_each_end_token_of_the_format(tltrain):
    ran = tltrain("stage=irm", *SMALL, *FEW, *ALGORITHMS["rloo"], "format=gptoss")
    assert ran.metrics["steps"] == 2 and all(math.isfinite(entry["loss"]) for entry in steps(ran))


def test_names_on_offer_are_the_same_policy_in_sampling_and_update(tltrain, monkeypatch):
    held = []
    allowed = OfferedCalls.allowed
    begun = tuple(range(5, 25))  # never allowed, so that random weights meet a mask

    def without(self, tools, answer):
        found = allowed(self, tools, answer)
        mask = np.ones(len(self.tokens.of), dtype=bool) if found is None else found.copy()
        mask[list(begun)] = False
        held.append(len(list(answer)))
        return mask

    monkeypatch.setattr(OfferedCalls, "allowed", without)
    ran = tltrain("stage=irm", *SMALL, *FEW, *ALGORITHMS["ppo"], "format=llama3", "stage.names=offered")
    assert max(held) == 3  # the mask is asked for at each of four tokens, not only before the first name
    for entry in steps(ran):
        assert entry["sampling_logprob_difference_max"] < 1e-5
    assert steps(ran)[0]["kl"] == pytest.approx(0, abs=1e-5)
