"""Tools on offer, as Anthropic, MCP, Gemini, xLAM, ToolBench, pydantic and Arrow write them."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tltrain.data.schemas import offered_tools
from tltrain.errors import FieldError
from tltrain.trajectory import Tool

TOWN = {"type": "string", "description": "The town."}
SCHEMA = {"type": "object", "properties": {"town": TOWN}, "required": ["town"]}
WEATHER = Tool("weather", "Says the weather.", SCHEMA)
BARE = {"name": "weather", "description": "Says the weather."}


def read(value):
    notes = Counter()
    return offered_tools(value, "tools", notes), notes


@pytest.mark.parametrize(
    "tools",
    [
        [{**BARE, "parameters": SCHEMA}],
        [{"type": "function", "function": {**BARE, "parameters": SCHEMA}}],
        [{"type": "function", **BARE, "parameters": SCHEMA, "strict": True}],
        [{**BARE, "input_schema": SCHEMA}],
        [{**BARE, "inputSchema": SCHEMA, "annotations": {"readOnlyHint": True}}],
        [{**BARE, "parameters": None, "arguments": SCHEMA}],
        [{**BARE, "parameters": json.dumps(SCHEMA)}],
        [{"functionDeclarations": [{**BARE, "parametersJsonSchema": SCHEMA}]}],
        {**BARE, "parameters": SCHEMA},
        [json.dumps({"type": "function", "function": {**BARE, "parameters": SCHEMA}})],
        [{"type": "function", "function": json.dumps({**BARE, "parameters": SCHEMA})}],
        json.dumps([{**BARE, "parameters": SCHEMA}]),
        [{**BARE, "parameters": {"town": TOWN}}],
        [{**BARE, "parameters": {"town": {"type": "str", "description": "The town."}}}],
        [{**BARE, "parameters": [{"name": "town", **TOWN}]}],
        [{**BARE, "required_parameters": [{"name": "town", **TOWN}], "optional_parameters": []}],
        [{**BARE, "parameters": {"type": "object", "properties": {"town": TOWN}, "required": ["town"], "$defs": {}}}],
        [{**BARE, "parameters": {"type": "object", "properties": {"town": {**TOWN, "required": True}}}}],
        [
            {
                **BARE,
                "parameters": {
                    **SCHEMA,
                    "properties": {"town": {**TOWN, "enum": None, "items": None}, "other": None},
                },
            }
        ],
        [{**BARE, "parameters": {"$ref": "#/$defs/Query", "$defs": {"Query": SCHEMA}}}],
        [{**BARE, "parameters": {"type": "object", "allOf": [SCHEMA]}}],
    ],
)
def test_one_tool_in_many_spellings(tools):
    (found,), _ = read(tools)
    properties = {name: {key: schema[key] for key in TOWN} for name, schema in found.properties.items()}
    assert (found.name, found.description, properties, found.required) == (
        WEATHER.name,
        WEATHER.description,
        SCHEMA["properties"],
        ("town",),
    )


@pytest.mark.parametrize(
    "parameters", [{}, None, [], "", {"type": "object"}, {"type": "object", "properties": {}, "required": []}]
)
def test_a_tool_without_parameters(parameters):
    (found,), notes = read([{"name": "now", "parameters": parameters}])
    assert not found.properties and not found.required and not notes


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"town": "string"}, "tools[0].parameters: expected a JSON schema with `properties`"),
        ({"type": "object", "town": TOWN, "limit": 3}, "tools[0].parameters: expected a JSON schema with `properties`"),
        ({"type": "object", "required": ["town"]}, "tools[0].parameters: expected a JSON schema with `properties`"),
        ({"anyOf": [SCHEMA, {"type": "object"}]}, "tools[0].parameters: expected a JSON schema with `properties`"),
        ("town", "tools[0].parameters: expected valid JSON"),
        ([{"type": "string"}], "tools[0].parameters[0].name: expected a string, found no such field"),
        ({"properties": {"a": {"$ref": "#/$defs/B"}}}, "tools[0].parameters.$ref: expected a reference to a schema"),
        ({"properties": {"a": {"$ref": "http://x/y"}}}, "tools[0].parameters.$ref: expected a reference to a schema"),
        ({"properties": {"town": "string"}}, "tools[0].parameters.properties.town: expected an object"),
        ({"properties": {"town": TOWN}, "required": "town"}, "tools[0].parameters.required: expected a list"),
    ],
)
def test_parameters_that_cannot_be_read_are_never_none(parameters, said):
    with pytest.raises(FieldError) as caught:
        read([{"name": "f", "parameters": parameters}])
    assert str(caught.value).startswith(said)


def test_xlams_words_for_types_and_its_optional_parameters():
    flat = {
        "ids": {"type": "List[int]", "description": "Which."},
        "size": {"type": "int, optional", "description": "How many."},
        "unit": {"type": "str", "default": "c"},
        "type": {"type": "Optional[str]"},
    }
    (found,), _ = read([{"name": "f", "parameters": flat}])
    assert {name: schema["type"] for name, schema in found.properties.items()} == {
        "ids": "array",
        "size": "integer",
        "unit": "string",
        "type": "string",
    }
    assert found.required == ("ids",) and found.properties["unit"]["default"] == "c"


def test_toolbench_writes_required_and_optional_parameters_apart():
    tool = {
        "name": "f",
        "required_parameters": [{"name": "town", "type": "STRING", "description": "Where."}],
        "optional_parameters": [{"name": "days", "type": "NUMBER", "default": 3}],
    }
    (found,), _ = read([tool])
    assert found.required == ("town",) and list(found.properties) == ["town", "days"]
    assert found.properties["days"] == {"type": "number", "default": 3}


def test_references_are_replaced_by_what_they_name():
    place = {
        "type": "object",
        "description": "A place.",
        "properties": {"town": TOWN, "near": {"$ref": "#/$defs/Place"}},
    }
    schema = {
        "properties": {
            "from": {"$ref": "#/$defs/Place", "description": "Where from."},
            "by": {"anyOf": [{"$ref": "#/$defs/Means"}, {"type": "null"}], "default": None},
        },
        "$defs": {"Place": place, "Means": {"enum": ["train", None], "type": "string"}},
    }
    (found,), _ = read([{"name": "go", "parameters": schema}])
    assert found.properties == {
        "from": {"type": "object", "description": "Where from.", "properties": {"town": TOWN, "near": {}}},
        "by": {"anyOf": [{"enum": ["train", None], "type": "string"}, {"type": "null"}]},
    }


def test_references_that_multiply_are_refused():
    doubling = {f"L{i}": {"anyOf": [{"$ref": f"#/$defs/L{i + 1}"}] * 2} for i in range(40)}
    schema = {"properties": {"a": {"$ref": "#/$defs/L0"}}, "$defs": doubling | {"L40": {"type": "string"}}}
    with pytest.raises(FieldError, match="expected a schema of at most 20,000 values, found more"):
        read([{"name": "f", "parameters": schema}])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "properties", "required", "$ref", "$defs", "anyOf", "allOf", "enum", "name", "a"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_value_is_tools_or_a_field_error(value):
    try:
        found, _ = read([{"name": "f", "parameters": value}])
    except FieldError:
        return
    assert all(isinstance(schema, dict) for tool in found for schema in tool.properties.values())
