"""The strict rule on 680 labelled answers of tools (tests/tool_answers/README.md), and on the forms it recognizes."""

from __future__ import annotations

import hashlib
import json
from time import perf_counter

import pytest

from tests.support.mae_rules import CONFIGS, PAPER, STRICT
from tests.support.paths import ROOT
from tltrain.errors import TltrainError
from tltrain.formats.markup import read_markup
from tltrain.formats.tool_errors import FLAGGED, Rule, error_kind
from tltrain.mae import Verdict, verdicts
from tltrain.trajectory import Call, Message, Trajectory

ANSWERS = [json.loads(line) for line in (ROOT / "tests/tool_answers/answers.jsonl").read_text("utf-8").splitlines()]


def in_dev(group: str) -> bool:
    return int(hashlib.sha256(group.encode()).hexdigest(), 16) % 2 == 0


def test_the_answers_are_divided_by_framework_and_language() -> None:
    assert len({item["answer"] for item in ANSWERS}) == len(ANSWERS) == 680
    for item in ANSWERS:
        group = item["framework"] if item["language"] == "en" else item["language"]
        assert item["part"] == ("dev" if in_dev(group) else "held_out"), item


@pytest.mark.parametrize(("part", "precision", "recall"), [("dev", 0.98, 0.98), ("held_out", 0.95, 0.94)])
def test_the_strict_rule_finds_errors_of_all_kinds(part: str, precision: float, recall: float) -> None:
    judged = [
        (error_kind(item["answer"], STRICT) is not None, item["error"]) for item in ANSWERS if item["part"] == part
    ]
    hits = judged.count((True, True))
    assert hits >= precision * sum(flagged for flagged, _ in judged)
    assert hits >= recall * sum(error for _, error in judged)


def test_most_languages_are_read_as_well_as_english() -> None:
    for language in {item["language"] for item in ANSWERS}:
        judged = [
            error_kind(i["answer"], STRICT) is not None for i in ANSWERS if i["language"] == language and i["error"]
        ]
        assert sum(judged) >= 0.66 * len(judged), language


# A field that states the outcome


@pytest.mark.parametrize(
    ("text", "is_error", "kind"),
    [
        ("42", True, FLAGGED),
        ("no such city", None, "not_found"),
        ("Error: no such city", True, "not_found"),  # the text still says which error
        ("Error: no such city", False, None),
        ('{"error": "quota used up"}', False, None),
        ("42", None, None),
    ],
)
def test_what_the_data_says_beats_every_pattern_of_the_strict_rule(text: str, is_error: bool | None, kind: str) -> None:
    assert error_kind(text, STRICT, is_error) == kind
    trajectory = Trajectory("t", (), (Message.calling(Call("f")), Message("tool", text, is_error=is_error)))
    assert verdicts(trajectory, STRICT) == [(Verdict.ERROR if kind else Verdict.KEPT, kind)]


@pytest.mark.parametrize("is_error", [True, False, None])
@pytest.mark.parametrize("text", ["42", "Error: no such city"])
def test_the_released_rule_knows_texts_alone(text: str, is_error: bool | None) -> None:
    assert error_kind(text, PAPER, is_error) == error_kind(text, PAPER)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ('{"isError": true, "content": [{"type": "text", "text": "42"}]}', FLAGGED),
        ('{"isError": false, "content": [{"type": "text", "text": "Error: 42"}]}', None),
        ('{"exit_code": 0, "stderr": "Error: 42"}', None),
        ('{"exit_code": 3, "stdout": "fine"}', FLAGGED),
        ('{"code": 1, "stdout": "", "stderr": ""}', "exit_code"),
        ("Exit code: 0\nError: 42", None),
        ("fine\n[exit code 7]", "exit_code"),
    ],
)
def test_a_flag_or_an_exit_status_in_the_answer_beats_its_text(answer: str, kind: str | None) -> None:
    assert error_kind(answer, STRICT) == kind


# Structure


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ('{"detail": [{"loc": ["q"], "msg": "?", "type": "?"}]}', "validation"),
        ('{"detail": [{"sku": "A"}]}', None),
        ('{"errors": [{"message": "?"}]}', "api_message"),
        ('{"errors": [{"message": "?"}], "data": {"user": null}}', "api_message"),
        ('{"errors": [{"message": "?"}], "data": {"user": {"id": 1}}}', None),  # it has part of what was requested
        ('{"errors": [{"line": 3}], "file": "a.py"}', None),  # what a linter found
        ('{"title": "?", "detail": "?", "status": 409, "balance": 3}', "http"),
        ('{"__type": "x.y#NoSuchThingException", "message": "?"}', "api_message"),
        ('{"a": ["can\'t be blank"], "b": ["is invalid"]}', "validation"),
        ('{"a": ["red"], "b": ["blue"]}', None),
        ("<Error><Code>X</Code></Error>", "api_message"),
        ("<tool_use_error>?</tool_use_error>", "api_message"),
        ("<a:Envelope><a:Body><a:Fault><reason>?</reason></a:Fault></a:Body></a:Envelope>", "api_message"),
        ('<rsp stat="fail"><x/></rsp>', "api_message"),
        ("<rsp stat='ok'><errors/></rsp>", None),
        ("<html><head><title>404 Not Found</title></head></html>", "http"),
        ("<html><head><title>What a 404 is</title></head><h1>Codes</h1></html>", None),
        ("(1146, \"Table 'a.b' doesn't exist\")", "database"),
    ],
)
def test_structured_answers_are_judged_by_their_fields(answer: str, kind: str | None) -> None:
    found = error_kind(answer, STRICT)
    assert (found is None) == (kind is None)
    assert kind in (None, "database") or found == kind


def test_markup_is_read_whatever_is_wrong_with_it() -> None:
    assert read_markup("<a x='1'><b>t&amp;u</b><b>v</b><n:c/></a>") == {"a": {"x": "1", "b": "t&u", "c": ""}}
    assert read_markup("<a><b>cut o") == {"a": {"b": "cut o"}}
    assert read_markup("</a>") is None and read_markup("a < b") is None
    assert read_markup("<a>" * 1000) is not None


# Texts


@pytest.mark.parametrize(
    "answer",
    [
        "'Paris'", "'The order was shipped.'", "'12.50'", "''", '"ok"',  # the repr of a text counts as the text
        "You need to bring a passport.", "Please check your mail for the code.", "Specify the yeast in your notes.",
        "A 404 means that there is no such page.", "Errors are raised when the input is empty.",
        "Payment declined on Monday, paid on Tuesday.", "Wenn die Datei nicht gefunden wird, wird sie angelegt.",
        "TypeError: x is not a function - a question\nhttps://example.org/q\nI see this often.",
        "1. Access denied: what to do\n2. Timeouts",
        "a.log:3:ERROR connection refused\na.log:9:ERROR timeout",
        "2024-01-01 10:00:00 INFO a\n2024-01-01 10:00:01 ERROR b: connection refused",
        "def f():\n    raise KeyError('a')", "0 errors", "Errors: 0", "Keine Treffer", "没有找到结果", "Brak wyników",
    ],
)  # fmt: skip
def test_a_text_about_errors_is_no_error(answer: str) -> None:
    assert error_kind(answer, STRICT) is None


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("'order_id'", "key_error"),
        ("'Error: closed'", "api_message"),
        ("\x1b[31merror: no input\x1b[0m", "shell"),
        ("**Error:** closed", "api_message"),
        ("❌ Failed to save", "api_message"),
        ("step 1\nTraceback (most recent call last):\n  File \"a\"\nKeyError: 'a'", "python_exception"),
        ("ok so far\nprog: error: too few arguments", "shell"),
        ("main.c:1:2: error: expected ';'", "compiler"),
        ("Serveur introuvable", "api_message"),
    ],
)
def test_an_error_message_is_seen_behind_what_surrounds_it(answer: str, kind: str) -> None:
    assert error_kind(answer, STRICT) == kind


@pytest.mark.parametrize(
    "text", ["a ", "A_B_", "the value of the key ", "a: b: ", "[", "<a ", "'", "a::", "错误 ", " \n", "at a("]
)
def test_the_cost_is_bounded_however_long_the_answer(text: str) -> None:
    for length in (400, 1_000, 300_000):
        begin = perf_counter()
        error_kind((text * length)[:length], STRICT)
        assert perf_counter() - begin < 3  # 0.1 s alone; a quadratic expression takes minutes


# The rule is data


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"languages": [{"language": "xx"}]}, "languages: begins is missing, ends is missing, error is missing"),
        ({"terms": {"noun": "(a"}}, "is not a regular expression"),
    ],
)
def test_a_rule_that_cannot_be_read_says_where(changes: dict, said: str) -> None:
    config = {**CONFIGS["strict"], **changes}
    with pytest.raises(TltrainError) as raised:
        Rule.from_config(config)
    assert said in str(raised.value) and "\n" not in str(raised.value)
