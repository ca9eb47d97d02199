"""The questions for a served model, and a trained model's record of how its training built prompts."""

from __future__ import annotations

import json

import pytest

from tests.support.native_formats import PARALLEL, encoder, second_left_out, talk
from tltrain.errors import TltrainError
from tltrain.serving import prompts
from tltrain.serving.asking import api_messages, as_served
from tltrain.serving.prompts import TrainedPrompts
from tltrain.tokens.encoder import Encoder

ITEMS = [talk(turns, thoughts=False) for turns in (1, 2, 3)]


def test_each_turn_with_learned_calls_is_asked_with_its_history():
    samples = prompts.turns(PARALLEL, encoder("qwen3"))
    assert [(sample.id, len(sample.messages), len(sample.goldens)) for sample in samples] == [
        ("parallel#1", 1, 2),
        ("parallel#4", 4, 1),
    ]
    assert [sample.id for sample in prompts.turns(second_left_out(), encoder("qwen3"))] == ["parallel#4"]
    assert len(prompts.turns(PARALLEL, encoder("llama3"))) == 3  # one call per message


def test_the_first_ones_are_always_the_same_and_of_several_conversations():
    order = [sample.id for sample in prompts.in_order(ITEMS, encoder("qwen3"))]
    assert order == [sample.id for sample in prompts.in_order(ITEMS[::-1], encoder("qwen3"))]
    assert len(order) == 6 and len({each.partition("#")[0] for each in order[:3]}) > 1


def test_digests_tell_whether_training_built_these_tokens():
    own = encoder("qwen3")
    trained = TrainedPrompts.of(own, ITEMS)
    asked = [prompts.asked(sample, own) for sample in prompts.in_order(ITEMS, own)]
    assert trained.template == own.native.template and len(asked) == 6
    assert len(trained.digests) == 3  # the shorter conversations are prefixes of the longest
    assert [trained.differs(one) for one in asked] == [False] * 6
    changed = prompts.Asked(asked[0].sample, asked[0].messages, asked[0].tools, "", [*asked[0].ids, 5])
    assert trained.differs(changed) is True
    unknown = prompts.asked(prompts.turns(PARALLEL, own)[0], own)
    assert trained.differs(unknown) is None


def test_the_record_holds_no_text_of_the_data(tmp_path, byte_level):
    for own in (encoder("qwen3"), Encoder(byte_level)):
        made = TrainedPrompts.of(own, ITEMS)
        made.write(tmp_path)
        assert TrainedPrompts.read(tmp_path) == made
        text = (tmp_path / prompts.RECORD).read_text()
        assert "Question" not in text and "get_user" not in text
    assert TrainedPrompts.read(tmp_path / "none") is None


@pytest.mark.parametrize(
    "content", ["[", "[]", "{}", '{"template": 1, "prompts": {}}', '{"template": "", "prompts": []}']
)
def test_a_record_that_cannot_be_read_is_one_line(content, tmp_path):
    (tmp_path / prompts.RECORD).write_text(content)
    with pytest.raises(TltrainError, match=r"trained_prompts\.json cannot be read \("):
        TrainedPrompts.read(tmp_path)


def test_messages_as_an_api_takes_them_and_as_the_server_passes_them_on():
    own = encoder("qwen3")
    sample = prompts.turns(PARALLEL, own)[1]
    messages = prompts.asked(sample, own).messages
    sent = api_messages(messages)
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool", "tool"]
    assert sent[2]["tool_calls"][1]["function"]["arguments"] == '{"count": 3, "on": true}'
    assert "name" not in sent[3] and sent[3]["tool_call_id"] == sent[2]["tool_calls"][0]["id"]
    assert messages[2]["tool_calls"][1]["function"]["arguments"] == {"count": 3, "on": True}  # unchanged
    served = as_served(messages)
    assert served[2]["tool_calls"] == messages[2]["tool_calls"]
    # `transformers serve` drops these parts, so such prompts are left out of a certificate.
    assert served[2]["content"] == "" and "reasoning_content" not in served[2] and messages[2]["content"] == "Both."
    json.dumps(sent)
