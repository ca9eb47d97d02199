"""Where names and values of arguments stand in the syntax of each format."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.native_formats import NAMES, TOOLS, encoder
from tltrain.tokens.argument_spans import argument_spans
from tltrain.trajectory import Call, Message, Trajectory

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6)


@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=4))
def test_in_json_each_name_and_value_is_found(arguments):
    def write(given):
        return json.dumps({"name": "f", "arguments": dict(given)}, ensure_ascii=False) + "</tool_call>"

    text = write(arguments)
    spans = argument_spans(text, arguments, write)
    said = [text[span.start : span.end] for span in spans if span.part == "value"]
    assert said == [json.dumps(value, ensure_ascii=False) for value in arguments.values()]
    names = [text[span.start : span.end] for span in spans if span.part == "parameter"]
    plain = [name for name in arguments if json.dumps(name, ensure_ascii=False) == f'"{name}"']
    assert [name for name in names if name in plain] == plain


def test_a_template_that_sorts_names_keeps_them_in_place():
    def write(given):
        return f"f({', '.join(f'{name}={given[name]!r}' for name in sorted(given))})"

    arguments = {"b": "x", "a_b": 3, "a": "8.25"}
    text = write(arguments)
    spans = [(span.part, text[span.start : span.end]) for span in argument_spans(text, arguments, write)]
    assert spans == [
        ("parameter", "a"),
        ("value", "'8.25'"),
        ("parameter", "a_b"),
        ("value", "3"),
        ("parameter", "b"),
        ("value", "'x'"),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_in_every_format_tokens_know_which_argument_they_are_of(name):
    own = encoder(name)
    made = [Call("get_user", {"id": "seven", "count": 31, "on": True}), Call("get_users", {"id": "on"})]
    messages = [Message.calling(*made)] if own.native.several_calls else [Message.calling(call) for call in made]
    item = Trajectory("t", TOOLS, (Message("user", "Who is on?"), *messages))
    said = [(call, turn.said.ids) for turn in own.turns(item, None) for call in turn.said.calls]
    for (call, ids), (parameters, values) in zip(
        said, [(("id", "count", "on"), "seven 31"), (("id",), "on")], strict=True
    ):
        parts, texts = call.arguments(), own.texts(ids)
        named = "".join(texts[i] for i in sorted(parts) if parts[i] == "parameter")
        valued = "".join(texts[i] for i in sorted(parts) if parts[i] == "value")
        assert all(parameter in named for parameter in parameters)
        assert all(value in valued for value in values.split())
        assert not set(parts) & set(range(call.name_at, call.name_end))
