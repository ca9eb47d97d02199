"""A report that is published has no texts of a benchmark and names no place of the machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.sweep_sample import job_of as job
from tests.support.sweep_sample import small
from tltrain.report import exports, numbers, page
from tltrain.report.publication import published, without_places
from tltrain.report.sweep import Job, load, save

CONFIG = """\
stage:
  name: pipeline
  current: {place}/prod
  args: {{output_dir: null, learning_rate: 0.0001}}
  benchmarks:
  - name: rotbench
    path: {place}/rotbench
model: {{path: Qwen/Qwen3-0.6B, hub: null}}
data: {{path: '${{paths.rotbench}}', limit: null}}
source: {{url: 'http://gpu7.acme.example:8000/v1', name: endpoint}}
hardware: {{rendezvous: 'gpu7:29500'}}
cache: {{dir: {place}/cache}}
paths: {{rotbench: {place}/rotbench}}
mae:
  paper: [{{whole: '/[a-z]+: No such file'}}]
"""


def test_a_published_report_names_no_place(tmp_path):
    place = tmp_path / "acme"
    (place / "rotbench").mkdir(parents=True)
    a, b = (f"path={place}/{name}/model" for name in "ab")
    jobs = [replace(job(0, [1, 0]), folder=f"{place}/runs/0"), Job(1, f"{place}/runs/1", f"{place}/x.jsonl: no file")]
    made = small((a, jobs), (b, [replace(job(0, [1, 1]), folder=f"{place}/runs/2")]))
    made = replace(
        made,
        command=f"python -m tltrain -m --config-dir {place} -cd={place} model.path={place}/a,{place}/b seed=0 "
        f"'stage.benchmarks=[{{name: rotbench, path: {place}/rotbench}}]' hydra.sweep.dir={place}/runs "
        "source.url=http://gpu7.acme.example:8000/v1 data.path=hf://datasets/org/name stage.args.learning_rate=1e-4",
        config=CONFIG.format(place=place),
        baseline=a,
        axes={"path": [f"{place}/a/model", f"{place}/b/model"]},
        rows=[replace(row, axes={"path": row.label.removeprefix("path=")}) for row in made.rows],
    )
    shown = published(made)
    save(shown, tmp_path / "sweep.json")
    found = numbers.derive(shown)
    files = [page.render(shown, found), exports.markdown(shown, found), exports.comma_separated(shown, found)]
    for text in (*files, exports.latex(shown, found), (tmp_path / "sweep.json").read_text()):
        assert "acme" not in text and str(tmp_path) not in text
    assert shown.command == (
        "python -m tltrain -m --config-dir FOLDER -cd=FOLDER model.path=FILE seed=0 "
        "'stage.benchmarks=[{name: rotbench, path: FOLDER}]' hydra.sweep.dir=FILE source.url=URL "
        "data.path=hf://datasets/org/name stage.args.learning_rate=1e-4"
    )
    for line in ("path: Qwen/Qwen3-0.6B", "path: ${paths.rotbench}", "url: URL", "rotbench: FOLDER", "rendezvous: URL"):
        assert line in shown.config
    assert "whole: '/[a-z]+: No such file'" in shown.config  # of a rule, no path
    assert [row.label for row in shown.rows] == ["path=model (1)", "path=model (2)"]
    assert shown.baseline == "path=model (1)" and numbers.derive(made).comparisons.keys() == found.comparisons.keys()
    assert [each.folder for each in shown.rows[0].seeds] == ["0", "1"]
    assert shown.rows[0].seeds[1].error == "FILE: no file"
    for text in files[:2]:
        assert "FILE, FOLDER and URL stand for places of the machine that ran it." in text
    assert without_places(load(tmp_path / "sweep.json")) == shown  # once more changes nothing
    assert str(place) in page.render(made, numbers.derive(made))  # the own page says where things are


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("data.path=/srv/a b.jsonl: record 3", "data.path=FILE b.jsonl: record 3"),
        ("http://gpu7:8000/v1 cannot be reached", "URL cannot be reached"),
        ("expected TS/PI/CF, found 3/4", "expected TS/PI/CF, found 3/4"),
        ("killed", "killed"),
        ("C:\\data\\x.json: no file", "FILE: no file"),
    ],
)
def test_the_error_of_a_failed_job_names_no_place(said, shown):
    made = published(small(("base", [Job(0, "x", said)]), ("x", [job(0, [1])])))
    assert made.rows[0].seeds[0].error == shown
