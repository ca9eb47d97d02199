"""stage=irm trains on answerable prompts, prices answers as configured, and warns if a model lacks the format."""

from __future__ import annotations

import json

import pytest

from tests.support.reader_samples import STUBS
from tests.support.small_runs import ALGORITHMS, SMALL, last_line, steps

PROMPT = f"System: {STUBS}\nUser: Advice on love?\nAssistant:"
GOLDEN = ['search(query="love")', f'search(query="{"love " * 40}")', 'search(query="work")', 'search(query="war")']


@pytest.fixture
def data(tmp_path) -> list[str]:
    """Four prompts, one with a golden call of over 40 tokens; none is held out."""
    path = tmp_path / "irm_data.json"
    path.write_text(json.dumps([{"instruction": PROMPT, "output": golden} for golden in GOLDEN]))
    return ["data=irm", f"data.path={path}", "data.holdout=0"]


def test_the_limit_is_the_longest_golden_call_and_a_quarter_more_in_stage_and_plan(tltrain, data):
    words = (*SMALL, *data, "hardware=cpu")
    train = tltrain("stage=irm", *words, *ALGORITHMS["ppo"], "stage.args.max_steps=1").metrics["train"]
    planned = tltrain("stage=plan", "stage.of=irm", *words).metrics
    assert train["prompts"] == 4 and train["too_long_answer"] == 0
    assert 50 < train["max_new_tokens"] == planned["batch"]["new"] < 400


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_prompts_that_cannot_be_answered_are_left_out_with_one_line(tltrain, data, algorithm):
    words = (*SMALL, *data, *ALGORITHMS[algorithm], "stage.max_new_tokens=40", "stage.args.max_steps=1")
    ran = tltrain("stage=irm", *words)
    train = ran.metrics["train"]
    assert (train["prompts"], train["too_long_answer"], train["max_new_tokens"]) == (3, 1, 40)
    said = " ".join(ran.err.split())
    assert "the golden call of 1 of 4 (25.0 %) prompts does not fit stage.max_new_tokens=40, the longest has" in said
    assert "they are left out (stage.too_long_answer=skip)" in said
    # These weights are random: the first rollout is noise, and one line says what to do first.
    assert said.count("of the first rollout cannot be read: the model does not know the format yet") == 1
    assert "train it with stage=sft or stage=pkt first" in said
    (entry,) = steps(ran)
    assert entry["response_length"] <= 40
    assert entry["grade/cut"] == pytest.approx(1 - entry["ended"] - entry["no_end_token"])
    assert {row["ended"] for row in ran.lines("samples.jsonl") if row["grade"] == "cut"} <= {False}


def test_prompts_that_cannot_be_answered_are_kept_or_end_the_run_if_configured(tltrain, data):
    words = (*SMALL, *data, *ALGORITHMS["ppo"], "stage.max_new_tokens=40", "stage.args.max_steps=1")
    kept = tltrain("stage=irm", *words, "stage.too_long_answer=keep")
    assert (kept.metrics["train"]["prompts"], kept.metrics["train"]["too_long_answer"]) == (4, 1)
    assert "they are kept, and no answer to them can be right" in " ".join(kept.err.split())
    line = last_line(tltrain("stage=irm", *words, "stage.too_long_answer=error", status=1))
    assert line.startswith("the golden call of 2#1 has ") and "stage.max_new_tokens=40 would cut it" in line


def test_nothing_that_can_be_answered_is_an_error(tltrain, data):
    ran = tltrain("stage=irm", *SMALL, *data, *ALGORITHMS["ppo"], "stage.max_new_tokens=2", status=1)
    assert last_line(ran).endswith(
        "0 prompts left out as too long, 4 because their golden call does not fit stage.max_new_tokens=2"
    )


def test_a_price_for_cut_responses_is_paid(tltrain, data):
    words = (*SMALL, *data, *ALGORITHMS["grpo"], "stage.max_new_tokens=40", "stage.args.max_steps=1")
    ran = tltrain("stage=irm", *words, "reward.cut=-0.75", "stage.samples_every=1", "stage.samples=100")
    rewards = {row["grade"]: row["reward"] for row in ran.lines("samples.jsonl")}
    assert rewards["cut"] == -0.75
    assert rewards.get("format_error", -2) == -2


def test_a_mean_over_responses_reaches_both_kinds_of_trainer(tltrain, data):
    words = (*SMALL, *data, "stage.max_new_tokens=40", "stage.args.max_steps=1", "stage.loss_mean=responses")
    (entry,) = steps(tltrain("stage=irm", *words, *ALGORITHMS["ppo"]))
    assert entry["loss"] == pytest.approx(entry["policy_loss"] + entry["value_loss"], abs=1e-5)
    ran = tltrain("stage=irm", *words, *ALGORITHMS["grpo"])
    assert ran.metrics["steps"] == 1
    line = last_line(tltrain("stage=irm", *words, "stage.algorithm=grpo", "+stage.args.loss_type=bnpo", status=1))
    assert line.startswith("stage.loss_mean=responses means TRL's loss_type=grpo, but stage.args.loss_type=bnpo is ")
