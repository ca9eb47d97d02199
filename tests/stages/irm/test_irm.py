"""The output of stage=irm, on a model of a few thousand weights and a few trajectories."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest

from tests.support.reader_samples import STUBS
from tests.support.small_runs import ALGORITHMS, SMALL, reward_letters, steps, weights
from tltrain import toolworld
from tltrain.formats import joined
from tltrain.formats.calls import read_call, render_call
from tltrain.formats.tl import TL
from tltrain.tokens.prompts import questions
from tltrain.training import reward_function

# --- output ---------------------------------------------------------------------------------------------------------


def test_the_model_loads_and_has_learned(ran, model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = ran.folder / "model"
    loaded, base = (AutoModelForCausalLM.from_pretrained(path) for path in (folder, model))
    same = [bool((a == b).all()) for a, b in zip(loaded.parameters(), base.parameters(), strict=True)]
    assert len(same) == 20  # only the policy's: its head is tied to the embedding, and the critic is not saved
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert loaded.config.eos_token_id == tokenizer.eos_token_id and tokenizer.chat_template
    assert len(json.loads((folder / "trained_on.json").read_text())) == 20  # queries and openings of 10


def test_ppo_moves_the_weights(runs, model):
    assert weights(runs["ppo"]) != (model / "model.safetensors").read_bytes()


def test_nothing_unfinished_is_left(ran):
    made = {"before.json", "history.jsonl", "model", "rewards.png", "samples.jsonl"}
    assert {path.name for path in ran.folder.iterdir()} == made | {
        ".decided_by.json",
        ".hydra",
        ".lock",
        "config.yaml",
        "metrics.json",
        "tltrain.log",
    }
    assert (ran.folder / "rewards.png").read_bytes().startswith(b"\x89PNG")


def test_metrics_have_held_out_questions_before_and_after(ran):
    metrics = ran.metrics
    for when in ("before", "after"):
        found = metrics[when]
        assert found["n"] == len(found["rewards"]) == 3
        assert found["reward"] == pytest.approx(sum(found["rewards"]) / 3)
        assert {"ts", "pi", "cf"} < found.keys() and found["intervals"].keys() == {"ts", "pi", "cf"}
        assert sum(found["outcomes"].values()) == 3
    assert json.loads((ran.folder / "before.json").read_text()) == metrics["before"]
    assert metrics["steps"] == 2 and metrics["stopped"] is None
    train = metrics["train"]
    assert (metrics["mae"]["trajectories"], train["trajectories"]) == (12, 10)
    assert 10 < train["prompts"] <= metrics["mae"]["kept"]
    assert {
        "tokens",
        "nothing_to_ask",
        "truncated",
        "too_long",
        "last_reward",
        "last_kl",
        "last_entropy",
    } <= train.keys()
    costs = metrics["costs"]
    sampled = sum(entry["response_length"] * entry["samples"] for entry in steps(ran) if "samples" in entry)
    assert costs["updates"] == 2 and costs["sampled_calls"] > 0 and costs["processor_seconds"] > 0
    assert costs["target_tokens"] == costs["sampled_tokens"] >= sampled
    assert "irm: the data has 0 answerable calls" in ran.err  # no golden call fits four tokens
    assert "3 held-out questions, 2 steps" in ran.out and f"Written to {ran.folder / 'model'}" in ran.out


SHARED = {
    "loss",
    "grad_norm",
    "learning_rate",
    "step",
    "reward",
    "kl",
    "entropy",
    "policy_clip_fraction",
    "response_length",
    "ended",
    "tokens_per_second",
    "seconds",
    "seconds_generation",
    "seconds_scoring",
    "seconds_update",
    *reward_function.GRADES,
}
PPO_ALONE = {
    "policy_loss",
    "value_loss",
    "value_clip_fraction",
    "explained_variance",
    "value",
    "advantage",
    "samples",
    "response_tokens",
    "kl_coefficient",
}


def test_every_step_says_how_it_went(ran):
    assert [entry["step"] for entry in steps(ran)] == [1, 2]
    for entry in steps(ran):
        assert entry.keys() >= SHARED
        assert sum(entry[name] for name in reward_function.GRADES) == pytest.approx(1)
        parts = [entry[f"seconds_{part}"] for part in ("generation", "scoring", "update")]
        assert min(parts) > 0 and sum(parts) == pytest.approx(entry["seconds"])
        assert 1 <= entry["response_length"] <= 4 and 0 <= entry["ended"] <= 1
        assert 0 < entry["entropy"] <= math.log(768) + 1e-3 and entry["tokens_per_second"] > 0
    assert steps(ran)[0]["kl"] == pytest.approx(0, abs=1e-5)


def test_ppo_logs_more(runs):
    for entry in steps(runs["ppo"]):
        assert entry.keys() >= PPO_ALONE
    first, *_ = steps(runs["ppo"])
    assert first["value"] != 0
    assert first["loss"] == pytest.approx(first["policy_loss"] + first["value_loss"], abs=1e-5)
    assert first["kl_coefficient"] == 0.3


def test_a_shared_critic_is_a_head_on_the_policy(irm, model):
    ran = irm("stage.critic.share=true", "stage.critic.init=sft", "stage.args.max_steps=1", "stage.eval_size=0")
    (first,) = steps(ran)
    assert first["reward"] == first["value"] == -2
    assert first["loss"] == pytest.approx(first["policy_loss"] + 0.1 * first["value_loss"], abs=1e-5)
    assert not (ran.folder / "critic").exists()


def test_without_a_penalty_there_is_no_reference(irm):
    ran = irm("stage.kl=0", "stage.args.max_steps=1", "stage.eval_size=0")
    assert "kl" not in steps(ran)[0] and steps(ran)[0]["seconds_reference"] == 0
    assert "last_kl" not in ran.metrics["train"] and "last_reward" in ran.metrics["train"]


def test_a_critic_begins_at_the_mean_reward(irm, model):
    ran = irm("stage.critic.init=sft", "stage.max_new_tokens=2", "stage.args.max_steps=1", "stage.eval_size=0")
    (first,) = steps(ran)
    assert first["reward"] == first["value"] == -2  # every call is as bad as any other
    assert first["advantage"] == first["policy_loss"] == first["value_loss"] == 0
    assert weights(ran) == (model / "model.safetensors").read_bytes()


def test_samples_stand_beside_the_golden_calls(ran):
    rows = ran.lines("samples.jsonl")
    assert [list(row) for row in rows] == [[field.name for field in fields(reward_function.SampleRecord)]] * len(rows)
    assert {row["step"] for row in rows} == {1} and 1 <= len(rows) <= 8  # every tenth step, from the first
    asked = {sample.id: sample for item in toolworld.generate(12, 0) for _, sample in questions(item)}
    for row in rows:
        sample = asked[row["id"]]
        assert row["prompt"] == joined(TL.prompt_segments(sample))
        assert row["golden"] == render_call(sample.goldens[0]) and read_call(row["golden"]) == sample.goldens[0]
        # Random weights rarely produce an end token within four tokens.
        assert (row["grade"], row["reward"]) == ("format_error" if row["ended"] else "cut", -2)
        assert row["sampled"] and row["reason"]


def test_samples_as_often_and_as_many_as_asked_with_the_rewards_of_the_table(irm):
    ran = irm("stage.samples_every=1", "stage.samples=2", "reward.format_error=-3")
    assert [row["step"] for row in ran.lines("samples.jsonl")] == [1, 1, 2, 2]
    assert {row["reward"] for row in ran.lines("samples.jsonl")} == {-3}
    assert ran.metrics["before"]["reward"] == steps(ran)[0]["reward"] == -3


def test_mae_decides_which_calls_are_prompts(irm, runs):
    with_mae, without = runs["ppo"].metrics, irm("stage.mae=false", "stage.args.max_steps=1").metrics
    assert with_mae["mae"]["dropped_error"] > 0 == without["mae"]["dropped_error"]
    assert without["train"]["prompts"] > with_mae["train"]["prompts"]
    assert without["train"]["trajectories"] == with_mae["train"]["trajectories"]


def test_both_packings_ask_the_same(irm, runs):
    trees = runs["ppo"].metrics["train"]
    turns = irm("stage.packing=turn", "stage.args.max_steps=1").metrics["train"]
    assert turns["prompts"] == trees["prompts"] and turns["tokens"] > 1.5 * trees["tokens"]


def test_a_saved_critic_serves_the_next_run(irm, tmp_path):
    first = irm("stage.critic.save=true", "stage.args.max_steps=1", "stage.args.warmup_steps=0")
    assert (first.folder / "critic" / "model.safetensors").is_file()
    second = irm(f"stage.critic.path={first.folder / 'critic'}", "stage.args.max_steps=1")
    assert steps(second)[0]["value"] != 0  # its head is not initialized again


def test_checkpoints_are_kept_and_held_out_evaluation_is_skipped_if_configured(irm):
    words = ["stage.keep_checkpoints=true", "stage.args.save_steps=1", "stage.args.save_total_limit=2"]
    ran = irm(*words, "stage.eval_size=0")
    assert ran.metrics["before"] == ran.metrics["after"] == {"n": 0}
    assert "held-out questions," not in ran.out
    found = {path.name: path for path in (ran.folder / "checkpoints").iterdir()}
    assert found.keys() == {"checkpoint-1", "checkpoint-2"}
    assert all((path / name).exists() for path in found.values() for name in ("complete.json", "policy", "critic"))


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_kl_beyond_its_limit_ends_the_training_and_says_so(irm, monkeypatch, algorithm):
    monkeypatch.setattr(reward_function.RewardFunction, "__call__", reward_letters)
    words = ["stage.kl_limit=1e-6", "stage.args.learning_rate=3e-2", "stage.args.warmup_steps=0", "stage.eval_size=0"]
    ran = irm(*ALGORITHMS[algorithm], *words, "stage.args.max_steps=9")
    assert 2 <= ran.metrics["steps"] < 9
    assert ran.metrics["stopped"].startswith("kl ") and "exceeds stage.kl_limit=1e-06 at" in ran.metrics["stopped"]
    assert f"stopped early: {ran.metrics['stopped']}" in " ".join(ran.err.split())
    assert (ran.folder / "model" / "model.safetensors").is_file()


# --- the released settings ------------------------------------------------------------------------------------------


def test_the_released_settings_run_on_the_released_file(tltrain, tmp_path):
    prompt = f"System: {STUBS}\nUser: Advice on love?\nAssistant:"
    after = f'{prompt} search(query="löve")\nOutput: Listen.\nAssistant:'
    records = [
        {"instruction": prompt, "output": 'search(query="löve")'},
        {"instruction": after, "output": 'finish(answer="Listen.")'},
        {"instruction": prompt.replace("love", "work"), "output": 'search(query="work")'},
    ]
    path = tmp_path / "irm_data.json"
    path.write_text(json.dumps(records))
    words = ["data=irm", f"data.path={path}", "stage.args.max_steps=1", "stage.max_new_tokens=4", "data.holdout=0.4"]
    ran = tltrain("stage=irm_released", *SMALL, *words)
    assert ran.metrics["train"]["prompts"] + ran.metrics["before"]["n"] == 3
    (entry,) = steps(ran)
    assert (entry["samples"], entry["kl_coefficient"]) == (1, 0.4)
    assert abs(entry["value"]) > 0  # a critic of random weights
    config = (ran.folder / "config.yaml").read_text()
    for line in ("do_sample: false", "truncation: left", "packing: turn", "learning_rate: 2.0e-07", "name: irm"):
        assert line in config


# --- tracking -------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_run_tracked_or_not(irm, runs):
    ran = irm("tracking=wandb", "tracking.mode=disabled")
    assert weights(ran) == weights(runs["ppo"])
    assert ran.lines("samples.jsonl") == runs["ppo"].lines("samples.jsonl")
    assert ran.metrics["after"] == runs["ppo"].metrics["after"]
