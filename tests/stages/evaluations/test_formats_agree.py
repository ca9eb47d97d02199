"""The same answers, written in five formats, get the same grades through stage=eval with saved answers."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Ran, command_line
from tests.support.native_formats import encoder
from tltrain.formats.calls import render_call
from tltrain.trajectory import Call


def tool(name: str, **properties: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    return {"type": "function", "function": {"name": name, "description": "Does it.", "parameters": parameters}}


TOOLS = [tool("search", query="string", page="integer"), tool("finish", answer="string")]
SEARCH, FINISH = Call("search", {"query": "love", "page": 1}), Call("finish", {"answer": "it's done"})
BOTH = (SEARCH, FINISH)

# description -> golden calls, words, calls; without calls, only words
ANSWERS: dict[str, tuple[tuple[Call, ...], str, tuple[Call, ...]]] = {
    "right": ((SEARCH,), "", (SEARCH,)),
    "wrong tool": ((SEARCH,), "", (FINISH,)),
    "not on offer": ((SEARCH,), "", (Call("find", {"query": "love"}),)),
    "hallucinated argument": ((SEARCH,), "", (Call("search", {"query": "love", "page": 1, "deep": True}),)),
    "missing argument": ((SEARCH,), "", (Call("search", {"query": "love"}),)),
    "wrong value": ((SEARCH,), "", (Call("search", {"query": "love", "page": "1"}),)),
    "broken": ((SEARCH,), "", ()),
    "words alone": ((SEARCH,), "It is noon.", ()),
    "words beside": ((SEARCH,), "I look.", (SEARCH,)),
    "one of two": (BOTH, "", (FINISH,)),
    "two in another order": (BOTH, "", (FINISH, SEARCH)),
    "a superfluous one": ((SEARCH,), "", (FINISH, SEARCH)),
}


def as_json(call: Call, arguments: str) -> str:
    return json.dumps({"name": call.name, arguments: dict(call.arguments)})


def hermes(words: str, calls: tuple[Call, ...]) -> str:
    made = [f"<tool_call>\n{as_json(call, 'arguments')}\n</tool_call>" for call in calls]
    return "\n".join([*filter(None, [words]), *made]) + "<|im_end|>"


def llama3(words: str, calls: tuple[Call, ...]) -> str:
    return " ".join([*filter(None, [words]), "; ".join(as_json(call, "parameters") for call in calls)]) + "<|eot_id|>"


def lfm2(words: str, calls: tuple[Call, ...]) -> str:
    made = ", ".join(
        f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})" for call in calls
    )
    return words + (f"<|tool_call_start|>[{made}]<|tool_call_end|>" if made else "") + "<|im_end|>"


def tl(words: str, calls: tuple[Call, ...]) -> str:
    return " ".join(filter(None, [words, "\n".join(map(render_call, calls))]))


BROKEN = {
    "tl": "search(query=",
    "qwen3": '<tool_call>\n{"name": "search", "arguments": {"query": "love", "page": 1}\n</tool_call><|im_end|>',
    "hermes": '<tool_call>\n{"name": "search", "arguments": {"query": }}\n</tool_call><|im_end|>',
    "llama3": '{"name": "search", "parameters": {"query": "love" "page": 1}}<|eot_id|>',
    "lfm2": "<|tool_call_start|>[search(query='love', page=)]<|tool_call_end|><|im_end|>",
}
WRITE = {"tl": tl, "qwen3": hermes, "hermes": hermes, "llama3": llama3, "lfm2": lfm2}
TL_CANNOT = {"words beside", "one of two", "two in another order", "a superfluous one"}
"""In the TL format an answer is one call, and words before it are part of the tool's name."""


def evaluated(models_cache: Path, name: str, folder: Path) -> Ran:
    """Evaluate the answers as a model of this format would write them."""
    questions, answers = [], []
    for what, (goldens, words, calls) in ANSWERS.items():
        golden = [{"type": "function", "function": {"name": c.name, "arguments": dict(c.arguments)}} for c in goldens]
        user = [{"role": "user", "content": "Find love, then finish."}]
        questions.append({"id": what, "messages": user, "tools": TOOLS, "tool_calls": golden})
        raw = BROKEN[name] if what == "broken" else WRITE[name](words, calls)
        answers.append({"prediction" if name == "tl" else "raw": raw})
    for file, lines in (("mine.jsonl", questions), ("answers.jsonl", answers)):
        (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    words_of_run = [f"benchmark.path={folder / 'mine.jsonl'}", f"stage.predictions={folder / 'answers.jsonl'}"]
    model = []
    if name != "tl":  # reading loads no weights
        encoder(name).tokenizer.save_pretrained(folder / "model")
        (folder / "model" / "config.json").write_text('{"model_type": "llama"}')
        model = [f"model.path={folder / 'model'}"]
    ran = command_line(
        *("stage=eval", "benchmark=openai", f"format={name}", *model, *words_of_run),
        folder=folder / "run",
        cache=models_cache,
    )
    assert ran.status == 0, ran.err
    return ran


@pytest.fixture(scope="module")
def ran(once, models_cache) -> dict[str, Ran]:
    return {name: once(f"answers in {name}", partial(evaluated, models_cache, name)) for name in WRITE}


def lines(ran: Ran) -> dict[str, dict[str, Any]]:
    return {line["id"]: line for line in ran.lines("predictions.jsonl")}


def test_grades_and_rewards_are_as_computed_by_hand(ran):
    keys = ("grade", "ts", "pi", "cf", "reward")
    assert {what: tuple(line[key] for key in keys) for what, line in lines(ran["hermes"]).items()} == {
        "right": ("correct", True, True, True, 1),
        "wrong tool": ("wrong_tool", False, False, False, -1.5),
        "not on offer": ("tool_hallucination", False, False, False, -2),
        "hallucinated argument": ("hallucinated", True, False, False, -0.8),
        "missing argument": ("redundant_or_missing", True, False, False, -0.5),
        "wrong value": ("wrong_value", True, True, False, -0.25),
        "broken": ("format_error", False, False, False, -2),
        "words alone": ("format_error", False, False, False, -2),
        "words beside": ("correct", True, True, True, 1),
        "one of two": ("missing_call", 0.5, 0.5, 0.5, (1 - 2) / 2),
        "two in another order": ("correct", True, True, True, 1),
        "a superfluous one": ("correct", True, True, True, 1 - 1.5),
    }
    metrics = ran["hermes"].metrics
    assert metrics["mine/cf"] == metrics["mine/each/cf"] == pytest.approx(100 * 4.5 / 12, abs=1e-4)
    assert metrics["mine/every/cf"] == pytest.approx(100 * 3 / 12, abs=1e-4)  # neither one of two nor a superfluous one
    assert (metrics["mine/missing_calls"], metrics["mine/superfluous_calls"]) == (1, 1)
    assert metrics["details"]["mine"]["calls"] == {"golden": 14, "made": 14, "missing": 1, "superfluous": 1}
    assert metrics["details"]["mine"]["contradicts_documentation"] == 4
    assert "superfluous call" in ran["hermes"].out and "superfluous call" not in ran["tl"].out


@pytest.mark.parametrize("name", ["qwen3", "llama3", "lfm2"])
def test_native_formats_give_the_same_numbers_and_reasons(ran, name):
    ours, theirs = lines(ran[name]), lines(ran["hermes"])
    broken, other = ours.pop("broken"), theirs.pop("broken")
    assert all(line["reason"].startswith("not a call: ") for line in (broken, other))  # the rest is the parser's
    same = ("prediction", "call", "calls", "grade", "ts", "pi", "cf", "reward", "reason", "said", "goldens")
    for what, line in theirs.items():
        assert {key: ours[what].get(key) for key in same} == {key: line.get(key) for key in same}, what
    for key, value in ran["hermes"].metrics.items():
        if key.startswith("mine/"):
            assert ran[name].metrics[key] == value, key


def test_the_tl_format_gives_the_same_for_what_it_can_write(ran):
    ours, theirs = lines(ran["tl"]), lines(ran["hermes"])
    same = ("prediction", "call", "grade", "ts", "pi", "cf", "reward", "reason")
    for what in ANSWERS.keys() - TL_CANNOT - {"broken"}:
        assert {key: ours[what][key] for key in same} == {key: theirs[what][key] for key in same}, what
    assert ours["broken"]["grade"] == "format_error" and ours["broken"]["reason"].startswith("not a call: ")
    # An answer is one call: the first counts, against any golden call, and words before it are a mistake.
    assert [ours[what]["grade"] for what in sorted(TL_CANNOT)] == [
        "wrong_tool", "correct", "correct", "words_before_call",
    ]  # fmt: skip
    assert "mine/missing_calls" not in ran["tl"].metrics
    assert ran["tl"].metrics["mine/ts"] == ran["tl"].metrics["mine/any/ts"]


def test_what_stands_beside_a_call_is_kept(ran):
    assert lines(ran["lfm2"])["words beside"]["said"]["text"] == "I look."
    two = lines(ran["qwen3"])["a superfluous one"]
    assert two["prediction"] == 'finish(answer="it\'s done")\nsearch(query="love", page=1)'
    assert [(one["grade"], one["call"]["name"]) for one in two["calls"]] == [
        ("correct", "search"),
        ("superfluous_call", "finish"),
    ]
    assert two["calls"][1]["golden"] is None


def test_predictions_of_a_native_run_can_be_scored_again(ran, tltrain):
    first = ran["lfm2"]
    path = first.folder.parent / "mine.jsonl"
    again = tltrain(
        *("stage=eval", "benchmark=openai", f"benchmark.path={path}"),
        f"stage.predictions={first.folder / 'predictions.jsonl'}",
    )
    assert lines(again) == lines(first)
    compared = tltrain("stage=eval", f"stage.compare=[{first.folder},{ran['qwen3'].folder}]")
    assert compared.metrics["mine/cf/difference"] == compared.metrics["mine/reward/difference"] == 0


def test_raw_answers_need_a_native_format(ran, tltrain):
    folder = ran["hermes"].folder.parent
    words = [f"benchmark.path={folder / 'mine.jsonl'}", f"stage.predictions={folder / 'answers.jsonl'}"]
    refused = tltrain("stage=eval", "benchmark=openai", *words, status=1)
    assert "answers.jsonl, record 1: `raw` is an answer in a native format: give format=NAME" in refused.err
