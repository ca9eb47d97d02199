"""stage=chat: a model with tools in the terminal, here with lines piped in and a server that answers as told."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import time

import pytest

from tests.support.fake_endpoint import completion, message, serving
from tests.support.paths import ROOT
from tests.support.small_runs import SMALL, last_line

pytestmark = pytest.mark.slow

TOOL = {
    "type": "function",
    "function": {
        "name": "get_order",
        "description": "Get an order.",
        "parameters": {
            "type": "object",
            "properties": {"order_id": {"type": "string", "description": "Its number."}},
            "required": ["order_id"],
        },
    },
}


def call(name: str, number: int = 0, **arguments):
    return {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def chat(tltrain, server, write, monkeypatch):
    """`chat(lines, *replies, tools=…)`: pipe lines into a chat with a server that gives these replies in turn."""

    def run(lines: str, *replies, words=(), tools=None, status: int = 0):
        given = iter(replies)
        server.reply = lambda body, attempt: next(given)
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        offered = str(tools or write([TOOL]))
        endpoint = ("source=endpoint", f"source.url={server.url}", "source.model=m", "source.retries=0")
        return tltrain("stage=chat", f"stage.tools={offered}", *endpoint, *words, status=status)

    return run


CHAT = ("source.mode=chat",)


def test_calls_are_shown_and_graded_and_you_answer_for_tools_that_nothing_runs(chat, server):
    ran = chat(
        'Where is FH-1?\n{"status": "shipped"}\nThanks\n',
        message(content=None, reasoning_content="Look it up.", tool_calls=[call("get_order", order_id="FH-1")]),
        message(content="It is on its way."),
        message(content="You are welcome."),
        words=CHAT,
    )
    for line in (
        "you> Where is FH-1?",
        "Look it up.",
        'get_order(order_id="FH-1")  as documented',
        'answer of get_order> {"status": "shipped"}',
        '-> {"status": "shipped"}',
        "It is on its way.",
        "you> Thanks",
        "You are welcome.",
    ):
        assert line in ran.out, ran.out
    order = [ran.out.index(text) for text in ("Look it up.", "as documented", "on its way", "Thanks", "welcome")]
    assert order == sorted(order)
    assert {key: ran.metrics[key] for key in ("messages", "calls", "de", "ce")} == {
        "messages": 2, "calls": 1, "de": 0, "ce": 0,
    }  # fmt: skip
    sent = server.asked[-1].body["messages"]
    assert [entry["role"] for entry in sent] == ["user", "assistant", "tool", "assistant", "user"]
    assert "Look it up" not in json.dumps(sent)  # thoughts are not sent back


def test_failed_calls_stay_in_the_history_which_is_read_back_as_data(chat, tltrain):
    """The model is told about calls that fail, are undocumented or cannot be read; they are kept for MAE."""
    broken = {"id": "c", "type": "function", "function": {"name": "get_order", "arguments": '{"order_id": '}}
    ran = chat(
        "Where is FH-1?\nError: timeout\n{}\n",
        message(content=None, tool_calls=[call("find_order", id="FH-1")]),
        message(content=None, tool_calls=[broken]),
        message(content=None, tool_calls=[call("get_order", 0, order="1"), call("get_order", 1, order_id="FH-1")]),
        message(content="Found it."),
        words=CHAT,
    )
    assert {key: ran.metrics[key] for key in ("calls", "unreadable", "de", "ce")} == {
        "calls": 3, "unreadable": 1, "de": 3, "ce": 1,
    }  # fmt: skip
    for line in (
        'find_order(id="FH-1")  not as documented: `find_order` is not on offer',
        "not readable: not a call: {",
        "not as documented: parameter `order` is not one of get_order's",
        "1 message, 3 calls, 3 not as documented, 1 answered with an error. Saved to",
    ):
        assert line in ran.out, ran.out
    path = ran.folder / "chat.jsonl"
    (record,) = ran.lines("chat.jsonl")
    judged = tltrain("stage=mae", "data=openai", f"data.path={path}", "stage.rule=strict")
    assert judged.metrics["trajectories"] == 1
    assert judged.metrics["dropped_error"] == 2  # the unknown tool, and the one that timed out
    kept = [entry for entry in record["messages"] if entry["role"] == "assistant"]
    assert [len(entry.get("tool_calls", ())) for entry in kept] == [1, 0, 2, 0]


def test_a_saved_chat_goes_on(chat, server):
    first = chat("Hello\n", message(content="Hi, how can I help?"), words=(*CHAT, "stage.instructions='Be kind.'"))
    words = (*CHAT, f"stage.history={first.folder / 'chat.jsonl'}")
    again = chat("And now?\n", message(content="Still here."), words=words)
    sent = [(entry["role"], entry["content"]) for entry in server.asked[-1].body["messages"]]
    assert sent == [
        ("system", "Be kind."),
        ("user", "Hello"),
        ("assistant", "Hi, how can I help?"),
        ("user", "And now?"),
    ]
    assert again.metrics["messages"] == 2 and "Hi, how can I help?" not in again.out


def test_a_turn_with_too_many_calls_ends_and_the_chat_goes_on(chat):
    looping = [message(content=None, tool_calls=[call("get_order", order_id=str(n))]) for n in range(2)]
    ran = chat("Go\n1\n2\nStop\n", *looping, message(content="Stopped."), words=(*CHAT, "stage.max_turns=2"))
    assert "no answer after 2 calls, stage.max_turns" in ran.out and "Stopped." in ran.out


def test_control_characters_of_a_model_do_not_reach_the_terminal(chat):
    ran = chat("Hi\n", message(content="\x1b[2Jgone\u202e"), words=CHAT)
    assert "\x1b" not in ran.out and "[2Jgone" in ran.out


def test_a_server_that_is_asked_in_the_tl_format(chat):
    replies = (completion('get_order(order_id="FH-1")'), completion(" It is there."))
    ran = chat("Where is FH-1?\n{}\n", *replies)
    assert 'get_order(order_id="FH-1")  as documented' in ran.out and ran.metrics["calls"] == 1


def test_functions_of_a_python_file_run_in_the_sandbox_and_keep_their_state(chat, server):
    """Two of three copies are ordered, then two more: the second call fails, since only one is left."""
    order = message(content=None, tool_calls=[call("order", title="Dune", copies=2)])
    ran = chat(
        "Two of Dune\nAnd two more\n",
        *(order, message(content="Ordered.")),
        *(order, message(content=None, tool_calls=[call("_two_of_dune")]), message(content="There is one left.")),
        words=CHAT,
        tools=ROOT / "examples" / "python_tools" / "my_tools.py",
    )
    answers = [line for line in ran.out.splitlines() if line.startswith("  -> ")]
    assert answers[:2] == ['  -> "ordered"', "  -> Error: only 1 copies of Dune are left"]
    assert "`_two_of_dune` is not on offer" in answers[2]
    assert (ran.metrics["tools"], ran.metrics["ce"], ran.metrics["de"]) == (2, 1, 1)
    offered = server.asked[0].body["tools"]
    assert [tool["function"]["name"] for tool in offered] == ["look_up", "order"]


def test_a_python_file_that_cannot_be_loaded_is_told_before_the_chat(chat, tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("import no_such_package\n")
    assert "no_such_package" in last_line(chat("Hi\n", words=CHAT, tools=file, status=1))
    file.write_text("def f(a):\n    return a\n")
    assert "expected a docstring" in last_line(chat("Hi\n", words=CHAT, tools=file, status=1))


def test_a_local_model_is_asked(tltrain, write, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    words = ("data.size=6", f"stage.tools={write([TOOL])}", "stage.max_new_tokens=4")
    ran = tltrain("stage=chat", *SMALL, *words)
    assert ran.metrics["messages"] == 1 and ran.lines("chat.jsonl")[0]["messages"][0]["content"] == "Hello"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "stage=chat offers tools: give stage.tools=FILE"),
        (("stage.tools=none.json",), "stage.tools=none.json: there is no such file"),
        (("stage.tools={empty}x",), "there is no such file; did you mean {empty}?"),
        (("stage.tools={empty}",), "tools: expected at least one tool, found none"),
        (("stage.history={empty}", "stage.tools={empty}"), "stage.history="),
        (("stage.tools={empty}", "data.path=x"), "data.path: "),
    ],
)
def test_mistakes_are_told_in_one_line(tltrain, write, words, said):
    empty = write([])
    ran = tltrain("stage=chat", *(word.format(empty=empty) for word in words), status=1)
    assert said.format(empty=empty) in last_line(ran)


def test_an_answer_in_json_may_be_pasted_on_several_lines(chat, server):
    asked = message(content=None, tool_calls=[call("get_order", order_id="FH-1")])
    pasted = '{\n  "order": {\n    "items": [1, 2]\n  }\n}\n'
    ran = chat(f"Where?\n{pasted}Thanks\n", asked, message(content="Shipped."), message(content="Bye."), words=CHAT)
    assert '-> {"order": {"items": [1, 2]}}' in ran.out and ran.metrics["messages"] == 2
    ran = chat("Where?\n{ not JSON\n\n", asked, message(content="Shipped."), words=CHAT)
    assert "-> { not JSON" in ran.out
    ran = chat("Where?\n[1,\n\n", asked, message(content="Shipped."), words=CHAT)
    assert "-> [1," in ran.out and "Shipped." in ran.out


def test_where_nothing_was_said_nothing_is_said_to_be_saved(chat):
    ran = chat("\n  \n", words=CHAT)
    assert "Nothing was said, so nothing was saved." in ran.out and "Saved to" not in ran.out
    assert ran.metrics["messages"] == 0 and not (ran.folder / "chat.jsonl").exists()


def test_a_python_file_that_is_not_python_is_told_with_its_line(chat, tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("import json\ndef f(:\n")
    assert "SyntaxError" in (line := last_line(chat("Hi\n", words=CHAT, tools=file, status=1))) and "line 2" in line


@pytest.mark.parametrize("end", [b"\x04", b"\x03"], ids=["Ctrl-D", "Ctrl-C"])
def test_at_a_terminal_a_prompt_is_shown_and_both_keys_end_cleanly(server, write, tmp_path, end):
    server.reply = lambda body, attempt: message(content="Hello there.")
    leader, follower = pty.openpty()
    words = ["stage=chat", f"stage.tools={write([TOOL])}", "source=endpoint", f"source.url={server.url}"]
    words += ["source.model=m", "source.mode=chat", f"hydra.run.dir={tmp_path / 'run'}"]
    ran = subprocess.Popen(
        [sys.executable, "-m", "tltrain", *words],
        cwd=ROOT,
        stdin=follower,
        stdout=follower,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(follower)
    shown = _until(leader, b"you> ")
    os.write(leader, b"Hi\n")
    shown += _until(leader, b"you> ")
    os.write(leader, end)
    shown += _until(leader, b"Saved to")
    assert ran.wait(30) == 0
    os.close(leader)
    assert b"Hello there." in shown and b"Traceback" not in shown
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["messages"] == 1


def _own_terminal() -> None:
    """Make standard input the terminal that sends Ctrl-C's signal to this process."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _until(leader: int, wanted: bytes) -> bytes:
    found, deadline = b"", time.monotonic() + 60
    while wanted not in found and time.monotonic() < deadline:
        try:
            found += os.read(leader, 4096)
        except OSError:  # the program has ended
            break
    assert wanted in found, found
    return found
