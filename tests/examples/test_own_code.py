"""examples/own_code: every extension point for a user's own code, from a folder outside the package."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.command_line import Ran
from tests.support.composition import composed, mistake
from tests.support.paths import ROOT
from tests.support.processes import process
from tests.support.small_runs import FEW, SMALL, steps
from tltrain import config
from tltrain.entry import usage
from tltrain.runtime import own_code

OWN = ROOT / "examples" / "own_code"
MODULES = sorted(file.stem for file in OWN.glob("*.py"))
LIMITS = ("data.holdout=0.25", "hydra.run.dir=run", "+stage.args.max_steps=1", "stage.args.save_strategy=no")
DOORS = {
    "data": "pairs",
    "format": "json",
    "mae": "apologies",
    "weighting": "quoted",
    "reward": "cautious",
    "benchmark": "lamps",
    "source": "words",
}


@pytest.fixture
def foreign(tmp_path, monkeypatch) -> Path:
    """A copy of the folder in another place; its modules are unloaded before and afterwards."""
    _forget(monkeypatch)
    folder = tmp_path / "foreign"
    shutil.copytree(OWN, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(OWN)])
    monkeypatch.setattr(own_code, "_found", [])
    yield folder
    for name in MODULES:
        sys.modules.pop(name, None)


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)


def search(folder: Path) -> str:
    return f"hydra.searchpath=[file://{folder}]"


def run(folder: Path, *words: str, status: int = 0) -> str:
    """Run the command line in a separate process, in a folder without any file of the package."""
    command = [sys.executable, "-m", "tltrain", "--config-dir", "foreign", "tracking=none", "cache.dir=cache", *words]
    ran = process(command, folder.parent, OMP_NUM_THREADS="1")
    assert ran.returncode == status, ran.stdout + ran.stderr
    return ran.stderr if status else ran.stdout


def pairs(folder: Path) -> str:
    return str(folder / "pairs.jsonl")


# --- the examples -----------------------------------------------------------------------------------------------------


def test_there_is_an_example_of_each_door_in_at_most_thirty_lines():
    assert set(DOORS) == set(config.DOORS) - {"tracking"}
    assert all((OWN / group / f"{name}.yaml").is_file() for group, name in DOORS.items())
    named = {
        re.search(r"_target_: (\w+)\.", file.read_text(encoding="utf-8"))[1]  # type: ignore[index]
        for file in OWN.glob("*/*.yaml")
    }
    assert named == set(MODULES)
    lengths = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in OWN.glob("*.py")}
    assert max(lengths.values()) <= 30, lengths


def test_extending_shows_the_examples_as_they_are():
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    for file in sorted(OWN.glob("*.py")):
        assert file.read_text(encoding="utf-8").strip() in text, file.name


def test_a_foreign_reader_and_weighting_train_a_model(foreign):
    out = run(foreign, "stage=sft", "data=pairs", f"data.path={pairs(foreign)}", "weighting=quoted", *SMALL, *LIMITS)
    assert "Written to" in out
    metrics = json.loads((foreign.parent / "run" / "metrics.json").read_text())
    assert metrics["train"]["turns"] == 6 and metrics["held_out"]["turns"] == 2
    assert (foreign.parent / "run" / "model" / "model.safetensors").is_file()
    (first, *_) = [json.loads(line) for line in (foreign.parent / "run" / "history.jsonl").read_text().splitlines()]
    assert first["mean_weight"] > 1  # quoted values weigh 3


@pytest.mark.slow
def test_a_foreign_weighting_reaches_every_process(foreign):
    two = ("hardware.device=cpu", "hardware.processes=2")
    words = ("stage=sft", "data=pairs", f"data.path={pairs(foreign)}", "weighting=quoted", *two, *SMALL, *LIMITS)
    assert "Written to" in run(foreign, *words)


def test_a_foreign_reward_prices_the_calls_of_a_training(foreign, tltrain):
    words = ("stage=irm", "stage.critic.init=random", "stage.args.gradient_accumulation_steps=2")
    ran: Ran = tltrain("--config-dir", str(foreign), *words, "reward=cautious", *SMALL, *FEW)
    assert {entry["reward"] for entry in steps(ran)} == {-1.0}  # a model with random weights writes no call


def test_a_foreign_environment_is_played_to_its_end(foreign, tltrain):
    ran = tltrain("--config-dir", str(foreign), "stage=eval", "benchmark=lamps", "source=golden", "benchmark.size=3")
    assert (ran.metrics["lamps_multi/success"], ran.metrics["lamps_multi/n"]) == (100, 3)


def test_a_foreign_source_answers_a_foreign_benchmark(foreign, tltrain):
    ran = tltrain(
        *("--config-dir", str(foreign), "stage=eval", "benchmark=quiz", f"benchmark.path={pairs(foreign)}"),
        *("source=words", "reward=toolrl"),
    )
    found = ran.metrics
    assert (found["quiz/ts"], found["quiz/pi"], found["source"]) == (100, 0, "words")
    # The right tool without its one (weather) or two (timetable) parameters: 1 + 6 (1 / (2 + n)) - 3.
    assert found["quiz/reward"] == pytest.approx(((1 + 6 / 3 - 3) * 4 + (1 + 6 / 4 - 3) * 4) / 8)


def test_a_foreign_rule_says_which_answers_are_errors(foreign, tltrain, tmp_path):
    lines = []
    for number, answer in enumerate(("Sorry, no such city.", "12 degrees", "Unfortunately not.")):
        call = {"name": "weather", "arguments": {"city": "Oslo"}}
        said = [{"role": "user", "content": "?"}, {"role": "assistant", "call": call, "learn": True}]
        said += [{"role": "tool", "content": answer}, {"role": "assistant", "call": call, "learn": True}]
        tools = [{"name": "weather", "description": "", "parameters": {"properties": {"city": {}}}}]
        lines.append(json.dumps({"id": str(number), "tools": tools, "messages": said}))
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    words = ["stage=mae", "data=tltrain", f"data.path={tmp_path / 'train.jsonl'}", "stage.rule=strict"]
    ran = tltrain("--config-dir", str(foreign), *words, "mae@mae.strict=apologies")
    assert (ran.metrics["dropped_error"], ran.metrics["error_kinds"]) == (2, {"apology": 2})
    named = [*words[:-1], "stage.rule=apologies"]
    ran = tltrain("--config-dir", str(foreign), *named, "mae.strict.words=[12]")
    assert ran.metrics["dropped_error"] == 1
    assert ran.metrics["rule"] == "apologies" and "The rules paper and apologies differ" in ran.out


def test_a_foreign_format_is_written_and_read_back(foreign):
    from tests.support.reader_samples import LOVE
    from tltrain.models.loading import own_format

    found = own_format(composed(search(foreign), "stage=sft", "format=json", "format.word=fn").format)
    calls = [made.call for message in LOVE.messages for made in message.calls]
    written = [found.call_text(call) for call in calls]
    assert [segment.text for segment in found.segments(LOVE) if segment.turn is not None] == written
    for call, text in zip(calls, written, strict=True):
        assert text[found.name_at(call) :].startswith(call.name) and text.startswith(found.call_head(call.name))
        assert json.loads(text) == {"fn": call.name, "arguments": dict(call.arguments)}


# --- mistakes ---------------------------------------------------------------------------------------------------------

WRONG = {
    "wrong.py": """
def nothing(record): pass
def dicts(record): return [record]
def key_error(record): return record["nope"]
def lists(path): yield 3
def one(turn): return [1.0]
def number(log_probs): return 1.0
def neither(tokens): return tokens
def text(sample): return "1"
def rule(answer): return True
def odd(record, size: object = 1): return size
class Empty: pass
def no_answers(samples): pass
def no_samples(seed): pass
def none_read(path): pass
""",
    "broken.py": "def f(:\n",
    "needs.py": "import no_such_package\n",
}
MISTAKES = {
    "a module that is not there": (
        ["data=pairs", "data._target_=pear_reader.parse"],
        "data._target_=pear_reader.parse: expected package.module.attribute, found: No module named 'pear_reader' "
        "(looked in {folder} and the installed packages)",
    ),
    "a function that is not there": (
        ["data=pairs", "data._target_=pair_reader.prse"],
        "data._target_=pair_reader.prse: {folder}/pair_reader.py has no prse; did you mean parse?",
    ),
    "no module": (
        ["data=pairs", "data._target_=parse"],
        "data._target_=parse: expected package.module.attribute, found no module: FILE.parse for FILE.py",
    ),
    "a module that is no Python": (
        ["data=pairs", "data._target_=broken.f"],
        "data._target_=broken.f: the module cannot be imported: SyntaxError: invalid syntax ({folder}/broken.py",
    ),
    "a module that needs another": (
        ["data=pairs", "data._target_=needs.f"],
        "data._target_=needs.f: the module cannot be imported: ModuleNotFoundError: No module named 'no_such_package' "
        "(needs.py, line 1)",
    ),
    "a misspelt argument": (["data=pairs", "data.qestion=x"], "data.qestion: no such key; did you mean question?"),
    "an argument of the wrong type": (
        ["weighting=quoted", "stage=sft", "weighting.weight=heavy"],
        "weighting.weight: expected a number, found heavy",
    ),
    "an argument of a rule": (["mae@mae.strict=apologies", "+mae.strict.word=x"], "mae.strict.word: no such key; did"),
    "an argument that is not given": (
        ["stage=sft", "weighting=quoted", "weighting._target_=wrong.neither"],
        "weighting.tokens: weighting=quoted needs this key: give weighting.tokens=VALUE (provided without a key: turn, "
        "log_probs, w_max, key_tokens)",
    ),
    "a type that no configuration has": (
        ["data=pairs", "data._target_=wrong.odd"],
        "wrong.odd: a configuration does not support the type of its parameter size",
    ),
    "a weighting that cannot be called": (
        ["stage=sft", "weighting=quoted", "weighting._target_=wrong.Empty"],
        "weighting._target_=wrong.Empty: expected a function of turn or of log_probs, found a class without a method "
        "__call__(self, turn)",
    ),
    "a weighting beside stage.w_max": (
        ["stage=pkt", "weighting=dft"],
        "weighting=dft does not read stage.w_max: choose stage=sft",
    ),
    "a wrong expression": (
        ["stage=sft", "weighting=pattern", "weighting.pattern='('"],
        "weighting.pattern=(: expected a regular expression, found: missing ), unterminated subpattern at position 0",
    ),
}


@pytest.fixture
def mistaken(foreign) -> Path:
    for name, text in WRONG.items():
        (foreign / name).write_text(text)
    yield foreign
    for name in WRONG:
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_one_line_before_anything_is_read(mistaken, name):
    words, said = MISTAKES[name]
    stage = [] if any(word.startswith("stage=") for word in words) else ["stage=mae"]
    line = mistake(search(mistaken), *stage, *words)
    assert line.startswith(said.replace("{folder}", str(mistaken))), line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["data._target_=wrong.nothing"],
            "record 1: wrong.nothing: expected a Trajectory, or several of them (return a",
        ),
        (["data._target_=wrong.dicts"], "record 1: wrong.dicts: expected a Trajectory, or several of them (return "),
        (["data._target_=wrong.key_error"], "found KeyError: 'nope' (wrong.py, line 4)"),
        (["data._target_=wrong.none_read"], "data._target_=wrong.none_read: expected trajectories (return a list, or"),
        (["data._target_=wrong.lists"], "data._target_=wrong.lists: item 1: expected a Trajectory, or several of them"),
    ],
)
def test_a_reader_that_returns_something_else_is_told_so(mistaken, tltrain, words, said):
    words = ["--config-dir", str(mistaken), "stage=mae", "data=pairs", f"data.path={pairs(mistaken)}", *words]
    (line,) = tltrain(*words, status=1).err.splitlines()
    assert said.replace("{folder}", str(mistaken)) in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["benchmark=lamps", "benchmark._target_=wrong.Empty", "source=golden"],
            "benchmark._target_=wrong.Empty: expected an object with the methods tasks, environment, found Empty",
        ),
        (
            [
                "benchmark=toolworld",
                "benchmark.size=2",
                "source=golden",
                "reward=cautious",
                "reward._target_=wrong.text",
            ],
            "reward wrong.text: expected a finite number, found '1' for the response to ",
        ),
        (
            [
                "benchmark=toolworld",
                "benchmark.size=2",
                "source=golden",
                "reward=cautious",
                "reward._target_=wrong.Empty",
            ],
            "reward._target_=wrong.Empty: expected a function, or a class whose objects are called; Empty has no",
        ),
        (
            ["benchmark=toolworld", "benchmark.size=2", "source=words", "source._target_=wrong.Empty"],
            "source._target_=wrong.Empty: expected a function of samples, or a context manager that gives",
        ),
        (
            ["benchmark=toolworld", "benchmark.size=2", "source=words", "source._target_=wrong.no_answers"],
            "source words: expected a list of 2 texts, one for each sample, found None",
        ),
        (
            ["benchmark=lamps", "benchmark.multi=false", "benchmark._target_=wrong.no_samples", "source=golden"],
            "benchmark._target_=wrong.no_samples: expected a list of samples, or a dict of such lists, found None",
        ),
    ],
)
def test_what_returns_something_else_is_told_so(mistaken, tltrain, words, said):
    line = tltrain("--config-dir", str(mistaken), "stage=eval", *words, status=1).err.splitlines()[-1]
    assert line.startswith(said)


# --- where the folder is found ----------------------------------------------------------------------------------------


def test_help_lists_and_explains_what_is_in_the_folder(foreign, tltrain):
    out = usage.text(["--config-dir", str(foreign), "--help"])
    assert f"Choices of {foreign}" in out
    assert re.search(r"^ +weighting=quoted +Quoted values weigh three times as much\.$", out, re.MULTILINE)
    out = tltrain("--config-dir", str(foreign), "weighting=quoted", "--help").out
    assert re.search(r"weighting\.weight=3\.0 +float", out)


def test_an_edited_file_is_another_key_of_the_cache(foreign, monkeypatch):
    from tltrain.runtime import redact
    from tltrain.sweeps import cache_key

    monkeypatch.setattr(cache_key.source_digest, "digest", lambda *given: "code")
    words = {
        "data": ("stage=mae", "data=pairs", f"data.path={pairs(foreign)}"),
        "mae": ("stage=mae", "mae@mae.strict=apologies", "stage.rule=strict"),
        "weighting": ("stage=sft", "weighting=quoted"),
        "reward": ("stage=eval", "reward=cautious"),
        "source": ("stage=eval", "source=words"),
        "format": ("stage=eval", "format=json"),
        "benchmark": ("stage=eval", "benchmark=lamps"),
    }
    assert set(words) == set(DOORS)
    for group, given in words.items():
        values = redact.config(composed(search(foreign), *given))
        before = cache_key.key(values)
        assert cache_key.key(values) == before
        module = yaml.safe_load((foreign / group / f"{DOORS[group]}.yaml").read_text())["_target_"].partition(".")[0]
        with (foreign / f"{module}.py").open("a") as file:
            file.write("\n# edited\n")
        assert cache_key.key(values) != before, group


@pytest.mark.parametrize("given", ["{name: lamps}", "{name: lamps, size: 3, max_turns: 2}"])
def test_a_choice_of_the_folder_is_an_environment_to_train_in(foreign, given):
    words = ("stage=irm", "stage.rollout=conversation", "reward=conversation", f"stage.environment={given}")
    assert composed(search(foreign), *words).stage.environment.name == "lamps"  # its keys are checked too
    wrong = given.replace("}", ", sise: 3}")
    assert "sise" in mistake(search(foreign), *words[:-1], f"stage.environment={wrong}")


@pytest.mark.slow
def test_jobs_of_a_launcher_find_the_folder(foreign):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["hydra/launcher=joblib", "stage=mae", "data=pairs", f"data.path={pairs(foreign)}", "data.limit=2,3"]
    run(foreign, *words, "hydra.sweep.dir=sweep", "-m")
    found = [json.loads((foreign.parent / "sweep" / job / "metrics.json").read_text()) for job in "01"]
    assert [metrics["trajectories"] for metrics in found] == [2, 3]


@pytest.mark.slow
def test_an_installed_package_brings_choices(foreign):
    """As a Hydra plugin: a module below `hydra_plugins` adds the package's folder to the search path."""
    site = foreign.parent / "site"
    (site / "hydra_plugins").mkdir(parents=True)
    shutil.copytree(foreign, site / "our_calls")
    (site / "our_calls" / "__init__.py").write_text("")
    (site / "our_calls" / "data" / "ours.yaml").write_text(
        "# Ours.\ndefaults: [/schema/data@_here_]\nname: ours\n_target_: our_calls.pair_reader.parse\n"
    )
    (site / "hydra_plugins" / "our_calls.py").write_text(
        "from hydra.plugins.search_path_plugin import SearchPathPlugin\n"
        "class OurCalls(SearchPathPlugin):\n"
        "    def manipulate_search_path(self, search_path):\n"
        "        search_path.append('our_calls', 'pkg://our_calls')\n"
    )
    path = f"{ROOT}:{site}"
    command = [sys.executable, "-m", "tltrain", "stage=mae", "tracking=none", "data=ours", "hydra.run.dir=run"]
    ran = process([*command, f"data.path={pairs(foreign)}"], foreign.parent, PYTHONPATH=path)
    assert ran.returncode == 0, ran.stderr
    assert json.loads((foreign.parent / "run" / "metrics.json").read_text())["trajectories"] == 8
    said = process([sys.executable, "-m", "tltrain", "--help"], foreign.parent, PYTHONPATH=path).stdout
    assert "data=ours               Ours." in said
    said = process([sys.executable, "-m", "tltrain", "data=ours", "--help"], foreign.parent, PYTHONPATH=path).stdout
    assert "data.question=question" in said
