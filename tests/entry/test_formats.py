"""The group `format`: what is composed, and what is refused before anything is loaded."""

from __future__ import annotations

import pytest

from tests.support.composition import composed, mistake
from tltrain import config
from tltrain.formats import families


def test_the_papers_format_is_the_default_and_every_family_has_a_file():
    assert composed("stage=pkt").format.name == "tl"
    files = {file.stem for file in (config.CONF_DIR / "format").glob("*.yaml")}
    assert files == set(families.NAMES) == set(config.keys_of(config.Format)["name"].among)


@pytest.mark.parametrize("stage", ["sft", "pkt", "eval", "inspect"])
def test_these_stages_take_a_native_format(stage):
    assert mistake(f"stage={stage}", "format=qwen3", "model=tiny") == ""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("stage=irm", "format=qwen3"), "format=qwen3: stage=irm works with format=tl alone so far"),
        (("stage=plan", "format=auto"), "format=auto: stage=plan works with format=tl alone so far"),
        (("stage=pipeline", "format=hermes"), "format=hermes: IRM works with format=tl alone so far; stage.irm=false"),
        (("stage=eval", "format=qwen3", "benchmark=toolworld_multi"), "conversations (benchmark.multi) work with"),
        (
            ("stage=eval", "format=qwen3", "source=endpoint", "source.url=http://x/v1", "source.model=m"),
            "source.mode=chat asks a server in its model's own format",
        ),
        (("stage=pkt", "format=qwen3", "model.bos=true"), "model.bos: with format=qwen3 the chat template says"),
        (("stage=pkt", "format.options.enable_thinking=false"), "format.options: format=tl has no chat template"),
        (("stage=pkt", "format=qwen3", "format.date=tomorrow"), "format.date: expected a date as YYYY-MM-DD"),
        (("stage=pkt", "format=qwen3", "format.date=2024-02-31"), "format.date: expected a date as YYYY-MM-DD"),
        (("stage=pkt", "format=mistral"), "format=mistral: no such choice; there are: auto, gemma"),
        (("stage=pkt", "format.name=foo"), "format.name: expected one of auto, tl, native, qwen3"),
        (("stage=mae", "format.date=2024-01-01"), "format.date: stage=mae reads no such key"),
    ],
)
def test_what_does_not_work_yet_is_refused_in_one_line(words, line):
    said = mistake(*words)
    assert line in said and "\n" not in said


def test_a_pipeline_without_irm_takes_a_native_format():
    assert mistake("stage=pipeline", "stage.irm=false", "format=qwen3", "model=tiny") == ""


def test_the_options_of_a_template_pass_by_their_own_names():
    cfg = composed("stage=pkt", "model=tiny", "format=qwen3", "+format.options.enable_thinking=false")
    assert cfg.format.options == {"enable_thinking": False}
