"""A chat with a person: what they type in place of a tool."""

from __future__ import annotations

import pytest

from tltrain.environments.chat import typed_answer


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ('{"a":  {"b": [1, {"c": null}]}}', '{"a": {"b": [1, {"c": null}]}}'),
        ("not found", "not found"),
        ("", ""),
        ("12", "12"),
        ("NaN", "NaN"),  # no JSON
        ("1e999", "1e999"),  # would become Infinity, which is none either
        ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),  # nobody can tell which is meant
        ('"\\ud800"', '"\\ud800"'),
        ("[" * 50_000, "[" * 50_000),
    ],
)
def test_a_typed_answer_that_is_json_stays_json_and_all_else_is_text(typed, answer):
    assert typed_answer(typed) == answer
