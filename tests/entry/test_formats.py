"""The group `format`: the composed configuration, and choices that are refused before anything is loaded."""

from __future__ import annotations

import json

import pytest
from omegaconf import DictConfig, OmegaConf

from tests.support.composition import composed, mistake
from tltrain import config
from tltrain.entry import formats
from tltrain.errors import TltrainError
from tltrain.formats import families
from tltrain.formats.own import FORMATS

MODELS = sorted((config.CONF_DIR / "model").glob("*.yaml"))


def test_the_papers_format_is_the_default_and_every_family_has_a_file():
    assert composed("stage=pkt").format.name == "tl"
    files = {file.stem for file in (config.CONF_DIR / "format").glob("*.yaml")}
    assert files == set(families.NAMES) == set(FORMATS)


def chosen(name: str = "qwen3", **parts) -> DictConfig:
    """Return the part of a configuration that the check reads."""
    base = {
        "format": {"name": name, "options": {}, "date": "2024-07-26"},
        "stage": {"name": "pkt"},
        "model": {"bos": "auto", "path": None},
        "benchmark": {"multi": False, "name": "toolworld"},
        "source": {"name": "model"},
    }
    return OmegaConf.merge(base, parts)


@pytest.mark.parametrize("stage", ["sft", "pkt", "irm", "eval", "predict", "inspect", "analyze", "plan", "demo", "mae"])
def test_these_stages_take_a_native_format(stage):
    formats.check(chosen(stage={"name": stage}))
    formats.check(chosen(stage={"name": stage}, benchmark={"multi": True}))
    formats.check(chosen(stage={"name": "pipeline", "irm": True}))


@pytest.mark.parametrize(
    ("cfg", "line"),
    [
        (
            chosen("lfm2", stage={"name": "irm", "names": config.Names.offered}),
            "stage.names=offered needs a fixed text",
        ),
        (chosen("tl", stage={"name": "irm", "learn_thoughts": False}), "answers in the TL format have no thoughts"),
        (chosen(stage={"name": "eval"}, source={"name": "endpoint"}), "source.mode=chat asks a server"),
        (chosen(model={"bos": True}), "model.bos: with format=qwen3 the chat template decides"),
        (chosen("tl", format={"options": {"a": 1}}), "format.options: format=tl has no chat template"),
        (chosen(format={"date": "tomorrow"}), "format.date: expected a date as YYYY-MM-DD, found tomorrow"),
        (chosen(format={"date": "2024-02-31"}), "format.date: expected a date as YYYY-MM-DD"),
    ],
)
def test_what_does_not_work_yet_is_refused_in_one_line(cfg, line):
    with pytest.raises(TltrainError) as caught:
        formats.check(cfg)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_of_its_own_format_chooses_auto_unless_another_is_asked_for():
    names = {model.stem: composed("stage=pkt", f"model={model.stem}").format.name for model in MODELS}
    own = {name: "auto" for name in names if name.startswith(("qwen3_", "smollm3_"))}
    own |= {"llama3_2_1b": "llama3", "llama3_2_3b": "llama3", "gpt_oss_20b": "gptoss", "mistral_7b_v0_3": "native"}
    assert names == dict.fromkeys(names, "tl") | own
    assert composed("stage=pkt", "format=tl", "model=qwen3_0_6b").format.name == "tl"
    assert composed("stage=eval", "model=qwen3_0_6b", "format=qwen3").format.name == "qwen3"
    formats.check(composed("stage=eval", "model=qwen3_0_6b", "source=endpoint"))


@pytest.fixture
def trained(tmp_path):
    """`trained(name)` returns the folder of a model that was trained in a format."""

    def make(name: str) -> str:
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "tltrain.json").write_text(json.dumps({"version": 1, "bos": False, "format": name}))
        return str(tmp_path)

    return make


@pytest.mark.parametrize("stage", ["pkt", "irm", "eval", "predict", "inspect", "plan", "pipeline"])
def test_a_model_that_was_trained_in_another_format_is_refused_before_anything_is_loaded(stage, trained):
    path = trained("qwen3")
    (line,) = {mistake(f"stage={stage}", f"model.path={path}", *more) for more in ([], ["format=tl"])}
    assert line == f"format=tl: {path} was trained with format=qwen3; format=auto takes the one it knows"
    assert mistake("stage=sft", f"model.path={path}", "format=hermes").startswith(f"format=hermes: {path} was trained")
    for name in ("auto", "qwen3"):
        formats.check(composed("stage=sft", f"model.path={path}", f"format={name}"))


def test_where_models_are_compared_or_not_asked_each_has_its_own_format(trained):
    path = trained("qwen3")
    for words in (["stage=analyze"], ["stage=eval", "benchmark=toolworld_turns"]):
        formats.check(composed(*words, f"model.path={path}"))
    assert "was trained with" in mistake("stage=analyze", f"model.path={path}", "format=hermes")


def test_the_check_is_made_before_a_stage_begins():
    assert mistake("stage=pkt", "model=tiny", "format=qwen3", "model.bos=true").startswith("model.bos: with format=")
    assert mistake("stage=pkt", "format=mistral").startswith("format=mistral: no such choice; there are: auto, gemma")


def test_the_options_of_a_template_pass_by_their_own_names():
    cfg = composed("stage=pkt", "model=tiny", "format=qwen3", "+format.options.enable_thinking=false")
    assert cfg.format.options == {"enable_thinking": False}
    composed("stage=irm", "model=tiny", "format=qwen3", "+format.options.enable_thinking=false")
