"""Errors are one readable line, whatever values they quote."""

from __future__ import annotations

import pickle

import pytest

from tltrain.errors import LONGEST, FieldError, RecordError, TltrainError

REMEDY = "; write one sample a line, or set data.on_error=skip"


def test_a_long_line_loses_its_middle():
    line = str(TltrainError(f"answers.jsonl, line 3: the sample {'x ' * 5_000} is unknown{REMEDY}"))
    assert len(line) <= LONGEST and line.startswith("answers.jsonl, line 3: the sample x x")
    assert " … " in line and line.endswith(f"is unknown{REMEDY}")


def test_a_line_of_just_the_longest_length_is_whole():
    line = "x" * LONGEST
    assert str(TltrainError(line)) == line
    assert len(str(TltrainError(line + "x"))) <= LONGEST


def test_words_are_not_cut_so_that_a_secret_in_them_is_masked_as_a_whole():
    for length in range(500, 700):
        shown = str(TltrainError(f"{'a' * length} sk-secret-of-the-user {'b ' * 1000} sk-secret-of-the-user"))
        assert "sk-" not in shown.replace("sk-secret-of-the-user", "")


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_a_value_with_line_breaks_is_shown_on_one_line(line_break):
    assert str(TltrainError(f"the sample a{line_break}{line_break}b is unknown")) == "the sample a b is unknown"


def test_so_are_errors_of_a_record():
    error = RecordError("a" * 2000 + ".json", 3, FieldError("x" * 500, "text\n" * 200, ["y" * 500]))
    assert len(str(error)) <= LONGEST and "\n" not in str(error) and str(error).endswith("…")


def test_errors_are_the_same_in_another_process():
    error = pickle.loads(pickle.dumps(TltrainError("a\n" + "b " * 1000)))
    assert type(error) is TltrainError and str(error) == str(TltrainError("a\n" + "b " * 1000))
