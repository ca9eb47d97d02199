"""benchmark=general on our own task definitions: a few questions in a JSON file, no hub."""

from __future__ import annotations

import importlib.util
import json
from types import SimpleNamespace

import pytest

from tltrain.stages.evaluations.general import executes_code, measures

needs_lm_eval = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason='lm-eval is not installed (pip install "tltrain[general]")'
)

QUESTIONS = [
    {"question": "The sky is", "choices": ["blue", "seven"], "answer": 0},
    {"question": "Two and two are", "choices": ["green", "four"], "answer": 1},
    {"question": "Grass is", "choices": ["a", "green"], "answer": 1},
    {"question": "Snow is", "choices": ["white", "of wood and iron"], "answer": 0},
]
CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}, cache_dir: {cache}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
unsafe_code: {unsafe}
"""
WRITE = """
task: write
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}, cache_dir: {cache}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["."], max_gen_toks: 4, do_sample: false}}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""
GROUP = """
group: both
task: [choose, write]
"""


@pytest.fixture
def tasks(tmp_path):
    """A folder with the tasks `choose`, `write` and `risky`, and the group `both`."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    places = {"file": file, "cache": tmp_path / "cache"}
    (folder / "choose.yaml").write_text(CHOICE.format(name="choose", unsafe="false", **places))
    (folder / "risky.yaml").write_text(CHOICE.format(name="risky", unsafe="true", **places))
    (folder / "write.yaml").write_text(WRITE.format(**places))
    (folder / "both.yaml").write_text(GROUP)
    return folder


WORDS = ("stage=eval", "benchmark=general", "model=tiny", "data.size=4", "hardware.bf16=false")


@needs_lm_eval
def test_a_task_of_ones_own_is_asked_and_scored(tltrain, tasks):
    ran = tltrain(*WORDS, f"benchmark.include_path={tasks}", "benchmark.tasks=[choose,both]", status=1)
    assert ran.err.splitlines()[-1].startswith("benchmark.tasks: ")  # choose is in both
    ran = tltrain(*WORDS, f"benchmark.include_path={tasks}", "benchmark.tasks=[both]")
    assert ran.metrics["details"]["choose"]["n"] == 4
    found = ran.metrics["details"]["choose"]["metrics"]["acc"]
    assert found["value"] == accuracy(ran.metrics["model"])
    assert found["stderr"] > 0 or found["value"] in (0, 1)
    assert ran.metrics["details"]["write"]["metrics"]["exact_match"]["value"] == 0
    assert ran.metrics["refused"] == []
    limited = tltrain(*WORDS, f"benchmark.include_path={tasks}", "benchmark.tasks=[choose]", "benchmark.limit=2")
    assert limited.metrics["details"]["choose"]["n"] == 2
    assert limited.metrics["general/choose/acc"] == accuracy(ran.metrics["model"], 2)
    assert "General ability" in limited.out and "choose" in limited.out


def accuracy(path: str, limit: int | None = None) -> float:
    """Return the share of questions whose answer the model finds likelier than the other choice, computed here."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)

    def likelihood(question: str, choice: str) -> float:
        prompt, whole = (tokenizer(text)["input_ids"] for text in (question, f"{question} {choice}"))
        with torch.no_grad():
            logp = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        return float(sum(logp[i - 1, whole[i]] for i in range(len(prompt), len(whole))))

    rights = [
        max(range(2), key=lambda i: likelihood(one["question"], one["choices"][i])) == one["answer"]
        for one in QUESTIONS[:limit]
    ]
    return sum(rights) / len(rights)


@needs_lm_eval
def test_code_is_executed_only_where_that_is_allowed(tltrain, tasks):
    words = (*WORDS, f"benchmark.include_path={tasks}", "benchmark.limit=1")
    refused = tltrain(*words, "benchmark.tasks=[risky]", status=1)
    said = "benchmark.tasks: risky would execute code that the model writes on this machine; "
    assert refused.err.splitlines()[-1] == f"{said}benchmark.unsafe_code=true allows it"
    ran = tltrain(*words, "benchmark.tasks=[risky,choose]")
    assert ran.metrics["refused"] == ["risky"] and list(ran.metrics["details"]) == ["choose"]
    assert "risky is left out: it executes code that the model writes" in ran.err
    allowed = tltrain(*words, "benchmark.tasks=[risky]", "benchmark.unsafe_code=true")
    assert "general/risky/acc" in allowed.metrics


@needs_lm_eval
def test_a_task_that_cannot_be_loaded_is_named(tltrain, tasks):
    (tasks / "lost.yaml").write_text(CHOICE.format(name="lost", unsafe="false", file="/no/such.jsonl", cache=tasks))
    words = (*WORDS, f"benchmark.include_path={tasks}")
    ran = tltrain(*words, "benchmark.tasks=[lost]", status=1)
    assert ran.err.splitlines()[-1].startswith("benchmark.tasks: lost cannot be loaded: ")
    assert "Traceback" not in ran.err
    ran = tltrain(*WORDS, "benchmark.include_path=/no/such", status=1)
    assert ran.err.splitlines()[-1] == "benchmark.include_path=/no/such: there is no such folder"


@needs_lm_eval
@pytest.mark.slow  # reads all of lm-eval's definitions
def test_lm_eval_has_the_usual_sets_and_says_which_execute_code(tltrain):
    from lm_eval.tasks import TaskManager

    index = TaskManager().task_index
    usual = ["mmlu", "gsm8k", "bbh", "humaneval", "ifeval"]
    assert [executes_code(index, name) for name in usual] == [name == "humaneval" for name in usual]
    ran = tltrain(*WORDS, "benchmark.tasks=[gsm9k]", status=1)
    assert ran.err.splitlines()[-1] == "benchmark.tasks: lm-eval has no task gsm9k; did you mean gsm8k?"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage.predictions=x.jsonl"], "stage.predictions: benchmark=general asks the model itself"),
        (["benchmark.tasks=[]"], "benchmark.tasks: expected names of lm-eval's tasks, found none"),
        (["benchmark.fewshot=-1"], "benchmark.fewshot: expected a number from 0 to 1000, found -1"),
    ],
)
def test_mistakes_end_in_one_line(tltrain, monkeypatch, words, said):
    monkeypatch.setattr("tltrain.stages.evaluations.general.installed", lambda: True)
    ran = tltrain(*WORDS, *words, status=1)
    assert ran.err.splitlines()[-1].startswith(said)


def test_without_lm_eval_it_says_how_to_get_it(tltrain, monkeypatch):
    monkeypatch.setattr("tltrain.stages.evaluations.general.installed", lambda: False)
    ran = tltrain(*WORDS, status=1)
    assert ran.err == 'benchmark=general needs lm-eval: pip install "tltrain[general]"\n'


def test_groups_and_tags_execute_code_if_a_member_does():
    def entry(tags=(), **config):
        return SimpleNamespace(cfg=config or None, tags=set(tags))

    index = {
        "safe": entry(task="safe"),
        "risky": entry(task="risky", unsafe_code=True),
        "tag": entry(tags=["safe", "risky"]),
        "group": entry(group="group", task=["safe", {"group": "inner", "task": ["safe", {"task": "risky"}]}]),
        "harmless": entry(group="harmless", task=["safe", {"task": "safe"}]),
    }
    found = {name: executes_code(index, name) for name in index}
    assert found == {"safe": False, "risky": True, "tag": True, "group": True, "harmless": False}


def test_metrics_keep_their_filter_unless_there_is_none():
    numbers = {"alias": "x", "sample_len": 3, "acc,none": 0.5, "acc_stderr,none": 0.1}
    numbers |= {"exact_match,strict-match": 0.25, "exact_match_stderr,strict-match": "N/A"}
    assert measures(numbers, {"original": 9, "effective": 3}) == {
        "n": 3,
        "metrics": {"acc": {"value": 0.5, "stderr": 0.1}, "exact_match,strict-match": {"value": 0.25}},
    }
