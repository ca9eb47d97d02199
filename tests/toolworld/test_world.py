"""The worlds in which toolworld's tools run, and how a function becomes a documented tool."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tltrain.errors import TltrainError
from tltrain.toolworld import World
from tltrain.toolworld.domains import FUNCTIONS
from tltrain.toolworld.domains.storage import files
from tltrain.toolworld.domains.user import user
from tltrain.toolworld.registry import Domain, document, fill
from tltrain.trajectory import Call


def test_a_world_answers_with_what_python_says():
    world = World("w", ["get_order_status"])
    assert "name 'get_ordr' is not defined" in world.call(Call("get_ordr", {}))
    assert "name 'add_numbers' is not defined" in world.call(Call("add_numbers", {"a": 1, "b": 2}))  # not offered
    assert "get_order_status() missing 1 required positional argument: 'order_id'" in world.call(
        Call("get_order_status", {})
    )
    assert "get_order_status() got an unexpected keyword argument 'id'" in world.call(
        Call("get_order_status", {"order_id": "O-1", "id": 1})
    )
    assert world.call(Call("get_order_status", {"order_id": "O-1"})) == '{"error": "no order with id O-1"}'


def test_tools_compute_what_they_say():
    world = World("w")
    assert world.call(Call("add_numbers", {"a": 2, "b": 3.5})) == "5.5"
    assert world.call(Call("computeMean", {"values": [1, 2, 4], "decimals": 3})) == '{"mean": 2.333}'
    assert world.call(Call("convertLength", {"value": 2, "fromUnit": "km", "toUnit": "m"})) == (
        '{"value": 2000, "unit": "m"}'
    )
    assert world.call(Call("get_weekday_of_date", {"date": "2024-12-20"})) == "Friday"
    assert world.call(Call("decode_base64", {"data": "aGVsbG8="})) == "hello"
    assert world.call(Call("splitAmount", {"amount": 10, "people": ["A", "B", "C", "D"]})).startswith('{"share": 2.5')


def test_the_user_replies_and_keeps_the_answer():
    world = World("w", ["ask_to_user", "finish"], reply="O-12")
    assert world.call(Call("ask_to_user", {"question": "Which order?"})) == "O-12"
    assert world.call(Call("finish", {"answer": "Done."})) == ""
    assert world.state(user).answer == "Done."


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", "reports/../../x", "..", "..\\x", "", "./.", "~/x", "\0", "a/./../b"]
)
def test_paths_never_leave_the_virtual_folder(path):
    world = World("w")
    before = world.snapshot(files)
    for call in (
        Call("read_file", {"path": path}),
        Call("list_folder", {"folder": path}),
        Call("get_file_size", {"path": path}),
        Call("delete_file", {"path": path}),
        Call("copy_file", {"source": path, "target": "logs/x.txt"}),
    ):
        assert world.run(call).failed, call
    assert world.snapshot(files) == before


def test_worlds_of_one_seed_are_equal_and_do_not_share_state():
    one, two = World("same"), World("same")
    path = next(iter(one.state(files)))
    assert one.call(Call("read_file", {"path": path})) == two.call(Call("read_file", {"path": path}))
    one.call(Call("delete_file", {"path": path}))
    assert two.run(Call("read_file", {"path": path})).failed is False
    assert one.snapshot(files) != two.snapshot(files)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_call_whatever_raises(data):
    world = World("w")
    tool = FUNCTIONS[data.draw(st.sampled_from(sorted(FUNCTIONS)))].tool
    names = st.sampled_from([*tool.properties, "x"]) | st.text(max_size=5)
    own = st.fixed_dictionaries({name: values for name in tool.properties})
    arguments = data.draw(own | st.dictionaries(names, values, max_size=4))
    assert isinstance(world.call(Call(tool.name, arguments)), str)
    assert isinstance(world.call(Call(data.draw(st.text(max_size=10)), arguments)), str)


def test_a_world_cannot_offer_a_tool_that_is_not_toolworlds():
    with pytest.raises(TltrainError, match="no tool named 'search_web'"):
        World("w", ["finish", "search_web"])


# -- how a tool documents itself ------------------------------------------------------------------------------------


def test_a_function_documents_its_tool():
    def book_seats(train: dict, /, names: list[str], price: float, quiet: bool = False, note: str | None = None) -> str:
        """Book seats.

        names: who travels
        price: price of one
        quiet: true for a quiet car
        note: remark
        """
        return ""

    tool, stateful = document(book_seats)
    assert stateful and (tool.name, tool.description) == ("book_seats", "Book seats.")
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "names": {"type": "array", "items": {"type": "string"}, "description": "who travels"},
            "price": {"type": "number", "description": "price of one"},
            "quiet": {"type": "boolean", "description": "true for a quiet car"},
            "note": {"type": "string", "description": "remark"},
        },
        "required": ["names", "price"],
    }


def test_a_tool_whose_docstring_lags_behind_is_refused():
    def pay(amount: float) -> None:
        """Pay.

        sum: how much
        """

    with pytest.raises(ValueError, match="pay"):
        Domain("till", failure=str).tool(pay)


def test_templates_choose_wordings_and_write_values():
    class Last:
        def choice(self, options):
            return options[-1]

    filled = fill("[Add|Sum] {values}[.|, {n} times]", {"values": [1, 2], "n": "[a|b]"}, Last())
    assert filled == "Sum 1, 2, [a|b] times"
