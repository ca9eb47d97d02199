"""Conversations as token ids: several calls in a message, and formats other than TL."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from tests.support.packed import packed, prompt_trees_of
from tests.support.trajectories import TOOLS, TRAJECTORY
from tltrain import mae
from tltrain.formats import Segment, joined
from tltrain.formats.tl import TL
from tltrain.models.loading import byte_level_tokenizer
from tltrain.tokens.encoder import Encoder
from tltrain.trajectory import Call, Message, ToolCall, actions, sequential

FIRST, SECOND, LAST = (action.call for action in actions(TRAJECTORY.messages))
PARALLEL = replace(
    TRAJECTORY,
    messages=(
        Message("user", "Find papers"),
        Message("assistant", "Both.", (ToolCall(FIRST, id="a"), ToolCall(SECOND, id="b")), "Hm."),
        Message("tool", "name 'getPaperDetails' is not defined", answers="b"),
        Message("tool", "[]", answers="a"),
        Message.calling(LAST),
    ),
)


@pytest.fixture(params=["byte_level", "sentencepiece"])
def encoder(request) -> Encoder:
    return Encoder(request.getfixturevalue(request.param))


def test_several_calls_are_trained_as_the_same_calls_in_turns_of_their_own(encoder):
    apart = replace(PARALLEL, messages=sequential(PARALLEL.messages))
    assert packed(encoder, PARALLEL) == packed(encoder, apart)
    assert packed(encoder, PARALLEL, packing="turn") == packed(encoder, apart, packing="turn")
    assert prompt_trees_of(encoder, PARALLEL) == prompt_trees_of(encoder, apart)
    assert encoder.prompt(PARALLEL) == encoder.prompt(apart)


def test_of_several_calls_the_failed_one_alone_is_left_out(encoder):
    rule = mae.Rule.from_config(
        {"match": "normalized_substring", "patterns": [{"kind": "undefined", "text": "is not defined"}]}
    )
    (layout,), _ = packed(encoder, mae.apply(PARALLEL, rule))
    (whole,), _ = packed(encoder, PARALLEL)
    assert layout.input_ids == whole.input_ids and set(layout.turns) == {0, 2}
    (tree,), _ = prompt_trees_of(encoder, mae.apply(PARALLEL, rule))
    assert [sample.goldens for sample in tree.samples] == [(FIRST,), (LAST,)]
    assert [sample.id for sample in tree.samples] == ["t#1", "t#3"]


def test_the_history_of_a_call_has_the_calls_before_it_in_its_message(encoder):
    (tree,), _ = prompt_trees_of(encoder, PARALLEL)
    assert [encoder.decode(tree.ids[:end]).rpartition("User: ")[2] for end in tree.ends[:2]] == [
        "Find papers\nAssistant:",
        'Find papers\nAssistant: getPapersByKeywords(words="llm")\nOutput: []\nAssistant:',
    ]


RECORDED = ["d8a2bbe9d351646e", "22c2613d34866476"]
"""Digests of the runs of two conversations, recorded before there were other formats."""


def test_the_tl_format_has_the_recorded_tokens():
    encoder = Encoder(byte_level_tokenizer([], 258))  # bytes alone, which no version of a library numbers otherwise
    found = [
        hashlib.sha256(json.dumps(encoder.runs(trajectory, 9.0)).encode()).hexdigest()[:16]
        for trajectory in (TRAJECTORY, PARALLEL)
    ]
    assert found == RECORDED
    assert encoder.chains(TRAJECTORY, 9.0) == [encoder.runs(TRAJECTORY, 9.0)]


class Tagged:
    """Calls as JSON between tags: other characters precede the name than in the TL format."""

    writes_bos = False
    stop = ("<user>",)

    def segments(self, conversation):
        pieces, turn = [Segment("\n<tools>" + ",".join(tool.name for tool in conversation.tools))], 0
        for message in conversation.messages:
            if message.role != "assistant":
                pieces.append(Segment(f"\n<{message.role}>{message.text}"))
                continue
            for made in message.calls:
                pieces += [Segment("\n<call>", opens_turn=True), Segment(self.call_text(made.call), turn)]
                turn += 1
        return pieces

    def prompt_segments(self, conversation):
        return [*self.segments(conversation), Segment("\n<call>", opens_turn=True)]

    def call_text(self, call):
        return f" {json.dumps({'name': call.name, 'arguments': dict(call.arguments)})}"

    def name_at(self, call):
        return len(' {"name": "')

    def call_head(self, name):
        return f' {{"name": {json.dumps(name)}'

    def answer_length(self, text):
        return None

    def answer(self, text):
        return text


def test_another_format_is_trained_and_asked_in_its_own_words(byte_level):
    encoder, form = Encoder(byte_level, Tagged()), Tagged()
    (layout,), report = packed(encoder, PARALLEL)
    assert encoder.decode(layout.input_ids) == joined(form.segments(PARALLEL)) and report.turns == 3
    for turn, call in enumerate((FIRST, SECOND, LAST)):
        at = [i for i, other in enumerate(layout.turns) if other == turn]
        assert encoder.decode([layout.targets[i] for i in at][:-1]) == form.call_text(call)
        keys = [layout.targets[i] for i in at if layout.keys[i]]
        assert call.name.startswith(encoder.decode(keys[:1])) and {layout.weights[i] for i in at} > {1.0}
    assert encoder.decode(encoder.prompt(PARALLEL)).endswith("\n<call>")
    assert Encoder(byte_level).format is TL


def test_key_tokens_stand_where_the_format_puts_the_name(byte_level):
    encoder = Encoder(byte_level, Tagged())
    (encoded,) = encoder.encode([encoder.format.call_text(Call("getPaperDetails", {"id": "7"}))])
    keys = sorted(encoder.key_positions(Call("getPaperDetails"), encoded, TOOLS))
    text = encoder.format.call_text(Call("getPaperDetails", {"id": "7"}))
    starts = [encoded.spans[i][0] for i in keys]
    assert starts[0] == text.index("getPaperDetails")
    assert all(start < text.index('", "arguments') for start in starts)
