"""Where a made-up name leaves the names on offer, by hand-made token ids and in the answers of a run."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf
from transformers import LlamaConfig

from experiments.study import made_up_names
from experiments.study.made_up_names import CHOICE, COPY, FIRST, departure
from tests.support import study_rows
from tests.support.composition import composed
from tltrain.evaluation import benchmarks
from tltrain.evaluation.predictions import Prediction
from tltrain.evaluation.records import to_line
from tltrain.runtime import fingerprints

OFFERED = [(1, 2, 3, 9), (1, 2, 4, 9), (1, 5, 6, 9), (7, 8, 9)]
"""Names on offer, `(` behind them (9)."""


@pytest.mark.parametrize(
    ("name", "golden", "expected"),
    [
        ((2, 2, 9), OFFERED[0], (FIRST, True)),  # followed nothing, so it left the golden name there as well
        ((1, 3, 9), OFFERED[0], (CHOICE, True)),  # after 1 there are 2 and 5
        ((1, 3, 9), OFFERED[3], (CHOICE, False)),  # the golden one was left at the first token
        ((1, 2, 9), OFFERED[2], (CHOICE, False)),  # ends where 3 and 4 were left
        ((1, 5, 7, 9), OFFERED[2], (COPY, True)),
        ((7, 8, 3, 9), OFFERED[0], (COPY, False)),  # goes on where the one name left ends
    ],
)
def test_where_a_name_leaves_the_names_on_offer(name, golden, expected):
    assert departure(name, OFFERED, golden) == expected


@pytest.fixture
def work(tmp_path, byte_level):
    """A folder with a run of `pkt`, seed 0, whose model made up one of two names; its row stands beside."""
    run = tmp_path / "work" / "pkt-0" / "main"
    evaluation, model = run / "eval_confusable", run / "model_pkt" / "model"
    evaluation.mkdir(parents=True)
    byte_level.save_pretrained(model)
    LlamaConfig(vocab_size=len(byte_level)).save_pretrained(model)
    cfg = composed("stage=eval", "benchmark=toolworld_confusable", "benchmark.size=2")
    for folder in (run, evaluation):
        OmegaConf.save(cfg, folder / "config.yaml")
    (samples,) = benchmarks.load(cfg.benchmark, cfg.seed).values()
    names = samples[0].goldens[0].name, samples[1].goldens[0].name[:-1]
    grades = "correct", "tool_hallucination"
    answers = [
        Prediction(
            "toolworld_confusable",
            sample.id,
            call={"name": name, "arguments": {}},
            goldens=[{"name": sample.goldens[0].name, "arguments": {}}],
            grade=grade,
        )
        for sample, name, grade in zip(samples, names, grades, strict=True)
    ]
    (evaluation / "predictions.jsonl").write_text("".join(f"{to_line(answer)}\n" for answer in answers))
    (run / "metrics.json").write_text(json.dumps({"stages": [{"fingerprint": "0123"}]}))
    row = {("pkt", 0): study_rows.answers("confusable", [3, 0])}
    study_rows.write(tmp_path / "rows", row, fingerprint=fingerprints.fingerprint(["0123"]))
    return tmp_path / "work"


def test_the_made_up_names_of_a_run_are_counted_once(work, capsys):
    again = work.parent / "again"
    again.symlink_to(work)
    assert made_up_names.main([str(work), str(again), "--rows", str(work.parent / "rows")]) == 0
    *_, heads, _, line = capsys.readouterr().out.splitlines()
    assert heads.startswith("|  | seeds | answers | names that are not on offer |")
    assert line.startswith("| confusable tools: `pkt` | 1 | 2 | 1 | ")
    golden, another, *wheres = map(int, line.strip("| ").split(" | ")[4:])
    assert golden + another == 1 and sum(wheres) == 1


def test_a_folder_without_the_runs_of_rows_is_refused(work, capsys):
    (work / "pkt-0" / "main" / "metrics.json").write_text(json.dumps({"stages": [{"fingerprint": "another"}]}))
    assert made_up_names.main([str(work), "--rows", str(work.parent / "rows")]) == 1
    assert "no run of a row" in capsys.readouterr().err
