"""`--config-dir FOLDER`: a user's own choices work like those of conf/, and mistakes in them end in one line."""

from __future__ import annotations

import pytest
import yaml

from tests.support.paths import ROOT

SCHEMA = "defaults: [/schema/data@_here_]\n"
FILES = {
    "data/misspelt": f"{SCHEMA}name: openai\npth: x\n",
    "data/wrong_type": f"{SCHEMA}name: openai\nholdout: lots\n",
    "data/no_schema": "name: openai\npath: x.jsonl\n",
    "data/wrong_schema": "defaults: [/schema/dat@_here_]\nname: openai\n",
    "data/broken": f"{SCHEMA}name: [openai\n",
    "model/no_base": "defaults: [smollm2_135, _self_]\nname: x\n",
    "model/wrong_argument": "defaults: [tiny, _self_]\nargs: {learning_rat: 1}\n",
    "stage/no_schema": "name: pkt\nmae: true\n",
    "experiment/wrong_key": "# @package _global_\ndefaults: [override /stage: pkt]\nstage: {w_mx: 3}\n",
    "experiment/wrong_choice": "# @package _global_\ndefaults: [override /model: tinny]\n",
}


@pytest.fixture
def own(tmp_path):
    """Make a folder of choices, each with a mistake."""
    for name, text in FILES.items():
        file = tmp_path / "own" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "own"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data=misspelt"], "data/misspelt.yaml: data.pth: no such key; did you mean path?"),
        (["data=wrong_type"], "data.holdout: expected a number, found lots"),
        (
            ["data=no_schema"],
            "data: the chosen file has no schema, so nothing checks its keys: begin it with `defaults: ",
        ),
        (["stage=no_schema"], "stage: the chosen file has no schema, so nothing checks its keys: begin it with "),
        (["data=wrong_schema"], "data/wrong_schema.yaml: defaults: there is no schema/dat; did you mean schema/data?"),
        (["data=broken"], "{own}/data/broken.yaml, line 3: expected YAML, found: "),
        (
            ["model=no_base"],
            "model/no_base.yaml: defaults: there is no model/smollm2_135; did you mean model/smollm2_135m?",
        ),
        (
            ["model=wrong_argument"],
            "model.args.learning_rat: trl.SFTConfig has no such argument; did you mean learning_rate?",
        ),
        (["+experiment=wrong_key"], "experiment/wrong_key.yaml: stage.w_mx: no such key; did you mean w_max?"),
        (["+experiment=wrong_choice"], "model=tinny: no such choice; did you mean tiny?; there are: codellama_7b, "),
        (["data=nothing"], "data=nothing: no such choice; there are: adp, anthropic, api_log, auto, broken, "),
    ],
)
def test_a_mistake_in_a_users_file_ends_in_one_line(tltrain, own, words, said):
    (line,) = tltrain("--config-dir", str(own), "stage=mae", *words, status=1).err.splitlines()
    assert line.startswith(said.replace("{own}", str(own)))


def test_a_config_dir_that_is_not_there_ends_in_one_line(tltrain, own):
    (line,) = tltrain("--config-dir", "/no/such", "stage=mae", status=1).err.splitlines()
    assert line == "--config-dir: /no/such does not exist"
    file = own / "data" / "misspelt.yaml"
    (line,) = tltrain("--config-dir", str(file), "stage=mae", status=1).err.splitlines()
    assert line == f"--config-dir: {file} is not a folder"


EXAMPLE = ("--config-dir", str(ROOT / "examples" / "own_configs"))


def composed(tltrain, *words: str) -> dict:
    return yaml.safe_load(tltrain(*EXAMPLE, "--cfg", "job", *words).out)


def test_the_example_folder_adds_choices_that_inherit_from_the_built_in_ones(tltrain):
    found = composed(tltrain, "+experiment=support_desk")
    assert (found["stage"]["name"], found["stage"]["rule"], found["stage"]["w_max"]) == ("pkt", "strict", 9.0)
    assert (found["data"]["name"], found["data"]["holdout"]) == ("openai", 0.15)
    built_in = yaml.safe_load(tltrain("--cfg", "job", "stage=pkt", "model=smollm2_135m").out)["model"]
    assert found["model"] == built_in | {"args": built_in["args"] | {"num_train_epochs": 3, "learning_rate": 2e-4}}


@pytest.mark.parametrize("words", [["stage=pkt", "data=support_desk"], ["+experiment=support_desk"], ["stage=irm"]])
def test_the_debug_config_makes_any_run_small(tltrain, words):
    found = composed(tltrain, *words, "+debug=quick")
    assert (found["model"]["name"], found["tracking"]["name"]) == ("tiny", "none")
    assert found["data"]["limit"] == 8 and found["benchmark"]["limit"] == 2
    assert found["model"]["args"]["max_steps"] == found["model"]["irm"]["args"]["max_steps"] == 2


def test_the_command_line_overrides_the_debug_config(tltrain):
    found = composed(tltrain, "stage=pkt", "model=smollm2_135m", "data.limit=3", "+debug=quick")
    assert (found["model"]["name"], found["data"]["limit"]) == ("smollm2_135m", 3)
