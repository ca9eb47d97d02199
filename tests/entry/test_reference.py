"""The configuration reference names every key of every choice."""

from __future__ import annotations

import pytest
import yaml

from tests.support import composition
from tests.support.configuration_keys import paths
from tests.support.paths import ROOT
from tltrain import config
from tltrain.config import keys_of
from tltrain.entry import reference
from tltrain.grading import RewardTable


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    with composition.quick():
        return reference.markdown()


def section(page: str, choice: str) -> str:
    """Return the text below the heading of a choice."""
    return page.split(f"\n## {choice}\n")[1].split("\n## ")[0]


def cells(text: str) -> dict[str, list[str]]:
    """Return type, default, range and meaning of each key from the table in a section."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return {
        key.strip("` "): rest for key, *rest in ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    }


@pytest.mark.parametrize("group", reference.GROUPS)
def test_every_choice_has_every_key_of_its_schema(pages, group):
    for file in sorted((ROOT / "conf" / group).glob("*.yaml")):
        table = cells(section(pages[f"{group}.md"], file.stem))
        if group == "reward":
            schema = RewardTable if table["reward.name"][1] == "`table`" else config.Reward
        elif group == "stage":
            schema = config.stage_schema(table["stage.name"][1].strip("`"))
        else:
            schema = config.SCHEMAS[f"schema/{group}"]
        assert table.keys() >= {key for key, _ in paths(schema, group)}
        assert all(table[f"{group}.{name}"][3] for name in keys_of(schema))


def test_a_keys_line_has_type_value_range_and_meaning(pages):
    pkt = cells(section(pages["stage.md"], "pkt"))
    assert pkt["stage.w_max"][:3] == ["float or null", "`9.0`", "from 1 to 1000000"]
    assert pkt["stage.rule"][:3] == ["paper, strict, failed, errors or random", "`paper`", ""]
    assert pkt["stage.rule"][3].startswith("which calls MAE leaves out; ")
    assert pkt["stage.args"][0] == "arguments of trl.SFTConfig"
    assert pkt["stage.args.save_total_limit"][:2] == ["int or null", "`1`"]
    assert cells(section(pages["stage.md"], "sft"))["stage.w_max"][1] == "`null`"
    demo = cells(section(pages["stage.md"], "demo"))
    assert demo["stage.train_size"][1] == "`96` (`${oc.select:model.demo.train_size,96}`)"
    assert cells(section(pages["reward.md"], "binary"))["reward.wrong_value"][1] == "`-1.0`"
    assert cells(section(pages["model.md"], "tiny"))["model.demo.train_size"][1] == "`200`"


def test_keys_outside_of_groups_are_on_the_first_page(pages):
    table = cells(pages["index.md"])
    assert table["cache.dir"][:2] == ["str", "`outputs/cache`"]
    assert table["seed"][2] == "from 0 to 4294967295"
    assert table.keys() >= {key for node in ("cache", "paths", "report") for key in rows(node)}


def rows(node: str) -> set[str]:
    return {f"{node}.{name}" for name in keys_of(keys_of(config.Config)[node].schema)}


def test_links_lead_to_pages_that_name_every_choice(pages):
    for folder in (*reference.GROUPS, *reference.VERBATIM):
        assert f"]({folder}.md)" in pages["index.md"]
        for file in (ROOT / "conf" / folder).glob("*.yaml"):
            assert f"\n## {file.stem}\n" in pages[f"{folder}.md"]


def test_files_without_a_schema_are_shown_whole(pages):
    for name in ("ablation", "w_max"):
        shown = section(pages["experiment.md"], name).split("```yaml\n")[1].split("```")[0]
        assert yaml.safe_load(shown) == yaml.safe_load((ROOT / "conf" / "experiment" / f"{name}.yaml").read_text())
