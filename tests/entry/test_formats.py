"""The group `format`: what is composed, and what is refused before anything is loaded."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig, OmegaConf

from tests.support.composition import composed, mistake
from tltrain import config
from tltrain.entry import formats
from tltrain.errors import TltrainError
from tltrain.formats import families
from tltrain.formats.own import FORMATS


def test_the_papers_format_is_the_default_and_every_family_has_a_file():
    assert composed("stage=pkt").format.name == "tl"
    files = {file.stem for file in (config.CONF_DIR / "format").glob("*.yaml")}
    assert files == set(families.NAMES) == set(FORMATS)


def chosen(name: str = "qwen3", **parts) -> DictConfig:
    """What the check looks at."""
    base = {
        "format": {"name": name, "options": {}, "date": "2024-07-26"},
        "stage": {"name": "pkt"},
        "model": {"bos": "auto"},
        "benchmark": {"multi": False},
        "source": {"name": "model"},
    }
    return OmegaConf.merge(base, parts)


@pytest.mark.parametrize("stage", ["sft", "pkt", "eval", "predict", "inspect", "mae"])
def test_these_stages_take_a_native_format(stage):
    formats.check(chosen(stage={"name": stage}))
    formats.check(chosen(stage={"name": "pipeline", "irm": False}))


@pytest.mark.parametrize(
    ("cfg", "line"),
    [
        (chosen(stage={"name": "irm"}), "format=qwen3: stage=irm works with format=tl alone so far"),
        (chosen("auto", stage={"name": "plan"}), "format=auto: stage=plan works with format=tl alone so far"),
        (chosen(stage={"name": "pipeline", "irm": True}), "format=qwen3: IRM works with format=tl alone so far"),
        (chosen(stage={"name": "eval"}, benchmark={"multi": True}), "conversations (benchmark.multi) work with"),
        (chosen(stage={"name": "eval"}, source={"name": "endpoint"}), "source.mode=chat asks a server"),
        (chosen(model={"bos": True}), "model.bos: with format=qwen3 the chat template says"),
        (chosen("tl", format={"options": {"a": 1}}), "format.options: format=tl has no chat template"),
        (chosen(format={"date": "tomorrow"}), "format.date: expected a date as YYYY-MM-DD, found tomorrow"),
        (chosen(format={"date": "2024-02-31"}), "format.date: expected a date as YYYY-MM-DD"),
    ],
)
def test_what_does_not_work_yet_is_refused_in_one_line(cfg, line):
    with pytest.raises(TltrainError) as caught:
        formats.check(cfg)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_the_check_is_made_before_a_stage_begins():
    assert mistake("stage=pkt", "model=tiny", "format=qwen3", "model.bos=true").startswith("model.bos: with format=")
    assert mistake("stage=pkt", "format=mistral").startswith("format=mistral: no such choice; there are: auto, gemma")


def test_the_options_of_a_template_pass_by_their_own_names():
    cfg = composed("stage=pkt", "model=tiny", "format=qwen3", "+format.options.enable_thinking=false")
    assert cfg.format.options == {"enable_thinking": False}
