"""Prompts for reinforcement learning in native formats: those of a server, in trees where one begins another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.native_formats import NAMES, PARALLEL, TOOLS, encoder, second_left_out, talk
from tltrain.tokens.prompts import PromptReport, PromptTree, prompt_trees, questions
from tltrain.trajectory import Call, Message, ToolCall, Trajectory

family = pytest.mark.parametrize("name", NAMES)


def call(number: int, thought: str = "") -> Message:
    return Message("assistant", "", (ToolCall(Call("get_user", {"id": str(number)})),), thought)


STEPS = Trajectory(
    "steps",
    TOOLS,
    (
        *(Message("user", "Who are 1 and 2?"), call(1, "One."), Message("tool", "Ann")),
        *(call(2, "Two."), Message("tool", "Bo"), Message("assistant", "Ann and Bo.", thought="So.")),
        *(Message("user", "And 3?"), call(3, "Three.")),
    ),
)
"""Thoughts between the calls of a user's turn, which many templates drop once the user speaks again."""


def trees_of(name: str, *items: Trajectory, **words) -> tuple[list[PromptTree], PromptReport]:
    report = PromptReport()
    settings = {"packing": "trajectory", "max_length": 10**6, "truncation": "error"}
    return list(prompt_trees(items, encoder(name), report=report, **(settings | words))), report


@family
@pytest.mark.parametrize("packing", ["trajectory", "turn"])
@pytest.mark.parametrize("item", [STEPS, PARALLEL, talk(2, thoughts=True, calls=2)], ids=lambda item: item.id)
def test_every_prompt_has_the_ids_that_a_server_builds(name, packing, item):
    own = encoder(name)
    trees, report = trees_of(name, item, packing=packing)
    asked = {sample.id: sample for _, sample in questions(item, own.several_calls)}
    found = {
        sample.id: list(tree.ids[:end]) for tree in trees for end, sample in zip(tree.ends, tree.samples, strict=True)
    }
    assert found == {name: own.prompt(sample) for name, sample in asked.items()}
    assert list(found) == list(asked) and report.prompts == len(asked)
    assert report.tokens == sum(len(tree.ids) for tree in trees)
    assert all(list(tree.ends) == sorted(set(tree.ends)) and tree.ends[-1] == len(tree.ids) for tree in trees)


@pytest.mark.parametrize(
    ("name", "parts"), [("llama3", [3]), ("hermes", [3]), ("qwen3", [2, 1]), ("gemma", [2, 1]), ("qwen3_5", [2, 1])]
)
def test_a_tree_ends_where_a_template_writes_earlier_turns_otherwise(name, parts):
    trees, report = trees_of(name, STEPS)
    assert [len(tree.ends) for tree in trees] == parts
    assert report.branching == (len(parts) > 1) and report.trajectories == 1


def test_the_calls_of_a_message_are_asked_for_together_where_the_format_writes_several():
    (number, first), (last, _) = questions(PARALLEL, several_calls=True)
    assert (number, last, first.id) == (0, 2, "parallel#1")
    assert [golden.name for golden in first.goldens] == ["get_user", "get_users"] and len(first.messages) == 1
    (_, first), _ = questions(second_left_out(), several_calls=True)
    assert [golden.name for golden in first.goldens] == ["get_user"]
    alone = [(sample.id, len(sample.goldens), len(sample.messages)) for _, sample in questions(PARALLEL)]
    assert alone == [("parallel#1", 1, 1), ("parallel#2", 1, 3), ("parallel#3", 1, 5)]
    assert [len(tree.ends) for tree in trees_of("llama3", PARALLEL)[0]] == [3]
    assert sum(len(tree.ends) for tree in trees_of("qwen3", PARALLEL)[0]) == 2


@family
def test_an_answer_is_as_long_as_what_the_data_has_the_model_say(name):
    own, item = encoder(name), replace(STEPS, messages=STEPS.messages[:-2])
    said = [len(turn.said.ids) for turn in own.turns(item, None)][:2]
    assert own.answer_lengths([item]) == [turn.length for turn in own.asked(item)] == said


@pytest.mark.parametrize("name", ["llama3", "hermes"])
def test_a_prompt_that_is_too_long_loses_its_oldest_turns_and_keeps_tools_and_query(name):
    own = encoder(name)
    ids = own.prompt(dict(questions(STEPS))[3])
    turns = own.asked(STEPS)
    first = turns[0].prompt
    (tree,) = trees_of(name, STEPS, max_length=len(ids) - 1, truncation="drop_oldest_turns")[0][2:]
    opening = first[0].ids
    assert list(tree.ids[: len(opening)]) == opening and len(tree.ids) < len(ids)
    kept = len(tree.ids) - len(opening)
    assert list(tree.ids[len(opening) :]) == ids[len(ids) - kept :]
    assert tree.ids[len(opening) : len(opening) + len(first[1].ids)] == tuple(first[1].ids)  # a turn opens


THOUGHTS = {
    "qwen3": ("<think>\nHm.\n</think>\n\n", '<tool_call>\n{"name": "f", "arguments": {"x": "</think>"}}\n</tool_call>'),
    "qwen3_5": ("Hm.\n</think>\n\n", "<tool_call>\n<function=f>\n</function>\n</tool_call>"),
    "gptoss": ("<|channel|>analysis<|message|>Hm.<|end|>", "<|start|>assistant to=functions.f<|channel|>commentary"),
    "gemma": ("<|channel>thought\nHm.<channel|>", "<|tool_call>call:f{}<tool_call|>"),
    "lfm2": ("<think>\nHm.\n</think>\n\n", "<|tool_call_start|>[f()]<|tool_call_end|>"),
    "llama3": ("", '{"name": "f", "parameters": {}}<|eot_id|>'),
}


def thought_of(name: str, text: str) -> tuple[str, str]:
    own = encoder(name)
    ids = own.tokenizer(text, add_special_tokens=False)["input_ids"]
    found = own.thought(ids, own.prompt(STEPS))
    assert found.start == 0
    return own.text(ids[: found.stop]), own.text(ids[found.stop :])


@pytest.mark.parametrize("name", THOUGHTS)
def test_a_thought_is_found_with_its_marks(name):
    thought, said = THOUGHTS[name]
    assert thought_of(name, thought + said) == (thought, said)
    if name != "qwen3_5":  # whose prompt opens the thought
        assert thought_of(name, said) == ("", said)


@pytest.mark.parametrize("name", [name for name, (thought, _) in THOUGHTS.items() if thought])
def test_a_thought_that_does_not_end_is_the_whole_answer_and_marks_in_a_call_are_none(name):
    opened = THOUGHTS[name][0].partition("Hm.")[0] + "Hm"
    assert thought_of(name, opened) == (opened, "")


def test_marks_of_a_thought_in_an_argument_are_none():
    said = '<tool_call>\n{"name": "f", "arguments": {"x": "<think>Hm.</think>"}}\n</tool_call><|im_end|>'
    assert thought_of("qwen3", said) == ("", said)


def test_the_tl_format_has_no_thoughts(byte_level):
    from tltrain.tokens.encoder import Encoder

    assert not Encoder(byte_level).thought([1, 2], [3])
