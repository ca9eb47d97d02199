"""Read and write calls: what is accepted, what is rejected, and that reading has no other effect."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tltrain.formats.calls import MAX_DEPTH, CallSyntaxError, call_end, read_call, read_calls, render_call
from tltrain.trajectory import Call

CHARACTERS = st.characters(codec="utf-8")
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(CHARACTERS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(CHARACTERS), inner, max_size=4),
    max_leaves=12,
)


def names(forbidden: str, not_first: str = ""):
    return st.text(st.characters(codec="utf-8", exclude_characters=forbidden), min_size=1, max_size=12).filter(
        lambda name: name == name.strip() and name[0] not in not_first
    )


TOOL_NAMES = names("(")
PARAMETER_NAMES = names("=(),", not_first="'\"[{")
CALLS = st.builds(Call, TOOL_NAMES, st.dictionaries(PARAMETER_NAMES, JSON_VALUES, max_size=4))


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("search_advice(query = 'love') ", "search_advice", {"query": "love"}),
        ("finish()", "finish", {}),
        ("\n f (\n  a\n=\n1 ,\n)", "f", {"a": 1}),
        ('preferred-routes_get(from="A", :edoc=2)', "preferred-routes_get", {"from": "A", ":edoc": 2}),
        ("f(page[size]=1, it's=2, x y=3)", "f", {"page[size]": 1, "it's": 2, "x y": 3}),
        ('bash(return_err=False="cd /", b=1)', "bash", {"return_err=False": "cd /", "b": 1}),
        ("f(a=True, b=False, c=None)", "f", {"a": True, "b": False, "c": None}),
        ("f(a=true, b=false, c=null)", "f", {"a": True, "b": False, "c": None}),
        ("f(a=-1, b=+2, c=1_000, d=0x1F, e=0)", "f", {"a": -1, "b": 2, "c": 1000, "d": 31, "e": 0}),
        ("f(a=.5, b=5., c=1e3, d=-1.5E-2)", "f", {"a": 0.5, "b": 5.0, "c": 1000.0, "d": -0.015}),
        ("f(a=[1, [2,], ], b=(1, 2))", "f", {"a": [1, [2]], "b": [1, 2]}),
        ("f(c=(1,), d=(1), e=())", "f", {"c": [1], "d": 1, "e": []}),
        ("f(a={'x': {\"y\": null,},}, b={1: 2, None: 3})", "f", {"a": {"x": {"y": None}}, "b": {"1": 2, "null": 3}}),
        ('f(a=\'it\\\'s\', b="say \\"x\\"", c=\'say "x"\')', "f", {"a": "it's", "b": 'say "x"', "c": 'say "x"'}),
        ('f(a=\'\'\'it\'s\'\'\', b=""""x" """)', "f", {"a": "it's", "b": '"x" '}),
        ("f(a='line\nbreak', b='x' \"y\")", "f", {"a": "line\nbreak", "b": "xy"}),
        ("f(c=r'\\d', d=u'z')", "f", {"c": "\\d", "d": "z"}),
        (r"f(a='\n\t\\\/\x41\101\u00e9\U0001F600\N{DIGIT ONE}\d')", "f", {"a": "\n\t\\/AAé😀1\\d"}),
        (r'f(a="\ud83d\ude00")', "f", {"a": "😀"}),
        ("f(a='x)', b='(,=')", "f", {"a": "x)", "b": "(,="}),
        ("f(a='天气 🌧\0')", "f", {"a": "天气 🌧\0"}),
    ],
)
def test_reads(text, name, arguments):
    call = read_call(text)
    assert (call.name, json.dumps(call.arguments)) == (name, json.dumps(arguments))  # in JSON 1, 1.0 and true differ


def test_text_after_the_call_is_ignored():
    assert read_call("f(a=1) and then g(b=2") == Call("f", {"a": 1})


def test_positional_arguments_count_as_none_given():
    assert read_call("f('a=b', 1, [2, '='], x=3, (4,))") == Call("f", {"x": 3})


def test_the_last_of_repeated_names_counts():
    assert read_call("f(a=1, a=2, b={'k': 1, 'k': 2})") == Call("f", {"a": 2, "b": {"k": 2}})


@pytest.mark.parametrize(
    ("text", "problem", "character"),
    [
        ("", "no `(`", 1),
        ("I cannot do that.", "no `(`", 18),
        (" (a=1)", "no name before `(`", 2),
        ("f(a=1", "expected `,` or `)`", 6),
        ("f(a='x", "unclosed string", 5),
        ("f(a=it's)", "bare word", 5),
        ("f(x)", "bare word", 3),
        ("f(a=1 b=2)", "expected `,` or `)`", 7),
        ("f(a=[1 2])", "expected `,` or `]`", 8),
        ("f(=1)", "no name before `=`", 3),
        ("f(a==1)", "expected a value", 5),
        ("f(a=)", "expected a value", 5),
        ("f(,)", "expected a value", 3),
        ("f(**{'a': 1})", "expected a value", 3),
        ("f('a'=1)", "expected `,` or `)`", 6),
        ("f(a=007)", "not a number", 5),
        ("f(a=1e999)", "too large", 5),
        ("f(a=NaN)", "bare word", 5),
        ("f(a=-Infinity)", "expected a value", 5),
        ("f(a=b'x')", "bare word", 5),
        ("f(a=1+2j)", "expected `,` or `)`", 6),
        ("f(a={1, 2})", "expected `:`", 7),
        ("f(a={[]: 2})", "as a key", 6),
        (r"f(a='\ud800')", "lone surrogate", 6),
        ("f(a='\ud800')", "lone surrogate", 6),
        (r"f(a='ab\xZZ')", "broken escape", 8),
        ("f(a=" + "9" * 5000 + ")", "more than 1000 digits", 5),
        ("f(a=" + "[" * (MAX_DEPTH + 1), "nesting deeper", 5 + MAX_DEPTH),
    ],
)
def test_refuses_saying_what_and_where(text, problem, character):
    with pytest.raises(CallSyntaxError, match=f"at character {character}$") as error:
        read_call(text)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch x')",
        "f(a=__import__('os').system('touch x'))",
        "f(a=[open('x', 'w')])",
        "f(open('x', 'w'))",
        'f(a=f\'{open("x", "w")}\')',
    ],
)
def test_nothing_is_evaluated(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        call = read_call(text)
        assert call == Call("__import__", {})
    except CallSyntaxError:
        pass
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=300)
@example(Call("f", {"x": [{"": "\u2028\x7f'\"\\"}], "y": -0.0, "z": 10**300}))
@given(CALLS)
def test_reading_what_was_written_gives_the_same_call(call):
    read = read_call(render_call(call))
    assert read == call
    assert json.dumps(read.arguments) == json.dumps(call.arguments)


def test_written_as_in_the_released_data():
    call = Call("add", {"a": 1, "b": 'é "x"', "c": [True, None]})
    assert render_call(call) == 'add(a=1, b="é \\"x\\"", c=[true, null])'


@st.composite
def damaged_calls(draw) -> str:
    """Draw a call with some characters replaced, duplicated or removed, closer to models' outputs than random text."""
    text = draw(CALLS.map(render_call))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.text("()[]{}'\"=,\\:u0 \n.-e", max_size=3)) + text[at + draw(st.integers(0, 2)) :]
    return text


@settings(max_examples=400)
@given(st.text() | damaged_calls() | st.text("f(a='\"[{:,=1}])\\ux\ud800 \n", max_size=30).map("f({}".format))
def test_any_text_is_a_call_or_a_clear_error(text):
    try:
        call = read_call(text)
    except CallSyntaxError as error:
        assert " at character " in str(error) and "\n" not in str(error)
        assert call_end(text) is None
    else:
        json.dumps([call.name, call.arguments], ensure_ascii=False, allow_nan=False).encode()
        assert read_call(text[: call_end(text)]) == call


@given(CALLS, st.text(max_size=5))
def test_the_end_is_known_as_soon_as_the_call_is_complete(call, rest):
    text = render_call(call)
    assert call_end(text + rest) == len(text)
    assert all(call_end(text[:length]) is None for length in range(len(text)))


@pytest.mark.parametrize(
    "text",
    [
        "f(a=" + "[" * 10**6,
        "f(a=" + "9" * 10**6,
        "f(a='" + "\\n" * 500_000 + "')",
        "f(a='" + "\\'" * 500_000,
        "f(" + "'=1,\"" * 200_000,
        "f(" + '["=1,' * 200_000,
        "f(" + "a=" * 500_000,
        "f(" + "a=1," * 250_000 + ")",
        "f(a='''" + "''\\'" * 250_000,
        "f(" + "x" * 500_000 + " " * 500_000,
    ],
    ids=["brackets", "digits", "escapes", "unclosed", "quotes", "mixed", "equals", "items", "triple", "word"],
)
def test_a_megabyte_is_read_in_linear_time(text):
    start = time.process_time()
    call_end(text)
    assert time.process_time() - start < 5  # takes about half a second; a quadratic reader would take hours


F, G = Call("f", {"a": 1}), Call("m.g", {"b": ["(", ", h("]})


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("f(a=1)", [F]),
        ('f(a=1)\nm.g(b=["(", ", h("])', [F, G]),
        ('[f(a=1), m.g(b=["(", ", h("])]', [F, G]),
        (" [f(a=1)] and more", [F]),
        ("f(a=1); f(a=1),f(a=1) f(a=1)", [F] * 4),
        ("f(a=1)\nOutput: g(a=1)", [F]),  # the next role's text is not a call
        ("f(a=1), then g(a=1)", [F]),
        ("f(a=1), g(a=", [F]),
        ("I say: f(a=1)", [Call("I say: f", F.arguments)]),  # as read_call reads it
        ("none", []),
        ("", []),
    ],
)
def test_all_calls_that_a_text_begins_with(text, calls):
    assert read_calls(text) == calls


@given(st.text(st.sampled_from("f(a=1)[],; \n'\"{}:x")))
def test_the_first_of_all_calls_is_the_one_call_unless_a_list_opens(text):
    try:
        first = read_call(text)
    except CallSyntaxError:
        first = None
    calls = read_calls(text)
    if not text.strip().startswith("["):
        assert calls[:1] == ([first] if first else [])


def test_many_calls_are_read_in_linear_time():
    start = time.process_time()
    assert len(read_calls("f(a=1)\n" * 50_000)) == 50_000
    assert time.process_time() - start < 5
