"""ToolEyes: the released queries, and conversations over a small library of the same shape."""

from __future__ import annotations

import io
import json
import logging
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.support.paths import ROOT, SHARED
from tltrain.config import ToolEyesConversations
from tltrain.environments import Environment, tooleyes
from tltrain.errors import TltrainError
from tltrain.formats import tool_errors
from tltrain.trajectory import Call

RELEASE = SHARED / "data" / "tooleyes"
LIBRARY = Path(__file__).parent / "tool_library" / "Tool_Library"
needs_release = pytest.mark.skipif(not RELEASE.is_dir(), reason=f"ToolEyes' queries are not at {RELEASE}")

WORDS, RUDE = "ToolEyes/Tool_Library/Text/Words", "ToolEyes/Tool_Library/Hostile/Rude"


def record(path: str, query: str = "How many words?", scenario: str = "TG", tools: list | None = None) -> dict:
    """A query as in ToolEyes' files."""
    if tools is None:
        tools = json.loads((LIBRARY.parent / path.removeprefix("ToolEyes/") / "config_gpt4.json").read_text())
    system = f"Be helpful. You have access of the following tools:\n{json.dumps(tools)}\n\nLet's Begin!"
    conversations = [{"from": "system", "value": system}, {"from": "user", "value": query}]
    return {"id": f"Turn 1: {query}", "conversations": conversations, "path": path, "scenario": scenario}


@pytest.fixture
def checkout(tmp_path):
    """A folder like a checkout of ToolEyes, with the `tool_library/` next to this file."""
    shutil.copytree(LIBRARY, tmp_path / "ToolEyes" / "Tool_Library")
    put(tmp_path / "ToolEyes", record(WORDS), record(RUDE, "Be rude.", "FT"))
    return tmp_path / "ToolEyes"


def put(folder: Path, *records: dict) -> None:
    (folder / "Test_Data").mkdir(exist_ok=True)
    (folder / "Test_Data" / "scenario_data_zero_processed.json").write_text(json.dumps(records))


def benchmark(path: Path | None, **keys):
    values = {"name": "tooleyes", "path": path and str(path), "multi": True, "time_limit": 2.0, **keys}
    return OmegaConf.merge(OmegaConf.structured(ToolEyesConversations), values)


@pytest.fixture
def talk(checkout):
    """`talk(number=0, **keys)` starts a conversation about a query of `checkout` and returns its environment."""
    begun: list[Environment] = []

    def begin(number: int = 0, **keys) -> Environment:
        cfg = benchmark(checkout, **keys)
        environment = tooleyes.make(cfg)()
        begun.append(environment)
        environment.reset(tooleyes.tasks(cfg, 0)[number])
        return environment

    yield begin
    for environment in begun:
        environment.close()


# --- the release ----------------------------------------------------------------------------------------------------


@needs_release
def test_the_released_queries():
    tasks = tooleyes.tasks(benchmark(RELEASE), seed=0)
    scenarios = Counter(task.meta["scenario"] for task in tasks)
    assert scenarios == {"TG": 58, "DU": 49, "RS": 56, "PL": 70, "IR": 54, "AM": 45, "FT": 50}
    assert len({task.meta["category"] for task in tasks}) == 41
    assert len({task.id for task in tasks}) == 382
    assert tasks[0].id == "Random/Random/1"
    assert tasks[0].meta["query"].startswith("I'm in need of assistance in generating a random string")
    assert tooleyes.tasks(benchmark(RELEASE, limit=5), seed=0) == tasks[:5]


@needs_release
def test_the_released_tools():
    """568 tools in 95 sets; each set also has the two tools that are always offered."""
    queries = tooleyes._queries(RELEASE)
    sets = {query.module: query.tools for query in queries}
    assert len(sets) == 95
    assert sum(len(tools) - 2 for tools in sets.values()) == 568
    assert {tuple(tool.name for tool in tools[-2:]) for tools in sets.values()} == {("ask_to_user", "finish")}
    assert sets["Advice", "Bored"][1].required == ("key",)


@needs_release
def test_a_release_with_a_query_missing_is_refused(tmp_path):
    records = json.loads((RELEASE / tooleyes.QUERIES).read_text())
    (tmp_path / tooleyes.QUERIES).write_text(json.dumps(records[:-1]))
    with pytest.raises(TltrainError, match="expected ToolEyes' 382 queries, found 381"):
        tooleyes.tasks(benchmark(tmp_path), seed=0)


@needs_release
def test_queries_without_the_library_cannot_be_run():
    with pytest.raises(TltrainError, match=r"Tool_Library: there is no such folder"):
        tooleyes.make(benchmark(RELEASE))


# --- conversations --------------------------------------------------------------------------------------------------


def test_a_conversation(talk, checkout):
    environment = talk()
    turn = environment.reset(tooleyes.tasks(benchmark(checkout), 0)[0])
    assert [tool.name for tool in turn.tools] == ["count_words", "echo", "remember", "ask_to_user", "finish"]
    assert [(message.role, message.text) for message in turn.messages] == [("user", "How many words?")]
    assert environment.call(Call("count_words", {"text": "one two  three"})) == '{"count": 3, "unit": "words"}'
    assert environment.call(Call("ask_to_user", {"question": "Sure?"})) == tooleyes.NOTHING_TO_ADD
    assert environment.follow_up("3") is None
    assert environment.outcome() == {"success": None}


def test_state_lasts_as_long_as_the_conversation(talk, checkout):
    first, second = talk(), talk()
    assert first.call(Call("remember", {"word": "a"})) == '["a"]'
    assert second.call(Call("remember", {"word": "b"})) == '["b"]'
    assert first.call(Call("remember", {"word": "c"})) == '["a", "c"]'
    first.reset(tooleyes.tasks(benchmark(checkout), 0)[0])
    assert first.call(Call("remember", {"word": "d"})) == '["d"]'


@pytest.mark.parametrize("name", ["undocumented", "os", "count_words.__globals__", "", "Finish", "../Rude/tool"])
def test_a_tool_that_is_not_on_offer(talk, name):
    assert talk().call(Call(name, {})) == f"Error: there is no tool named {name}"


def test_a_tool_that_the_library_documents_but_the_query_does_not_offer(checkout):
    config = json.loads((LIBRARY / "Text" / "Words" / "config_gpt4.json").read_text())
    put(checkout, record(WORDS, tools=[tool for tool in config if tool["name"] == "echo"]))
    cfg = benchmark(checkout)
    environment = tooleyes.make(cfg)()
    turn = environment.reset(tooleyes.tasks(cfg, 0)[0])
    assert [tool.name for tool in turn.tools] == ["echo", "ask_to_user", "finish"]
    assert environment.call(Call("remember", {"word": "a"})) == "Error: there is no tool named remember"
    environment.close()


def test_hostile_tools_answer_with_errors_and_the_conversation_goes_on(talk):
    environment = talk(1, time_limit=0.7, memory_limit=500, max_output=100)
    for tool, arguments, answer in [
        ("hang", {}, "Error: the tool took longer than 0.7 s"),
        ("end_process", {"code": 1}, "Error: the tool ended its process (status 1)"),
        ("allocate", {}, "Error: MemoryError"),
        ("fail", {"kind": "odd"}, "Error: Odd: of no known kind"),
        ("flood", {}, '"' + "x" * 68 + "... [cut: 3,000,002 characters]"),
        ("echo", {"value": "fine"}, '"fine"'),
    ]:
        assert environment.call(Call(tool, arguments)) == answer
    assert len(environment.call(Call("flood", {}))) == 100


@pytest.mark.parametrize("rule", ["paper", "strict"])
def test_both_rules_of_mae_take_a_failing_tool_for_an_error(talk, rule, request):
    config = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "mae" / f"{rule}.yaml"))
    rule = tool_errors.Rule.from_config(config)
    environment = talk(1, time_limit=0.7)
    for tool, arguments in [
        ("hang", {}),
        ("leave", {"code": 3}),
        ("fail", {"kind": "key"}),
        ("fail", {"kind": "stop"}),
        ("echo", {"wrong": 1}),
        ("unwritable", {"kind": "bytes"}),
        ("no_such_tool", {}),
    ]:
        assert tool_errors.error_kind(environment.call(Call(tool, arguments)), rule), tool
    assert tool_errors.error_kind(environment.call(Call("echo", {"value": "fine"})), rule) is None


def test_closing_twice_and_calling_afterwards(talk):
    environment = talk()
    environment.close()
    environment.close()
    assert environment.call(Call("echo", {"value": 1})) == "Error: the conversation has not begun"


def test_tools_that_cannot_be_loaded_are_reported_once(checkout, caplog):
    (checkout / "Tool_Library" / "Text" / "Words" / "tool.py").write_text("import pexpect_is_not_here\n")
    cfg = benchmark(checkout)
    make = tooleyes.make(cfg)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            environment = make()
            environment.reset(tooleyes.tasks(cfg, 0)[0])
            assert environment.call(Call("echo", {"value": 1})) == "Error: No module named 'pexpect_is_not_here'"
            environment.close()
    assert [entry.message for entry in caplog.records] == [
        "the tools of Text/Words cannot be loaded and answer: Error: No module named 'pexpect_is_not_here'"
    ]


# --- the user -------------------------------------------------------------------------------------------------------


def test_answers_from_a_file(talk, tmp_path):
    file = tmp_path / "answers.jsonl"
    lines = [
        {"id": "Text/Words/1", "answer": "first"},
        {"id": "Text/Words/1", "question": "Which  unit?", "answer": "words"},
        {"id": "Text/Words/1", "answer": "second"},
        {"id": "Hostile/Rude/2", "answer": "other"},
    ]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    environment = talk(user=str(file))
    questions = ["Hm?", "which unit?", "And now?", "And now?", "which unit?"]
    answers = [environment.call(Call("ask_to_user", {"question": question})) for question in questions]
    assert answers == ["first", "words", "second", tooleyes.NOTHING_TO_ADD, "words"]
    assert environment.call(Call("ask_to_user", {})) == tooleyes.NOTHING_TO_ADD
    assert talk(1, user=str(file)).call(Call("ask_to_user", {"question": ["odd"]})) == "other"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": "Text/Words/9", "answer": "x"}', r"record 1: id: expected that of a query, like Text/Words/1, found"),
        ('{"id": "Text/Words/1"}', "record 1: answer: expected a string, found no such field"),
        ("words", "record 1: line: expected valid JSON"),
    ],
)
def test_answers_that_are_not_as_they_should_be(checkout, tmp_path, line, problem):
    (tmp_path / "answers.jsonl").write_text(line)
    with pytest.raises(TltrainError, match=problem):
        tooleyes.make(benchmark(checkout, user=str(tmp_path / "answers.jsonl")))


def test_a_file_of_answers_that_is_not_there(checkout):
    with pytest.raises(TltrainError, match=r"benchmark.user=nobody: expected rule, terminal, or a file of answers"):
        tooleyes.make(benchmark(checkout, user="nobody"))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_answers_from_the_terminal(talk, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Terminal(" words, please \n\n"))
    environment = talk(user="terminal")
    assert environment.call(Call("ask_to_user", {"question": "Unit?\x1b[2J\n"})) == "words, please"
    assert "The model asks: Unit?\\x1b[2J\\n\nYour answer:" in capsys.readouterr().out
    assert environment.call(Call("ask_to_user", {"question": "?"})) == tooleyes.NOTHING_TO_ADD  # nothing typed
    assert environment.call(Call("ask_to_user", {"question": "?"})) == tooleyes.NOTHING_TO_ADD  # end of input


def test_no_terminal(checkout, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(TltrainError, match=r"benchmark.user=terminal: standard input is not a terminal"):
        tooleyes.make(benchmark(checkout, user="terminal"))


# --- malformed files ------------------------------------------------------------------------------------------------


def test_no_path_and_a_path_without_queries(tmp_path):
    with pytest.raises(TltrainError, match=r"give benchmark.path=FOLDER"):
        tooleyes.tasks(benchmark(None), 0)
    with pytest.raises(TltrainError, match=r"expected a checkout of ToolEyes, with Test_Data/scenario_data_zero"):
        tooleyes.tasks(benchmark(tmp_path), 0)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/Tool_Library/Text/Words",
        "ToolEyes/Tool_Library/../Words",
        "ToolEyes/../../Text/Words",
        "ToolEyes/Tool_Library/Text/..",
        "ToolEyes/Tool_Library/Text/Words.tool",
        "ToolEyes//Text/Words",
        "Text/.hidden",
        "Text/Wo\0rds",
        "Words",
        "",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(checkout, path):
    put(checkout, record(WORDS), record(path, tools=[]))
    with pytest.raises(TltrainError, match=r"record 2: path: expected a folder like ToolEyes/Tool_Library/Category/"):
        tooleyes.tasks(benchmark(checkout), 0)


@pytest.mark.parametrize("linked", ["Text", "Text/Words", "Text/Words/tool.py", "Text/Words/config_gpt4.json"])
def test_links_out_of_the_library_are_refused(checkout, tmp_path, linked):
    place = checkout / "Tool_Library" / linked
    shutil.move(place, tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TltrainError, match=r"expected a file of the library, found a link to .*elsewhere"):
        tooleyes.make(benchmark(checkout))


def test_a_library_that_is_a_link_itself_is_the_users_choice(checkout, tmp_path):
    shutil.move(checkout / "Tool_Library", tmp_path / "elsewhere")
    (checkout / "Tool_Library").symlink_to(tmp_path / "elsewhere")
    cfg = benchmark(checkout)
    environment = tooleyes.make(cfg)()
    environment.reset(tooleyes.tasks(cfg, 0)[0])
    assert environment.call(Call("echo", {"value": 1})) == "1"
    environment.close()


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("tool.py", None, r"tool.py: there is no such file, but a query needs the tools of Text/Words"),
        ("config_gpt4.json", None, r"config_gpt4.json: there is no such file"),
        ("config_gpt4.json", "{", r"config_gpt4.json: content: expected valid JSON"),
        ("config_gpt4.json", '[{"description": ""}]', r"config_gpt4.json: tools\[0\].name: expected a string"),
    ],
)
def test_a_module_that_is_not_as_it_should_be(checkout, file, text, problem):
    place = checkout / "Tool_Library" / "Text" / "Words" / file
    place.unlink() if text is None else place.write_text(text)
    with pytest.raises(TltrainError, match=problem):
        tooleyes.make(benchmark(checkout))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"conversations": []}, "conversations: expected a message from system and one from user"),
        ({"conversations": [1, 2]}, r"conversations\[0\]: expected an object, found 1"),
        ({"scenario": None}, "scenario: expected a string"),
        (
            {"conversations": [{"from": "system", "value": "none"}, {"from": "user", "value": ""}]},
            "the words `following",
        ),
    ],
)
def test_records_that_are_not_as_they_should_be(checkout, change, problem):
    put(checkout, record(WORDS) | change)
    with pytest.raises(TltrainError, match=f"record 1: .*{problem}"):
        tooleyes.tasks(benchmark(checkout), 0)


def test_a_tool_on_offer_that_the_library_does_not_document(checkout, caplog):
    offered = [{"name": "new", "description": "", "parameters": {}}]
    put(checkout, record(WORDS, tools=offered))
    cfg = benchmark(checkout)
    with caplog.at_level(logging.WARNING):
        environment = tooleyes.make(cfg)()
    assert "1 tools on offer are not documented there, first Text/Words: new" in caplog.text
    environment.reset(tooleyes.tasks(cfg, 0)[0])
    assert environment.call(Call("new", {})) == "Error: there is no tool named new"
    environment.close()
