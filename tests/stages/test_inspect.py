"""stage=inspect through the command line: what the trainer sees, in the terminal and as a page."""

from __future__ import annotations

import ast
import html
import re

import pytest

from tests.support.reader_samples import RAW_LOVE, RAW_WORK

TINY = ("model=tiny",)


def texts(page: str, element: str) -> list[str]:
    """Return the text of every `element` of a page, without tags."""
    found = re.findall(rf"<{element}(?: [^>]*)?>(.*?)</{element}>", page, re.DOTALL)
    return [html.unescape(re.sub(r"<[^>]*>", "", inner)) for inner in found]


def test_inspect_shows_what_the_trainer_sees(tltrain, write):
    strange = {**RAW_LOVE, "id": "[/bold] :smile:"}  # must not be read as markup or emoji
    words = ["data=tl_training", f"data.path={write(strange, RAW_WORK)}", "stage.limit=1"]
    ran = tltrain("stage=inspect", *TINY, *words)
    assert " [/bold] :smile: " in ran.out
    assert "Function:\ndef search(query: string, limit: integer = None):" in ran.out
    assert 'Assistant: search(q="love")  [left out]\nOutput: search() got an unexpected keyword argument' in ran.out
    assert 'Assistant: search(query="löve", limit=2, deep=[null, {"a": true}])⏎  [1 key of ' in ran.out
    assert 'Assistant: finish(answer="Listen \\"well\\".")⏎  [1 key of ' in ran.out
    assert "Advice on work?" not in ran.out
    assert ran.metrics["shown"] == 1


def test_inspect_writes_the_same_as_a_page(tltrain, write):
    strange = {**RAW_LOVE, "id": "<b>[/bold]</b> :smile:"}
    path = write(strange, RAW_WORK)
    ran = tltrain("stage=inspect", *TINY, "data=tl_training", f"data.path={path}", "stage.limit=2")
    page = (ran.folder / "inspect.html").read_text()
    assert texts(page, "h3") == ["1. <b>[/bold]</b> :smile:", f"2. {RAW_WORK['id']}"]
    left_out = ['search(q="love")', *(f'search(query="{query}")' for query in ("work", "rest", "sleep"))]
    assert texts(page, "del")[1:] == left_out  # the first is in the legend
    assert texts(page, "span").count("✗ not learned · error: unexpected argument") == 1
    said = texts(page, "pre")
    assert ' search(query="löve", limit=2, deep=[null, {"a": true}])⏎' in said
    assert "Advice on love?" in said and "search() got an unexpected keyword argument 'q'" in said
    assert page.count('<details class="item') == 2
    assert page.count("<details>") == 1 and "The same 2 tools as" in page  # both offer the same tools
    assert "stage.rule=paper" in page


def test_without_mae_and_without_weights_the_page_says_so(tltrain, write):
    words = ["data=tl_training", f"data.path={write(RAW_LOVE)}", "stage.mae=false", "stage.w_max=null"]
    page = (tltrain("stage=inspect", *TINY, *words).folder / "inspect.html").read_text()
    assert ' search(q="love")⏎' in texts(page, "pre")
    assert "stage.mae=false" in page and "stage.w_max=null" in page
    assert set(re.findall(r'data-w="([^"]*)"', page)) == {"1"}


def test_inspect_names_the_key_tokens(tltrain):
    ran = tltrain("stage=inspect", *TINY, "data.size=60", "stage.limit=10", "stage.w_max=2")
    turns = re.findall(r"^Assistant: (.*)⏎  \[(\d+) key of (\d+): (.*), weight (.*)\]$", ran.out, re.MULTILINE)
    assert len(turns) == ran.out.count("⏎") - 1 > 10  # one is in the legend
    for text, keys, targets, tokens, weight in turns:
        first, *others = [ast.literal_eval(token) for token in re.findall(r"'[^']*'", tokens)]
        name = text.partition("(")[0]
        assert f" {name}(".startswith(first)
        assert all(token in f"{name}(" for token in others)
        assert int(keys) == 1 + len(others) < int(targets)
        assert weight == "2"
    assert any(int(keys) > 1 for _, keys, *_ in turns)  # names that begin alike
    marked = re.findall(r'<b class="t k"[^>]*>([^<]*)</b>', (ran.folder / "inspect.html").read_text())
    assert len(marked) - 2 == sum(int(keys) for _, keys, *_ in turns)  # two are in the legend


@pytest.mark.parametrize("name", ["tl", "hermes", "llama3"])
def test_a_call_left_out_with_its_message_is_not_called_history(tltrain, write, name):
    tools = [{"type": "function", "function": {"name": name, "description": "d", "parameters": {}}} for name in "fg"]
    made = [
        {"id": key, "type": "function", "function": {"name": name, "arguments": "{}"}}
        for key, name in (("a", "f"), ("b", "g"))
    ]
    messages = [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": None, "tool_calls": made},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "Error: invalid request"},
        {"role": "assistant", "content": "Done."},
    ]
    path = write({"messages": messages, "tools": tools})
    ran = tltrain("stage=inspect", *TINY, f"format={name}", "data=openai", f"data.path={path}", "stage.mask=message")
    page = html.unescape((ran.folder / "inspect.html").read_text())
    assert "marks this turn as history" not in page
    assert page.count("the tool answered this call with an error") == 2  # one is in the legend
    # if each call is its own turn, the one that did not fail says why it is left out
    assert ("another call of its message failed (stage.mask=message)" in page) == (name != "hermes")
