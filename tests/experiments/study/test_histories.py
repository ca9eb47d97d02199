"""Histories of PPO beside the rows: copied from the run that made the row, and averaged over parts of the training."""

from __future__ import annotations

import json

import pytest

from experiments.study import design, histories, rows
from experiments.study.page import page
from experiments.study.summary import load
from tests.support import study_rows
from tltrain.errors import TltrainError
from tltrain.runtime import fingerprints

STUDY = design.load()


def logged(rewards, samples):
    """A training's `history.jsonl`: a line for each rollout, and one of the whole training."""
    lines = [
        {"step": step, "reward": reward, "samples": calls, "grade/correct": 0.5, "loss": 1.0}
        for step, (reward, calls) in enumerate(zip(rewards, samples, strict=True), 1)
    ]
    return "".join(f"{json.dumps(line)}\n" for line in [*lines, {"step": len(lines), "train_loss": 0.5}])


def trained(work, arm, seed, rewards, samples, stages=("0123",)):
    """What a finished run of PPO leaves; return the fingerprint that its row has."""
    run = work / f"{arm}-{seed}" / "main"
    (run / "model_irm").mkdir(parents=True)
    (run / "model_irm" / "history.jsonl").write_text(logged(rewards, samples))
    (run / "metrics.json").write_text(json.dumps({"stages": [{"fingerprint": stage} for stage in stages]}))
    return fingerprints.fingerprint(list(stages))


def row(folder, arm, seed, fingerprint):
    study_rows.write(folder, {(arm, seed): study_rows.answers("questions", [3, 0])}, fingerprint=fingerprint)


def test_the_history_of_a_row_is_copied_and_shown_in_parts(tmp_path):
    work, folder = tmp_path / "work", tmp_path / "rows"
    # quarters of five rollouts: 1, 1, 1 and 2 of them; the last by calls: (4 * 0.2 + 1 * 0.7) / 5 = 0.3
    row(folder, "irm", 0, trained(work, "irm", 0, [-0.4, -0.2, 0.0, 0.2, 0.7], [4, 4, 4, 4, 1]))
    row(folder, "irm", 1, trained(work, "irm", 1, [0.0, 0.2, 0.4, 0.5], [2, 2, 2, 2]))
    row(folder, "sft", 0, "of no training by PPO")
    assert [path.name for path in histories.copy(work, folder)] == ["irm-0.jsonl.gz", "irm-1.jsonl.gz"]
    summary = load(folder, study_rows.PROTOCOL)
    assert [part["reward"] for part in summary["ppo"]] == pytest.approx([-0.2, 0.0, 0.2, 0.4])
    assert {(part["arm"], part["seeds"]) for part in summary["ppo"]} == {("irm", 2)}
    written = page(summary, STUDY)
    assert "| irm, 4 of 4 | 2 | 0.400 | 0.500 |  |" in written  # what no run logged is left out


def test_a_run_that_did_not_make_the_row_is_not_copied(tmp_path):
    work, folder = tmp_path / "work", tmp_path / "rows"
    made = trained(work, "irm", 0, [0.1], [4])
    row(folder, "irm", 0, "of another run")
    assert histories.copy(work, folder) == []
    row(folder, "irm", 0, made)
    (work / "irm-0" / "main" / "metrics.json").unlink()  # it has not ended
    assert histories.copy(work, folder) == []


@pytest.mark.parametrize("left", ["another fingerprint", "no row"])
def test_a_history_of_another_run_than_the_rows_is_refused(tmp_path, left):
    work, folder = tmp_path / "work", tmp_path / "rows"
    row(folder, "sft", 0, "c")
    row(folder, "irm", 0, trained(work, "irm", 0, [0.1], [4]))
    histories.copy(work, folder)
    if left == "no row":
        (folder / "irm-0.jsonl.gz").unlink()
    else:
        row(folder, "irm", 0, "run again")
    with pytest.raises(TltrainError, match=r"irm-0\.jsonl\.gz: not of the run .* copy it again"):
        load(folder, study_rows.PROTOCOL)


def test_the_command_says_what_it_copied(tmp_path, capsys):
    work, folder = tmp_path / "work", tmp_path / "rows"
    words = [str(work), "--rows", str(folder)]
    assert histories.main(words) == 1 and "no such folder; give what run.sh was given" in capsys.readouterr().err
    work.mkdir()
    assert histories.main(words) == 0 and "no finished run of a row with PPO" in capsys.readouterr().out
    row(folder, "irm", 0, trained(work, "irm", 0, [0.1], [4]))
    assert histories.main(words) == 0 and capsys.readouterr().out == "irm-0.jsonl.gz\n"
    (folder.parent / histories.HISTORIES / "irm-0.jsonl.gz").write_bytes(b"damaged")
    (folder / "irm-0.jsonl.gz").write_bytes(b"damaged")
    assert histories.main(words) == 1 and capsys.readouterr().err.startswith("error: ")


def test_the_repositorys_histories_are_of_its_rows():
    found = rows.read_all(design.ROWS)
    for one in histories.read_all(design.ROWS, found):
        (made,) = [row for row in found if (row.arm, row.seed) == (one.arm, one.seed)]
        calls = made.header["costs"]["stages"]["model_irm"]["sampled_calls"]
        assert sum(line[histories.WEIGHT] for line in one.lines[histories.SET]) == calls
