"""Training, evaluation and prediction in a native format, through the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.support.command_line import command_line
from tests.support.small_runs import SMALL
from tltrain.models import loading

WORDS = (
    "stage=pkt",
    *SMALL,
    "format=qwen3",
    "data.size=8",
    "data.holdout=0.2",
    "stage.args.max_steps=1",
    "stage.args.gradient_accumulation_steps=1",
)
ASKED = ("stage=eval", "benchmark.size=2", "stage.max_new_tokens=3", "hardware.bf16=false")


@pytest.fixture
def trained(run_once):
    return run_once(*WORDS)


def test_a_model_keeps_its_own_template_and_the_format_it_was_trained_in(trained):
    model = trained.folder / "model"
    assert json.loads((model / "tltrain.json").read_text())["format"] == "qwen3"
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert tokenizer.chat_template == loading.template_of("qwen3") and tokenizer.eos_token == "<|im_end|>"
    train = trained.metrics["train"]
    assert 1 < train["branching"] <= train["samples"] and train["turns"] > train["samples"]
    assert (
        "the chat template writes earlier turns unlike the last one; each trajectory is a tree"
        in trained.out + trained.err
    )


def test_it_is_asked_in_its_own_format_and_refused_in_another(trained, tltrain):
    model = f"model.path={trained.folder / 'model'}"
    ran = tltrain(*ASKED, model, "format=auto")
    assert ran.metrics["details"]["toolworld"]["outcomes"]["format_error"] == 2
    assert ran.metrics["prompt_tokens_per_sample"] > 300  # tools as JSON
    assert ran.metrics["toolworld/key_tokens"] >= 1
    assert ran.metrics["details"]["toolworld"]["key_tokens"].keys() == {"calls", "per_call", "several"}
    assert ran.metrics["toolworld/missing_calls"] == 0 and ran.metrics["toolworld/n"] == 2
    refused = tltrain(*ASKED, model, status=1)
    assert "was trained with format=qwen3; format=auto takes the one it knows" in refused.err


def test_conversations_are_held_in_its_own_format_and_share_prefixes(trained, tltrain):
    words = ["stage=eval", "benchmark=toolworld_multi", "hardware.bf16=false", "benchmark.size=3", "format=auto"]
    words += [f"model.path={trained.folder / 'model'}", "benchmark.max_turns=2", "stage.max_new_tokens=8"]
    alone, together = (tltrain(*words, f"benchmark.parallel={parallel}") for parallel in (1, 3))
    assert (alone.folder / "transcripts.jsonl").read_bytes() == (together.folder / "transcripts.jsonl").read_bytes()
    found = alone.metrics
    assert (found["toolworld_multi/n"], found["toolworld_multi/calls"], found["toolworld_multi/de"]) == (3, 6, 100)
    assert found["tokens_prefilled_per_sample"] < 0.7 * found["prompt_tokens_per_sample"]  # the history is read once
    line = alone.lines("transcripts.jsonl")[0]
    assert [message["role"] for message in line["messages"]] == ["user", *["assistant", "tool"] * 2]
    assert line["messages"][2]["content"].startswith("Error: not a call: the answer makes no call.")


def test_a_plan_has_the_samples_that_training_has(trained, tltrain):
    words = [word for word in WORDS[1:] if not word.startswith("stage.")]
    steps = ["stage.supervised.args.max_steps=1", "stage.supervised.args.gradient_accumulation_steps=1"]
    found = tltrain("stage=plan", "stage.of=pkt", *words, *steps).metrics
    train = trained.metrics["train"]
    assert re.match(rf"data=toolworld: {train['samples']} samples, the longest of \d+ tokens", found["lengths"])
    tl = tltrain("stage=plan", "stage.of=pkt", *words, *steps, "format=tl").metrics
    assert tl["batch"]["length"] < found["batch"]["length"]  # tools as JSON


def test_models_of_several_formats_are_analysed_side_by_side(trained, tltrain):
    model = trained.folder / "model"
    ran = tltrain("stage=analyze", *SMALL, "format=hermes", "data.size=6", f"stage.models=[base,{model}]")
    names = list(ran.metrics["details"]["models"])
    assert names[0] == "tiny" and len(names) == 2
    for name in names:
        for part in ("key", "first", "name", "parameter", "value", "punctuation", "end"):
            assert ran.metrics[f"{name}/{part}/loss"] > 0
        calls = ran.metrics["details"]["models"][name]["tokens"]["first"]["accuracy"]["n"]
        assert calls == ran.metrics["details"]["models"][name]["calls"]["any"]["call"]["n"] > 10


def test_inspect_shows_keys_in_json_and_what_is_left_out(tltrain):
    words = ["model=tiny", "model.random.vocab_size=400"]  # so few that names have several tokens
    ran = tltrain("stage=inspect", *words, "format=hermes", "stage.limit=12", "data.size=20")
    assert re.search(r'^{"type": "function", "function": {"name": "\w+"', ran.out, re.MULTILINE)
    assert re.search(r'^{"name": "\w+", "arguments": {"', ran.out, re.MULTILINE)
    assert re.search(r"\[[2-9] key of \d+: '\w+' '\w+'", ran.out)
    assert "[left out]" in ran.out and "</tool_call>⏎" in ran.out


@pytest.mark.slow
def test_a_model_that_has_memorized_a_conversation_says_its_calls(tmp_path, write, models_cache):
    tools = [{"type": "function", "function": {"name": name, "description": "d", "parameters": {}}} for name in "fg"]
    made = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": '{"x": 3}'}},
    ]
    user = {"role": "user", "content": "Go."}
    messages = [
        user,
        {"role": "assistant", "content": "Both.", "reasoning_content": "Hm.", "tool_calls": made},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
    ]
    data = write({"messages": messages, "tools": tools})
    asked = write({"messages": [user], "tools": tools})
    words = ["stage=pkt", "model=tiny", "format=qwen3", "hardware.bf16=false", "data=openai", f"data.path={data}"]
    more = ["data.holdout=0", "stage.args.num_train_epochs=60", "stage.args.gradient_accumulation_steps=1"]
    ran = command_line(*words, *more, folder=tmp_path / "run", cache=models_cache)
    assert ran.status == 0, ran.err
    words = ["stage=predict", f"model.path={tmp_path / 'run' / 'model'}", "format=auto", f"data.path={asked}"]
    ran = command_line(*words, "hardware.bf16=false", folder=tmp_path / "predict", cache=models_cache)
    assert ran.status == 0, ran.err
    assert "thought: Hm.\ntext: Both.\nf()\ng(x=3)" in ran.out
    saved = json.loads(Path(tmp_path / "predict" / "prediction.json").read_text())
    calls = [{"name": "f", "arguments": {}}, {"name": "g", "arguments": {"x": 3}}]
    assert saved["said"]["calls"] == saved["calls"] == calls and saved["call"] == calls[0]
    assert saved["reason"].startswith("1 of 2 calls agree with the documentation; ")
