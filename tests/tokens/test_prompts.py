"""Prompts for reinforcement learning: those of a trajectory, what they share, what is cut or left out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.packed import prompt_trees_of
from tests.support.trajectories import TOOLS, TRAJECTORY
from tltrain import toolworld
from tltrain.errors import TltrainError
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.prompts import AnswerLimit, PromptReport, PromptTree, answer_limit, questions
from tltrain.trajectory import Call, Message, Trajectory


@pytest.fixture(params=["byte_level", "sentencepiece"])
def encoder(request) -> Encoder:
    return Encoder(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def world() -> list[Trajectory]:
    """Generate a few trajectories with mistakes and their corrections."""
    return list(toolworld.generate(6, 0, 0.3))


def prompts_of(trees: list[PromptTree]) -> list[tuple[tuple[int, ...], str]]:
    return [(tree.ids[:end], sample.id) for tree in trees for end, sample in zip(tree.ends, tree.samples, strict=True)]


def unlearned(trajectory: Trajectory, *turns: int) -> Trajectory:
    """Return the trajectory with these assistant messages (from 0) marked as not learned."""
    messages, turn = [], 0
    for message in trajectory.messages:
        messages.append(message.with_learn(turn not in turns) if message.role == "assistant" else message)
        turn += message.role == "assistant"
    return replace(trajectory, messages=tuple(messages))


# --- prompts --------------------------------------------------------------------------------------------------------


def test_every_call_is_asked_with_its_history_and_itself_as_golden():
    asked = questions(replace(TRAJECTORY, instructions="Be brief.", meta={"level": "clean"}))
    assert [number for number, _ in asked] == [0, 1, 2]
    assert [sample.id for _, sample in asked] == ["t#1", "t#2", "t#3"]
    assert [sample.goldens for _, sample in asked] == [
        (Call("getPapersByKeywords", {"words": "llm"}),),
        (Call("getPaperDetails", {"id": "7"}),),
        (Call("finish", {"answer": "done"}),),
    ]
    assert [sample.messages for _, sample in asked] == [TRAJECTORY.messages[:n] for n in (1, 3, 5)]
    last = asked[-1][1]
    assert (last.tools, last.instructions, last.meta) == (TOOLS, "Be brief.", {"turn": 3, "level": "clean"})


def test_the_calls_of_one_message_are_asked_for_together_where_a_format_writes_them_so():
    calls = [Call("getPaperDetails", {"id": number}) for number in "789"]
    message = Message.calling(*calls)
    left_out = replace(message, calls=(message.calls[0], replace(message.calls[1], learn=False), message.calls[2]))
    answers = tuple(Message("tool", number) for number in "abc")
    last = Message.calling(Call("finish", {"answer": "done"}))
    item = Trajectory("t", TOOLS, (Message("user", "Go."), left_out, *answers, last))
    (first, both), (second, end) = questions(item, several_calls=True)
    assert (first, both.id, both.meta["turn"], both.messages) == (0, "t#1", 1, item.messages[:1])
    assert both.parallel and both.goldens == (calls[0], calls[2])
    assert both.asked == ((calls[0],), (calls[2],))
    assert (second, end.id, end.parallel, end.messages) == (3, "t#4", False, item.messages[:5])
    apart = questions(item)
    assert [(number, sample.goldens, sample.parallel) for number, sample in apart] == [
        (0, (calls[0],), False),
        (2, (calls[2],), False),
        (3, last.calls[0].call and (last.calls[0].call,), False),
    ]
    assert questions(TRAJECTORY, several_calls=True) == questions(TRAJECTORY)


def test_what_is_not_to_be_learned_is_history_only(encoder):
    trajectory = unlearned(TRAJECTORY, 1)
    assert [number for number, _ in questions(trajectory)] == [0, 2]
    (tree,), report = prompt_trees_of(encoder, trajectory)
    (whole,), _ = prompt_trees_of(encoder, TRAJECTORY)
    assert tree.ids == whole.ids and tree.ends == (whole.ends[0], whole.ends[2])
    assert [sample.id for sample in tree.samples] == ["t#1", "t#3"]
    assert report == PromptReport(trajectories=1, prompts=2, tokens=len(tree.ids))


def test_nothing_stands_behind_the_last_question(encoder):
    (tree,), _ = prompt_trees_of(encoder, unlearned(TRAJECTORY, 2))
    assert encoder.decode(tree.ids).endswith("Output: []\nAssistant:")
    assert 'getPaperDetails(id="7")' not in encoder.decode(tree.ids)


def test_an_assistant_that_only_speaks_is_not_asked_but_counted(encoder):
    trajectory = Trajectory(
        "talk",
        TOOLS,
        (
            Message("user", "Hi"),
            Message("assistant", "What about?"),
            Message("user", "Papers"),
            Message.calling(Call("finish", {"answer": "none"})),
        ),
    )
    (tree,), _ = prompt_trees_of(encoder, trajectory)
    (sample,) = tree.samples
    assert (sample.id, sample.meta, len(tree.ends)) == ("talk#2", {"turn": 2}, 1)
    assert encoder.decode(tree.ids).endswith("User: Hi\nAssistant: What about?\nUser: Papers\nAssistant:")


def test_trajectories_without_a_question_are_counted(encoder):
    silent = unlearned(TRAJECTORY, 0, 1, 2)
    for packing in ("turn", "trajectory"):
        trees, report = prompt_trees_of(encoder, silent, TRAJECTORY, packing=packing)
        assert (report.trajectories, report.nothing_to_ask, report.prompts) == (2, 1, 3)
        assert report.tokens == sum(len(tree.ids) for tree in trees)


# --- trees ----------------------------------------------------------------------------------------------------------


def test_each_prompt_is_what_the_model_is_given_when_it_is_used(encoder, world):
    trees, report = prompt_trees_of(encoder, *world)
    assert len(trees) == report.trajectories == 6
    assert report.prompts == sum(len(tree.ends) for tree in trees) > 12
    for tree in trees:
        assert tree.ends == tuple(sorted(set(tree.ends))) and tree.ends[-1] == len(tree.ids)
        for end, sample in zip(tree.ends, tree.samples, strict=True):
            assert list(tree.ids[:end]) == encoder.prompt(sample)


def test_both_packings_ask_the_same(encoder, world):
    world = [unlearned(world[0], 0), *world[1:]]
    trees, shared = prompt_trees_of(encoder, *world)
    turns, apart = prompt_trees_of(encoder, *world, packing="turn")
    assert prompts_of(trees) == prompts_of(turns)
    assert [sample for tree in trees for sample in tree.samples] == [tree.samples[0] for tree in turns]
    assert all(len(tree.ends) == 1 for tree in turns)
    assert (shared.prompts, shared.trajectories) == (apart.prompts, apart.trajectories)
    assert apart.tokens == sum(len(ids) for ids, _ in prompts_of(trees)) > 1.5 * shared.tokens


# --- prompts that are too long --------------------------------------------------------------------------------------


def lengths(encoder: Encoder) -> list[int]:
    """Return the lengths of TRAJECTORY's three prompts."""
    return list(prompt_trees_of(encoder, TRAJECTORY)[0][0].ends)


def test_a_prompt_that_just_fits_is_whole(encoder):
    longest = lengths(encoder)[-1]
    for truncation in ("error", "skip", "left", "drop_oldest_turns"):
        (tree,), report = prompt_trees_of(encoder, TRAJECTORY, max_length=longest, truncation=truncation)
        assert len(tree.ids) == longest and (report.truncated, report.too_long) == (0, 0)


@pytest.mark.parametrize("packing", ["turn", "trajectory"])
def test_oldest_turns_are_dropped_and_tools_and_query_stay(encoder, packing):
    first, second, third = lengths(encoder)
    trees, report = prompt_trees_of(encoder, TRAJECTORY, packing=packing, max_length=third - 1)
    assert [len(tree.ends) for tree in trees] == [1, 1, 1]
    whole = prompts_of(prompt_trees_of(encoder, TRAJECTORY)[0])
    assert prompts_of(trees)[:2] == whole[:2]
    text = encoder.decode(trees[2].ids)
    assert "def getPapersByKeywords" in text and "User: Find papers" in text
    assert 'Assistant: getPapersByKeywords(words="llm")' not in text
    assert text.endswith('\nAssistant: getPaperDetails(id="7")\nOutput: []\nAssistant:')
    assert trees[2].samples[0].id == "t#3"
    turn = ["\nAssistant:", ' getPapersByKeywords(words="llm")', "\nOutput: []"]
    assert len(trees[2].ids) == third - sum(len(piece.ids) for piece in encoder.encode(turn))
    assert report == PromptReport(1, 3, first + second + len(trees[2].ids), truncated=1)


def test_the_left_is_cut_as_released(encoder):
    first, second, third = lengths(encoder)
    trees, report = prompt_trees_of(encoder, TRAJECTORY, max_length=first - 3, truncation="left")
    (whole,), _ = prompt_trees_of(encoder, TRAJECTORY)
    kept = first - 3
    assert [tree.ids for tree in trees] == [whole.ids[end - kept : end] for end in (first, second, third)]
    assert report == PromptReport(1, 3, 3 * kept, truncated=3)


def test_long_prompts_are_left_out_and_counted(encoder):
    first, second, _ = lengths(encoder)
    trees, report = prompt_trees_of(encoder, TRAJECTORY, max_length=second, truncation="skip")
    assert [sample.id for tree in trees for sample in tree.samples] == ["t#1", "t#2"]
    assert report == PromptReport(1, 2, first + second, too_long=1)
    trees, report = prompt_trees_of(encoder, TRAJECTORY, max_length=first - 1, truncation="skip")
    assert trees == [] and report == PromptReport(1, too_long=3)  # there are prompts, but they are too long
    assert report.losses(7) == ["3 of 3 (100.0 %) prompts are longer than 7 tokens and left out"]
    cut = PromptReport(trajectories=4, prompts=1200, nothing_to_ask=1, truncated=3)
    assert cut.losses(7) == [
        "1 of 4 (25.0 %) trajectories have no call to ask for",
        "3 of 1,200 (0.2 %) prompts are longer than 7 tokens and cut",
    ]


def test_a_long_prompt_ends_the_run_where_asked(encoder):
    first, _, third = lengths(encoder)
    with pytest.raises(TltrainError) as stop:
        prompt_trees_of(encoder, TRAJECTORY, max_length=third - 1, truncation="error")
    assert str(stop.value).startswith(f"the prompt t#3 has {third} tokens and does not fit: stage.max_prompt_length ")
    assert f" leave {third - 1};" in str(stop.value) and "stage.truncation=skip" in str(stop.value)
    with pytest.raises(TltrainError) as stop:  # there is no older turn to drop
        prompt_trees_of(encoder, TRAJECTORY, max_length=first - 1)
    expected = f"the prompt t#1 has {first} tokens and does not fit even without its older turns: "
    assert str(stop.value).startswith(expected)
    assert f" leave {first - 1};" in str(stop.value) and "\n" not in str(stop.value)


# --- golden calls that are too long to be sampled ---------------------------------------------------------------------


def golden_lengths(trajectory: Trajectory, encoder: Encoder) -> list[int]:
    return encoder.answer_lengths([trajectory])


def test_an_answer_is_the_call_as_the_model_writes_it_and_its_end_token(encoder):
    texts = [' getPapersByKeywords(words="llm")', ' getPaperDetails(id="7")', ' finish(answer="done")']
    assert golden_lengths(TRAJECTORY, encoder) == [len(one.ids) + 1 for one in encoder.encode(texts)]
    assert len(golden_lengths(unlearned(TRAJECTORY, 1), encoder)) == 2
    assert encoder.answer_lengths([]) == []


@pytest.mark.parametrize("packing", ["turn", "trajectory"])
def test_prompts_whose_golden_call_does_not_fit_are_left_out_and_counted(encoder, packing):
    lengths = golden_lengths(TRAJECTORY, encoder)
    *_, most, longest = sorted(lengths)
    assert most < longest
    trees, report = prompt_trees_of(encoder, TRAJECTORY, packing=packing, answers=AnswerLimit(most))
    whole = prompts_of(prompt_trees_of(encoder, TRAJECTORY, packing=packing)[0])
    assert prompts_of(trees) == [one for one, length in zip(whole, lengths, strict=True) if length <= most]
    assert (report.prompts, report.too_long_answer, report.longest_answer) == (2, 1, longest)
    trees, report = prompt_trees_of(encoder, TRAJECTORY, packing=packing, answers=AnswerLimit(longest))
    assert prompts_of(trees) == whole and (report.too_long_answer, report.longest_answer) == (0, 0)
    trees, report = prompt_trees_of(encoder, TRAJECTORY, packing=packing, answers=AnswerLimit(1))
    assert trees == [] and (report.too_long_answer, report.nothing_to_ask) == (3, 0)


def test_prompts_whose_golden_call_does_not_fit_are_asked_or_end_the_run_where_wanted(encoder):
    lengths = golden_lengths(TRAJECTORY, encoder)
    *_, most, longest = sorted(lengths)
    trees, report = prompt_trees_of(encoder, TRAJECTORY, answers=AnswerLimit(most, "keep"))
    assert len(trees[0].ends) == 3 and report.too_long_answer == 1
    with pytest.raises(TltrainError) as stop:
        prompt_trees_of(encoder, TRAJECTORY, answers=AnswerLimit(most, "error"))
    assert str(stop.value).startswith(
        f"the golden call of t#{lengths.index(longest) + 1} has {longest} tokens with its end token, and "
        f"stage.max_new_tokens={most} would cut it: "
    )


@pytest.mark.parametrize(
    ("lengths", "given", "context", "max_prompt_length", "limit"),
    [
        ([10, 100, 41], None, None, None, 125),  # a quarter more than the longest
        ([10, 99], None, 8192, None, 124),  # 123.75
        ([10, 100, 41], 96, 8192, None, 96),  # as configured
        ([300], None, 512, None, 256),  # at most half of the context
        ([300], None, 512, 200, 312),  # or the rest of the context after the longest prompt
        ([100], None, 512, 200, 125),
        ([300], None, 512, 600, 256),  # then prompts are cut to fit the context
        ([], None, None, None, 512),  # no data
        ([], None, 600, None, 300),
    ],
)
def test_the_limit_is_taken_from_the_data_up_to_what_fits(lengths, given, context, max_prompt_length, limit):
    assert answer_limit(lengths, given, context, max_prompt_length) == limit
