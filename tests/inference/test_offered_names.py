"""Names on offer: which tokens may come next in an answer, compared with the definition text by text."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from tltrain.errors import TltrainError
from tltrain.inference.offered_names import OfferedNames
from tltrain.inference.token_bytes import TokenBytes
from tltrain.tokens.encoder import Encoder
from tltrain.trajectory import Tool


def tools(*names: str) -> tuple[Tool, ...]:
    return tuple(Tool(name, "", {"type": "object", "properties": {}}) for name in names)


NAMES = ("getPaperDetails", "getPapersByKeywords", "get", "preferred-routes_get", "查天气", "two words", "finish")
OFFERED = tools(*NAMES)
HEADS = [f" {name}(".encode() for name in NAMES]


@pytest.fixture(params=["byte_level", "sentencepiece"])
def encoder(request) -> Encoder:
    return Encoder(request.getfixturevalue(request.param))


@pytest.fixture
def offered(encoder) -> OfferedNames:
    return OfferedNames(encoder)


def ids(allowed) -> set[int]:
    return set(allowed.nonzero()[0].tolist())


def test_every_token_whose_text_stays_a_beginning_of_an_offered_call_is_allowed_and_no_other(offered):
    draw = random.Random(0)
    texts = offered.tokens.of
    ended = set()
    for _ in range(60):
        answer: list[int] = []
        while (allowed := offered.allowed(OFFERED, answer)) is not None:
            said = b"".join(texts[token] for token in answer)
            expected = {
                token
                for token, text in enumerate(texts)
                if text and any(head.startswith(said + text) or (said + text).startswith(head) for head in HEADS)
            }
            assert ids(allowed) == expected and expected
            answer.append(draw.choice(sorted(expected)))
        said = b"".join(texts[token] for token in answer)
        ended |= {head for head in HEADS if said.startswith(head)}
    assert len(ended) > 3


@pytest.mark.parametrize("name", NAMES)
def test_the_training_text_of_every_offered_call_is_allowed_token_by_token(encoder, offered, name):
    (encoded,) = encoder.encode([f' {name}(answer="x")'])
    for at, token in enumerate(encoded.ids):
        allowed = offered.allowed(OFFERED, encoded.ids[:at])
        assert allowed is None or allowed[token]
    assert offered.allowed(OFFERED, encoded.ids) is None  # everything is, after the name


def test_a_token_that_ends_the_name_and_goes_on_is_allowed(byte_level):
    own = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(byte_level.backend_tokenizer.to_str()),
        eos_token=byte_level.eos_token,
        pad_token=byte_level.pad_token,
    )
    own.add_tokens(['h("', "h()", "h{"])
    encoder = Encoder(own)
    (finis,) = encoder.encode([" finis"])
    allowed = ids(OfferedNames(encoder).allowed(tools("finish"), finis.ids))
    merged, call, other = (own.convert_tokens_to_ids(token) for token in ('h("', "h()", "h{"))
    assert {merged, call} <= allowed and other not in allowed


def test_names_that_are_not_on_offer_end_tokens_and_special_tokens_are_not_allowed(encoder, offered):
    for other in ("getTrainByCities", "finishes", "Finish"):
        assert not accepted(encoder, offered, f" {other}(", OFFERED)
    (name,) = encoder.encode([" finish"])
    assert not offered.allowed(OFFERED, name.ids)[encoder.eos_id]
    first = offered.allowed(OFFERED, [])
    assert not first[[token for token in encoder.tokenizer.all_special_ids if token is not None]].any()


def accepted(encoder: Encoder, offered: OfferedNames, text: str, on_offer) -> bool:
    """Return whether a text followed by the end token is allowed."""
    (encoded,) = encoder.encode([text])
    tokens = [*encoded.ids, encoder.eos_id]
    for at, token in enumerate(tokens):
        allowed = offered.allowed(on_offer, tokens[:at])
        if allowed is None:
            return True
        if not allowed[token]:
            return False
    return True


@pytest.mark.parametrize(
    ("text", "without_finish"),
    [
        (" I found two papers (see above).", True),
        (" Done", True),
        (" getting on\nwell", True),
        (" otherTool(a=1)", False),
        (" otherTool (a=1)", False),
        ("otherTool", False),  # a text begins with a space, as in training
        (' getPaperDetails(id="7")', True),
        (" ", False),
    ],
)
def test_words_may_be_said_where_no_finish_is_on_offer_unless_they_would_be_read_as_a_call(
    encoder, offered, text, without_finish
):
    without, with_it = tools("getPaperDetails"), tools("getPaperDetails", "finish")
    assert accepted(encoder, offered, text, without) is without_finish
    assert accepted(encoder, offered, text, with_it) is text.startswith(" getPaperDetails(")


def test_without_tools_nothing_is_called(encoder, offered):
    assert accepted(encoder, offered, " Hello you", ()) and not accepted(encoder, offered, " f(a=1)", ())


def test_texts_of_tokens_joined_are_the_texts_they_encode(encoder):
    texts = TokenBytes(encoder.tokenizer).of
    for text in (" getPapersByKeywords(", " 查天气(", ' émission(a="ä 漢\n")'):
        (encoded,) = encoder.encode([text])
        assert b"".join(texts[token] for token in encoded.ids).decode() == text


def test_a_tokenizer_whose_tokens_have_no_known_text_is_refused():
    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="a")), eos_token="</s>"
    )
    with pytest.raises(TltrainError, match=r"stage\.names=offered: the tokenizer's tokens have no known text"):
        TokenBytes(words)
