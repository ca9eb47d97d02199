"""Layout: the trainer's input for a trajectory, with tokenizers of both families."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.packed import packed
from tests.support.trajectories import OTHER, TOOLS, TRAJECTORY, conversation
from tltrain.errors import TltrainError
from tltrain.formats import joined, tl
from tltrain.formats.tl import TL
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Run, Target, flatten
from tltrain.trajectory import Call, Message, Trajectory


@pytest.fixture(params=["byte_level", "sentencepiece"])
def encoder(request) -> Encoder:
    return Encoder(request.getfixturevalue(request.param))


def test_flattening_a_tree_by_hand():
    # root a b; branches c d and e after b. The first token of each branch is predicted from b.
    runs = [
        Run([1, 2], -1, []),
        Run([3, 4], 0, [Target(-1, 3, 1.0, True, 0), Target(0, 4, 1.0, False, 0)]),
        Run([5], 0, [Target(-1, 5, 2.0, True, 1), Target(0, 9, 1.0, False, 1)]),
    ]
    layout = flatten(runs)
    assert layout.input_ids == [1, 2, 3, 4, 5]
    assert layout.position_ids == [0, 1, 2, 3, 2]
    assert layout.positions == [1, 2, 1, 4]
    assert layout.targets == [3, 4, 5, 9]
    assert layout.weights == [1, 1, 2, 1] and layout.keys == [1, 0, 1, 0] and layout.turns == [0, 0, 1, 1]


def test_targets_are_the_calls_and_their_end_tokens(encoder):
    (layout,), report = packed(encoder, TRAJECTORY)
    for turn, call in enumerate(
        ('getPapersByKeywords(words="llm")', 'getPaperDetails(id="7")', 'finish(answer="done")')
    ):
        tokens = [token for token, t in zip(layout.targets, layout.turns, strict=True) if t == turn]
        assert tokens[-1] == encoder.eos_id
        assert encoder.decode(tokens[:-1]).strip() == call
    assert report.turns == 3 and report.samples == 1 and report.tokens == len(layout.input_ids)


def test_each_target_is_the_next_input_token_but_for_the_end(encoder):
    (layout,), _ = packed(encoder, TRAJECTORY)
    for position, target in zip(layout.positions, layout.targets, strict=True):
        if target != encoder.eos_id:
            assert layout.input_ids[position + 1] == target


def test_input_is_the_templates_text(encoder):
    (layout,), _ = packed(encoder, TRAJECTORY)
    tokenizer = encoder.tokenizer
    tokenizer.chat_template = tl.chat_template()
    text = tokenizer.apply_chat_template(tl.chat_messages(TRAJECTORY), tokenize=False)
    assert text == joined(TL.segments(TRAJECTORY)) + tokenizer.eos_token
    assert encoder.decode(layout.input_ids).strip() == text.removesuffix(tokenizer.eos_token)


def test_prompts_are_the_inputs_before_each_call(encoder):
    (layout,), _ = packed(encoder, TRAJECTORY)
    turn = 0
    for i, message in enumerate(TRAJECTORY.messages):
        if message.role != "assistant":
            continue
        prompt = encoder.prompt(replace(TRAJECTORY, messages=TRAJECTORY.messages[:i]))
        first = layout.positions[layout.turns.index(turn)]
        assert prompt == layout.input_ids[: first + 1]
        turn += 1


def test_one_turn_a_sample_holds_the_same_targets(encoder):
    (whole,), _ = packed(encoder, TRAJECTORY)
    turns, report = packed(encoder, TRAJECTORY, packing="turn")
    assert report.samples == 3
    assert [t for layout in turns for t in layout.targets] == whole.targets
    assert [w for layout in turns for w in layout.weights] == whole.weights
    for layout in turns:
        assert layout.input_ids == whole.input_ids[: len(layout.input_ids)]


def test_a_turn_not_to_be_learned_stays_in_the_history(encoder):
    messages = list(TRAJECTORY.messages)
    messages[1] = messages[1].with_learn(False)
    (layout,), _ = packed(encoder, replace(TRAJECTORY, messages=tuple(messages)))
    (whole,), _ = packed(encoder, TRAJECTORY)
    assert layout.input_ids == whole.input_ids
    assert set(layout.turns) == {1, 2}


def test_plain_text_turns_are_learned_with_weight_1(encoder):
    item = Trajectory("t", TOOLS, (Message("user", "Hi"), Message("assistant", "Hello there")))
    (layout,), _ = packed(encoder, item)
    assert set(layout.weights) == {1.0} and not any(layout.keys)
    assert encoder.decode(layout.targets[:-1]).strip() == "Hello there"


def test_a_trajectory_with_nothing_to_learn_is_counted(encoder):
    item = Trajectory("t", TOOLS, (Message("user", "Hi"), Message("assistant", "Hello", learn=False)))
    layouts, report = packed(encoder, item)
    assert layouts == [] and report.nothing_to_learn == 1


def test_too_long_drops_the_oldest_turns_and_keeps_tools_and_query(encoder):
    (whole,), _ = packed(encoder, TRAJECTORY)
    (cut,), report = packed(encoder, TRAJECTORY, max_length=len(whole.input_ids) - 1)
    text = encoder.decode(cut.input_ids)
    assert "def getPapersByKeywords" in text and "User: Find papers" in text
    assert 'Assistant: getPapersByKeywords(words="llm")' not in text and 'Assistant: getPaperDetails(id="7")' in text
    assert set(cut.turns) == {1, 2}
    assert report.truncated == 1 and report.turns_truncated == 1
    (said,) = report.losses(99)
    assert said.startswith(
        "1 of 1 (100.0 %) samples are longer than 99 tokens and lose their oldest turns: 1 of 3 (33.3 %)"
    )
    assert cut.position_ids == list(range(len(cut.input_ids)))


def test_too_long_can_end_the_run_or_be_skipped(encoder):
    with pytest.raises(TltrainError, match=r"trajectory t has \d+ tokens, more than 20"):
        packed(encoder, TRAJECTORY, max_length=20, truncation="error")
    for truncation in ("skip", "drop_oldest_turns"):  # not even one turn fits
        layouts, report = packed(encoder, TRAJECTORY, max_length=20, truncation=truncation)
        assert layouts == [] and report.too_long == 1
        assert report.losses(9) == ["1 of 1 (100.0 %) samples are longer than 9 tokens and left out"]


def test_special_tokens_in_a_tools_answer_stay_text(encoder):
    end = encoder.tokenizer.eos_token
    item = conversation(Call("getPaperDetails", {"id": "7"}), Call("finish", {"answer": "x"}), answer=f"a{end}b")
    (layout,), _ = packed(encoder, item)
    assert encoder.eos_id not in layout.input_ids


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=TEXT,
    answer=TEXT,
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
)
def test_any_content_is_packed_and_both_packings_agree(byte_level, query, answer, value):
    encoder = Encoder(byte_level)
    item = conversation(
        Call("finish", {"answer": value}), Call("getPaperDetails", {"id": "1"}), query=query, answer=answer
    )
    (whole,), _ = packed(encoder, item)
    turns, _ = packed(encoder, item, packing="turn")
    assert [t for layout in turns for t in layout.targets] == whole.targets
    assert encoder.decode(whole.input_ids) == joined(TL.segments(item))
    assert sum(whole.keys) >= 2


# --- which tokens carry the weight -----------------------------------------------------------------------------------

PACKINGS = ("trajectory", "turn", "prefix_tree")


def weights_by_turn(layouts) -> list[list[tuple[int, float, int]]]:
    """Return (token, weight, key) of the targets of each turn, in the order of texts: packing must not matter."""
    turns: dict[tuple[int, int], list] = {}
    for number, layout in enumerate(layouts):
        for row in zip(layout.turns, layout.targets, layout.weights, layout.keys, strict=True):
            turns.setdefault((number, row[0]), []).append(row[1:])
    return sorted(turns.values())


@pytest.mark.parametrize("key_tokens", ["paper", "name", "shuffled"])
def test_the_same_tokens_carry_the_weight_in_every_packing(byte_level, key_tokens):
    encoder = Encoder(byte_level)
    items = [TRAJECTORY, replace(OTHER, id="u")]
    chosen = {"key_tokens": key_tokens, "seed": 3}
    found = [weights_by_turn(packed(encoder, *items, packing=packing, **chosen)[0]) for packing in PACKINGS]
    assert found[0] == found[1] == found[2] and len(found[0]) == 5


def test_the_whole_name_gets_the_weight_of_its_key_tokens(byte_level):
    encoder = Encoder(byte_level)
    paper, name = (encoder.runs(TRAJECTORY, 9.0, key_tokens) for key_tokens in ("paper", "name"))
    for before, after in zip(paper, name, strict=True):
        if not before.targets:
            continue
        (weight,) = {target.weight for target in before.targets if target.key}
        heavy = encoder.decode([target.token for target in after.targets if target.weight == weight])
        text = encoder.decode([target.token for target in after.targets])
        assert heavy.lstrip() == text.lstrip().partition("(")[0]
        assert {target.weight for target in after.targets} == {weight, 1.0}
        assert [target.key for target in before.targets] == [target.key for target in after.targets]


def test_shuffled_weights_are_as_many_and_as_large_and_depend_on_seed_trajectory_and_turn(byte_level):
    encoder = Encoder(byte_level)

    def heavy(trajectory, seed):
        runs = encoder.runs(trajectory, 9.0, "shuffled", seed)
        return [[target.weight > 1 for target in run.targets] for run in runs if run.targets]

    paper = [run.targets for run in encoder.runs(TRAJECTORY, 9.0) if run.targets]
    shuffled = [run.targets for run in encoder.runs(TRAJECTORY, 9.0, "shuffled") if run.targets]
    for before, after in zip(paper, shuffled, strict=True):
        assert sorted(t.weight for t in before) == sorted(t.weight for t in after)
        assert [t.key for t in before] == [t.key for t in after]
    assert heavy(TRAJECTORY, 0) == heavy(TRAJECTORY, 0) != heavy(TRAJECTORY, 1)
    assert heavy(TRAJECTORY, 0) != heavy(replace(TRAJECTORY, id="another"), 0)
