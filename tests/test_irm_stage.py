"""stage=irm as a user runs it, on a model of a few thousand weights and a few trajectories."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from tltrain.data import toolworld
from tltrain.formats.calls import read_call, render_call
from tltrain.formats.tl import prompt_segments, text
from tltrain.grading import Grade, Outcome
from tltrain.prompts import questions
from tltrain.training import judging

from .conftest import Ran, command_line
from .reader_samples import RAW, STUBS

SMALL = (
    "model=tiny",
    "hardware.bf16=false",
    "model.random.hidden_size=32",
    "model.random.intermediate_size=64",
    "model.random.num_hidden_layers=2",
    "model.random.num_attention_heads=4",
    "model.random.num_key_value_heads=2",
)
FEW = ("data.size=12", "data.holdout=0.2", "stage.max_new_tokens=4", "stage.eval_size=3", "stage.args.max_steps=2")
ALGORITHMS = {
    "ppo": (
        "stage.args.per_device_train_batch_size=2",
        "stage.args.gradient_accumulation_steps=2",
        "stage.critic.init=random",  # all these calls earn -2: a critic that begins there sees nothing to learn
    ),
    "rloo": ("stage.algorithm=rloo", "stage.args.per_device_train_batch_size=4"),
    "grpo": ("stage.algorithm=grpo", "stage.args.per_device_train_batch_size=4"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, models_cache) -> dict[str, Ran]:
    """A run of each algorithm on the same prompts."""
    folder = tmp_path_factory.mktemp("irm")
    made = {
        name: command_line("stage=irm", *SMALL, *FEW, *words, folder=folder / name, cache=models_cache)
        for name, words in ALGORITHMS.items()
    }
    assert not any(run.status for run in made.values()), [run.err for run in made.values()]
    return made


@pytest.fixture(params=ALGORITHMS)
def ran(request, runs) -> Ran:
    return runs[request.param]


@pytest.fixture(scope="module")
def model(runs, tmp_path_factory) -> Path:
    """The base model, as a folder that a test may take a copy of."""
    return Path(runs["ppo"].metrics["base_model"])


@pytest.fixture
def irm(tltrain, no_picture):
    """`irm("key=value", ...) -> Ran`: stage=irm on the small model, PPO unless told otherwise."""

    def run(*words: str, **options) -> Ran:
        given = {word.partition("=")[0] for word in words}
        defaults = [word for word in (*SMALL, *FEW, *ALGORITHMS["ppo"]) if word.partition("=")[0] not in given]
        return tltrain("stage=irm", *defaults, *words, **options)

    return run


def steps(ran: Ran) -> list[dict]:
    return [entry for entry in ran.lines("history.jsonl") if "loss" in entry]


def weights(ran: Ran) -> bytes:
    return (ran.folder / "model" / "model.safetensors").read_bytes()


def last_line(ran: Ran) -> str:
    """The error, which nothing of a traceback stands before."""
    assert "Traceback" not in ran.err
    return ran.err.splitlines()[-1]


# --- what a run leaves ----------------------------------------------------------------------------------------------


def test_the_model_loads_and_has_learned(ran, model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = ran.folder / "model"
    loaded, base = (AutoModelForCausalLM.from_pretrained(path) for path in (folder, model))
    same = [bool((a == b).all()) for a, b in zip(loaded.parameters(), base.parameters(), strict=True)]
    assert len(same) == 20  # the policy's alone: a head that is tied to the embedding, no critic
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert loaded.config.eos_token_id == tokenizer.eos_token_id and tokenizer.chat_template
    assert len(json.loads((folder / "trained_on.json").read_text())) == 10


def test_ppo_moves_the_weights(runs, model):
    assert weights(runs["ppo"]) != (model / "model.safetensors").read_bytes()


def test_nothing_unfinished_is_left(ran):
    made = {"before.json", "history.jsonl", "model", "rewards.png", "samples.jsonl"}
    assert {path.name for path in ran.folder.iterdir()} == made | {
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
    *judging.GRADES,
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
        assert sum(entry[name] for name in judging.GRADES) == pytest.approx(1)
        parts = [entry[f"seconds_{part}"] for part in ("generation", "scoring", "update")]
        assert min(parts) > 0 and sum(parts) == pytest.approx(entry["seconds"])
        assert 1 <= entry["response_length"] <= 4 and 0 <= entry["ended"] <= 1
        assert 0 < entry["entropy"] <= math.log(768) + 1e-3 and entry["tokens_per_second"] > 0
    assert steps(ran)[0]["kl"] == pytest.approx(0, abs=1e-5)


def test_ppo_says_more(runs):
    for entry in steps(runs["ppo"]):
        assert entry.keys() >= PPO_ALONE
    first, *_ = steps(runs["ppo"])
    assert first["value"] != 0
    assert first["loss"] == pytest.approx(first["policy_loss"] + first["value_loss"], abs=1e-5)
    assert first["kl_coefficient"] == 0.3


def test_a_critic_begins_at_the_mean_reward(irm, model):
    ran = irm("stage.critic.init=sft", "stage.max_new_tokens=2", "stage.args.max_steps=1", "stage.eval_size=0")
    (first,) = steps(ran)
    assert first["reward"] == first["value"] == -2  # where every call is as bad as any other
    assert first["advantage"] == first["policy_loss"] == first["value_loss"] == 0
    assert weights(ran) == (model / "model.safetensors").read_bytes()


def test_samples_stand_beside_the_golden_calls(ran):
    rows = ran.lines("samples.jsonl")
    assert [list(row) for row in rows] == [list(judging.SampleLog.COLUMNS)] * len(rows)
    assert {row["step"] for row in rows} == {1} and 1 <= len(rows) <= 8  # every tenth step, from the first
    asked = {sample.id: sample for item in toolworld.generate(12, 0) for _, sample in questions(item)}
    for row in rows:
        sample = asked[row["id"]]
        assert row["prompt"] == text(prompt_segments(sample))
        assert row["golden"] == render_call(sample.goldens[0]) and read_call(row["golden"]) == sample.goldens[0]
        assert (row["grade"], row["reward"]) == ("format_error", -2)  # of random weights
        assert row["sampled"] and row["reason"]


def test_samples_as_often_and_as_many_as_asked_with_the_rewards_of_the_table(irm):
    ran = irm("stage.samples_every=1", "stage.samples=2", "reward.format_error=-3")
    assert [row["step"] for row in ran.lines("samples.jsonl")] == [1, 1, 2, 2]
    assert {row["reward"] for row in ran.lines("samples.jsonl")} == {-3}
    assert ran.metrics["before"]["reward"] == steps(ran)[0]["reward"] == -3


def test_mae_says_what_is_asked(irm, runs):
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
    assert steps(second)[0]["value"] != 0  # its head is not begun anew


def test_checkpoints_are_kept_and_nothing_is_asked_before_and_after_where_so_wanted(irm):
    words = ["stage.keep_checkpoints=true", "stage.args.save_steps=1", "stage.args.save_total_limit=2"]
    ran = irm(*words, "stage.eval_size=0")
    assert ran.metrics["before"] == ran.metrics["after"] == {"n": 0}
    assert "held-out questions," not in ran.out
    found = {path.name: path for path in (ran.folder / "checkpoints").iterdir()}
    assert found.keys() == {"checkpoint-1", "checkpoint-2"}
    assert all((path / name).exists() for path in found.values() for name in ("complete.json", "policy", "critic"))


def reward_letters(judge: judging.Judge, sample, response: str) -> judging.Judged:
    """1 for a response that begins with a letter, else -1: what random weights often and seldom earn."""
    return judging.Judged(sample, response, Grade(Outcome.CORRECT, ""), 1.0 if response[:1].isalpha() else -1.0)


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_kl_beyond_its_limit_ends_the_training_and_says_so(irm, monkeypatch, algorithm):
    monkeypatch.setattr(judging.Judge, "__call__", reward_letters)
    words = ["stage.kl_limit=1e-6", "stage.args.learning_rate=3e-2", "stage.args.warmup_steps=0", "stage.eval_size=0"]
    ran = irm(*ALGORITHMS[algorithm], *words, "stage.args.max_steps=9")
    assert 2 <= ran.metrics["steps"] < 9
    assert ran.metrics["stopped"].startswith("kl ") and "is beyond stage.kl_limit=1e-06 at" in ran.metrics["stopped"]
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


# --- mistakes -------------------------------------------------------------------------------------------------------


def test_nothing_to_ask_is_an_error(tltrain, tmp_path):
    only_errors = {**RAW, "conversations": RAW["conversations"][:4]}
    path = tmp_path / "raw.json"
    path.write_text(json.dumps([only_errors]))
    words = ["data=tl_training", f"data.path={path}", "data.holdout=0", "stage.max_new_tokens=4"]
    ran = tltrain("stage=irm", *SMALL, *words, status=1)
    assert last_line(ran) == (
        "there is nothing to ask: 1 trajectories, 1 of them without a call that may be learned, 0 prompts left out as "
        "too long"
    )
    assert not (ran.folder / "model").exists()


def test_all_trajectories_held_out_is_an_error(irm):
    ran = irm("data.size=1", "data.holdout=0.9", status=1)
    assert last_line(ran).startswith("there is nothing to ask: 0 trajectories")


def test_all_prompts_too_long_is_an_error(irm):
    ran = irm("stage.max_prompt_length=20", "stage.truncation=skip", status=1)
    assert last_line(ran).startswith("there is nothing to ask: 10 trajectories, 0 of them")


def test_a_prompt_longer_than_the_model_is_an_error_where_asked(irm):
    ran = irm("model.random.max_position_embeddings=100", "stage.truncation=error", status=1)
    assert last_line(ran).startswith("the prompt toolworld-train-0-")
    assert "does not fit: 96 are left by stage.max_prompt_length and by the model's context" in last_line(ran)
    ran = irm("stage.max_prompt_length=90", "stage.truncation=error", status=1)
    assert "does not fit: 90 are left by stage.max_prompt_length" in last_line(ran)


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


def test_a_tokenizer_without_a_pad_token_is_none(irm, model, tmp_path, runs):
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
        ({"num_labels": 3}, f"the critic {tmp_path / 'critic'} gives 3 numbers a token, not one"),
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
        (["stage.temperature=0"], "stage.temperature: expected a number above 0, found 0.0; greedy sampling is "),
        (["stage.temperature=nan"], "stage.temperature: expected a number above 0, found nan"),
        (["stage.lam=1.5"], "stage.lam: expected a number from 0 to 1, found 1.5"),
        (["stage.kl=-1"], "stage.kl: expected 0 or more, found -1"),
        (["stage.ppo_epochs=0"], "stage.ppo_epochs: expected 1 or more, found 0"),
        (["stage.algorithm=dpo"], "stage.algorithm: Invalid value 'dpo', expected one of"),
        (["stage.critic.lr=1"], "stage.critic.lr: no such key"),
        (["stage.algorithm=rloo", "stage.do_sample=false"], "stage.do_sample=false: rloo compares sampled calls"),
        (["reward.correct=good"], "reward.correct: expected a number, found 'good'"),
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

    def breaks(judge: judging.Judge, sample, response: str) -> judging.Judged:
        judged.append(sample.id)
        return judging.Judged(sample, response, Grade(Outcome.CORRECT, ""), 1.0 if len(judged) < 12 else math.nan)

    monkeypatch.setattr(judging.Judge, "__call__", breaks)
    words = ["stage.eval_size=0", "stage.args.save_steps=1", "stage.args.max_steps=9", "stage.samples_every=1"]
    ran = irm(*ALGORITHMS[algorithm], *words, status=1)
    step, _, what = last_line(ran).partition(": ")
    whole = ran.folder / "checkpoints" / f"checkpoint-{int(step.removeprefix('step ')) - 1}"
    assert what.startswith(f"the reward of {judged[11]} is nan; the last checkpoint is {whole}; lower stage.args.")
    assert all(row["reward"] == 1 for row in ran.lines("samples.jsonl"))


def test_a_training_that_diverges_is_an_error(irm):
    ran = irm("stage.args.learning_rate=1e30", "stage.args.max_grad_norm=1e30", "stage.args.warmup_steps=0", status=1)
    assert last_line(ran).startswith("step 2: the ")
    assert "the last checkpoint is none; lower stage.args.learning_rate" in last_line(ran)
    assert not (ran.folder / "metrics.json").exists() and not (ran.folder / "model").exists()
