"""PKT on token ids worked out by hand, and on real tokenizers of both families."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tltrain.pkt import key_positions, shuffled_positions, token_weights
from tltrain.tokens.encoder import Encoder
from tltrain.trajectory import Call, Tool

# The paper's example in token ids: get|P|aper|Details, get|P|apers|By|Key|words, finish, and "(" ")" after a name.
GET, P, APER, DETAILS, APERS, BY, KEY, WORDS, FINISH, OPEN, CLOSE, END = range(12)
PAPER_DETAILS, BY_KEYWORDS, FINISHING = (
    [GET, P, APER, DETAILS, OPEN],
    [GET, P, APERS, BY, KEY, WORDS, OPEN],
    [FINISH, OPEN],
)


def test_the_papers_example():
    target = [*BY_KEYWORDS, CLOSE, END]
    assert key_positions(target, 0, [PAPER_DETAILS, FINISHING]) == {0, 2}  # get, apers


def test_a_tool_that_shares_nothing_has_one_key_token():
    assert key_positions([*FINISHING, CLOSE, END], 0, [PAPER_DETAILS, BY_KEYWORDS]) == {0}


def test_a_name_that_begins_another_has_the_token_after_it_as_key():
    get, get_all = [GET, OPEN], [GET, KEY, OPEN]
    assert key_positions([*get, CLOSE, END], 0, [get_all]) == {0, 1}
    assert key_positions([*get_all, CLOSE, END], 0, [get]) == {0, 1}


def test_what_stands_before_the_name_is_not_shared_prefix():
    space = 99  # a tokenizer may put its own space before the name
    assert key_positions([space, FINISH, OPEN, CLOSE, END], 1, [[space, *BY_KEYWORDS]]) == {1}
    assert key_positions([space, *BY_KEYWORDS, CLOSE, END], 1, [[space, *PAPER_DETAILS]]) == {1, 3}


def test_weights_by_hand():
    # 12 targets, 2 keys: 10 / 2 = 5; 30 targets: 28 / 2 = 14, clipped to 9; 3 targets: 1 / 2, raised to 1
    assert token_weights(12, frozenset({0, 2}), 9) == [5, 1, 5, *[1] * 9]
    assert token_weights(30, frozenset({0, 2}), 9)[:3] == [9, 1, 9]
    assert token_weights(3, frozenset({0, 2}), 9) == [1, 1, 1]
    assert token_weights(4, frozenset(), 9) == [1, 1, 1, 1]


def test_other_tokens_get_the_weight_that_the_papers_key_tokens_would_have():
    # K = {0, 2} of 12: w = 10 / 2 = 5, whichever tokens carry it
    assert token_weights(12, frozenset({0, 2}), 9, frozenset({0, 1, 2, 3})) == [5, 5, 5, 5, *[1] * 8]
    assert token_weights(12, frozenset({0, 2}), 9, frozenset({7, 11})) == [*[1] * 7, 5, 1, 1, 1, 5]


def test_shuffled_positions_are_a_fair_draw_that_repeats():
    draws = [shuffled_positions(10, 3, f"0/t{number}/1") for number in range(2000)]
    assert all(len(draw) == 3 and draw <= set(range(10)) for draw in draws)
    counts = [sum(position in draw for draw in draws) for position in range(10)]
    assert all(520 < count < 680 for count in counts)  # 600 expected, standard deviation 20
    assert shuffled_positions(10, 3, "0/t0/1") == draws[0] == {3, 4, 6}  # digests do not change with a library
    assert shuffled_positions(3, 3, "a") == {0, 1, 2} and shuffled_positions(3, 0, "a") == set()


@given(st.integers(1, 300), st.sets(st.integers(0, 20), min_size=1), st.floats(1, 50))
def test_weights_stay_between_1_and_w_max(length, keys, w_max):
    keys = frozenset(key for key in keys if key < length) or frozenset({0})
    weights = token_weights(length, keys, w_max)
    assert len(weights) == length
    assert all(1 <= weight <= w_max for weight in weights)
    assert all(weight == 1 for position, weight in enumerate(weights) if position not in keys)
    assert len({weights[position] for position in keys}) == 1


def tools(*names: str) -> tuple[Tool, ...]:
    return tuple(Tool(name, "", {"type": "object", "properties": {}}) for name in names)


@pytest.fixture(params=["byte_level", "sentencepiece"])
def encoder(request) -> Encoder:
    return Encoder(request.getfixturevalue(request.param))


def key_texts(encoder: Encoder, call: str, offered: tuple[Tool, ...]) -> list[str]:
    """Return the key tokens of ` call` as text."""
    piece = f" {call}"
    encoded = encoder.encode([piece])[0]
    keys = encoder.key_positions(Call(call.partition("(")[0]), encoded, offered)
    return [piece[slice(*encoded.spans[i])] for i in sorted(keys)]


def test_keys_are_the_first_token_and_the_one_that_tells_names_apart(encoder):
    offered = tools("getPaperDetails", "getPapersByKeywords", "finish")
    found = key_texts(encoder, 'getPapersByKeywords(words="a")', offered)
    assert found[0].strip() and "getPapersByKeywords".startswith(found[0].strip())
    assert 1 <= len(found) <= 2  # one, if the first token already tells them apart
    joined = "".join(found).replace(" ", "")
    assert joined in "getPapersByKeywords(" or len(found) == 2
    assert len(key_texts(encoder, 'finish(answer="x")', offered)) == 1


@pytest.mark.parametrize("name", ["get", "preferred-routes_get", "查天气", "_x", "2fa", "a.b.c", "émission"])
def test_any_name_has_a_first_token_that_begins_it(encoder, name):
    first = key_texts(encoder, f"{name}()", tools(name, "other"))[0]
    assert name.startswith(first.strip()) or first.strip() == ""


@pytest.mark.parametrize("name", ["get", "preferred-routes_get", "查天气", "_x", "a.b.c", "émission"])
def test_the_tokens_of_a_name_are_those_with_a_character_of_it(encoder, name):
    piece = f" {name}(a=1)"
    encoded = encoder.encode([piece])[0]
    positions = encoder.name_positions(Call(name), encoded)
    covered = {at for i in positions for at in range(*encoded.spans[i])}
    assert set(range(1, 1 + len(name))) <= covered
    others = [i for i in range(len(encoded.ids)) if i not in positions]
    assert not {at for i in others for at in range(*encoded.spans[i])} & set(range(1, 1 + len(name)))


def test_a_name_that_is_the_beginning_of_another_has_a_key_within_two_tokens_of_its_end(encoder):
    found = key_texts(encoder, "get(a=1)", tools("get", "get_all"))
    assert len(found) == 2


def test_two_hundred_tools_and_one(encoder):
    many = tools(*(f"get_item_{n}" for n in range(200)))
    assert 2 <= len(key_texts(encoder, "get_item_7(a=1)", many)) <= 8
    assert len(key_texts(encoder, "get_item_7(a=1)", tools("get_item_7"))) == 1
