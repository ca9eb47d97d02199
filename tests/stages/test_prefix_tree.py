"""stage=sft and stage=pkt with `stage.packing=prefix_tree` and `auto`, through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.trajectories import conversation
from tltrain.data import native
from tltrain.trajectory import Call

TINY = ["stage=pkt", "model=tiny", "model.random.hidden_size=32", "model.random.num_hidden_layers=1", "data=tltrain"]
STILL = ["stage.args.learning_rate=0", "stage.args.gradient_accumulation_steps=100", "stage.args.max_steps=1"]


@pytest.fixture
def file(tmp_path) -> Path:
    """Twelve trajectories over the same tools."""
    path = tmp_path / "train.jsonl"
    calls = [Call("getPapersByKeywords", {"words": "llm"}), Call("finish", {"answer": "done"})]
    items = [conversation(*calls[number % 2 :], query=f"Question {number}") for number in range(12)]
    path.write_text("".join(native.dumps(item) + "\n" for item in items))
    return path


def test_trees_give_the_losses_of_turns(tltrain, file):
    words = [*TINY, f"data.path={file}", *STILL, "data.holdout=0.25"]
    turn, tree = (tltrain(*words, f"stage.packing={packing}").metrics for packing in ("turn", "prefix_tree"))
    assert tree["train"]["packing"] == "prefix_tree" and tree["train"]["samples"] == 1
    assert tree["train"]["turns"] == turn["train"]["turns"] > 10
    assert tree["train"]["tokens"] < 0.2 * turn["train"]["tokens"]
    for part, name in (
        ("train", "train_loss"),
        ("train", "key_token_loss"),
        ("train", "other_token_loss"),
        ("held_out", "held_out_loss"),
    ):
        assert turn[part][name] == pytest.approx(tree[part][name], abs=1e-4), name


def test_auto_says_what_it_chose_and_why(tltrain, file):
    few = [*TINY, "stage.args.max_steps=1", "stage.args.gradient_accumulation_steps=1", "stage.tree_size=4"]
    ran = tltrain(*few, f"data.path={file}", "data.holdout=0", "stage.packing=auto")
    train = ran.metrics["train"]
    assert (train["packing"], train["samples"], train["trajectories"]) == ("prefix_tree", 3, 12)
    (line,) = (line for line in (ran.folder / "tltrain.log").read_text().splitlines() if "packing=auto" in line)
    trees, apart = train["tokens_in_trees"], train["tokens_apart"]
    assert f"prefix_tree; trees have {trees} tokens, {trees / apart:.2f} of the {apart} in 12 trajectories" in line
    assert "3 optimizer steps per epoch, 12 with packing=trajectory" in line
    alone = tltrain(*few, f"data.path={file}", "data.holdout=0", "stage.packing=auto", "stage.tree_size=1").metrics
    assert (alone["train"]["packing"], alone["train"]["samples"]) == ("trajectory", 12)


def test_attention_that_cannot_take_trees_ends_in_one_line(tltrain, file):
    words = [*TINY, f"data.path={file}", "model.attn_implementation=flex_attention", "hardware=cpu"]
    ran = tltrain(*words, "stage.packing=prefix_tree", status=1)
    assert "flex_attention does not train on a CPU: model.attn_implementation=sdpa" in ran.err
    assert "Traceback" not in ran.err


def test_irm_has_no_trees_of_trajectories_yet(tltrain):
    ran = tltrain("stage=irm", "stage.packing=prefix_tree", status=1)
    assert "stage.packing: Invalid value 'prefix_tree', expected one of [trajectory, turn]" in ran.err
