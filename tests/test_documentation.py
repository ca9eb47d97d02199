"""The documents: links resolve, commands compose, sample records can be read, tables agree with the code."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from tests.support.composition import composed
from tests.support.documentation import (
    GENERATED,
    PAGES,
    anchors,
    code_blocks,
    documented_commands,
    filled_in,
    links,
)
from tests.support.floors import FLOORS
from tests.support.paths import ROOT
from tltrain import config
from tltrain.data import READERS, openai, rotbench, trajectories
from tltrain.data.reading import ReadReport
from tltrain.entry import own_rule
from tltrain.errors import TltrainError
from tltrain.evaluation.predictions import Prediction
from tltrain.grading import SAMPLED_OUTCOMES
from tltrain.tracking import names
from tltrain.trajectory import Call

COMMANDS = documented_commands()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 8192


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if target.is_relative_to(GENERATED):
            continue  # the strict build of the site checks these
        assert target.exists(), f"{link}: there is no such file"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: there is no such heading"


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_configuration(tmp_path_factory) -> Path:
    """The configuration directory `my_conf` that docs/extending.md shows."""
    folder = tmp_path_factory.mktemp("own")
    for block in code_blocks((ROOT / "docs" / "extending.md").read_text(encoding="utf-8"), "yaml"):
        if found := re.search(r"^# (my_conf/\S+\.yaml):", block, re.MULTILINE):
            file = folder / found[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block)
    return folder


def first_job(overrides: list[str]) -> list[str]:
    """Return the overrides of a sweep's first job."""
    return [
        f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"
        if override.is_sweep_override()
        else override.input_line
        for override in OverridesParser.create().parse_overrides(overrides)
    ]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{COMMANDS[command]}: {command or 'tltrain'}")
def test_commands_compose(command, own_configuration):
    words = filled_in(command)
    if {"--help", "--version"} & set(words):
        return
    search = []
    if "--config-dir" in words:
        at = words.index("--config-dir")
        own = next(
            (place / words[at + 1] for place in (ROOT, own_configuration) if (place / words[at + 1]).is_dir()), None
        )
        assert own, f"{words[at + 1]}: neither in the repository nor shown by docs/extending.md"
        words = own_rule.expanded(["--config-dir", str(own), *words[:at], *words[at + 2 :]])[2:]
        search = [f"hydra.searchpath=[file://{own}]"]
    composed(*search, *first_job(words))


def test_commands_are_found():
    assert len(COMMANDS) > 50
    files = {"README.md", "docs/gpus.md", "docs/stages/analyze.md", "docs/paper.md", "conf/stage/pipeline.yaml"}
    assert files <= set(COMMANDS.values())


@pytest.mark.parametrize("command", ["stage=pkt stage.w_mx=3", "stage=pkt stage.w_max=0"])
def test_a_wrong_command_would_be_noticed(command, own_configuration):
    with pytest.raises((TltrainError, HydraException), match=r"w_mx|w_max"):
        test_commands_compose(command, own_configuration)


# --- what they say ----------------------------------------------------------------------------------------------------

FORMATS = re.split(r"^## ", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
SAMPLES = {
    found[1]: json.loads(blocks[0])
    for section in FORMATS
    if (found := re.match(r"`data=(\w+)`", section)) and (blocks := code_blocks(section, "json"))
}


def test_every_reader_has_a_sample_record():
    assert set(SAMPLES) == set(READERS) - {"toolworld"}


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_records_can_be_read(name, tmp_path):
    if name == "rotbench":
        path = tmp_path / "third_turn" / "clean.json"
        path.parent.mkdir()
        path.write_text(json.dumps([SAMPLES[name]]))
        (read,) = rotbench.read_training(tmp_path, check_counts=False)
    else:
        path = tmp_path / "records.json"
        path.write_text(json.dumps(SAMPLES[name]) + "\n")
        data = OmegaConf.create({"name": name, "path": str(path), "limit": None, "on_error": config.OnError.stop})
        (read,) = trajectories(data, 0, ReadReport())
    assert read.query == "Which papers on love do we have?"
    assert read.tools[0].required == ("query",)


def test_the_sample_question_and_the_sample_answer_of_a_benchmark_can_be_read():
    blocks = code_blocks((ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8"), "json")
    (sample,) = openai.parse_sample(json.loads(blocks[-1]), 1, Counter())
    assert sample.goldens == (Call("search", {"query": "love"}),)
    answer = json.loads(blocks[0])
    assert Prediction.from_json(answer).to_json() == answer


def test_the_example_of_the_readme_prints_what_stands_below_it(capsys):
    blocks = re.findall(r"(?:^ {4}.*\n)+", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    at = next(i for i, block in enumerate(blocks) if "import grade" in block)
    exec(compile(dedent(blocks[at]), "README.md", "exec"), {})
    assert capsys.readouterr().out == dedent(blocks[at + 1])


def documented(text: str) -> set[str]:
    """Return the names of metrics in code spans."""
    return set(re.findall(r"`((?:train|held_out|irm|total|mae|eval)/[a-z_/]*[a-z_])`", text))


def test_metrics_are_documented():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    wanted = {*names.TRAIN, *names.HELD_OUT, *names.IRM, *names.CONVERSATIONS, *names.TOTAL, *names.MAE}
    wanted.add("irm/samples_table")
    between = {f"irm/grade/{outcome}" for outcome in SAMPLED_OUTCOMES[1:-1]}
    assert wanted - between <= documented(text)
    assert {name for name in documented(text) if not names.is_known(name)} == set()


def test_the_documented_layers_are_those_of_the_test():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", text, re.MULTILINE)
    floors = [tuple(room.rstrip("/") for room in re.findall(r"`(\S+?)`", rooms)) for _, rooms in rows]
    assert floors == [tuple(floor) for floor in FLOORS]


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
