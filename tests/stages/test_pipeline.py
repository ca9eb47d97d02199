"""stage=pipeline: each stage is built once, fingerprints cover all inputs, and all parts are checked first."""

from __future__ import annotations

import json

import pytest
import yaml
from omegaconf import OmegaConf

from tests.support.composition import composed
from tests.support.rotbench_records import FIRST
from tltrain.stages import pipeline
from tltrain.sweeps import cache_key
from tltrain.sweeps.stage_cache import StageCache


@pytest.fixture
def job(tltrain, tmp_path):
    """`job(words...)`: run a pipeline with its own cache."""
    return lambda *words, **more: tltrain(
        "stage=pipeline", "model=tiny", f"cache.dir={tmp_path / 'cache'}", *words, **more
    )


def switches(mae: bool, pkt: bool, irm: bool) -> list[str]:
    return [f"stage.mae={mae}", f"stage.pkt={pkt}", f"stage.irm={irm}"]


def test_a_job_leaves_links_metrics_and_costs(job, made):
    ran = job(*switches(True, True, True))
    assert [stage["name"] for stage in ran.metrics["stages"]] == ["mae", "pkt", "irm", "eval"]
    for name in ("data", "model_pkt", "model_irm", "eval_toolworld"):
        assert (ran.folder / name).is_symlink() and (ran.folder / name / "metrics.json").is_file()
    assert ran.metrics["toolworld/ts"] == 30.0 and ran.metrics["score"] == 20.0
    assert ran.metrics["stages"][1]["tokens"] == 5
    text = (ran.folder / "model_irm" / "model" / "config.json").read_text()
    assert text.startswith("irm") and "pkt 9" in text and "True 200" in text


def test_supervised_training_may_continue_in_place_of_irm(job, made):
    ran = job(*switches(True, True, False), "+stage.continued.max_steps=7")
    assert [stage["name"] for stage in ran.metrics["stages"]] == ["mae", "pkt", "pkt", "eval"]
    assert ran.metrics["model"].startswith(str((ran.folder / "model_continued").resolve()))
    assert not job(*switches(True, True, True)).metrics["model"].startswith(ran.metrics["model"])
    assert "needs stage.irm=false" in job(*switches(True, True, True), "+stage.continued.max_steps=7", status=1).err


SAME = [
    "tracking=wandb",
    "hardware.threads=1",
    "cache.dir={tmp}/cache/../cache",
    "stage.rl.keep_checkpoints=true",
    "stage.metric=toolworld/ts",
    "report.baseline=x",
    "benchmark=rotbench",  # not among the pipeline's benchmarks
]


def test_what_cannot_matter_does_not_change_a_fingerprint(job, made, tmp_path):
    first = job(*switches(True, True, True)).metrics["stages"]
    words = [word.format(tmp=tmp_path) for word in SAME]
    again = job(*switches(True, True, True), *words).metrics["stages"]
    assert [stage["fingerprint"] for stage in again] == [stage["fingerprint"] for stage in first]
    assert len(made) == 4


CHANGED = {  # a key -> the first stage whose result it determines; all keys: tests/sweeps/test_cache_key.py
    "seed=3": 0,
    "stage.rule=strict": 0,
    "data.holdout=0.2": 1,
    "stage.supervised.args.learning_rate=0.001": 1,
    "reward.correct=2": 2,
    "stage.rl.critic.init=random": 2,
    "source.name=golden": 3,
    "stage.eval.compare=[a,b]": 3,
    "stage.benchmarks=[{name: toolworld, size: 7}]": 3,
}


@pytest.mark.slow
def test_what_decides_a_result_changes_its_fingerprint_and_those_that_follow(made, tmp_path):
    whole = composed(
        "stage=pipeline", "model=tiny", "tracking=none", f"cache.dir={tmp_path}", *switches(True, True, True)
    )

    def fingerprints(cfg, folder: str) -> list[str]:
        (tmp_path / folder).mkdir()
        return [stage["fingerprint"] for stage in pipeline.run(cfg, tmp_path / folder)["stages"]]

    before = fingerprints(whole, "before")
    for word, first in CHANGED.items():
        key, _, value = word.partition("=")
        changed = whole.copy()
        OmegaConf.update(changed, key, yaml.safe_load(value), force_add=True)
        after = fingerprints(changed, key)
        assert [a == b for a, b in zip(before, after, strict=True)] == [at < first for at in range(4)], word


def test_the_golden_calls_do_not_answer_for_the_model(job, made):
    """The digest of the code once overwrote the section `source`."""
    words = switches(False, False, False)
    golden = job(*words, "source=golden").metrics["stages"]
    model = job(*words).metrics["stages"]
    assert [stage["reused"] for stage in model] == [True, True, False]
    assert golden[-1]["fingerprint"] != model[-1]["fingerprint"]


def test_what_is_kept_of_a_configuration_has_no_secrets(job, made):
    ran = job(*switches(False, False, False), "source=endpoint", "+source.extra.api_key=sk-0123456789")
    entry = (ran.folder / "eval_toolworld" / "entry.json").read_text()
    assert '"api_key": "<masked>"' in entry and "sk-0123456789" not in entry


@pytest.mark.slow
def test_versions_code_and_content_of_files_decide_too(job, made, monkeypatch, tmp_path):
    source = tmp_path / "data.jsonl"
    source.write_text("one\n")
    words = [*switches(True, False, False), "data=openai", f"data.path={source}"]
    first = [stage["fingerprint"] for stage in job(*words).metrics["stages"]]
    source.write_text("two\n")
    other = [stage["fingerprint"] for stage in job(*words).metrics["stages"]]
    assert not set(first) & set(other)
    copied = tmp_path / "copy.jsonl"
    copied.write_text("two\n")
    same = [stage["fingerprint"] for stage in job(*words[:-1], f"data.path={copied}").metrics["stages"]]
    assert same == other
    monkeypatch.setattr(cache_key.fingerprints, "versions", lambda packages=(): {"torch": "9"})
    newer = [stage["fingerprint"] for stage in job(*words).metrics["stages"]]
    assert newer[0] == other[0] and not set(newer[1:]) & set(other[1:])
    monkeypatch.setattr(cache_key.source_digest, "digest", lambda *given: "edited")
    assert not set(newer) & {stage["fingerprint"] for stage in job(*words).metrics["stages"]}


def test_without_the_cache_everything_is_in_the_runs_folder(job, made, tmp_path):
    for _ in range(2):
        ran = job(*switches(False, False, False), "cache.enabled=false")
        assert (ran.folder / "model_sft" / "model").is_dir() and not (ran.folder / "model_sft").is_symlink()
    assert len(made) == 6 and not (tmp_path / "cache" / "stages").exists()


@pytest.mark.parametrize("choice", ["rotbench", "{name: rotbench, limit: 1}"])
def test_a_benchmark_is_read_where_paths_says(job, made, tmp_path, choice):
    words = (*switches(False, False, False), f"stage.benchmarks=[{choice}]", f"paths.rotbench={tmp_path / 'rotbench'}")
    assert f"{tmp_path / 'rotbench'}" in job(*words, status=1).err.splitlines()[-1]
    file = tmp_path / "rotbench" / "first_turn" / "clean.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps([FIRST]))
    job(*words)
    assert [stage for stage, _ in made] == ["mae", "sft", "eval"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["stage.benchmarks=[]"], "stage.benchmarks: expected some"),
        (["stage.benchmarks=[nothing]"], "found nothing"),
        (["stage.benchmarks=[{name: toolworld, sise: 4}]"], "toolworld.sise: no such key; did you mean size?"),
        (["stage.benchmarks=[toolworld,toolworld]"], "each once"),
        (["stage.rl.args.learning_rat=1"], "stage.rl.args.learning_rat"),
        (["stage.supervised.args.learning_rat=1"], "stage.supervised.args.learning_rat"),
        (["stage.supervised.mae=false"], "stage.supervised.mae: this is set by stage.mae"),
        (["stage.metric=toolworld/tss"], "did you mean toolworld/ts?"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_made(job, made, words, line):
    ran = job(*words, status=1)
    assert line in ran.err and "Traceback" not in ran.err
    assert not made or "metric" in words[0]


def test_what_a_running_pipeline_uses_is_not_removed(job, made, monkeypatch, tmp_path):
    model_of, removed = pipeline.model_of, []
    others = StageCache(tmp_path / "cache" / "stages")

    def prune(cfg, model):
        removed.extend(others.remove(folder) for folder, _ in others.entries())
        return model_of(cfg, model)

    monkeypatch.setattr(pipeline, "model_of", prune)
    job(*switches(False, False, False))
    assert removed == [False, False]  # the data and the model are in use
    assert [others.remove(folder) for folder, _ in others.entries()] == [True, True, True]  # the job has ended


def test_with_and_without_the_cache_into_one_folder(job, made, tmp_path):
    """A run without the cache neither writes through a link into it nor is replaced by a link."""
    words, folder = switches(False, False, False), tmp_path / "run"
    entry = (job(*words, folder=folder).folder / "model_sft").resolve()
    before = (entry / "model" / "config.json").stat().st_mtime_ns
    job(*words, "cache.enabled=false", folder=folder)
    assert not (folder / "model_sft").is_symlink() and (entry / "model" / "config.json").stat().st_mtime_ns == before
    assert "was made without the cache" in job(*words, folder=folder, status=1).err


def test_the_metric_of_a_sweeper(job, made):
    assert job(*switches(False, False, False), "stage.metric=toolworld/cf").metrics["score"] == 10.0


def test_a_stage_that_fails_leaves_what_was_made_before_it(job, made, monkeypatch):
    words = switches(True, True, False)
    monkeypatch.setattr(pipeline, "model_of", lambda cfg, model: (_ for _ in ()).throw(OSError("disk full")))
    ran = job(*words, status=1)
    assert "disk full" in (ran.folder / "error.txt").read_text()
    monkeypatch.undo()
    entries = list((ran.folder.parent / "cache" / "stages").glob("*/entry.json"))
    assert sorted(json.loads(entry.read_text())["stage"] for entry in entries) == ["mae", "pkt"]
