"""A stage of a pipeline, or one that is planned, names its keys as the user of the pipeline types them."""

from __future__ import annotations

import logging

import pytest

from tests.support.configuration_keys import paths
from tltrain import config
from tltrain.entry import launch
from tltrain.errors import TltrainError
from tltrain.runtime import stage_names, terminal
from tltrain.stages import pipeline, plan

NODES = [("pipeline", node, pipeline.OWN[node]) for node in pipeline.OWN] + [
    ("plan", node, ()) for node in pipeline.OWN
]


@pytest.mark.parametrize(("stage", "node", "own"), NODES)
def test_every_key_of_a_sub_stage_is_named_below_its_node(stage, node, own):
    schema = config.keys_of(config.stage_schema(stage))[node].schema
    keys = [key for key, _ in paths(schema, "stage") if key != "stage.name"]
    place = stage_names.Node(stage, node, own)
    assert len(keys) > 5
    for key in keys:
        name = key.removeprefix("stage.")
        right = key if name in own else f"stage.{node}.{name}"
        text = f"{key}: this is set by {key}; see stage={node}, /stage.txt and my_stage.args"
        assert stage_names.renamed(text, place) == text.replace(f"{key}:", f"{right}:").replace(
            f"by {key};", f"by {right};"
        )
        assert stage_names.renamed(f"{right}=3", place) == f"{right}=3"  # what is right stays
    assert stage_names.renamed("stage.benchmarks, stage.nope.x", place) == "stage.benchmarks, stage.nope.x"


def test_what_a_sub_stage_raises_logs_and_prints_is_named_so(tltrain, made, monkeypatch, tmp_path):
    """Through the command line: the supervised stage of a pipeline ends with a user's mistake."""
    resolve = launch.resolve

    def fail(cfg, folder):
        logging.getLogger("tltrain").warning("lower %s", "stage.args.learning_rate")
        terminal.errors.print("stage.tree_size=16 is large", markup=False)
        raise TltrainError("stage.args: best is not a valid OptimizerNames (stage.w_max, stage.rule)")

    monkeypatch.setattr(
        launch, "resolve", lambda name: fail if name == "tltrain.stages.supervised:run" else resolve(name)
    )
    ran = tltrain("stage=pipeline", "model=tiny", f"cache.dir={tmp_path / 'cache'}", "stage.irm=false", status=1)
    said = "stage.supervised.args: best is not a valid OptimizerNames (stage.w_max, stage.rule)"
    assert ran.err.splitlines()[-1] == said
    assert (ran.folder / "error.txt").read_text() == f"{said}\n"
    assert "lower stage.supervised.args.learning_rate" in ran.err
    assert "stage.supervised.tree_size=16 is large" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["stage=pipeline", "+stage.supervised.args.packing=true"],
            "stage.supervised.args.packing: this is set by stage.supervised.packing",
        ),
        (["stage=pipeline", "+stage.rl.args.temperature=1"], "stage.rl.args.temperature: "),
        (["stage=plan", "+stage.supervised.args.packing=true"], "stage.supervised.args.packing: this is set by"),
    ],
)
def test_so_is_a_mistake_that_is_found_before_it_begins(words, said, tltrain):
    assert tltrain("model=tiny", *words, status=1).err.splitlines()[-1].startswith(said)


def test_the_planned_stage_s_nodes_are_the_pipeline_s():
    assert plan.NODES == pipeline.NODES
