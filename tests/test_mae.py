"""MAE: which calls may be learned. The released rule, one case per pattern; our rule on all kinds of trajectories."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.mae_rules import CONFIGS, PAPER, STRICT
from tests.support.paths import ROOT, ROTBENCH, needs_rotbench
from tltrain.errors import TltrainError
from tltrain.formats.answers import read_structure
from tltrain.formats.tool_errors import Rule, error_kind
from tltrain.mae import Verdict, apply, learnable, verdicts
from tltrain.toolworld import generate
from tltrain.trajectory import Call, Message, ToolCall, Trajectory, actions


def conversation(*messages: Message) -> Trajectory:
    return Trajectory("t", (), messages)


def turn(learn: bool = True) -> Message:
    return Message.calling(Call("get", {}), learn=learn)


def answered(answer: str) -> Trajectory:
    """Make a trajectory of one call, its answer, and a last call."""
    return conversation(Message("user", "q"), turn(), Message("tool", answer), turn())


# The released rule


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("name 'get_weather' is not defined", "undefined_tool"),
        ("f() missing 1 required positional argument: 'q'", "missing_argument"),
        ("f() got an unexpected keyword argument 'q'", "unexpected_argument"),
        ("'related_searches'", "key_error"),
        ("requests.exceptions.ConnectionError: no route", "connection"),
        ('{"error": "no such city"}', "api_message"),
        ("'<' not supported between instances of 'str' and 'int'", "type_error"),
        ("Invalid API call. Please retry", "api_message"),
        ("Response error: 17", "http"),
        ("Object of type SerpResults is not JSON serializable", "serialization"),
        ("400 Client Error: Bad Request for url", "http"),
        ("{'error': 'no such city'}", "api_message"),
        ("slice indices must be integers or None or have an __index__ method", "type_error"),
        ("a connection error happened", "connection"),
    ],
)
def test_each_released_pattern_drops_the_turn_before_its_answer(answer: str, kind: str) -> None:
    assert error_kind(answer, PAPER) == kind
    assert verdicts(answered(answer), PAPER) == [(Verdict.ERROR, kind), (Verdict.KEPT, None)]


def test_the_released_rule_has_its_fourteen_patterns_in_order() -> None:
    texts = [pattern["text"] for pattern in CONFIGS["paper"]["patterns"]]
    assert len(texts) == 14
    assert texts[0] == "is not defined" and texts[5] == '"error":' and texts[13] == "connection error"


@pytest.mark.parametrize(
    ("answer", "flagged"),
    [
        ("the name is n o t  d-e_f.i*n:e/d", True),  # spaces and punctuation are removed on both sides
        ("IS NOT DEFINED", True),
        ("is noté defined", True),  # é is removed
        ("is not错defined", False),  # CJK is kept
        ("is not\u4e00defined", False),  # U+4E00, the first that is kept
        ("is not\u9fa5defined", False),  # U+9FA5, the last
        ("is not\u9fa6defined", True),  # U+9FA6 is removed
        ("is not^defined", False),  # ^ is kept
        ("Invalid API ca\u212all", True),  # a Kelvin sign is removed; lower-cased first it would be a k
        ("erro r", True),
        ("", False),
        ("all went well", False),
    ],
)
def test_the_released_rule_compares_what_its_normalisation_leaves(answer: str, flagged: bool) -> None:
    assert (error_kind(answer, PAPER) is not None) == flagged


@pytest.mark.parametrize(
    "answer",
    [
        "The standard error of the mean falls with the root of n.",
        '{"title": "Error analysis of neural parsers", "year": 2019}',
        '{"get": "drivers", "errors": [], "results": 0, "response": []}',
        '{"status": {"error_code": 0, "error_message": null}, "data": [1]}',
    ],
)
def test_the_word_error_in_a_result_matches_under_paper_and_not_under_strict(answer: str) -> None:
    assert error_kind(answer, PAPER) == "api_message"
    assert error_kind(answer, STRICT) is None


# Verdicts


def test_a_turn_before_anything_but_an_answer_is_dropped_with_and_without_a_rule() -> None:
    trajectory = conversation(Message("user", "q"), turn(), Message("user", "and?"), turn(), turn())
    dropped = (Verdict.NO_ANSWER, None)
    assert verdicts(trajectory, PAPER) == verdicts(trajectory, None) == [dropped, dropped, (Verdict.KEPT, None)]


def test_without_a_rule_errors_are_kept() -> None:
    assert verdicts(answered("name 'f' is not defined"), None) == [(Verdict.KEPT, None)] * 2


def test_an_error_is_looked_for_in_the_next_answer_alone() -> None:
    trajectory = conversation(
        Message("user", '{"error": "in a query"}'), turn(), Message("tool", "fine"), Message("tool", '{"error": "x"}')
    )
    assert verdicts(trajectory, PAPER) == [(Verdict.KEPT, None)]


def test_the_last_turn_is_kept() -> None:
    assert verdicts(conversation(Message("user", "q"), turn()), STRICT) == [(Verdict.KEPT, None)]


def several(*ids: str, **words) -> Message:
    """Make a message with one call per id."""
    return Message("assistant", calls=tuple(ToolCall(Call(f"call {name}"), id=name) for name in ids), **words)


FAILED = '{"error": "x"}'
KEPT, ERROR, NO_ANSWER = (Verdict.KEPT, None), (Verdict.ERROR, "api_message"), (Verdict.NO_ANSWER, None)


@pytest.mark.parametrize(
    ("answers", "goes_on", "expected"),
    [
        ([("b", FAILED), ("a", "fine")], True, [KEPT, ERROR, KEPT]),  # each by its own answer, in any order
        ([("", "fine"), ("", FAILED)], True, [KEPT, ERROR, KEPT]),  # without ids by order
        ([("b", "fine")], True, [NO_ANSWER, KEPT, KEPT]),
        ([], True, [NO_ANSWER, NO_ANSWER, KEPT]),
        ([("b", FAILED)], False, [KEPT, ERROR]),  # the conversation did not continue before an answer to the first
        ([], False, [KEPT, KEPT]),
    ],
)
def test_each_of_several_calls_is_judged_by_its_own_answer(answers, goes_on, expected) -> None:
    said = [Message("tool", text, answers=name) for name, text in answers]
    trajectory = conversation(Message("user", "q"), several("a", "b"), *said, *([turn()] if goes_on else []))
    assert verdicts(trajectory, PAPER) == expected
    assert learnable(trajectory, PAPER) == [verdict is Verdict.KEPT for verdict, _ in expected]


def test_only_the_failed_of_several_calls_become_history() -> None:
    def flags(*answers: str) -> tuple[bool, list[bool]]:
        said = [Message("tool", text) for text in answers]
        message = apply(conversation(several("a", "b", thought="Both."), *said, turn()), PAPER).messages[0]
        return message.learn, [made.learn for made in message.calls]

    assert flags("fine", "fine") == (True, [True, True])
    assert flags("fine", FAILED) == (True, [True, False])  # the thought also led to a good call
    assert flags(FAILED, FAILED) == (False, [False, False])


def test_a_call_that_is_history_stays_so_beside_one_that_is_learned() -> None:
    message = Message("assistant", calls=(ToolCall(Call("a"), False), ToolCall(Call("b"))))
    flagged = apply(conversation(message, Message("tool", "fine"), Message("tool", "fine"), turn()), PAPER).messages[0]
    assert flagged == message


def test_history_stays_history_and_a_failed_call_becomes_it() -> None:
    trajectory = conversation(
        Message("user", "q"), turn(learn=False), Message("tool", "fine"),
        turn(), Message("tool", '{"error": "x"}'), turn(),
    )  # fmt: skip
    assert learnable(trajectory, STRICT) == [False, False, True]
    assert learnable(trajectory, None) == [False, True, True]
    flagged = apply(trajectory, STRICT)
    assert [m.learn for m in flagged.messages] == [True, False, True, False, True, True]
    assert [m.text for m in flagged.messages] == [m.text for m in trajectory.messages]
    assert apply(flagged, STRICT) == flagged


# The strict rule


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("get_weather() missing 2 required positional arguments: 'a' and 'b'", "missing_argument"),
        ("preferred-routes_get() got an unexpected keyword argument ':edoc'", "unexpected_argument"),
        ("f() takes 1 positional argument but 2 were given", "unexpected_argument"),
        ("name 'f' is not defined", "undefined_tool"),
        ("'user_id'", "key_error"),
        ("KeyError: 'user_id'", "key_error"),
        ("could not convert string to float: 'abc'", "value_error"),
        ("division by zero", "value_error"),
        ("can't multiply sequence by non-int of type 'str'", "type_error"),
        ("[Errno 2] No such file or directory: 'x.txt'", "file"),
        ("/bin/sh: 1: cd: can't cd to /tmp/x\n", "shell"),
        ("sqlite3.OperationalError: no such table: orders", "database"),
        ("404 Client Error: Not Found for url: http://x", "http"),
        ("<html>\n<head><title>502 Bad Gateway</title></head></html>", "http"),
        ("HTTPSConnectionPool(host='x', port=443): Max retries exceeded with url: /", "connection"),
        ("Error: TypeError: f() got an unexpected keyword argument 'q'", "unexpected_argument"),
        ('Traceback (most recent call last):\n  File "x.py", line 1\nValueError: math domain error', "value_error"),
        ("Traceback (most recent call last):\nLookupError: nothing under that name", "python_exception"),
        ("Please specify a date and try again.", "missing_argument"),
        ('{"error": "Connection error."}', "connection"),
        ("{'error': \"can't open\"}", "api_message"),
        ('{"error": {"code": 17, "message": "nope"}}', "api_message"),
        ('{"cod": "404", "message": "city"}', "http"),
        ('{"status": 404, "message": "nothing there"}', "http"),
        ('{"success": false, "reason": "card declined"}', "api_message"),
        ('{"status": "failed", "message": "card declined"}', "api_message"),
        ('{"errorMessage": "nope", "stack": ""}', "api_message"),
        ('{"error": "", "response": "{\\"message\\": \\"Unauthorized\\"}"}', "refusal"),
        ('{"status_code": 200, "response": [{"status_code": 400, "error": "Bad name"}]}', "api_message"),
        ('{"error": "rate exceeded", "trace": ["a", "b", "and here it is cut o', "refusal"),
        ('{"error": "and here it is cut o', "api_message"),
        ('{"data": null, "errors": [{"message": "field x"}]}', "api_message"),
    ],
)
def test_strict_sees_an_error_in_every_shape(answer: str, kind: str) -> None:
    assert error_kind(answer, STRICT) == kind


@pytest.mark.parametrize(
    "answer",
    [
        "", " ", "{}", "[]", "null", "0", "2023-10-28", "open", "'tis the season",
        '{"error": null, "value": 3}', '{"error": false}', '{"error": "", "response": "fine"}', '{"error": "none"}',
        '{"errors": 0, "warnings": 3}',
        '{"slope": 1.5, "error": 0.02}',  # a measured error is not an error code
        '{"order": 12, "status": "failed"}',  # the order failed, not the call
        '{"url": "http://x", "status": 404}',
        '{"code": 450, "price": 3}',
        '[{"level": "error", "message": "disk full"}]',
        '{"results": [{"name": "a", "error": "timeout"}, {"name": "b", "rank": 2}]}',  # one item got its result
        '{"id": 4, "note": "Unable to sleep"}',
        '{"results": "no results, try recommended questions"}',
        '{"message": {"type": "notice", "text": "No advice slips found matching that search term."}}',
        "Connection error handling in Python is done with try and except.",
        "Error bars show one standard deviation.",
        "404 people came. The server error was fixed on Monday.",
        "Invalid arguments are those whose conclusion does not follow. They are common in politics.",
        "Published: 2023\nSummary: the exception proves the rule; it is not supported by data.",
        "x" * 2000 + " Error: at the end",
    ],
)  # fmt: skip
def test_strict_sees_no_error_in_a_result(answer: str) -> None:
    assert error_kind(answer, STRICT) is None


def test_structure_is_read_from_json_python_and_what_breaks_off() -> None:
    assert read_structure('{"a": [1, null]}') == ({"a": [1, None]}, True)
    assert read_structure("{'a': (1, None, True), 2: 'it\\'s'}") == ({"a": [1, None, True], "2": "it's"}, False)
    assert read_structure('{"a": 1, "b": {"c": "cut o') == ({"a": 1, "b": {"c": "cut o"}}, False)
    assert read_structure('{"a": 1, "b') == ({"a": 1}, False)
    assert read_structure('{"a": 1} and more') == ({"a": 1}, False)
    assert read_structure("[Errno 2] No such file") == (None, False)


PIECES = [*"{}[]()\"',:\\ \n.-x1", "error", "'error'", "not found", "Traceback (most recent call last)", '{"error": "']
ERROR_LIKE = st.lists(st.sampled_from(PIECES)).map("".join)


@given(
    st.text()
    | ERROR_LIKE
    | st.recursive(
        st.text() | st.none() | st.floats(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["error", "status", "message", "response", "x"]), inner)
        ),
    ).map(json.dumps)
)
@example("[" * 100_000)
@example('{"a":' * 100_000)
@example("{'response': " * 5_000)
@example('{"response": "' + "\\" * 5_000)
@example("a." * 50_000)
@example("1" * 5_000)
@example("\ud800")
def test_no_answer_makes_a_rule_raise(answer: str) -> None:
    for rule in (PAPER, STRICT):
        kind = error_kind(answer, rule)
        assert kind is None or kind.islower()


SAID = st.sampled_from(["ok", "Error: x"])
TOOL_CALLS = st.builds(ToolCall, st.just(Call("get")), st.booleans(), st.sampled_from(["", "a", "b"]))
ASSISTANT = st.builds(
    Message, st.just("assistant"), SAID, st.lists(TOOL_CALLS, max_size=3).map(tuple), learn=st.booleans()
)
OTHERS = st.builds(Message, st.sampled_from(["user", "tool"]), SAID, answers=st.sampled_from(["", "a", "b"]))


@given(st.lists(ASSISTANT | OTHERS))
def test_every_call_and_every_plain_text_gets_one_verdict(messages: list[Message]) -> None:
    trajectory = conversation(*messages)
    learn = [action.learn for action in actions(messages)]
    assert len(learn) == sum(len(message.calls) or 1 for message in messages if message.role == "assistant")
    for rule in (PAPER, STRICT, None):
        flags = learnable(trajectory, rule)
        assert len(verdicts(trajectory, rule)) == len(flags) == len(learn)
        assert all(kept <= before for kept, before in zip(flags, learn, strict=True))
        assert [action.learn for action in actions(apply(trajectory, rule).messages)] == flags


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "call", "tool"]), SAID)))
def test_with_one_call_a_turn_verdicts_are_those_of_the_released_rule(said: list[tuple[str, str]]) -> None:
    """The released script looks only at the message after each of the assistant's."""
    messages = [turn() if role == "call" else Message(role, text) for role, text in said]
    expected = [
        Verdict.KEPT
        if i + 1 == len(messages)
        else Verdict.NO_ANSWER
        if messages[i + 1].role != "tool"
        else Verdict.ERROR
        if error_kind(messages[i + 1].text, PAPER)
        else Verdict.KEPT
        for i, message in enumerate(messages)
        if message.role == "assistant"
    ]
    assert [verdict for verdict, _ in verdicts(conversation(*messages), PAPER)] == expected


# Rules as data


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"match": "regex"}, "expected normalized_substring or structure"),
        ({"match": "normalized_substring"}, "patterns is missing"),
        ({"match": "normalized_substring", "patterns": [{"kind": "x", "txt": "y"}]}, "txt is unknown"),
        ({"match": "normalized_substring", "patterns": [{"kind": "x", "text": "!?"}]}, "occurs anywhere"),
        (CONFIGS["strict"] | {"prefixes": "(a\n"}, "'(a' is not a regular expression"),
        (CONFIGS["strict"] | {"fields": [{"kind": "x", "keys": ["y"], "when": "z"}]}, "when: expected content"),
    ],
)
def test_a_rule_that_cannot_be_read_says_where(config: dict, said: str) -> None:
    with pytest.raises(TltrainError) as raised:
        Rule.from_config(config)
    assert said in str(raised.value) and "\n" not in str(raised.value)


# Where the truth is known


def test_a_rule_says_only_what_it_changes_of_the_tables_it_names() -> None:
    assert error_kind("Sorry, error.", Rule.from_config({"match": "structure", "tables": "strict_rule"})) is not None
    own = {"match": "structure", "tables": "strict_rule", "flags": ["went wrong"]}
    assert Rule.from_config(own).flags == {"wentwrong"}
    assert Rule.from_config(own).messages == STRICT.messages
    with pytest.raises(TltrainError, match="tables: expected strict_rule, found none_such"):
        Rule.from_config(own | {"tables": "none_such"})


def test_strict_agrees_with_what_toolworld_knows_of_its_tools() -> None:
    hits = flagged = failed = 0
    for trajectory in generate(300, seed=11):
        for (verdict, _), truth in zip(verdicts(trajectory, STRICT), trajectory.meta["failed"], strict=True):
            hits += verdict is Verdict.ERROR and truth
            flagged += verdict is Verdict.ERROR
            failed += truth
    assert failed > 100
    assert hits >= 0.98 * flagged and hits >= 0.98 * failed


def rotbench_answers(level: str) -> list[list[tuple[str, str]]]:
    records = json.loads((ROTBENCH / "third_turn" / f"{level}.json").read_text(encoding="utf-8"))
    return [[(message["from"], message["value"]) for message in record["conversations"]] for record in records]


@needs_rotbench
def test_strict_agrees_with_the_labels_of_150_rotbench_answers() -> None:
    levels = {level: rotbench_answers(level) for level in ("clean", "slight", "heavy", "union")}
    labels = json.loads((ROOT / "experiments/results/rotbench_answer_labels.json").read_text())["labels"]
    assert len(labels) == len({label["sha256"] for label in labels}) == 150
    hits = flagged = errors = 0
    for label in labels:
        sender, answer = levels[label["level"]][label["record"]][label["message"]]
        assert sender == "function"
        assert hashlib.sha256(answer.encode()).hexdigest()[:16] == label["sha256"]
        found = error_kind(answer, STRICT) is not None
        hits += found and label["error"]
        flagged += found
        errors += label["error"]
    assert errors == 74
    assert hits >= 0.95 * flagged and hits >= 0.95 * errors


@needs_rotbench
def test_the_released_rule_drops_23_percent_of_rotbench_turns() -> None:
    """Of 1,260 turns 42 have no answer; of the others the rule drops 276, 22.7 % (about 23 %)."""
    roles = {"system": "user", "user": "user", "assistant": "assistant", "function": "tool"}
    found = [
        verdict
        for level in ("clean", "slight", "heavy", "union")
        for record in rotbench_answers(level)
        for verdict, _ in verdicts(conversation(*(Message(roles[sender], str(text)) for sender, text in record)), PAPER)
    ]
    assert [found.count(verdict) for verdict in Verdict] == [942, 276, 42, 0]
