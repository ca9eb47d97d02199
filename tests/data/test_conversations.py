"""From a record's messages to a conversation: which messages are learned, and which answer belongs to which call."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.chat_records import USER, answer, asking, conversation, learned
from tests.support.reader_samples import SEARCH, call
from tltrain.data import auto, openai, sharegpt
from tltrain.errors import FieldError
from tltrain.trajectory import Call, Message, actions

# --- what the source marks as history -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("weight", 0, False),
        ("weight", 0.0, False),
        ("weight", 1, True),
        ("loss", False, False),
        ("loss", True, True),
        ("train", False, False),
        ("trainable", False, False),
        ("learn", "false", False),
        ("loss_weight", 0.5, True),
        ("train", None, True),  # Arrow's null
    ],
)
def test_a_message_marked_as_history_is_not_learned(field, value, expected):
    read, notes = conversation(
        USER,
        asking(("a", "love"), **{field: value}),
        answer("Listen."),
        {"role": "assistant", "content": "Listen."},
    )
    assert learned(read) == [expected, True] and not notes


def test_a_mark_that_is_neither_yes_nor_no_is_an_error():
    with pytest.raises(FieldError, match=r'messages\[1\].train: expected true or false, or a weight, found "maybe"'):
        conversation(USER, {"role": "assistant", "content": "Hm.", "train": "maybe"})


@pytest.mark.parametrize("field", [{"weight": 0}, {"train": False}, {"loss": "false"}, {"trainable": False}])
def test_a_mark_of_the_record_holds_for_all_its_messages(field):
    read, _ = conversation(USER, asking(("a", "love")), answer("x"), {"role": "assistant", "content": "x"}, **field)
    assert learned(read) == [False, False]
    messages = [
        {"from": "human", "value": "Hm?"},
        {"from": "gpt", "value": "Hm."},
    ]
    (other,) = sharegpt.parse({"conversations": messages, **field}, 1, Counter())
    assert learned(other) == [False]


@pytest.mark.parametrize("field", [{"weight": "70 kg"}, {"loss": 0.4}, {"train": "Rome to Oslo"}, {"weight": None}])
def test_a_field_of_the_record_that_is_no_mark_is_information(field):
    read, _ = conversation(USER, {"role": "assistant", "content": "x"}, **field)
    assert learned(read) == [True] and read.meta == field


@pytest.mark.parametrize("field", [{"training": False}, {"loss_mask": 0}])
def test_further_names_of_a_message_mark_are_read(field):
    assert learned(conversation(USER, {"role": "assistant", "content": "x", **field})[0]) == [False]


def test_a_list_of_marks_says_which_messages_are_learned():
    said = [USER, asking(("a", "love")), answer("x"), {"role": "assistant", "content": "x"}]
    assert learned(conversation(*said, message_loss_mask=[0, 0, 0, 1])[0]) == [False, True]
    with pytest.raises(FieldError, match="message_loss_mask: expected 4 marks, one for each message, found 2"):
        conversation(*said, message_loss_mask=[0, 1])


# --- pairing answers with calls -------------------------------------------------------------------------------------


def of(read):
    """Map each call's query to its answer."""
    return {
        action.call.arguments["query"]: None if action.answer is None else read.messages[action.answer].text
        for action in actions(read.messages)
        if action.call
    }


def test_answers_without_ids_are_paired_by_the_name_of_their_tool():
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"function": {"name": "search", "arguments": {"query": "love"}}},
            {"function": {"name": "finish", "arguments": {"answer": "x"}}},
        ],
    }
    read, notes = conversation(USER, message, answer("Done.", name="finish"), answer("Listen.", name="search"))
    assert [message.text for message in read.messages[2:]] == ["Listen.", "Done."] and not notes


def test_an_id_counts_more_than_a_name():
    message = asking(("a", "love"), ("b", "work"))
    read, _ = conversation(
        USER, message, answer("Rest.", tool_call_id="b", name="search"), answer("Listen.", tool_call_id="a", name="x")
    )
    assert of(read) == {"love": "Listen.", "work": "Rest."}


@pytest.mark.parametrize(("ids", "answered"), [(("1", "2"), (2, 1)), ((1, 2), ("2", "1")), ((1, 2), (2, 1))])
def test_an_id_that_is_a_number_on_one_side_finds_its_call(ids, answered):
    said = [answer("of two", tool_call_id=answered[0]), answer("of one", tool_call_id=answered[1])]
    read, notes = conversation(USER, asking((ids[0], "one"), (ids[1], "two")), *said)
    assert of(read) == {"one": "of one", "two": "of two"} and not notes


def test_one_answer_without_a_name_for_two_calls_is_refused():
    with pytest.raises(FieldError, match=r"messages\[2\]: expected an id or a tool's name that says which of 2 calls"):
        conversation(USER, asking(("a", "love"), ("b", "work")), answer("Listen."))


def test_one_answer_named_after_a_tool_called_twice_is_refused():
    with pytest.raises(FieldError, match=r"messages\[2\]: expected an id or a tool's name"):
        conversation(USER, asking(("a", "love"), ("b", "work")), answer("Listen.", name="search"))


def test_one_answer_with_its_id_leaves_the_other_call_without():
    read, notes = conversation(USER, asking(("a", "love"), ("b", "work")), answer("Rest.", tool_call_id="b"))
    assert of(read) == {"love": None, "work": "Rest."}
    assert learned(read) == [False, True]
    assert notes == {"messages: calls without an answer beside calls with one": 1}


def test_answers_to_calls_of_one_id_are_matched_by_order_and_counted():
    read, notes = conversation(
        USER,
        asking(("a", "love"), ("a", "work")),
        answer("Listen.", tool_call_id="a"),
        answer("Rest.", tool_call_id="a"),
    )
    assert of(read) == {"love": "Listen.", "work": "Rest."}
    assert notes == {"messages: an answer whose id several calls have, matched by name and order": 1}


def test_a_name_that_belongs_to_no_call_is_counted():
    _, notes = conversation(USER, asking(("", "love")), answer("Listen.", name="finish"))
    assert notes == {"messages: answers named after another tool than the one called, matched by order": 1}


@given(st.permutations(range(4)), st.sampled_from(["id", "name"]))
def test_in_any_order_each_answer_finds_its_call(order, by):
    names = ["one", "two", "three", "four"]
    tools = [{"name": name, "parameters": {}} for name in names]
    made = [call(f"c{i}" if by == "id" else "", name, "{}") for i, name in enumerate(names)]
    said = [answer(names[i], **({"tool_call_id": f"c{i}"} if by == "id" else {"name": names[i]})) for i in order]
    read, notes = conversation(USER, {"role": "assistant", "content": None, "tool_calls": made}, *said, tools=tools)
    assert [message.text for message in read.messages[2:]] == names and not notes


def test_a_failed_call_is_the_one_that_is_left_out_whatever_the_order():
    read, _ = conversation(
        USER,
        asking(("a", "love"), ("b", "work")),
        answer("Error: none", tool_call_id="b", is_error=True),
        answer("Listen.", tool_call_id="a", is_error=False),
    )
    assert [(m.text, m.is_error) for m in read.messages if m.role == "tool"] == [
        ("Listen.", False),
        ("Error: none", True),
    ]


def test_answers_behind_several_messages_with_calls_find_theirs_by_id():
    read, _ = conversation(
        USER,
        asking(("a", "love")),
        asking(("b", "work")),
        answer("Listen.", tool_call_id="a"),
        answer("Rest.", tool_call_id="b"),
    )
    assert of(read) == {"love": "Listen.", "work": "Rest."} and learned(read) == [True, True]


def test_parallel_calls_without_answers_are_all_learned():
    read, notes = conversation(USER, asking(("a", "love"), ("b", "work"), ("c", "rest")))
    assert learned(read) == [True] * 3 and not notes
    assert read.messages[1].calls[2].call == Call("search", {"query": "rest"})


# --- system messages, empty messages, tools -------------------------------------------------------------------------


def test_a_later_system_message_keeps_its_place_behind_the_answers_of_a_call():
    reminder = {"role": "system", "content": "In French now."}
    first = {"role": "developer", "content": "Be brief."}
    read, notes = conversation(first, USER, asking(("a", "love")), reminder, answer("Listen."), asking(("b", "work")))
    assert read.instructions == "Be brief."
    assert [message.text for message in read.messages] == ["Advice?", "", "Listen.", "In French now.", ""]
    assert notes == {"messages: a later system message kept in its place, as a message of the user": 1}
    assert learned(read) == [True, True]


@pytest.mark.parametrize("empty", ["", " \n", "<think>\nHm.\n</think>\n"])
def test_an_empty_message_of_the_assistant_is_left_out_and_counted(empty):
    read, notes = conversation(
        USER, asking(("a", "love")), {"role": "assistant", "content": empty, "tool_calls": []}, answer("Listen.")
    )
    assert of(read) == {"love": "Listen."} and learned(read) == [True]
    assert notes == {"messages: of the assistant without words and calls, left out": 1}


def test_the_same_tool_twice_is_offered_once_and_two_of_one_name_are_counted():
    other = {**SEARCH, "description": "Finds people."}
    read, notes = conversation(USER, asking(("a", "love")), tools=[SEARCH, SEARCH, other])
    assert [tool.description for tool in read.tools] == ["Finds advice.", "Finds people."]
    assert notes == {
        "tools: the same tool twice, offered once": 1,
        "tools: two of one name with different descriptions or parameters": 1,
    }


@pytest.mark.parametrize("spelled", [{}, {"tools": None}, {"tools": ""}])
def test_a_plain_chat_without_tools_is_read_and_counted(spelled):
    record = {"messages": [USER, {"role": "assistant", "content": "Rest."}], **spelled}
    notes = Counter()
    (read,) = openai.parse(record, 1, notes)
    assert read.tools == () and learned(read) == [True] and notes == {"records without tools and calls": 1}


# --- calls against the tools on offer -------------------------------------------------------------------------------


def test_calls_that_contradict_the_tools_are_counted_one_note_a_kind():
    made = [
        call("a", "serch", {"query": "love"}),
        call("b", "search", {"query": "love", "deep": True}),
        call("c", "search", {"limit": 2}),
        call("d", "functions.search", {"query": "love"}),
    ]
    read, notes = conversation(USER, {"role": "assistant", "content": None, "tool_calls": made})
    assert [each.call.name for each in read.messages[1].calls] == ["serch", "search", "search", "search"]
    assert notes == {
        "calls: of tools that are not on offer": 1,
        "calls: with arguments that the tool does not have": 1,
        "calls: without an argument that is required": 1,
        "calls: the prefix `functions.` left out": 1,
    }


def test_a_prefix_that_is_part_of_an_offered_name_stays():
    tools = [{"name": "functions.search", "parameters": {}}, {"name": "search", "parameters": {}}]
    message = {"role": "assistant", "content": None, "tool_calls": [call("a", "functions.search", "{}")]}
    read, notes = conversation(USER, message, tools=tools)
    assert read.messages[1].calls[0].call.name == "functions.search" and not notes


def test_nulls_that_arrow_filled_in_are_left_out_and_those_with_a_meaning_stay():
    tool = {
        "name": "book",
        "parameters": {
            "properties": {
                "town": {"type": "string"},
                "note": {"type": "string", "enum": None},
                "until": {"type": ["string", "null"]},
                "seat": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                "guest": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}},
                "elsewhere": None,
            },
            "required": ["town"],
        },
    }
    given = {"town": None, "note": None, "until": None, "seat": None, "guest": {"name": "Li", "age": None}, "q": None}
    message = {"role": "assistant", "content": None, "tool_calls": [call("a", "book", given)]}
    read, notes = conversation(USER, message, tools=[tool])
    assert read.messages[1].calls[0].call.arguments == {
        "town": None,
        "until": None,
        "seat": None,
        "guest": {"name": "Li"},
    }
    assert list(read.tools[0].properties) == ["town", "note", "until", "seat", "guest"]
    assert notes == {
        "calls: null arguments left out, neither required nor of a type that includes null": 1,
        "calls: null for a required argument whose type excludes null": 1,
        "tools: null keywords of schemas left out": 2,
    }


@pytest.mark.parametrize(
    ("written", "note"),
    [
        ('{"query": "love"}', None),
        (json.dumps('{"query": "love"}'), "calls: arguments that are the text of a JSON text"),
        ("{'query': 'love'}", "calls: arguments written as a Python dict"),
    ],
)
def test_arguments_are_read_as_they_are_written(written, note):
    message = {"role": "assistant", "content": None, "tool_calls": [call("a", "search", written)]}
    read, notes = conversation(USER, message)
    assert read.messages[1].calls[0].call == Call("search", {"query": "love"})
    assert notes == ({note: 1} if note else {})


@pytest.mark.parametrize("written", ['{"query": "lo', "{'query': open('x')}", "{'a': 1}) f(b=1", "love"])
def test_arguments_that_are_no_object_are_refused(written):
    message = {"role": "assistant", "content": None, "tool_calls": [call("a", "search", written)]}
    with pytest.raises(FieldError, match=r"messages\[1\].tool_calls\[0\].function.arguments: expected"):
        conversation(USER, message)


# --- calls and thoughts in text -------------------------------------------------------------------------------------


def test_calls_and_answers_in_the_text_are_read():
    text = (
        '<think>I look.</think>\nWait.\n<tool_call>\n{"name": "search", "arguments": {"query": "love"}}\n</tool_call>'
    )
    read, notes = conversation(
        USER,
        {"role": "assistant", "content": text},
        {"role": "user", "content": "<tool_response>\nListen.\n</tool_response>"},
        {"role": "assistant", "content": "<think>So.</think>Listen."},
    )
    assert read.messages == (
        Message("user", "Advice?"),
        Message.calling(Call("search", {"query": "love"}), text="Wait.", thought="I look."),
        Message("tool", "Listen."),
        Message("assistant", "Listen.", thought="So."),
    )
    assert notes == {
        "messages: calls read from the text": 1,
        "messages: tools' answers read from the text of a user's message": 1,
    }


def test_qwen_coder_calls_and_several_answers_in_one_message_are_read():
    text = (
        "<tool_call>\n<function=search>\n<parameter=query>\nlove\n</parameter>\n<parameter=limit>\n2\n</parameter>\n"
        "</function>\n</tool_call>\n<tool_call>\n{'name': 'finish', 'arguments': {'answer': 'x'}}\n</tool_call>"
    )
    said = (
        '<tool_response>\n{"name": "finish", "content": {"ok": true}}\n</tool_response>\n'
        '<tool_response>\n{"name": "search", "content": "Listen."}\n</tool_response>'
    )
    read, _ = conversation(USER, {"role": "assistant", "content": text}, {"role": "tool", "content": said})
    assert [each.call for each in read.messages[1].calls] == [
        Call("search", {"query": "love", "limit": 2}),
        Call("finish", {"answer": "x"}),
    ]
    assert [message.text for message in read.messages[2:]] == ["Listen.", '{"ok": true}']


def test_a_call_in_the_text_and_in_its_field_is_one_call():
    text = '<tool_call>{"name": "search", "arguments": {"query": "love"}}</tool_call>'
    read, notes = conversation(USER, asking(("a", "love")) | {"content": text})
    assert read.messages[1] == Message.calling(Call("search", {"query": "love"}))
    assert notes == {"messages: calls in the text beside calls in their own field, left out": 1}


def test_text_that_only_looks_like_a_call_stays_text_and_is_counted():
    read, notes = conversation(USER, {"role": "assistant", "content": "Write <tool_call>JSON</tool_call> then."})
    assert read.messages[1].text == "Write <tool_call>JSON</tool_call> then." and not read.messages[1].calls
    assert notes == {"messages: text that looks like a call but cannot be read as one, kept as text": 1}


def test_reasoning_in_its_field_and_in_the_text_are_read_alike():
    in_text, _ = conversation(USER, {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nRest."})
    in_field, _ = conversation(USER, {"role": "assistant", "content": "Rest.", "reasoning_content": "Hm."})
    assert in_text == in_field


def test_a_thought_without_its_beginning_is_no_answer():
    """Templates write the beginning into the prompt, so recorded answers lack it."""
    read, notes = conversation(USER, {"role": "assistant", "content": "Hm.\n</think>\n\nRest."})
    assert (read.messages[1].thought, read.messages[1].text) == ("Hm.", "Rest.")
    assert notes == {"messages: a thought without a beginning, read from the beginning of the text": 1}


def test_a_thought_that_was_cut_is_not_learned_as_an_answer():
    read, notes = conversation(USER, {"role": "assistant", "content": "<think>\nHm. I should"})
    assert [message.role for message in read.messages] == ["user"]
    assert notes["messages: a thought without an end, read up to the call or the end of the text"] == 1
    assert notes["messages: of the assistant without words and calls, left out"] == 1


def test_a_call_behind_a_thought_without_an_end_is_read():
    written = '<think>Hm. <tool_call>{"name": "search", "arguments": {"query": "love"}}</tool_call>'
    read, _ = conversation(USER, {"role": "assistant", "content": written})
    assert read.messages[1].thought == "Hm." and read.messages[1].text == ""
    assert [each.call for each in read.messages[1].calls] == [Call("search", {"query": "love"})]


@pytest.mark.parametrize(("field", "count"), [("Other.", 1), ("Hm.", 0)])
def test_a_thought_in_the_text_beside_another_in_its_field_is_counted(field, count):
    message = {"role": "assistant", "content": "<think>Hm.</think>Rest.", "reasoning_content": field}
    read, notes = conversation(USER, message)
    assert (read.messages[1].thought, read.messages[1].text) == (field, "Rest.")
    assert notes.get("messages: a thought in the text beside one in its own field, left out", 0) == count


def test_a_second_thought_in_the_words_is_counted():
    read, notes = conversation(USER, {"role": "assistant", "content": "<think>a</think>One.<think>b</think>Two."})
    assert (read.messages[1].thought, read.messages[1].text) == ("a", "One.<think>b</think>Two.")
    assert notes == {"messages: a thought behind the first words, kept as text": 1}


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "search", "parameters": {"query": "love"}}',
        '```json\n[{"name": "search", "arguments": {"query": "love"}}]\n```',
    ],
)
def test_a_call_as_bare_json_is_counted(text):
    _, notes = conversation(USER, {"role": "assistant", "content": text})
    assert notes == {"messages: text that looks like a call but cannot be read as one, kept as text": 1}


def test_json_that_is_no_call_is_an_answer():
    _, notes = conversation(USER, {"role": "assistant", "content": '{"name": "Lucy", "age": 4}'})
    assert not notes


def test_null_for_a_required_argument_is_counted():
    _, notes = conversation(USER, asking(("a", None)), answer("x"))
    assert notes == {"calls: null for a required argument whose type excludes null": 1}


@pytest.mark.parametrize("name", ["conversations", "conversation"])
def test_messages_with_roles_may_have_the_name_of_sharegpt(name):
    record = {name: [USER, {"role": "assistant", "content": "Listen."}], "tools": [SEARCH]}
    assert auto.recognised(record) == ("openai", f"`{name}` have a `role`")
    (read,) = openai.parse(record, 1, Counter())
    assert [message.text for message in read.messages] == ["Advice?", "Listen."] and not read.meta
    record[name][1]["content"] = None
    with pytest.raises(FieldError, match=rf"{name}\[1\].content: expected a string, found null"):
        list(openai.parse(record, 1, Counter()))


@pytest.mark.parametrize(("content", "text"), [(12, "12"), (1.5, "1.5"), (False, "false")])
def test_a_tools_answer_may_be_a_number(content, text):
    read, _ = conversation(USER, asking(("a", "love")), answer(content))
    assert read.messages[2].text == text


def test_a_tools_answer_may_be_an_object():
    read, notes = conversation(USER, asking(("a", "love")), answer({"found": ["Löve"]}))
    assert read.messages[2].text == '{"found": ["Löve"]}'
    assert notes == {"messages: a tool's answer that is an object, written as JSON": 1}
