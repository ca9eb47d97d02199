"""A conversation begins as the tokenizer begins a text: in training, prompts, PPO, trees and the chat template."""

from __future__ import annotations

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from tests.support.packed import packed, prompt_trees_of
from tests.support.tokenizers import joining_quotes, with_bos
from tests.support.trajectories import TRAJECTORY
from tltrain.errors import TltrainError
from tltrain.formats import joined
from tltrain.formats.tl import TL, chat_messages, chat_template
from tltrain.models.encoders import encoder_of
from tltrain.tokens.encoder import Encoder, opening_ids


@pytest.fixture
def llama(sentencepiece):
    return with_bos(sentencepiece, space_before=True)


@pytest.fixture
def gemma(sentencepiece):
    return with_bos(sentencepiece, space_before=False)


@pytest.fixture
def qwen(byte_level):
    return joining_quotes(byte_level)


@pytest.fixture(params=["llama", "gemma", "byte_level"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


TEXT = joined(TL.prompt_segments(TRAJECTORY))


def test_a_prompt_is_what_the_tokenizer_makes_of_its_text(tokenizer):
    """The released code's input: one call of the tokenizer, including `<s>` and `▁System`."""
    assert Encoder(tokenizer).prompt(TRAJECTORY) == tokenizer(TEXT)["input_ids"]


def test_the_bos_token_stands_once_and_first_whatever_is_made_of_a_conversation(llama):
    encoder = Encoder(llama)
    made = {
        "prompt": encoder.prompt(TRAJECTORY),
        "training": packed(encoder, TRAJECTORY)[0][0].input_ids,
        "turn": packed(encoder, TRAJECTORY, packing="turn")[0][0].input_ids,
        "tree": packed(encoder, TRAJECTORY, TRAJECTORY, packing="prefix_tree")[0][0].input_ids,
        "ppo": prompt_trees_of(encoder, TRAJECTORY)[0][0].ids,
        "cut": prompt_trees_of(encoder, TRAJECTORY, truncation="left", max_length=20)[0][0].ids,
    }
    for name, ids in made.items():
        assert ids[0] == llama.bos_token_id and list(ids).count(llama.bos_token_id) == 1, name
    assert len(made["cut"]) == 20


def test_targets_do_not_move(llama):
    """The BOS token is read and never predicted: each target is still the next input token."""
    (layout,), _ = packed(Encoder(llama), TRAJECTORY)
    (without,), _ = packed(Encoder(llama, bos=False), TRAJECTORY)
    assert layout.targets == without.targets and layout.weights == without.weights
    assert layout.input_ids == [llama.bos_token_id, *without.input_ids]
    assert layout.positions == [position + 1 for position in without.positions]


def test_bos_can_be_added_and_left_out(llama, sentencepiece, byte_level):
    assert opening_ids(llama, False) == []
    assert opening_ids(llama, True) == opening_ids(llama, None) == [llama.bos_token_id]
    assert opening_ids(sentencepiece, None) == []  # it has a BOS token but never adds it, like Qwen's
    assert opening_ids(sentencepiece, True) == [sentencepiece.bos_token_id]
    with pytest.raises(TltrainError, match=r"has no BOS token; model\.bos=auto"):
        opening_ids(byte_level, True)


def test_a_format_that_writes_its_own_bos_gets_no_other(llama):
    class Native(type(TL)):
        writes_bos = True

    assert Encoder(llama, Native()).opening == Encoder(llama, Native(), bos=True).opening == []


@pytest.mark.parametrize("bos", [None, False])
def test_the_chat_template_gives_the_same_tokens(tokenizer, bos):
    """Code that applies a template adds no special tokens: the template itself contains the BOS token."""
    encoder = encoder_of(tokenizer, bos)
    ids = tokenizer.apply_chat_template(chat_messages(TRAJECTORY), add_generation_prompt=True, return_dict=False)
    assert ids == encoder.prompt(TRAJECTORY)


RELEASED = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
    "{% if not loop.last %}{{ '\\n' }}"
    "{% elif add_generation_prompt %}{{ '\\nAssistant:' }}"
    "{% else %}{{ eos_token }}{% endif %}{% endfor %}"
)
"""The chat template of the released code, with the tokenizer's end token."""


@pytest.mark.parametrize("asks", [False, True])
def test_the_papers_messages_are_written_as_by_the_released_template(asks):
    def text(template):
        (written,), _ = render_jinja_template(
            [chat_messages(TRAJECTORY)], chat_template=template, eos_token="</s>", add_generation_prompt=asks
        )
        return written

    assert text(chat_template()) == text(RELEASED)
    assert text(chat_template('<"s">')) == '<"s">' + text(RELEASED)


def test_prompts_that_are_other_tokens_as_a_whole_are_known(llama, qwen):
    assert not Encoder(llama).reads_apart(TRAJECTORY)
    encoder = Encoder(qwen)
    assert encoder.reads_apart(TRAJECTORY)
    whole = qwen(TEXT)["input_ids"]
    assert qwen.decode(whole) == encoder.decode(encoder.prompt(TRAJECTORY)) == TEXT
