"""Names on offer in native formats: where a call names its tool, only a tool on offer can be written."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.support.native_formats import NAMES, TOOLS, encoder, talk
from tltrain.errors import TltrainError
from tltrain.formats.families import FAMILIES
from tltrain.inference.offered_calls import OfferedCalls
from tltrain.inference.offered_names import OfferedNames, offered_in
from tltrain.tokens.chat_templates import _literal_beginning
from tltrain.tokens.encoder import Encoder
from tltrain.trajectory import Call, Message, ToolCall

HELD = tuple(name for name in NAMES if name != "lfm2")
held = pytest.mark.parametrize("name", HELD)
OFFERED = TOOLS[:2]  # `get_user` and `get_users`; `get_use` is not on offer, nor `get_user_name`


def said(name: str, *calls: str, text: str = "", thought: str = "") -> list[int]:
    message = Message("assistant", text, tuple(ToolCall(Call(each, {"id": "7"})) for each in calls), thought)
    item = talk(1, False)
    *_, turn = encoder(name).turns(replace(item, messages=(item.messages[0], message)), None)
    return turn.said.ids


def first_forbidden(name: str, ids: list[int]) -> int | None:
    offered = offered_in(encoder(name))
    for at, token in enumerate(ids):
        allowed = offered.allowed(OFFERED, ids[:at])
        if allowed is not None and not allowed[token]:
            return at
    return None


@held
def test_calls_of_tools_on_offer_thoughts_and_words_may_be_said(name):
    assert first_forbidden(name, said(name, "get_users", thought="I call get_use.")) is None
    assert first_forbidden(name, said(name, "get_user")) is None
    assert first_forbidden(name, said(name, text="I call set_user.")) is None


@held
@pytest.mark.parametrize("other", ["get_use", "get_user_name", "set_user", "x"])
def test_no_other_name_may_be_said_to_its_end(name, other):
    ids = said(name, other)
    at = first_forbidden(name, ids)
    own = encoder(name)
    assert at is not None and f"{other}{own.native.call_head.behind[0]}" not in own.text(ids[:at])
    begun = own.text(ids[:at]).rpartition(own.native.call_head.mark)[2]
    assert own.native.call_head.before.startswith(begun) or begun.startswith(own.native.call_head.before)


@pytest.mark.parametrize("name", ["qwen3", "hermes", "qwen3_5", "gemma"])
def test_each_of_several_calls_is_held_to_the_names(name):
    assert first_forbidden(name, said(name, "get_user", "get_users")) is None
    assert first_forbidden(name, said(name, "get_user", "set_user")) is not None


@held
def test_whatever_is_drawn_behind_a_mark_is_a_name_on_offer(name):
    own, offered, draw = encoder(name), offered_in(encoder(name)), random.Random(0)
    head = own.native.call_head
    for _ in range(5):
        ids = own.tokenizer(head.mark, add_special_tokens=False)["input_ids"]
        while (allowed := offered.allowed(OFFERED, ids)) is not None:
            ids.append(draw.choice(allowed.nonzero()[0].tolist()))
        behind = own.text(ids).partition(head.mark)[2]
        assert any(behind.startswith(f"{head.before}{tool.name}{end}") for tool in OFFERED for end in head.behind), (
            behind
        )


def test_a_mark_that_is_spelled_in_other_tokens_counts():
    own = encoder("hermes")
    spelled = own._batch(["<tool_"])["input_ids"][0] + own._batch(["call>"])["input_ids"][0]
    assert own.text(spelled) == "<tool_call>" and len(spelled) > 1
    assert not offered_in(own).allowed(OFFERED, spelled).all()


def test_a_token_that_completes_a_mark_and_goes_on_with_another_name_is_forbidden():
    own = encoder("llama3")
    offered = OfferedCalls(own)
    texts = list(offered.tokens.of)
    texts[:2] = [b'me": "get_user"', b'me": "set']
    offered.tokens.of[:] = texts
    offered.tokens._sorted = sorted((text, number) for number, text in enumerate(texts) if text)
    offered.tokens._texts = [text for text, _ in offered.tokens._sorted]
    begun = own._batch(['{"na'])["input_ids"][0]
    allowed = offered.allowed(OFFERED, begun)
    assert allowed is not None and allowed[0] and not allowed[1]


def test_each_format_has_its_own_way(byte_level):
    assert isinstance(offered_in(Encoder(byte_level)), OfferedNames)
    with pytest.raises(TltrainError, match=r"^stage\.names=offered: format=lfm2 writes no fixed text before the name"):
        offered_in(encoder("lfm2"))


def test_families_say_before_anything_is_loaded_what_their_templates_do():
    assert all((encoder(name).native.call_head is not None) == FAMILIES[name].fixed_head for name in NAMES)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"to=functions\.(?P<name>\S+?)<\|channel\|>", "to=functions."),
        (r"<tool_call>\s*<function=", "<tool_call>"),
        (r'\{"name":\s*"', '{"name":'),
        (r"<call>+x", "<call>"),
        (r"<call>*x", "<call"),
        (r"(?:<a>|,\s*)(?P<name>\w+)", ""),
        (r"<a>|<b>", ""),
    ],
)
def test_the_text_with_which_a_pattern_begins(pattern, text):
    assert _literal_beginning(pattern) == text


@pytest.mark.parametrize(("other", "allowed"), [("get_user", True), ("set_user", False)])
def test_harmony_may_name_the_channel_before_the_tool(other, allowed):
    text = f"<|channel|>commentary to=functions.{other} <|constrain|>json<|message|>" + '{"id": "7"}<|call|>'
    ids = encoder("gptoss").tokenizer(text, add_special_tokens=False)["input_ids"]
    assert (first_forbidden("gptoss", ids) is None) == allowed
