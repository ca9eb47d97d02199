"""Job folders that a disk or a stranger has damaged: a row says why, or one line names the file."""

from __future__ import annotations

import json

import pytest

from tests.support.prediction_lines import line
from tltrain.errors import TltrainError
from tltrain.report import gather, sweep

METRICS = {"set/ts": 50.0, "details": {"set": {"rows": {}}}}
DEEP = "[" * 100_000


@pytest.fixture
def jobs(tmp_path):
    """Two successful jobs."""
    for name in ("a", "b"):
        hydra = tmp_path / name / ".hydra"
        hydra.mkdir(parents=True)
        (hydra / "config.yaml").write_text("stage: {name: eval}\nseed: 0\n")
        (hydra / "overrides.yaml").write_text(f"- data.size={name}\n")
        (tmp_path / name / "metrics.json").write_text(json.dumps(METRICS))
        (tmp_path / name / "predictions.jsonl").write_text(json.dumps(line("1")) + "\n")
    return tmp_path


def gathered(folder):
    return {row.label: row.seeds[0] for row in gather.gather(gather.job_folders(folder), "sweep", "tltrain").rows}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics.json", DEEP, "metrics.json: expected a JSON object, found: nested deeper than 100"),
        ("metrics.json", '"x"', "metrics.json: expected a JSON object, found: expected a JSON object, found str"),
        ("metrics.json", '{"stages": [{"name": "sft"}]}', "metrics.json: stages[0].seconds: missing"),
        ("metrics.json", '{"stages": 1}', "metrics.json: stages: expected list, found int"),
        ("metrics.json", '{"details": 1}', "details: expected an object, found 1"),
        ("predictions.jsonl", DEEP, "predictions.jsonl, record 1: line: expected a JSON object in UTF-8"),
        ("transcripts.jsonl", "{}", "transcripts.jsonl, record 1: id: expected a string, found no such field"),
    ],
)
def test_a_job_whose_files_are_damaged_is_a_row_that_says_why(jobs, name, content, said):
    (jobs / "a" / name).write_text(content)
    found = gathered(jobs)
    assert said in found["size=a"].error and "\n" not in found["size=a"].error
    assert found["size=b"].error is None and found["size=b"].metrics == {"set/ts": 50.0}


def test_an_error_in_no_encoding_is_shown(jobs):
    (jobs / "a" / "error.txt").write_bytes(b"it \xff failed\n")
    assert gathered(jobs)["size=a"].error == "it \ufffd failed"


def test_points_of_a_curve_that_are_no_numbers_are_left_out(jobs):
    (jobs / "a" / "model_sft").mkdir()
    lines = [{"step": 1, "loss": 2.5}, {"step": None, "loss": 2.0}, {"step": 3, "loss": "x"}, {"step": 4, "loss": 1.0}]
    (jobs / "a" / "model_sft" / "history.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert gathered(jobs)["size=a"].curves == {"train/loss": [[1, 2.5], [4, 1.0]]}


@pytest.mark.parametrize(
    "content",
    [b"a: [", b"\xff", b"- 1", b"stage: 1", b"{stage: {}, seed: x}", b"[" * 5000, b"seed: !!bool x", b"stage: *a"],
)
def test_a_configuration_that_cannot_be_read_is_named_in_one_line(jobs, content):
    (jobs / "a" / ".hydra" / "config.yaml").write_bytes(content)
    with pytest.raises(TltrainError, match=r"a/.hydra/config.yaml: expected ") as caught:
        gathered(jobs)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_an_override_that_is_no_date_is_a_word(jobs):
    (jobs / "a" / ".hydra" / "overrides.yaml").write_text("- data.size=2024-13-45\n")
    assert "size=2024-13-45" in gathered(jobs)


def test_an_unknown_key_of_any_length_is_one_short_line(tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps({"x\n" * 3000: 1}))
    with pytest.raises(TltrainError, match=r"sweep\.json: x x x .*…: unknown; expected ") as error:
        sweep.load(tmp_path / "sweep.json")
    assert "\n" not in str(error.value) and len(str(error.value).removeprefix(str(tmp_path))) < 300
