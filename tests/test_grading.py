"""The grading of a call: every row of the paper's table, and properties that hold for any call."""

from __future__ import annotations

import math
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.paths import ROOT
from tltrain.errors import TltrainError
from tltrain.formats.calls import render_call
from tltrain.grading import ANY, PAPER_REWARD, Outcome, RewardTable, grade, same_value
from tltrain.trajectory import Call, OneOf, Tool, example

SEARCH = Tool(
    "search_advice",
    "Advice on a topic.",
    {"properties": {name: {"type": "string"} for name in ("query", "page", "size")}, "required": ["query"]},
)
FINISH = Tool("finish", "End.", {"properties": {"answer": {"type": "string"}}, "required": ["answer"]})
TOOLS = (SEARCH, FINISH)
GOLDEN = Call("search_advice", {"query": "love", "page": 1})


@pytest.mark.parametrize(
    ("prediction", "row", "reward"),
    [
        ("search_advice(query='love'", "format_error", -2),
        ("search(query='love', page=1)", "tool_hallucination", -2),
        ("finish(query='love', page=1)", "wrong_tool", -1.5),
        ("search_advice(keyword='love', size=3)", "hallucinated_redundant_missing", -1.8),
        ("search_advice(query='love', page=1, keyword=2, size=3)", "hallucinated_and_redundant_or_missing", -1.3),
        ("search_advice(query='love', keyword=2)", "hallucinated_and_redundant_or_missing", -1.3),
        ("search_advice(query='love', size=3)", "redundant_missing", -1.0),
        ("search_advice(query='love', page=1, keyword=2)", "hallucinated", -0.8),
        ("search_advice(query='love', page=1, size=3)", "redundant_or_missing", -0.5),
        ("search_advice(query='love')", "redundant_or_missing", -0.5),
        ("search_advice(query='hate', page=1)", "wrong_value", -0.25),
        ("search_advice(page=1, query='love')", "correct", 1),
    ],
)
def test_each_row_of_the_papers_table(prediction, row, reward):
    judged = grade(prediction, GOLDEN, TOOLS)
    assert (judged.row, judged.reward()) == (row, reward)


def test_the_papers_keyword_for_query_scores_as_the_released_code_does():
    judged = grade("search_advice(keyword = 'love') ", Call("search_advice", {"query": "love"}), TOOLS)
    assert (judged.hallucinated, judged.redundant, judged.missing) == (("keyword",), (), ("query",))
    assert judged.reward() == -1.3
    assert judged.reason == "parameter `keyword` is not one of search_advice's; parameter `query` is missing"
    assert (judged.ts, judged.pi, judged.cf, judged.de) == (True, False, False, True)


@pytest.mark.parametrize(
    ("prediction", "ts", "pi", "cf", "de", "reason"),
    [
        ("no call", False, False, False, True, "not a call: no `(` at character 8"),
        ("look(query='love')", False, False, False, True, "`look` is not on offer"),
        ("finish(answer='x')", False, False, False, False, "`finish` was called, not `search_advice`"),
        ("finish(result='x')", False, False, False, True, "`finish` was called, not `search_advice`"),
        ("search_advice(query='love')", True, False, False, False, "parameter `page` is missing"),
        ("search_advice(query='a', page=1)", True, True, False, False, '`query` is "a", not "love"'),
        ("search_advice(query='love', page=1)", True, True, True, False, "the accepted call"),
    ],
)
def test_the_metrics_and_the_reason_derive_from_the_grade(prediction, ts, pi, cf, de, reason):
    judged = grade(prediction, GOLDEN, TOOLS)
    assert (judged.ts, judged.pi, judged.cf, judged.de, judged.reason) == (ts, pi, cf, de, reason)


def test_values_without_a_name_beside_right_ones_are_hallucinated():
    judged = grade("search_advice('junk', query='love', page=1)", GOLDEN, TOOLS)
    assert (judged.row, judged.reward(), judged.positional) == ("hallucinated", -0.8, 1)
    assert (judged.ts, judged.pi, judged.cf, judged.de) == (True, False, False, True)
    assert judged.reason == "1 value without a parameter's name"
    judged = grade("search_advice(query='love', page=1, size=3, 4, [5])", GOLDEN, TOOLS)
    assert (judged.row, judged.positional) == ("hallucinated_and_redundant_or_missing", 2)
    assert grade("search_advice('junk', query='x')", None, TOOLS).de
    # If a parameter is missing, they count as not given, as in the released code.
    judged = grade("search_advice('love', page=1)", GOLDEN, TOOLS)
    assert (judged.row, judged.reward(), judged.positional) == ("redundant_or_missing", -0.5, 0)


def test_without_a_golden_call_the_documentation_decides():
    def outcome(prediction):
        judged = grade(prediction, None, TOOLS)
        assert judged.de == (judged.outcome is not Outcome.CORRECT)
        return judged.outcome, judged.hallucinated, judged.missing

    assert outcome("search_advice(query='x', size=1)") == (Outcome.CORRECT, (), ())
    assert outcome("search_advice(size=1, z=2)") == (Outcome.PARAMETERS, ("z",), ("query",))
    assert outcome("other()") == (Outcome.TOOL_HALLUCINATION, (), ())
    assert outcome("finish") == (Outcome.FORMAT_ERROR, (), ())


def test_the_best_of_several_golden_calls_counts_and_the_first_of_equals():
    wrong, near, right = Call("finish", {"answer": "x"}), Call("search_advice", {"query": "hate"}), GOLDEN
    text = render_call(GOLDEN)
    assert grade(text, [wrong, near, right], TOOLS).golden is right
    assert grade(text, [wrong, near], TOOLS).golden is near
    twins = [Call("search_advice", {"query": "a"}), Call("search_advice", {"query": "b"})]
    assert grade("search_advice(query='c')", twins, TOOLS).golden is twins[0]


def test_one_of_several_values_is_right_and_an_optional_parameter_may_be_missing():
    golden = Call("search_advice", {"query": OneOf(("love", "Love")), "page": OneOf((1, 2), optional=True)})

    def row(text):
        return grade(text, golden, TOOLS).row

    assert row("search_advice(query='Love', page=2)") == row("search_advice(query='love')") == "correct"
    assert row("search_advice(page=1)") == "redundant_or_missing"  # the query is required
    judged = grade("search_advice(query='hate', page=3)", golden, TOOLS)
    assert (judged.row, judged.wrong_values) == ("wrong_value", ("query", "page"))
    assert judged.reason == '`query` is "hate", not "love" or "Love"; `page` is 3, not 1 or 2'


def test_a_parameter_that_may_only_be_left_out():
    golden = Call("search_advice", {"query": "love", "page": OneOf((), optional=True)})
    assert grade("search_advice(query='love')", golden, TOOLS).cf
    judged = grade("search_advice(query='love', page='')", golden, TOOLS)
    assert (judged.row, judged.reason) == ("wrong_value", '`page` is "", not left out')


def test_one_of_several_values_inside_dicts_and_lists():
    golden = [{"size": OneOf(("L", "large")), "milk": OneOf(("oat",), optional=True)}, 1]
    assert same_value([{"size": "large"}, 1], golden) and same_value([{"size": "L", "milk": "oat"}, 1], golden)
    for wrong in (
        [{"size": "S"}, 1],
        [{"milk": "oat"}, 1],
        [{"size": "L", "milk": "soy"}, 1],
        [{"size": "L", "x": 1}, 1],
    ):
        assert not same_value(wrong, golden)
    assert same_value("2", OneOf((1, 2)), "lenient") and not same_value("2", OneOf((1, 2)))
    assert same_value(7, OneOf((ANY,)))


def test_an_example_of_a_golden_call_is_accepted_by_it():
    golden = Call(
        "search_advice",
        {
            "query": ANY,
            "page": OneOf(([{"a": OneOf((3, 4))}], 2)),
            "size": OneOf((), optional=True),
        },
    )
    assert example(golden) == Call("search_advice", {"query": "any", "page": [{"a": 3}]})
    assert grade(example(golden), golden, TOOLS).cf


def test_a_tool_that_one_golden_call_accepts_is_never_the_wrong_tool():
    # -1.8 for the parameters is below the -1.5 of a wrong tool, although the tool was selected correctly.
    judged = grade("search_advice(keyword=1, size=3)", [Call("finish", {"answer": "x"}), GOLDEN], TOOLS)
    assert judged.ts and judged.reward() == -1.8


def test_any_accepts_every_value_but_wants_the_name():
    golden = Call("search_advice", {"query": ANY, "page": [ANY, 2]})
    assert grade("search_advice(query={'x': null}, page=['?', 2])", golden, TOOLS).cf
    assert grade("search_advice(query='x', page=[1, 3])", golden, TOOLS).wrong_values == ("page",)
    assert grade("search_advice(page=[1, 2])", golden, TOOLS).missing == ("query",)


def test_a_golden_tool_not_on_offer_cannot_be_called():
    assert grade("search_advice(query='love')", GOLDEN, (FINISH,)).outcome is Outcome.TOOL_HALLUCINATION


def test_an_undocumented_parameter_of_the_golden_call_is_no_hallucination():
    judged = grade("finish(code='x')", Call("finish", {"code": "x"}), TOOLS)
    assert judged.outcome is Outcome.CORRECT
    assert judged.de  # it contradicts the documentation anyway


def test_of_two_tools_by_one_name_the_one_that_fits_is_meant():
    other = Tool("finish", "", {"properties": {"code": {}}, "required": ["code"]})
    assert not grade("finish(code='x')", None, (FINISH, other)).de
    assert not grade("finish(answer='x')", None, (FINISH, other)).de


@pytest.mark.parametrize(
    ("left", "right", "strict", "lenient"),
    [
        (1, 1.0, True, True),
        (1, "1", False, True),
        ("1", "1.0", False, True),
        (1000, "1e3", False, True),
        (True, 1, False, False),
        (True, "True", False, True),
        ("true", "True", False, True),
        (None, "null", False, True),
        (False, None, False, False),
        (0, "", False, False),
        ("007", 7, False, False),
        ("a", "A", False, False),
        (" a ", "a", False, True),
        ("１", "1", False, True),
        ("é", "e\u0301", False, True),
        ([1, {"k": "2"}], ["1", {"k": 2.0}], False, True),
        ([1, 2], [2, 1], False, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True, True),
        ({"a": 1}, {"a": 1, "b": None}, False, False),
        ([], {}, False, False),
        ([True], [1], False, False),
        (10**20, str(10**20), False, True),
        (10**20 + 1, 1e20, False, False),
        ("1e999", math.inf, False, False),
    ],
)
def test_values_match(left, right, strict, lenient):
    assert same_value(left, right) == same_value(right, left) == strict
    assert same_value(left, right, "lenient") == same_value(right, left, "lenient") == lenient


LEAVES = st.sampled_from([0, 1, 1.0, -0.0, True, False, None, "1", "1.0", " 1", "true", "True", "None", "x", "X", "１"])
VALUES = st.recursive(
    LEAVES | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=300)
@given(VALUES, VALUES, VALUES, st.sampled_from(["strict", "lenient"]))
def test_matching_is_an_equivalence(a, b, c, values):
    assert same_value(a, a, values)
    assert same_value(a, b, values) == same_value(b, a, values)
    if same_value(a, b, values) and same_value(b, c, values):
        assert same_value(a, c, values)
    assert not same_value(a, b) or same_value(a, b, "lenient")


ARGUMENTS = st.dictionaries(st.sampled_from(["query", "page", "size", "h1", "h2"]), LEAVES)
GOLDEN_ARGUMENTS = st.dictionaries(st.sampled_from(["query", "page", "size"]), LEAVES)
NAMES = st.sampled_from(["search_advice"] * 5 + ["finish", "unknown"])


@settings(max_examples=300)
@given(NAMES, ARGUMENTS, GOLDEN_ARGUMENTS)
def test_a_grade_follows_from_the_sets_of_names(name, arguments, golden):
    judged = grade(Call(name, arguments), Call("search_advice", golden), TOOLS)
    given_, wanted, known = set(arguments), set(golden), {"query", "page", "size"}
    if name != "search_advice":
        assert judged.reward() == (-1.5 if name == "finish" else -2)
        return
    hallucinated, redundant, missing = given_ - known, (given_ & known) - wanted, wanted - given_
    assert (set(judged.hallucinated), set(judged.redundant), set(judged.missing)) == (hallucinated, redundant, missing)
    faults = {"hrm": -1.8, "hr": -1.3, "hm": -1.3, "rm": -1.0, "h": -0.8, "r": -0.5, "m": -0.5}
    kinds = "h" * bool(hallucinated) + "r" * bool(redundant) + "m" * bool(missing)
    equal = all(same_value(arguments[key], golden[key]) for key in wanted & given_)
    assert judged.reward() == faults.get(kinds, 1 if equal else -0.25)
    assert judged.pi == (given_ == wanted)


CALLS = st.builds(Call, NAMES, ARGUMENTS)


@given(CALLS, st.lists(st.builds(Call, NAMES, GOLDEN_ARGUMENTS), max_size=3), st.randoms())
def test_order_of_arguments_and_spacing_do_not_matter(call, goldens, random):
    items = list(call.arguments.items())
    random.shuffle(items)
    text = render_call(Call(call.name, dict(items)))
    spaced = text.replace("=", " =\n ").replace("(", " ( ", 1) + "  and so on"
    one, other = grade(call, goldens, TOOLS), grade(spaced, goldens, TOOLS)
    assert (one.outcome, one.row, one.de) == (other.outcome, other.row, other.de)


@settings(max_examples=300)
@given(st.text() | CALLS.map(render_call) | CALLS, st.lists(CALLS, min_size=1, max_size=3))
def test_reward_is_in_bounds_and_one_only_for_an_accepted_call(prediction, goldens):
    judged = grade(prediction, goldens, TOOLS)
    low, high = PAPER_REWARD.bounds
    assert low <= judged.reward() <= high
    if judged.reward() == 1:
        call = judged.prediction
        assert any(call.name == right.name and same_value(call.arguments, right.arguments) for right in goldens)


@pytest.mark.parametrize(
    "text", ["f(a=NaN)", "f(a=" + "9" * 5000 + ")", "f(a=" + "[" * 10**5, "\0(\0=1)", "\ud800()", "x" * 10**5 + "()"]
)
def test_no_text_raises(text):
    assert grade(text, GOLDEN, TOOLS).reward() == -2
    assert len(grade(text, GOLDEN, TOOLS).reason) < 150


def test_a_reason_fits_a_line_whatever_the_model_says():
    many = ", ".join(f"{'n' * 1000}\n{i}=1" for i in range(100))
    judged = grade(f"search_advice({many})", Call("search_advice", {"query": "x" * 1000}), TOOLS)
    assert len(judged.hallucinated) == 100
    assert len(judged.reason) < 300 and "\n" not in judged.reason


def test_conf_holds_the_papers_table():
    path = ROOT / "conf" / "reward" / "paper.yaml"
    assert RewardTable.from_config(yaml.safe_load(path.read_text(encoding="utf-8"))) == PAPER_REWARD
    assert PAPER_REWARD.bounds == (-2, 1)


def test_a_table_of_ones_own_is_used():
    table = RewardTable(wrong_value=0.5)
    assert grade("search_advice(query='x', page=1)", GOLDEN, TOOLS).reward(table) == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": None}, r"reward\.correct: expected a number, found None"),
        ({"correct": True}, r"reward\.correct: expected a number"),
        ({"wrong_tool": math.nan}, r"reward\.wrong_tool: expected a number"),
        ({"wrong_tol": -1}, "reward: unknown row `wrong_tol`"),
    ],
)
def test_a_bad_table_is_refused_by_name(change, message):
    with pytest.raises(TltrainError, match=message):
        RewardTable.from_config({row: PAPER_REWARD[row] for row in RewardTable.__dataclass_fields__} | change)
    with pytest.raises(TltrainError, match="no value for `format_error`"):
        RewardTable.from_config({})


def test_grading_is_fast():
    start = time.perf_counter()
    for _ in range(2000):
        grade("search_advice(query = 'love', page = 1)", GOLDEN, TOOLS)
    assert time.perf_counter() - start < 1  # about 0.03 s
