"""The golden calls and the random tool as sources, behaviour common to all sources, and libraries that none loads."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from unittest import mock

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.support.composition import composed
from tests.support.processes import forked
from tltrain import config, sources, toolworld
from tltrain.errors import TltrainError
from tltrain.formats.calls import read_calls
from tltrain.grading import Outcome, grade
from tltrain.sources import open_source
from tltrain.sources.baselines import placeholder
from tltrain.trajectory import ANY, Call, Message, OneOf, Sample, Tool

SEARCH = Tool(
    "search",
    "",
    {
        "type": "object",
        "properties": {
            "words": {"type": "string"},
            "limit": {"type": "integer"},
            "order": {"enum": ["newest", "oldest"]},
            "page": {"type": "integer"},
        },
        "required": ["words", "limit", "order", "undocumented"],
    },
)
FINISH = Tool("finish", "", {"type": "object", "properties": {}})


def sample(*goldens, tools=(SEARCH, FINISH), identity="1", messages=1, parallel=False):
    return Sample(identity, tools, (Message("user", "?"),) * messages, goldens, parallel=parallel)


def answers(name, *samples, benchmark="toolworld", seed=0):
    cfg = OmegaConf.create({"source": {"name": name}, "benchmark": {"name": benchmark}, "seed": seed})
    with open_source(cfg) as source:
        assert source.too_long == 0
        return source(samples)


# --- golden calls ----------------------------------------------------------------------------------------------------


def test_the_golden_call_is_written_with_values_it_accepts():
    golden = Call("search", {"words": OneOf(("a b", "ab")), "limit": ANY, "order": OneOf((), optional=True)})
    (text,) = answers("golden", sample(golden, Call("finish")))
    assert text.startswith('search(words="a b", limit=')
    assert grade(text, golden, (SEARCH,)).outcome is Outcome.CORRECT


def test_all_golden_calls_are_written_where_all_are_asked_for():
    goldens = Call("search", {"words": "x\ny"}), Call("finish")
    assert read_calls(answers("golden", sample(*goldens, parallel=True))[0]) == list(goldens)
    assert read_calls(answers("golden", sample(*goldens))[0]) == [goldens[0]]


def test_a_sample_without_golden_calls_is_an_error():
    with pytest.raises(TltrainError, match="source=golden: sample 7 has no golden call"):
        answers("golden", sample(identity="7"))


# --- a random tool ---------------------------------------------------------------------------------------------------


def test_what_is_required_is_filled_by_type():
    (text,) = answers("random", sample(tools=(SEARCH,)))
    assert text == 'search(words="text", limit=1, order="newest", undocumented="text")'


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "number"}, 1.0),
        ({"type": "float"}, 1.0),
        ({"type": "boolean"}, True),
        ({"type": "array", "items": {"type": "string"}}, []),
        ({"type": "dict"}, {}),
        ({"type": ["null", "string"]}, None),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
        ({"type": "integer", "enum": [3, 4]}, 3),
        ({"type": "tuple of things"}, "text"),
        ({}, "text"),
    ],
)
def test_placeholders(schema, value):
    found = placeholder(schema)
    assert found == value and type(found) is type(value)


def test_the_draw_depends_only_on_seed_and_sample():
    tools = tuple(Tool(f"tool{number}", "", {}) for number in range(4))
    samples = [sample(tools=tools, identity=str(number)) for number in range(400)]
    drawn = answers("random", *samples)
    assert answers("random", *samples[::-1]) == drawn[::-1]
    assert answers("random", *samples, seed=1) != drawn
    assert answers("random", *(sample(tools=tools, identity=s.id, messages=3) for s in samples)) != drawn
    counts = Counter(drawn)
    assert len(counts) == 4 and all(70 <= count <= 130 for count in counts.values())  # 3.5 standard deviations


def test_it_never_contradicts_the_documentation_of_toolworld():
    samples = list(toolworld.samples(60, 0))
    for text, asked in zip(answers("random", *samples), samples, strict=True):
        assert not grade(text, None, asked.tools).de


def test_no_tool_no_call():
    assert answers("random", sample(tools=())) == [""]


# --- the local model -------------------------------------------------------------------------------------------------


def test_the_local_model_is_read_once_and_asked_often(models_cache, caplog):
    from tltrain.models import loading

    config.register()
    words = ["stage=eval", "model=tiny", "data.size=4", "hardware.threads=1", "stage.max_new_tokens=4"]
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        cfg = compose("config", [*words, f"cache.dir={models_cache}"])
    samples = list(toolworld.samples(3, 0))
    endless = replace(samples[0], messages=(Message("user", "word " * 9000),))
    with mock.patch.object(loading, "load_model", wraps=loading.load_model) as load, open_source(cfg) as source:
        together = source(samples)
        assert [source([one])[0] for one in samples] == together and all(together)
        assert source.too_long == 0
        assert source([endless, samples[1]]) == [None, together[1]]
        assert source([endless]) == [None] and source.too_long == 2
    assert load.call_count == 1
    assert source.name.startswith(f"{models_cache}/models/tiny-")
    assert "1 of 2 prompts are too long for the model's context of 8192 tokens" in caplog.text


# --- through the command line ----------------------------------------------------------------------------------------


def test_a_ceiling_and_a_floor(tltrain):
    ceiling = tltrain("stage=eval", "source=golden", "benchmark.size=60").metrics
    assert [ceiling[f"toolworld/{level}"] for level in ("ts", "pi", "cf", "n")] == [100, 100, 100, 60]
    assert (ceiling["model"], ceiling["source"], ceiling["toolworld/reward"]) == ("golden calls", "golden", 1)
    first, second = (tltrain("stage=eval", "source=random", "benchmark.size=60") for _ in range(2))
    assert first.lines("predictions.jsonl") == second.lines("predictions.jsonl")
    assert first.metrics["source"] == "random"
    assert 0 < first.metrics["toolworld/ts"] < 40 and first.metrics["toolworld/cf"] < 20


def test_a_ceiling_where_several_calls_are_asked_for(tltrain, tmp_path):
    record = {
        "messages": [{"role": "user", "content": "both"}],
        "tools": [{"type": "function", "function": {"name": name, "parameters": {}}} for name in "fg"],
        "tool_calls": [{"function": {"name": name, "arguments": "{}"}} for name in "gf"],
    }
    (tmp_path / "two.jsonl").write_text(json.dumps(record))
    metrics = tltrain(
        "stage=eval", "source=golden", "benchmark=openai", f"benchmark.path={tmp_path / 'two.jsonl'}"
    ).metrics
    assert metrics["two/any/cf"] == metrics["two/every/cf"] == 100


def test_saved_predictions_are_read_whatever_the_source(tltrain, tmp_path):
    (tmp_path / "saved.jsonl").write_text('{"prediction": "f()"}\n' * 3)
    words = ["stage=eval", "benchmark.size=3", f"stage.predictions={tmp_path / 'saved.jsonl'}"]
    metrics = tltrain(*words).metrics
    assert (metrics["model"], metrics["source"], metrics["toolworld/ts"]) == (None, None, 0)


def test_predict_asks_the_same_sources(tltrain, tmp_path):
    (tmp_path / "chat.json").write_text(
        json.dumps(
            {
                "messages": [{"role": "user", "content": "go"}],
                "tools": [{"type": "function", "function": {"name": "go", "parameters": {}}}],
            }
        )
    )
    words = ["stage=predict", f"data.path={tmp_path / 'chat.json'}"]
    assert tltrain(*words, "source=random").metrics["text"] == "go()"
    ran = tltrain(*words, "source=golden", status=1)
    assert ran.err.endswith("has no golden call; ask another source\n")


def test_neither_needs_torch(tmp_path):
    words = ["stage=eval", "benchmark.size=3", "tracking=none", "hydra.run.dir=run"]
    for ran in forked(tmp_path, [[*words, f"source={source}"] for source in ("golden", "random")]):
        assert ran.status == 0, ran.err
        assert ran.loaded == [] and (ran.folder / "run" / "metrics.json").is_file()


# --- what only the local model can do --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"names": "offered"}, "stage.names=offered: only source=model supports it; for a server's own guided"),
        ({"temperature": 0.7}, "stage.temperature=0.7 applies to source=model; a server takes"),
    ],
)
def test_a_server_is_not_asked_for_it_in_a_sweep_either(words, said):
    """The command line refuses these keys, but a sweep or a user's own file may set them."""
    cfg = composed("stage=eval", "source=endpoint", "source.url=http://localhost:1/v1", "source.model=m")
    cfg.stage = config.merged(cfg.stage, words)
    with pytest.raises(TltrainError) as error:
        sources.check(cfg)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(("stage", "shown"), [("eval", "answering toolworld"), ("predict", "answering")])
def test_only_a_stage_that_asks_a_benchmark_names_it_while_answers_are_generated(stage, shown):
    assert sources.description(composed(f"stage={stage}", "benchmark=toolworld")) == shown
