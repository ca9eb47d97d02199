"""Stubs that show the whole schema (`format=tl_full`), in training and in the saved chat template."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from tests.support.composition import mistake
from tltrain.formats import full_stubs, joined
from tltrain.formats.stubs import not_rendered, render_tools
from tltrain.formats.tl import TL, TL_FULL, chat_template
from tltrain.trajectory import Call, Message, Tool, Trajectory

UNIT = {"type": "string", "description": "The unit.", "enum": ["c", "f"], "default": "c"}
PLACE = {
    "type": "object",
    "description": "Where.",
    "properties": {
        "town": {"type": "string", "description": "The town."},
        "code": {"type": "string", "pattern": "^[A-Z]{2}$"},
    },
    "required": ["town"],
}
DAYS = {"type": "array", "description": "Which.", "items": {"type": "string", "enum": ["mon", "tue"]}, "maxItems": 2}
BY = {"anyOf": [{"type": "string", "enum": ["train", None]}, {"type": "null"}]}
TOOL = Tool(
    "weather",
    "Says the weather.",
    {"type": "object", "properties": {"unit": UNIT, "place": PLACE, "days": DAYS, "by": BY}, "required": ["place"]},
)
ASKED = Trajectory("x", (TOOL,), (Message("user", "Hi"), Message.calling(Call("weather", {"place": {"town": "Bari"}}))))


def test_what_the_papers_form_leaves_out_stands_behind_the_descriptions():
    text = render_tools([TOOL], full_stubs.described)
    assert text.split("Args:\n")[1] == (
        "    place (object): Where. Fields: {town (string): The town.; "
        'code (string = None): pattern: "^[A-Z]{2}$".}\n'
        '    unit (string): The unit. One of: "c", "f". Default: "c".\n'
        '    days (array): Which. Items (string): One of: "mon", "tue". maxItems: 2.\n'
        '    by (string | null): As string: One of: "train", null.\n'
        '    """'
    )
    assert text.split("Args:")[0] == render_tools([TOOL]).split("Args:")[0]


def test_the_papers_form_names_what_it_leaves_out_also_within_choices():
    assert not_rendered(TOOL) == {"enum", "default", "properties", "required", "items", "maxItems"}
    assert not_rendered(Tool("f", "", {"properties": {"by": BY}})) == {"enum"}


def rendered(trajectory, full):
    tools = [
        {
            "type": "function",
            "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)},
        }
        for t in trajectory.tools
    ]
    messages = [{"role": "user", "content": trajectory.query}]
    (text,), _ = render_jinja_template(
        [messages], tools=tools, chat_template=chat_template(full=full), eos_token="</s>", add_generation_prompt=True
    )
    return text


@pytest.mark.parametrize(("full", "format"), [(False, TL), (True, TL_FULL)])
def test_the_saved_template_writes_what_training_writes(full, format):
    asked = Trajectory("x", (TOOL,), (Message("user", "Hi"),))
    assert rendered(asked, full) == joined(format.prompt_segments(asked))


VALUES = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ä\"'x ", max_size=3) | st.lists(st.integers(), max_size=2)
)
TYPES = st.sampled_from(["string", "integer", ["string", "null"]])


def schemas(inner):
    optional = {
        "description": st.text("ab (:)\n", max_size=5),
        "enum": st.lists(VALUES, max_size=3),
        "const": VALUES,
        "default": VALUES,
        "items": inner,
        "properties": st.dictionaries(st.sampled_from(["a", "items", "type"]), inner, max_size=2),
        "required": st.lists(st.sampled_from(["a", "items"]), max_size=1),
        "anyOf": st.lists(inner, max_size=2),
        "minimum": st.integers(0, 3),
    }
    return st.fixed_dictionaries({}, optional={"type": TYPES, **optional})


SCHEMAS = st.recursive(st.fixed_dictionaries({}, optional={"type": TYPES}), schemas, max_leaves=5)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(["p", "q", "items"]), SCHEMAS, max_size=2), st.booleans())
def test_any_schema_is_written_alike_in_training_and_in_the_template(properties, full):
    tool = Tool("f", "Does.", {"type": "object", "properties": properties})
    asked = Trajectory("x", (tool,), (Message("user", "Hi"),))
    assert rendered(asked, full) == joined((TL_FULL if full else TL).prompt_segments(asked))


def test_a_later_system_message_stands_in_its_place_in_the_template():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": "In French."},
    ]
    (text,), _ = render_jinja_template([messages], chat_template=chat_template(), eos_token="</s>")
    assert text == "System: Be brief.\nUser: Hi\nUser: In French.</s>"


def test_a_misspelt_name_is_one_line():
    assert "tl_full" in mistake("format=tlfull")


def test_a_model_trained_with_full_stubs_is_asked_with_them(run_once, tltrain):
    small = ("model=tiny", "hardware.bf16=false", "data.size=6", "+stage.args.max_steps=1")
    trained = run_once("stage=sft", "format=tl_full", *small)
    model = f"model.path={trained.folder / 'model'}"
    ask = ("stage=eval", "benchmark=toolworld", "benchmark.size=2", "stage.max_new_tokens=4", "hardware.bf16=false")
    other = tltrain(*ask, "model=tiny", model, status=1)
    assert "was trained with format=tl_full; format=auto takes the one it knows" in other.err
    tltrain(*ask, "model=tiny", model, "format=auto")
