"""Names on offer and sampling in evaluation, conversations, prediction and IRM, through the command line."""

from __future__ import annotations

import json

from tests.support.small_runs import ALGORITHMS, FEW, SMALL
from tltrain import toolworld
from tltrain.formats.calls import CallSyntaxError, read_call

RANDOM = (*SMALL, "data.size=12")  # random weights, which write no call by themselves
ASKED = ("benchmark.size=6", "stage.max_new_tokens=24", "stage.batch_size=4")


def name_of(text: str) -> str:
    try:
        return read_call(text).name
    except CallSyntaxError:
        return text.partition("(")[0].strip()


def test_single_calls_name_tools_on_offer_and_repeat_when_sampled(tltrain):
    words = ("stage=eval", *RANDOM, *ASKED, "stage.temperature=1.5")
    offered = tltrain(*words, "stage.names=offered")
    lines = offered.lines("predictions.jsonl")
    samples = {own.id: {tool.name for tool in own.tools} for own in toolworld.samples(6, 0)}
    assert len(lines) == 6 and all(name_of(line["prediction"]) in samples[line["id"]] for line in lines)
    free = [line["prediction"] for line in tltrain(*words).lines("predictions.jsonl")]
    assert not any(name_of(text) in names for text, names in zip(free, samples.values(), strict=True))
    again = tltrain(*words, "stage.batch_size=2").lines("predictions.jsonl")
    assert [line["prediction"] for line in again] == free


def test_conversations_never_call_a_tool_that_is_not_on_offer(tltrain):
    sizes = ("benchmark.size=2", "benchmark.max_turns=2", "stage.max_new_tokens=24", "stage.batch_size=2")
    ran = tltrain("stage=eval", *RANDOM, "benchmark=toolworld_multi", *sizes, "stage.names=offered")
    for line in ran.lines("transcripts.jsonl"):
        names = {tool["name"] for tool in line["tools"]}
        assert line["calls"] and all(name_of(call["text"]) in names for call in line["calls"])
        assert not any(call["kind"] == "tool_hallucination" for call in line["calls"])


def test_predictions_name_tools_on_offer(tltrain, write):
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("find_trip", "finish")]
    chat = write({"messages": [{"role": "user", "content": "Where to?"}], "tools": tools})
    ran = tltrain("stage=predict", *RANDOM, f"data.path={chat}", "stage.max_new_tokens=24", "stage.names=offered")
    assert name_of(ran.metrics["text"]) in ("find_trip", "finish")


def test_rollouts_and_held_out_questions_name_tools_on_offer(tltrain):
    words = (*SMALL, *FEW, *ALGORITHMS["ppo"], "stage.max_new_tokens=24", "stage.samples_every=1")
    ran = tltrain("stage=irm", *words, "stage.names=offered", "stage.args.max_steps=1")
    lines = ran.lines("samples.jsonl")
    assert lines
    for line in lines:
        stubs = line["prompt"].partition("\nUser: ")[0]
        assert f"def {name_of(line['sampled'])}(" in stubs, json.dumps(line)
    assert not ran.metrics["before"]["outcomes"].get("tool_hallucination")
    (step,) = [entry for entry in ran.lines("history.jsonl") if "loss" in entry]
    assert step["sampling_logprob_difference_max"] < 1e-4 and step["grade/tool_hallucination"] == 0
