"""Training and evaluation through the command line, on `model=tiny` with a few trajectories."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.support.command_line import Ran
from tests.support.paths import ROTBENCH, needs_rotbench
from tests.support.reader_samples import CHAT, RAW_LOVE, RAW_WORK, TEXTS
from tests.support.small_runs import SMALL
from tltrain import toolworld
from tltrain.data import query_key, rotbench
from tltrain.formats.calls import render_call
from tltrain.trajectory import ANY, Call, Sample

FEW = (*SMALL, "data.size=12", "stage.args.max_steps=2")
SHORT = ("benchmark.size=4", "stage.max_new_tokens=8")


@pytest.fixture(scope="module")
def trained(run_once) -> dict[str, Ran]:
    """stage=sft and stage=pkt on the same twelve trajectories."""
    return {stage: run_once(f"stage={stage}", *FEW) for stage in ("sft", "pkt")}


# --- readers --------------------------------------------------------------------------------------------------------

SOURCES = {
    "tl_training": [RAW_LOVE, RAW_WORK],
    "openai": [{"id": str(i), **CHAT} for i in range(2)],
    "turns": [{"id": "Turn 2: love", "conversations": TEXTS[:5]}, {"id": "Turn 3: love", "conversations": TEXTS}],
}


@pytest.mark.parametrize(("data", "turns"), [("tl_training", 3), ("openai", 6), ("turns", 2), ("tltrain", 3)])
def test_every_source_trains(tltrain, write, data, turns):
    path = (
        tltrain("stage=mae", "data=tl_training", f"data.path={write(RAW_LOVE, RAW_WORK)}").folder / "train.jsonl"
        if data == "tltrain"
        else write(*SOURCES[data])
    )
    words = [f"data={data}", f"data.path={path}", "data.holdout=0", "stage.args.max_steps=1"]
    ran = tltrain("stage=pkt", *SMALL, *words)
    assert ran.metrics["train"]["turns"] == turns
    assert ran.metrics["train"]["key_token_loss"] > 0
    assert (ran.folder / "model" / "model.safetensors").is_file()


@needs_rotbench
def test_rotbench_trains(tltrain):
    words = ["data=rotbench", f"data.path={ROTBENCH}", "data.levels=[clean,heavy]", "data.limit=4"]
    ran = tltrain("stage=pkt", *SMALL, *words, "stage.args.max_steps=1")
    assert ran.metrics["mae"]["trajectories"] == 4
    assert ran.metrics["train"]["turns"] + ran.metrics["held_out"]["turns"] == ran.metrics["mae"]["kept"] > 4


# --- sft and pkt ----------------------------------------------------------------------------------------------------


def test_the_saved_model_loads_and_its_template_gives_the_tl_prompt(trained):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = trained["pkt"].folder / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [
        {"role": "System", "content": "Function:\ndef f():"},
        {"role": "User", "content": "Do it."},
        {"role": "Assistant", "content": "f()"},
        {"role": "Output", "content": "done"},
    ]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == "System: Function:\ndef f():\nUser: Do it.\nAssistant: f()\nOutput: done\nAssistant:"
    whole = tokenizer.apply_chat_template(messages[:3], tokenize=False)
    assert whole == "System: Function:\ndef f():\nUser: Do it.\nAssistant: f()</s>"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert sum(parameter.numel() for parameter in model.parameters()) > 10**4
    assert (folder / "model.safetensors").is_file()


def test_training_says_what_it_did(trained):
    ran = trained["pkt"]
    metrics, train, held = ran.metrics, ran.metrics["train"], ran.metrics["held_out"]
    counts = {"samples", "turns", "tokens", "nothing_to_learn", "truncated", "turns_truncated", "too_long"}
    assert counts | {"train_loss", "key_token_loss", "other_token_loss"} <= train.keys()
    assert counts | {f"held_out_{name}" for name in ("loss", "key_token_loss", "other_token_loss")} <= held.keys()
    assert (metrics["mae"]["trajectories"], train["samples"], held["samples"]) == (12, 11, 1)
    assert train["turns"] + held["turns"] == metrics["mae"]["kept"]
    assert f"held out: loss {held['held_out_loss']:.3f}" in ran.out
    assert (ran.folder / "losses.png").read_bytes().startswith(b"\x89PNG")
    steps = [entry for entry in ran.lines("history.jsonl") if "loss" in entry]
    assert len(steps) == 2
    logged = {"key_token_loss", "other_token_loss", "mean_weight", "key_token_share", "tokens_per_second"}
    assert all(step.keys() >= logged | {"learning_rate", "grad_norm"} for step in steps)
    assert steps[-1]["num_tokens"] <= train["tokens"]


def test_sft_weighs_every_token_1_and_pkt_key_tokens_more(trained):
    weights = {
        stage: [step["mean_weight"] for step in ran.lines("history.jsonl") if "loss" in step]
        for stage, ran in trained.items()
    }
    assert weights["sft"] == [1.0, 1.0]
    assert all(1.1 < weight < 9 for weight in weights["pkt"])
    assert trained["sft"].metrics["held_out"]["held_out_mean_weight"] == 1.0


def test_sft_learns_error_calls_and_pkt_leaves_them_out(trained):
    sft, pkt = (trained[stage].metrics for stage in ("sft", "pkt"))
    assert sft["mae"]["kept"] == pkt["mae"]["kept"] + pkt["mae"]["dropped_error"] == sft["mae"]["calls"]
    assert pkt["mae"]["dropped_error"] > 0
    assert sft["train"]["turns"] > pkt["train"]["turns"]
    assert sft["train"]["tokens"] >= pkt["train"]["tokens"]


def test_switches_of_mae_and_pkt_are_independent(tltrain, trained):
    ran = tltrain("stage=pkt", *FEW, "stage.mae=false", "stage.w_max=null", "stage.args.max_steps=1")
    assert ran.metrics["train"]["turns"] == trained["sft"].metrics["train"]["turns"]
    first, *_ = ran.lines("history.jsonl")
    assert first["loss"] == pytest.approx(trained["sft"].lines("history.jsonl")[0]["loss"], abs=1e-5)


def test_the_resolved_configuration_is_left(trained):
    import yaml

    config = yaml.safe_load((trained["pkt"].folder / "config.yaml").read_text())
    assert config["stage"]["name"] == "pkt"
    assert config["stage"]["args"]["max_steps"] == 2
    assert config["model"]["args"]["learning_rate"] == 0.002


def test_nothing_unfinished_is_left(trained):
    base = Path(trained["pkt"].metrics["base_model"])
    assert base.is_dir() and not list(base.parent.glob(f".{base.name}*.part"))
    assert not list(trained["pkt"].folder.rglob("*.part"))
    files = {path.name for path in trained["pkt"].folder.iterdir()}
    made = {"history.jsonl", "losses.png", "model"}
    assert files == made | {".decided_by.json", ".hydra", ".lock", "config.yaml", "metrics.json", "tltrain.log"}


def test_the_same_seed_gives_the_same_weights_and_answers(tltrain, trained):
    again = tltrain("stage=pkt", *FEW)
    other = tltrain("stage=pkt", *FEW, "seed=1")
    weights = [run.folder / "model" / "model.safetensors" for run in (trained["pkt"], again, other)]
    first, second, third = (path.read_bytes() for path in weights)
    assert first == second != third
    answers = [
        tltrain("stage=eval", *SHORT, f"model.path={run.folder / 'model'}").lines("predictions.jsonl")
        for run in (trained["pkt"], again)
    ]
    assert answers[0] == answers[1]


def test_both_packings_give_the_same_losses(tltrain):
    still = ["stage.args.learning_rate=0", "stage.args.gradient_accumulation_steps=100", "stage.args.max_steps=1"]
    runs = {
        packing: tltrain("stage=pkt", *SMALL, "data.size=5", *still, "data.holdout=0.25", f"stage.packing={packing}")
        for packing in ("turn", "trajectory")
    }
    turn, trajectory = (runs[packing].metrics for packing in ("turn", "trajectory"))
    assert turn["train"]["samples"] == turn["train"]["turns"] == trajectory["train"]["turns"]
    assert trajectory["train"]["samples"] == 4
    assert turn["train"]["tokens"] > 1.5 * trajectory["train"]["tokens"]
    for part, name in (
        ("train", "train_loss"),
        ("train", "key_token_loss"),
        ("train", "other_token_loss"),
        ("held_out", "held_out_loss"),
        ("held_out", "held_out_key_token_loss"),
    ):
        assert turn[part][name] == pytest.approx(trajectory[part][name], abs=1e-4), name


@pytest.fixture(scope="module")
def too_short(trained) -> int:
    """A max_length below the mean sample length."""
    train = trained["pkt"].metrics["train"]
    return train["tokens"] // train["samples"]


def test_oldest_turns_are_dropped_from_long_trajectories(tltrain, trained, too_short):
    ran = tltrain("stage=pkt", *FEW, f"stage.args.max_length={too_short}")
    whole, cut = trained["pkt"].metrics["train"], ran.metrics["train"]
    assert 0 < cut["truncated"] + cut["too_long"] < whole["samples"]
    assert cut["turns_truncated"] > 0  # the calls cut from a trajectory may be ones that MAE drops
    assert cut["samples"] == whole["samples"] - cut["too_long"]
    assert cut["tokens"] <= cut["samples"] * too_short


def test_long_trajectories_are_skipped_and_counted(tltrain, trained, too_short):
    ran = tltrain("stage=pkt", *FEW, f"stage.args.max_length={too_short}", "stage.truncation=skip")
    whole, cut = trained["pkt"].metrics["train"], ran.metrics["train"]
    assert cut["too_long"] > 0 == cut["truncated"]
    assert cut["samples"] == whole["samples"] - cut["too_long"]


def test_long_trajectories_are_an_error_where_asked(tltrain, too_short):
    ran = tltrain("stage=pkt", *FEW, f"stage.args.max_length={too_short}", "stage.truncation=error", status=1)
    assert f"tokens, more than {too_short}: raise stage.args.max_length" in ran.err.splitlines()[-1]
    assert ran.err.splitlines()[-1].startswith("trajectory toolworld-train-0-")
    assert not (ran.folder / "metrics.json").exists()


def test_nothing_to_learn_is_an_error(tltrain, write):
    ran = tltrain("stage=pkt", *FEW, "stage.args.max_length=10", status=1)
    assert ran.err.splitlines()[-1].startswith("there is nothing to learn: 12 trajectories")
    only_errors = {**RAW_LOVE, "conversations": RAW_LOVE["conversations"][:4]}
    words = ["data=tl_training", f"data.path={write(only_errors)}", "data.holdout=0"]
    ran = tltrain("stage=pkt", *SMALL, *words, status=1)
    assert ran.err.splitlines()[-1].startswith("there is nothing to learn: 1 trajectories, 0 calls kept")


def test_a_training_goes_on_from_its_checkpoint(tltrain, trained):
    words = ["stage.keep_checkpoints=true", "stage.args.save_steps=1", "stage.args.save_total_limit=2"]
    checkpoint = tltrain("stage=sft", *FEW, *words).folder / "checkpoints" / "checkpoint-1"
    ran = tltrain("stage=sft", *FEW, f"stage.args.resume_from_checkpoint={checkpoint}")
    assert [step["step"] for step in ran.lines("history.jsonl") if "loss" in step] == [1, 2]
    weights = [run.folder / "model" / "model.safetensors" for run in (ran, trained["sft"])]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_training_that_diverges_is_an_error(tltrain):
    ran = tltrain("stage=sft", *FEW, "stage.args.learning_rate=1e10", status=1)
    assert ran.err.splitlines()[-1].startswith(
        "training diverged: the loss became infinite: lower stage.args.learning_rate"
    )
    assert not (ran.folder / "model").exists()


def test_what_has_no_key_tokens_leaves_valid_json(tltrain, write):
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    chats = [{**CHAT, "messages": [{"role": "user", "content": text}, CHAT["messages"][-1]]} for text in ("Hi", "Ho")]
    words = ["data=openai", f"data.path={write(*chats)}", "data.holdout=0.5", "stage.args.logging_steps=5"]
    ran = tltrain("stage=pkt", *SMALL, *words, "stage.args.max_length=null")
    for line in [(ran.folder / "metrics.json").read_text(), *(ran.folder / "history.jsonl").read_text().splitlines()]:
        json.loads(line, parse_constant=refuse)
    assert ran.metrics["train"]["turns"] == ran.metrics["held_out"]["turns"] == 1
    assert "key_token_loss" not in ran.metrics["train"]


# --- eval -----------------------------------------------------------------------------------------------------------


def golden(sample: Sample) -> str:
    """Return the first accepted call as a model would write it."""
    call = sample.goldens[0]
    return render_call(Call(call.name, {k: "x" if v is ANY else v for k, v in call.arguments.items()}))


def predictions(write, texts: list[str]) -> str:
    return f"stage.predictions={write(*({'prediction': text} for text in texts))}"


def test_eval_answers_and_scores_toolworld(tltrain, trained):
    ran = tltrain("stage=eval", *SHORT, f"model.path={trained['pkt'].folder / 'model'}")
    assert {f"toolworld/{name}" for name in ("ts", "pi", "cf", "n", "reward")} <= ran.metrics.keys()
    assert ran.metrics["toolworld/n"] == 4
    assert ran.metrics["prompt_tokens_per_sample"] > 0 and ran.metrics["tokens_prefilled_per_sample"] > 0
    assert not any("official" in key for key in ran.metrics)
    overall = ran.metrics["details"]["toolworld"]["scoring"]["fixed"]["all"]
    assert overall["ts"].keys() == {"percent", "right", "n", "low", "high"}
    assert sum(ran.metrics["details"]["toolworld"]["outcomes"].values()) == 4
    lines = ran.lines("predictions.jsonl")
    assert len(lines) == 4
    fields = "set id prediction call goldens grade ts pi cf reward reason meta finish_reason"
    assert list(lines[0]) == fields.split()
    reasons = Counter(line["finish_reason"] for line in lines)
    assert set(reasons) <= {"stop", "length"}
    assert ran.metrics["finish_reasons"] == ran.metrics["details"]["toolworld"]["finish_reasons"] == reasons
    warned = "answers were cut at stage.max_new_tokens=" in " ".join(ran.err.split())
    assert warned == ("length" in reasons)
    assert [line["id"] for line in lines] == [sample.id for sample in toolworld.samples(4)]
    assert "toolworld" in ran.out and f"Written to {ran.folder}" in ran.out


def test_golden_calls_score_100_on_toolworld(tltrain, write):
    texts = [golden(sample) for sample in toolworld.samples(20)]
    ran = tltrain("stage=eval", "benchmark.size=20", predictions(write, texts))
    assert [ran.metrics[f"toolworld/{level}"] for level in ("ts", "pi", "cf", "reward")] == [100, 100, 100, 1]
    assert ran.metrics["model"] is None


def test_scores_and_reasons_of_answers_that_are_wrong(tltrain, write):
    samples = list(toolworld.samples(4))
    other = next(tool.name for tool in samples[2].tools if tool.name != samples[2].goldens[0].name)
    texts = ["I cannot.", "no_such_tool()", f"{other}()", golden(samples[3])]
    ran = tltrain("stage=eval", "benchmark.size=4", predictions(write, texts))
    lines = ran.lines("predictions.jsonl")
    assert [line["grade"] for line in lines] == ["format_error", "tool_hallucination", "wrong_tool", "correct"]
    assert [line["reward"] for line in lines] == [-2, -2, -1.5, 1]
    assert lines[0]["call"] is None and lines[1]["call"] == {"name": "no_such_tool", "arguments": {}}
    assert "`no_such_tool` is not on offer" in lines[1]["reason"]
    assert ran.metrics["toolworld/ts"] == ran.metrics["toolworld/cf"] == 25
    assert ran.metrics["toolworld/reward"] == pytest.approx((-2 - 2 - 1.5 + 1) / 4)
    low, high = (ran.metrics["details"]["toolworld"]["scoring"]["fixed"]["all"]["ts"][end] for end in ("low", "high"))
    assert 0 <= low < 25 < high <= 100
    table = tltrain("stage=eval", "benchmark.size=4", predictions(write, texts), "reward.format_error=-3")
    assert table.metrics["toolworld/reward"] == pytest.approx((-3 - 2 - 1.5 + 1) / 4)


def test_words_before_calls_are_counted_warned_of_and_left_out_where_asked_for(tltrain, write):
    calls = [golden(sample) for sample in toolworld.samples(4)]
    texts = [f"<think>no_such_tool() or not?</think>{calls[0]}", f"I will look.\n{calls[1]}", f"```\n{calls[2]}\n```"]
    told = "3 of 4 (75.0 %) answers have words (a thought, a sentence, a code fence) before their call and count as "
    words = ["stage=eval", "benchmark.size=4", predictions(write, [*texts, calls[3]])]
    ran = tltrain(*words)
    assert [line["grade"] for line in ran.lines("predictions.jsonl")] == [*["words_before_call"] * 3, "correct"]
    assert [line["reward"] for line in ran.lines("predictions.jsonl")] == [-2, -2, -2, 1]
    assert ran.metrics["details"]["toolworld"]["rows"]["words_before_call"] == 3
    assert (ran.metrics["toolworld/ts"], ran.metrics["details"]["toolworld"]["contradicts_documentation"]) == (25, 3)
    assert " ".join(ran.err.split()).count(told) == 1 and "words before call" in ran.out
    ran = tltrain(*words, "stage.words_before_call=ignore")
    assert ran.metrics["toolworld/cf"] == 100 and told not in " ".join(ran.err.split())
    assert ran.lines("predictions.jsonl")[1]["prediction"] == texts[1]


def test_lenient_matching_takes_numbers_in_words_for_numbers(tltrain, write):
    samples = list(toolworld.samples(40))
    texts = [
        render_call(Call(call.name, {k: "x" if v is ANY else str(v) for k, v in call.arguments.items()}))
        for call in (sample.goldens[0] for sample in samples)
        if not any(isinstance(value, list | dict) for value in call.arguments.values())
    ]
    assert len(texts) == 40
    strict, lenient = (
        tltrain("stage=eval", "benchmark.size=40", predictions(write, texts), f"stage.matching={matching}").metrics
        for matching in ("strict", "lenient")
    )
    assert strict["toolworld/pi"] == lenient["toolworld/pi"] == lenient["toolworld/cf"] == 100
    assert strict["toolworld/cf"] < 100


def test_predictions_must_be_as_many_as_samples(tltrain, write):
    ran = tltrain("stage=eval", "benchmark.size=4", predictions(write, ["f()"] * 3), status=1)
    assert "expected 4 predictions, one for each sample of the benchmark in its order, found 3" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_line_of_predictions_that_is_none(tltrain, write, tmp_path):
    path = write({"prediction": "f()"}, {"predicted": "f()"})
    ran = tltrain("stage=eval", "benchmark.size=2", f"stage.predictions={path}", status=1)
    said = f'{path}, record 2: expected {{"prediction": text}}, or {{"raw": text}} as the model wrote it, found'
    assert ran.err.startswith(said)
    path.write_text('{"prediction": "f()"}\n{"prediction": \n')
    ran = tltrain("stage=eval", "benchmark.size=2", f"stage.predictions={path}", status=1)
    assert ran.err.startswith(f"{path}, record 2: line: expected valid JSON")
    ran = tltrain("stage=eval", "benchmark.size=2", f"stage.predictions={tmp_path / 'none'}", status=1)
    assert ran.err.startswith(f"{tmp_path / 'none'}: expected a file of JSON, found: No such file")


def test_queries_the_model_was_trained_on_are_scored_apart(tltrain, trained, tmp_path):
    model = shutil.copytree(trained["pkt"].folder / "model", tmp_path / "model")
    second = list(toolworld.samples(4))[1]
    (model / "trained_on.json").write_text(json.dumps([query_key(second.query)]))
    ran = tltrain("stage=eval", *SHORT, f"model.path={model}")
    by_seen = ran.metrics["details"]["toolworld"]["scoring"]["fixed"]["by_seen"]
    assert {key: value["ts"]["n"] for key, value in by_seen.items()} == {"seen": 1, "unseen": 3}
    lines = ran.lines("predictions.jsonl")
    assert [line["meta"]["seen"] for line in lines] == [False, True, False, False]
    assert lines[1]["meta"]["query"] == second.query
    trained_on = json.loads((trained["pkt"].folder / "model" / "trained_on.json").read_text())
    assert len(trained_on) == 22  # the query and the opening of 11 conversations


@needs_rotbench
def test_golden_calls_on_rotbench(tltrain, write):
    texts = [golden(sample) for sample in rotbench.read_samples(ROTBENCH, ["clean"], ("first",))]
    words = ["benchmark=rotbench", f"benchmark.path={ROTBENCH}", predictions(write, texts)]
    ran = tltrain("stage=eval", *words)
    assert ran.metrics["rotbench_clean/n"] == 105
    for level in ("ts", "pi", "cf"):
        assert ran.metrics[f"rotbench_clean/{level}"] == ran.metrics[f"rotbench_clean/fixed/{level}"] == 100
        # Eight golden calls have no arguments: the released scorer counts them as wrong.
        assert ran.metrics[f"rotbench_clean/official/{level}"] == pytest.approx(100 * 97 / 105, abs=1e-3)
    by_seen = ran.metrics["details"]["rotbench_clean"]["scoring"]["fixed"]["by_seen"]
    assert {key: value["cf"]["n"] for key, value in by_seen.items()} == {"seen": 70, "unseen": 35}
    assert len(ran.metrics["details"]["rotbench_clean"]["scoring"]["fixed"]["by_scenario"]) == 7
    official = tltrain("stage=eval", *words, "benchmark.scoring=official")
    assert official.metrics["rotbench_clean/ts"] == pytest.approx(92.381, abs=1e-3)
    assert "seen queries" in ran.out and "rotbench_clean (official)" in ran.out


@needs_rotbench
def test_levels_and_turns_of_rotbench_are_sets_of_their_own(tltrain, write):
    texts = [
        golden(sample)
        for turn in ("first", "third")
        for level in ("clean", "heavy")
        for sample in list(rotbench.read_samples(ROTBENCH, [level], (turn,)))[:3]
    ]
    words = ["benchmark.turns=[first,third]", "benchmark.levels=[clean,heavy]", "benchmark.limit=3"]
    ran = tltrain("stage=eval", "benchmark=rotbench", f"benchmark.path={ROTBENCH}", *words, predictions(write, texts))
    sets = ["rotbench_clean", "rotbench_heavy", "rotbench_third_clean", "rotbench_third_heavy"]
    assert list(ran.metrics["details"]) == sets
    assert [ran.metrics[f"{name}/n"] for name in sets] == [3, 3, 3, 3]
    assert [ran.metrics[f"{name}/cf"] for name in sets] == [100, 100, 100, 100]
    assert [line["set"] for line in ran.lines("predictions.jsonl")] == [name for name in sets for _ in range(3)]
