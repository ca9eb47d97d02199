"""Tools as Python stubs: exactly the released text, and back."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROTBENCH, needs_rotbench
from tltrain.errors import TltrainError
from tltrain.formats.stubs import not_rendered, read_system, read_tools, render_tool, render_tools
from tltrain.trajectory import Tool


def tool(name="f", description="Does it.", required=(), **types):
    properties = {key: {"type": kind, "description": f"The {key}."} for key, kind in types.items()}
    return Tool(name, description, {"type": "object", "properties": properties, "required": list(required)})


def test_required_parameters_come_first_in_the_order_of_required():
    assert render_tool(tool("search", required=["b", "a"], c="integer", a="string", b="number", d="array")) == (
        "Function:\n"
        "def search(b: number, a: string, c: integer = None, d: array = None):\n"
        '    """\n'
        "    Does it.\n"
        "\n"
        "    Args:\n"
        "    b (number): The b.\n"
        "    a (string): The a.\n"
        "    c (integer): The c.\n"
        "    d (array): The d.\n"
        '    """'
    )


def test_a_tool_without_parameters_keeps_its_empty_args():
    assert render_tool(tool("now", "The time.")) == (
        'Function:\ndef now():\n    """\n    The time.\n\n    Args:\n    """'
    )


def test_stubs_are_joined_by_a_blank_line():
    assert render_tools([tool("a"), tool("b")]) == render_tool(tool("a")) + "\n\n" + render_tool(tool("b"))
    assert render_tools([]) == "" and read_tools("") == ()


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        ({}, "any"),
        ({"type": ["string", "null"]}, "string | null"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "integer"}]}, "integer | string"),
        ({"enum": ["a", "b"]}, "any"),
        ({"anyOf": 5}, "any"),
    ],
)
def test_a_parameter_without_a_type_string_is_written_as_documented(schema, written):
    assert f"def f(p: {written} = None):" in render_tool(Tool("f", "", {"properties": {"p": schema}}))


def test_a_missing_description_leaves_nothing_after_the_colon():
    assert "\n    p (string): \n" in render_tool(Tool("f", "", {"properties": {"p": {"type": "string"}}}))


def test_a_required_name_without_a_schema_is_still_a_parameter():
    stub = render_tool(Tool("f", "", {"properties": {}, "required": ["p"]}))
    assert "def f(p: any):" in stub and "    p (any): " in stub


def test_not_rendered_names_what_the_stub_does_not_show():
    schema = {"type": "string", "description": "d", "enum": ["x"], "default": "x"}
    assert not_rendered(Tool("f", "", {"properties": {"p": schema, "q": {"type": "string"}}})) == {"enum", "default"}


# No line breaks or spaces at the ends of names; a call's name ends at the first "(".
plain = st.text(st.characters(codec="utf-8", exclude_categories=["Zl", "Zp", "Cc"]), min_size=1, max_size=8)
awkward = st.sampled_from(
    [
        "preferred-routes_get",
        ":edoc",
        "from",
        "code:",
        "a, b",
        "x = None",
        "p: string",
        "km (h)",
        "é",
        "Args:",
        "return_err_outputpersistent=False",
        '"""',
        "def",
        "a b",
    ]
)
names = (awkward | plain).map(str.strip).filter(bool)
texts = st.text(max_size=30) | st.sampled_from(
    [
        "One.\n\nTwo.",
        'Says """hi""".',
        "(a), b: c = None",
        "x\n\n    Args:",
        "\n    p (string)",
        "ends\n",
        "  ",
        '\n"""',
    ]
)
types = st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "file", ["string", "null"]])


@st.composite
def tools(draw):
    properties = {
        name: {"type": draw(types), "description": draw(texts)}
        for name in draw(st.lists(names, max_size=5, unique=True))
    }
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    schema = {"type": "object", "properties": properties, "required": required}
    return Tool(draw(names.map(lambda name: name.replace("(", "").strip() or "f")), draw(texts), schema)


@given(st.lists(tools(), max_size=4))
def test_what_is_rendered_reads_back_the_same(offered):
    read = read_tools(render_tools(offered))
    assert len(read) == len(offered)
    for there, here in zip(read, offered, strict=True):
        assert (there.name, there.description) == (here.name, here.description)
        assert dict(there.properties) == dict(here.properties)
        assert set(there.required) == set(here.required)


@given(st.text(max_size=80) | st.text(alphabet='Function:def f(a,=N)"\n ', max_size=80))
def test_any_text_gives_tools_or_one_line_of_error(text):
    for prefix in ("", "Function:\ndef ", 'Function:\ndef f(a: string):\n    """\n    '):
        try:
            read_tools(prefix + text)
        except TltrainError as error:
            assert "\n" not in str(error)


def test_a_docstring_inside_a_description_does_not_hide_the_parameters():
    pasted = tool("f", "Looks up.\n\n    Args:\n    q (string): the query", required=["q"], q="string")
    assert read_tools(render_tool(pasted)) == (pasted,)


def test_duplicate_names_in_required_are_read_as_one():
    stub = render_tool(tool(required=["a", "a"], a="string"))
    assert stub.count("a: string") == 2, "the released text repeats them, as in RoTBench's heavy level"
    assert read_tools(stub)[0].required == ("a",)


INFERENCE = (
    'Function:\ndef random_advice():\n    """\n    Returns advice.\n    """\n\n'
    'Function:\ndef advice_by_id(slip_id:str, lang:str=None):\n    """\n    Finds {slip_id}.\n\n    Args:\n'
    "        slip_id (string): The unique ID.\n        lang (string): A language.\n"
    '    """\n\n'
)


def test_the_inference_form_of_the_released_readme_is_read_too():
    first, second = read_tools(INFERENCE)
    assert first == Tool("random_advice", "Returns advice.", {"type": "object", "properties": {}, "required": []})
    assert second.name == "advice_by_id" and second.required == ("slip_id",)
    assert second.properties == {
        "slip_id": {"type": "string", "description": "The unique ID."},
        "lang": {"type": "string", "description": "A language."},
    }


def test_a_system_message_may_begin_with_instructions():
    assert read_system(f"Be brief.\n\n{render_tool(tool())}") == ("Be brief.", (tool(),))
    assert read_system("Be brief.") == ("Be brief.", ())
    assert read_system(render_tool(tool())) == ("", (tool(),))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f():", "expected `Function:`"),
        ('Function:\ndef f(a: string):\n    """\n    Does.\n    """', "a line `name (type): ...` for each parameter"),
        ('Function:\ndef f(a: string):\n    """\n    D.\n\n    Args:\n    b (string): x\n    """', "`f(a: string)`"),
    ],
)
def test_documentation_that_is_no_stub_ends_in_one_line(text, said):
    with pytest.raises(TltrainError, match=re.escape(said)):
        read_tools(text)


@needs_rotbench
@pytest.mark.parametrize("level", ["clean", "union"])
def test_every_tool_of_rotbench_reads_back_as_it_was(level):
    records = json.loads((ROTBENCH / "third_turn" / f"{level}.json").read_text(encoding="utf-8"))
    for record in records:
        text = record["conversations"][0]["value"]
        offered = [Tool(**entry) for entry in json.loads(text[text.index("\n[{") : text.rindex("]") + 1])]
        for there, here in zip(read_tools(render_tools(offered)), offered, strict=True):
            assert (there.name, there.description) == (here.name, here.description)
            assert dict(there.properties) == dict(here.properties)
            assert set(there.required) == set(here.required)
