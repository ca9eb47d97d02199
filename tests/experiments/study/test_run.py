"""The runner: order, what stands is skipped, one job at a time, interruptions, and that a dry run stays apart."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import yaml

from experiments.study import design, job, rows, run, tuning
from tests.support import study_rows
from tltrain.errors import Diverged, TltrainError
from tltrain.evaluation.predictions import Prediction
from tltrain.evaluation.records import to_line

STUDY = design.load()
SETTINGS = {step.setting: list(step.candidates[0].keep) for step in STUDY.tuning}


@pytest.fixture
def place(tmp_path):
    """A place to work in, with tuned settings."""
    tuned = tmp_path / "tuned.yaml"
    tuned.write_text(yaml.safe_dump({"protocol": design.protocol_hash(), "settings": SETTINGS}))
    return job.Place(tmp_path / "work", tmp_path / "rows", tuned)


@pytest.fixture
def jobs(monkeypatch):
    """Pipelines that answer two questions at once; the list of their folders and words."""
    ran = []

    def pipeline(place, folder, experiment, seed, words):
        ran.append((folder.parent.name, folder.name, words))
        evaluation = folder / "eval_questions"
        evaluation.mkdir(parents=True)
        scores = {"ts": True, "pi": True, "cf": seed > 0 or "learning_rate=1e-4" in " ".join(words)}
        lines = [Prediction("toolworld", name, grade="correct", scores=scores, reward=1.0) for name in "ab"]
        (evaluation / "predictions.jsonl").write_text("".join(f"{to_line(line)}\n" for line in lines))
        (evaluation / "metrics.json").write_text(json.dumps({"toolworld/ts": 100.0}))
        stages = [{"name": "sft", "fingerprint": "0123", "seconds": 3.0, "reused": False}]
        (folder / "metrics.json").write_text(json.dumps({"stages": stages}))
        (folder / "processor.json").write_text(json.dumps({"seconds": 2.5}))
        (folder / job.JOB).write_text(json.dumps(job.record(experiment, seed, words)))
        if experiment == "all_35":
            (folder / "model_irm" / "model").mkdir(parents=True)
            (folder / "model_irm" / "history.jsonl").write_text(json.dumps({"step": 1, "samples": 4, "reward": 0.5}))

    monkeypatch.setattr(run, "pipeline", pipeline)
    return ran


def test_a_row_is_written_with_its_header_and_not_run_again(place, jobs):
    file = run.make_row(place, STUDY, STUDY.arms["mae_35"], 2)
    read = rows.read(file)
    assert [(arm, name) for arm, name, _ in jobs] == [("mae_35-2", "main"), ("mae_35-2", "sampled")]
    assert "stage.supervised.args.learning_rate=5e-5" in jobs[0][2]
    assert "stage.eval.temperature=0.7" in jobs[1][2] and "stage.eval.temperature=0.7" not in jobs[0][2]
    assert set(read.lines) == {"questions", "sampled_questions"} and len(read.lines["questions"]) == 2
    assert read.header["metrics"] == {"questions/ts": 100, "sampled_questions/ts": 100}
    assert read.header["costs"]["processor_seconds"] == 5 and read.header["protocol"] == design.protocol_hash()
    assert len(read.header["tuned"]) == 64 and not read.header["dry_run"]
    order = [(arm.name, seed) for _, arm, seed in run.wanted(STUDY, place)]
    assert ("mae_35", 2) not in order and order[0] == ("sft", 0)
    assert [seed for _, _, seed in run.wanted(STUDY, place, ["mae_35"])] == [0, 1, 3, 4]
    assert {group.tier for group, _, _ in run.wanted(STUDY, place, tier=2)} == {2}


def test_a_row_with_ppo_leaves_its_history_beside_it(place, jobs):
    run.make_row(place, STUDY, STUDY.arms["mae_35"], 0)
    run.make_row(place, STUDY, STUDY.arms["all_35"], 0)
    beside = place.rows.parent / "histories"
    assert [path.name for path in beside.iterdir()] == ["all_35-0.jsonl.gz"]
    assert rows.read(beside / "all_35-0.jsonl.gz").lines == {"ppo": [{"id": "1", "samples": 4, "reward": 0.5}]}


def test_what_stands_is_listed(place, jobs):
    run.make_row(place, STUDY, STUDY.arms["sft"], 0)
    said = run.listing(STUDY, place)
    assert "0* 1. 2. 3. 4." in said and "next: sft_35, seed 0" in said


def test_a_row_needs_its_paths_and_settings(place, jobs):
    with pytest.raises(TltrainError, match=r"needs --path rotbench=FOLDER"):
        run.make_row(place, STUDY, STUDY.arms["public_sft"], 0)
    with pytest.raises(TltrainError, match="--tune"):
        run.make_row(replace(place, tuned=place.work / "none.yaml"), STUDY, STUDY.arms["sft"], 0)
    place.tuned.write_text(place.tuned.read_text().replace(design.protocol_hash(), "0" * 64))
    with pytest.raises(TltrainError, match="under another protocol"):
        run.make_row(place, STUDY, STUDY.arms["sft"], 0)


def test_unknown_arms_and_seeds_are_refused(place):
    for words, said in ((["--arm", "x"], "there is no such arm"), (["--seed", "9"], "the study's seeds are 0, 1")):
        options = run.parsed([*words, "--dry-run", str(place.work)])
        with pytest.raises(TltrainError, match=said):
            run.run(options)


def test_one_job_at_a_time(place):
    with run.alone(place.work), pytest.raises(TltrainError, match="one at a time"), run.alone(place.work):
        pass


def test_a_dry_run_writes_no_row_of_the_study(tmp_path):
    place = run.place_of(run.parsed(["--dry-run", str(tmp_path)]))
    assert place.dry_run and place.rows == tmp_path / "rows" and place.tuned.parent == tmp_path
    with pytest.raises(TltrainError, match="expected a folder outside"):
        run.place_of(run.parsed(["--dry-run", str(design.HERE / "rows")]))


def test_an_interrupted_job_stops_within_its_time_and_its_processor_seconds_are_kept(place, monkeypatch):
    working = "import time\nwhile True: sum(range(1000)); time.sleep(0.001)"
    monkeypatch.setattr(job, "command", lambda *given: [sys.executable, "-c", working])
    folder, start = place.work / "x", time.monotonic()
    for _ in range(2):
        with pytest.raises(job.Interrupted):
            job.pipeline(replace(place, deadline=time.monotonic() + 0.5), folder, "sft", 0, ())
        spent = json.loads((folder / "processor.json").read_text())["seconds"]
        (folder / "processor.json").write_text(json.dumps({"seconds": spent + 70}))
    assert time.monotonic() - start < 30
    assert spent >= 70


def test_no_job_is_left_behind_where_the_runner_itself_is_ended(place, monkeypatch):
    jobs, wait = [], subprocess.Popen.wait

    def ended(process, timeout=None):
        if not jobs:
            jobs.append(process)
            raise SystemExit(75)
        return wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", ended)
    monkeypatch.setattr(job, "command", lambda *given: [sys.executable, "-c", "import time; time.sleep(60)"])
    with pytest.raises(SystemExit):
        job.pipeline(place, place.work / "x", "sft", 0, ())
    assert jobs[0].returncode is not None and (place.work / "x" / "processor.json").is_file()


def test_a_job_that_fails_says_why_and_one_that_is_done_is_not_started(place, monkeypatch):
    monkeypatch.setattr(
        job, "command", lambda *given: [sys.executable, "-c", "print('no memory'); raise SystemExit(3)"]
    )
    with pytest.raises(TltrainError, match=r"exit status 3: no memory"):
        job.pipeline(place, place.work / "x", "sft", 0, ())
    (place.work / "x" / "metrics.json").write_text("{}")
    job.pipeline(place, place.work / "x", "sft", 0, ())


@pytest.mark.parametrize("changed", ["words", "experiment", "code", "no record"])
def test_what_another_run_left_in_the_folder_is_not_taken_for_this_one(place, monkeypatch, changed):
    monkeypatch.setattr(
        job, "command", lambda place, folder, *given: [sys.executable, "-c", f"open(r'{folder}/metrics.json', 'x')"]
    )
    folder = place.work / "x"
    job.pipeline(place, folder, "sft", 0, ("a=1", "paths.data=/here"))
    (folder / "left").touch()
    job.pipeline(place, folder, "sft", 0, ("a=0", "a=1", "paths.data=/there"))
    assert (folder / "left").exists()
    if changed == "code":
        monkeypatch.setattr(job, "code", lambda: "another")
    if changed == "no record":
        (folder / job.JOB).unlink()
    words = ("a=2",) if changed == "words" else ("a=1",)
    job.pipeline(place, folder, "pkt" if changed == "experiment" else "sft", 0, words)
    assert not (folder / "left").exists() and (folder / "metrics.json").exists()


def test_the_command_line_of_a_row(place):
    words = job.command(place, place.work / "x", "pkt", 3, ["stage.w_max=3"])
    assert words[3:7] == ["--config-dir", str(design.CONF), "+experiment=study/pkt", "seed=3"]
    assert words[7:] == ["stage.w_max=3", f"cache.dir={place.work / 'cache'}", f"hydra.run.dir={place.work / 'x'}"]


def test_a_run_that_diverged_is_a_row_all_the_same(place, monkeypatch):
    said = f"sum(range(10**7)); print({str(Diverged('step 3: the loss is nan on x'))!r}); raise SystemExit(1)"
    monkeypatch.setattr(job, "command", lambda *given: [sys.executable, "-c", said])
    read = rows.read(run.make_row(place, STUDY, STUDY.arms["mae_35"], 0))
    assert read.header["diverged"] and read.lines == {} and read.header["costs"]["processor_seconds"] > 0
    assert read.header["asked"] == ["questions", "conversations", "recorded", "sampled_questions"]
    after = rows.read(run.make_row(place, STUDY, STUDY.arms["sft_continued"], 0))  # its start has no model
    assert after.header["diverged"] and after.header["asked"] == ["questions"]


def test_code_that_changes_while_a_row_runs_makes_no_row(place, jobs, monkeypatch):
    states = iter("ab")
    monkeypatch.setattr(run, "code", lambda: next(states))
    with pytest.raises(TltrainError, match="the code changed while sft, seed 0, was running"):
        run.make_row(place, STUDY, STUDY.arms["sft"], 0)
    assert not place.row("sft", 0).exists()


def test_a_row_says_the_commit_of_what_decides_it(place, jobs, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "ROOT", tmp_path)
    with pytest.raises(TltrainError, match="in a checkout of git"):
        run.commit()

    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x", *words], check=True)

    git("init", "-q")
    for number, name in enumerate(("tltrain/a.py", "README.md", "experiments/study/rows/sft-0.jsonl.gz")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
        git("add", ".")
        git("commit", "-qm", str(number))
    said = run.commit()
    assert len(said) == 40 and said == run._git("log", "-1", "--format=%H", "--", "tltrain").strip()
    (tmp_path / "tltrain" / "b.py").write_text("")
    assert run.commit() == said + "+"


def test_a_work_folder_is_of_one_kind_of_machine(place, monkeypatch):
    with run.alone(place.work):
        pass
    monkeypatch.setattr(run, "machine", lambda: {"gpu": "H200"})
    with (
        pytest.raises(TltrainError, match="another kind of machine than this one, which has a GPU"),
        run.alone(place.work),
    ):
        pass


def test_both_halves_of_toolalpaca_are_refused_before_anything_runs(place, jobs, tmp_path):
    (tmp_path / "eval_simulated.json").touch()
    words = (f"paths.toolalpaca={tmp_path}", "paths.rotbench=x")
    with pytest.raises(TltrainError, match=r"the protocol asks the real half: name its eval_real.json"):
        run.make_row(replace(place, words=words), STUDY, STUDY.arms["public_sft"], 0)
    assert not jobs


@pytest.mark.slow
def test_a_real_run_becomes_a_row(place, tltrain, monkeypatch):
    """The experiment, its benchmarks and its stages, in this process, on a model of a few thousand weights."""

    def pipeline(place, folder, experiment, seed, words):
        search = f"hydra.searchpath=[file://{design.CONF}]"
        own = ("hardware.bf16=false", f"cache.dir={place.work / 'cache'}")
        tltrain(search, f"+experiment=study/{experiment}", f"seed={seed}", *words, *own, folder=folder)

    monkeypatch.setattr(run, "pipeline", pipeline)
    asked = "stage.benchmarks=[{name: confusable, size: 2}, {name: recorded, size: 4}]"
    small = [word for word in STUDY.dry_run.words if not word.startswith("stage.benchmarks=")]
    study = replace(STUDY, dry_run=replace(STUDY.dry_run, words=(*small, asked)))
    read = rows.read(run.make_row(replace(place, dry_run=True), study, study.arms["pkt"], 0))
    assert {name: len(lines) for name, lines in read.lines.items()} == {"confusable": 2, "recorded": 4}
    assert all(line["cluster"] != line["id"] for line in read.lines["confusable"])
    assert {"open_text", "keys", "keys_right", "loss"} <= read.lines["recorded"][0].keys()
    costs = read.header["costs"]["stages"]
    assert costs["model_pkt"]["updates"] > 0 and costs["model_pkt"]["target_tokens"] > 0
    assert {"recorded/margin", "confusable/key_tokens"} <= read.header["metrics"].keys() and read.header["dry_run"]


def test_a_later_word_replaces_an_earlier_one_of_its_key(place):
    """An arm's own words stand behind tuned ones, and tltrain refuses a key that is given twice."""
    words = job.command(place, place.work / "x", "irm", 0, ["a=1", "b=[c, d=2]", "a=3"])
    assert words[7:9] == ["a=3", "b=[c, d=2]"]
    chosen = {step.setting: step.candidates[-1].keep for step in STUDY.tuning}
    for arm in STUDY.arms.values():
        keys = [word.partition("=")[0] for word in job.last_of_each_key(run.arm_words(arm, chosen))]
        assert len(keys) == len(set(keys))
    free = job.last_of_each_key(run.arm_words(STUDY.arms["w1_clipped"], chosen))
    assert "stage.supervised.args.max_grad_norm=1.0" in free


def test_an_arm_starts_from_a_model_which_is_trained_again_if_only_its_row_was_kept(place, jobs, monkeypatch):
    answer = run.pipeline

    def pipeline(place, folder, experiment, seed, words):
        answer(place, folder, experiment, seed, words)
        (folder / "model_sft" / "model").mkdir(parents=True)

    monkeypatch.setattr(run, "pipeline", pipeline)
    run.make_row(place, STUDY, STUDY.arms["sft_continued"], 1)
    (arm, name, words), (_, _, continued) = jobs
    assert (arm, name) == ("sft-1", "model") and run.ONE_QUESTION in words
    assert f"model.path={place.work / 'sft-1' / 'model' / 'model_sft' / 'model'}" in continued
    jobs.clear()
    run.make_row(place, STUDY, STUDY.arms["sft"], 2)
    run.make_row(place, STUDY, STUDY.arms["sft_continued"], 2)
    assert [(arm, name) for arm, name, _ in jobs] == [("sft-2", "main"), ("sft_continued-2", "main")]
    link = place.work / "sft-2" / "main" / "model_sft2"
    link.symlink_to(place.work / "cache" / "removed")  # what is trained from a model that is gone, trains it again
    assert run.trained_before(place, STUDY, STUDY.arms["sft_continued"], 2, SETTINGS).name == "model"


# --- tuning -----------------------------------------------------------------------------------------------------------


def test_the_best_candidate_is_chosen_of_equal_ones_the_first():
    assert tuning.choose([1.0, 3.0, 2.0]) == 1
    assert tuning.choose([2.0, 2.0, 1.0]) == 0


def test_tuning_writes_what_it_chose_and_why(place, jobs, monkeypatch):
    monkeypatch.setattr(tuning, "pilot", lambda *given: [])
    place.tuned.unlink()
    study = replace(STUDY, tuning_seed=0)  # the fake answers better with a rate of 1e-4
    tuning.tune(study, place, run.pipeline)
    record = yaml.safe_load(place.tuned.read_text())
    assert record["settings"]["sft"] == list(STUDY.tuning[0].candidates[1].keep)
    sft, *_, rollout = record["evidence"]
    assert sft["chosen"] == 1 and [one["mean"] for one in sft["candidates"]] == [66.6667, 100, 66.6667] * 2
    assert rollout["chosen"] == 0 and record["protocol"] == design.protocol_hash()
    assert len(jobs) == sum(len(step.candidates) for step in STUDY.tuning)
    irm = [words for _, folder, words in jobs if folder.startswith("irm_kl")]
    assert all("stage.rl.args.learning_rate=1e-5" in words for words in irm)  # the earlier step's choice
    assert all(any("split: validation" in word for word in words) for _, _, words in jobs)
    settings, _ = design.tuned(place.tuned)
    assert settings["irm"][-1] == "stage.rl.args.max_steps=64"
    before = place.tuned.read_text()
    place.tuned.unlink()
    jobs.clear()
    tuning.tune(study, replace(place, work=place.work / "another machine"), run.pipeline)
    assert not jobs and place.tuned.read_text() == before  # what the candidates answered stands beside it
    study_rows.write(place.rows, {("sft", 0): []})
    with pytest.raises(TltrainError, match="the settings are fixed"):
        tuning.tune(study, place, run.pipeline)


def test_the_pilot_splits_the_variance(place, monkeypatch):
    def pipeline(place, folder, experiment, seed, words):
        for name in ("questions", "confusable"):
            evaluation = folder / f"eval_{name}"
            evaluation.mkdir(parents=True)
            lines = [
                Prediction(
                    "x", str(i), scores=dict.fromkeys(("ts", "pi", "cf"), (i * seed + (experiment == "pkt")) % 3 > 1)
                )
                for i in range(9)
            ]
            (evaluation / "predictions.jsonl").write_text("".join(f"{to_line(line)}\n" for line in lines))

    settings = {"sft": ["a=1"], "pkt": ["a=2"]}
    mean, ts = tuning.pilot(STUDY, place, settings, pipeline)
    assert (mean["measure"], ts["measure"], mean["questions"]) == ("mean, questions", "ts, confusable", 9)
    assert len(mean["differences"]) == 3 and mean["variance_of_a_question"] > 0
    assert mean["detectable_with_five_seeds"]["400"] < mean["detectable_with_five_seeds"]["200"]


def test_a_candidate_of_other_words_is_not_taken_for_this_one(place, jobs):
    words = ["stage.supervised.args.learning_rate=1e-4", "paths.data=/somewhere"]
    found = tuning.answered(place, "sft.0", "sft", 100, words, run.pipeline)
    again = tuning.answered(place, "sft.0", "sft", 100, [words[0], "paths.data=/elsewhere"], run.pipeline)
    assert len(jobs) == 1 and again.lines == found.lines
    with pytest.raises(TltrainError, match="of other words or another protocol"):
        tuning.answered(place, "sft.0", "sft", 100, ["stage.supervised.args.learning_rate=2e-4"], run.pipeline)


def test_a_candidate_that_diverges_is_not_chosen(place, jobs, monkeypatch):
    whole = run.pipeline

    def pipeline(place, folder, experiment, seed, words):
        if "stage.supervised.args.learning_rate=5e-5" in words and folder.name.startswith(("sft", "pkt")):
            raise Diverged("no model")
        whole(place, folder, experiment, seed, words)

    monkeypatch.setattr(tuning, "pilot", lambda *given: [])
    tuning.tune(STUDY, place, pipeline)
    record = yaml.safe_load(place.tuned.read_text())
    assert record["evidence"][0]["candidates"][0]["mean"] == "diverged" and record["evidence"][0]["chosen"] == 1
