"""Errors in stage=irm end it with one line."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from tests.support.reader_samples import RAW
from tests.support.small_runs import ALGORITHMS, SMALL, last_line, steps
from tltrain.grading import Grade, Outcome
from tltrain.training import reward_function


def test_nothing_to_ask_is_an_error(tltrain, tmp_path):
    only_errors = {**RAW, "conversations": RAW["conversations"][:4]}
    path = tmp_path / "raw.json"
    path.write_text(json.dumps([only_errors]))
    words = ["data=tl_training", f"data.path={path}", "data.holdout=0"]
    ran = tltrain("stage=irm", *SMALL, *words, status=1)
    assert last_line(ran) == (
        "there are no prompts: 1 trajectories, 1 of them without a learnable call, 0 prompts left out as too long"
    )
    assert not (ran.folder / "model").exists()


def test_all_trajectories_held_out_is_an_error(irm):
    ran = irm("data.size=1", "data.holdout=0.9", status=1)
    assert last_line(ran).startswith("there are no prompts: 0 trajectories")


def test_all_prompts_too_long_is_an_error(irm):
    ran = irm("stage.max_prompt_length=20", "stage.truncation=skip", status=1)
    assert last_line(ran).startswith("there are no prompts: 10 trajectories, 0 of them")


def test_a_prompt_longer_than_the_model_is_an_error_where_asked(irm):
    ran = irm("model.random.max_position_embeddings=100", "stage.truncation=error", status=1)
    assert last_line(ran).startswith("the prompt toolworld-train-0-")
    assert "does not fit: stage.max_prompt_length and the model's context" in last_line(ran)
    assert "minus stage.max_new_tokens leave 96;" in last_line(ran)
    ran = irm("stage.max_prompt_length=90", "stage.truncation=error", status=1)
    assert "minus stage.max_new_tokens leave 90;" in last_line(ran)


def test_room_for_the_call_alone_is_an_error(irm):
    ran = irm("model.random.max_position_embeddings=64", "stage.max_new_tokens=64", status=1)
    assert last_line(ran) == ("stage.max_new_tokens=64 leaves no room for a prompt: the model's context is 64 tokens")


def test_prompts_are_cut_on_the_left_as_released(irm):
    ran = irm("stage.max_prompt_length=90", "stage.truncation=left", "stage.args.max_steps=1")
    train = ran.metrics["train"]
    assert 0 < train["truncated"] <= train["prompts"] and train["tokens"] <= 90 * train["prompts"]


def test_a_tokenizer_without_an_end_token_is_an_error(irm, model, tmp_path):
    from transformers import AutoTokenizer

    other = shutil.copytree(model, tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(other)
    ran = irm(f"model.path={other}", status=1)
    assert last_line(ran) == (
        f"the tokenizer {other} has no end token (eos_token): name one in its tokenizer_config.json"
    )


def test_a_tokenizer_without_a_pad_token_is_accepted(irm, model, tmp_path, runs):
    from transformers import AutoTokenizer

    other = shutil.copytree(model, tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(other)
    ran = irm(f"model.path={other}", "stage.args.max_steps=1")
    assert steps(ran)[0]["loss"] == pytest.approx(steps(runs["ppo"])[0]["loss"], abs=1e-5)


def test_a_critic_of_another_shape_is_an_error(irm, model, tmp_path):
    from transformers import AutoConfig
    from transformers.models.llama.modeling_llama import LlamaForTokenClassification

    for change, message in (
        ({"vocab_size": 300, "num_labels": 1}, "stage.critic.path: the critic has vocab_size 300, the policy 768: "),
        ({"num_labels": 3}, f"the critic {tmp_path / 'critic'} gives 3 numbers per token instead of one"),
    ):
        other = AutoConfig.from_pretrained(model)
        for name, value in change.items():
            setattr(other, name, value)
        LlamaForTokenClassification(other).save_pretrained(tmp_path / "critic")
        ran = irm(f"stage.critic.path={tmp_path / 'critic'}", status=1)
        assert last_line(ran).startswith(message)
    ran = irm(f"stage.critic.path={tmp_path / 'none'}", status=1)
    assert str(tmp_path / "none") in last_line(ran)


@pytest.mark.parametrize(
    ("algorithm", "argument", "message"),
    [
        ("ppo", "learning_rat=1", "transformers.TrainingArguments has no such argument; did you mean learning_rate?"),
        ("rejection", "beta=0.1", "trl.SFTConfig has no such argument"),
        ("rloo", "num_generation=4", "trl.RLOOConfig has no such argument; did you mean num_generations?"),
        ("grpo", "scale_reward=group", "trl.GRPOConfig has no such argument; did you mean scale_rewards?"),
        ("rloo", "beta=0.1", "this is set by stage.kl"),
        ("grpo", "num_generations=two", "expected int | None, found 'two'"),
    ],
)
def test_an_argument_that_the_algorithm_has_not_is_an_error(irm, algorithm, argument, message):
    ran = irm(f"stage.algorithm={algorithm}", f"+stage.args.{argument}", status=1)
    assert last_line(ran).startswith(f"stage.args.{argument.partition('=')[0]}: {message}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["stage.temperature=0"],
            "stage.temperature: expected a number above 0 to 100, found 0.0; greedy sampling is ",
        ),
        (["stage.temperature=nan"], "stage.temperature: expected a number above 0 to 100, found nan"),
        (["stage.lam=1.5"], "stage.lam: expected a number from 0 to 1, found 1.5"),
        (["stage.kl=-1"], "stage.kl: expected 0 or more, found -1"),
        (["stage.ppo_epochs=0"], "stage.ppo_epochs: expected a number from 1 to 1000, found 0"),
        (["stage.algorithm=dpo"], "stage.algorithm: Invalid value 'dpo', expected one of"),
        (["stage.critic.lr=1"], "stage.critic.lr: no such key"),
        (
            ["stage.critic.coefficient=1"],
            "stage.critic.coefficient: stage.critic.share=false reads no such key; stage.critic.share=true does",
        ),
        (
            ["stage.sampled_calls=1"],
            "stage.sampled_calls: stage.algorithm=ppo reads no such key; stage.algorithm=rejec",
        ),
        (["stage.critic.share=true"], "stage.critic.share=true: a value head is no model of its own; leave out"),
        (["stage.algorithm=rloo", "stage.do_sample=false"], "stage.do_sample=false: rloo compares sampled calls"),
        (["stage.algorithm=rloo", "stage.names=offered"], "stage.names=offered: rloo samples by TRL's own means"),
        (["reward.correct=good"], "reward.correct: expected a number, found good"),
    ],
)
def test_settings_that_cannot_be_are_errors(irm, words, message):
    ran = irm(*words, status=1)
    assert last_line(ran).startswith(message)


def test_groups_that_do_not_divide_the_batch_are_an_error(irm):
    sizes = ["stage.args.per_device_train_batch_size=6", "stage.args.gradient_accumulation_steps=1"]
    ran = irm("stage.algorithm=grpo", *sizes, status=1)
    assert last_line(ran).startswith("stage.args: ") and "num_generations (4)" in last_line(ran)


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_a_reward_that_is_no_number_names_step_sample_and_checkpoint(irm, monkeypatch, algorithm):
    judged: list[str] = []

    def breaks(judge: reward_function.RewardFunction, sample, response: str, ended: bool = True):
        judged.append(sample.id)
        return reward_function.GradedResponse(
            sample, response, Grade(Outcome.CORRECT, ""), 1.0 if len(judged) < 12 else math.nan
        )

    monkeypatch.setattr(reward_function.RewardFunction, "__call__", breaks)
    words = ["stage.eval_size=0", "stage.args.save_steps=1", "stage.args.max_steps=9", "stage.samples_every=1"]
    ran = irm(*ALGORITHMS[algorithm], *words, status=1)
    step, _, what = last_line(ran).partition(": ")
    whole = ran.folder / "checkpoints" / f"checkpoint-{int(step.removeprefix('step ')) - 1}"
    assert what.startswith(f"the reward of {judged[11]} is nan; the last checkpoint is {whole}; lower stage.args.")
    assert all(row["reward"] == 1 for row in ran.lines("samples.jsonl"))


def test_a_training_that_diverges_is_an_error(irm):
    ran = irm("stage.args.learning_rate=1e30", "stage.args.max_grad_norm=1e30", "stage.args.warmup_steps=0", status=1)
    assert last_line(ran).startswith("training diverged: step 2: the ")
    assert "the last checkpoint is none; lower stage.args.learning_rate" in last_line(ran)
    assert not (ran.folder / "metrics.json").exists() and not (ran.folder / "model").exists()
