"""The paper's published rows, and tables as text."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT, SHARED
from tltrain.views import tables

PAPER = ROOT / "experiments" / "paper"


def test_published_rows_are_those_of_the_set_as_printed():
    rows = tables.published("rotbench_clean", 105)
    assert len(rows) == 11 + 8
    assert rows[0] == ["Avg.", "74.10", "49.90", "35.43"]
    assert rows[-1] == ["ablation: w/ All (TL-CodeLLaMA-2)", "83.81", "54.29", "42.86"]
    bfcl = tables.published("bfcl_exec", 240)
    assert len(bfcl) == 11  # the ablation does not include BFCL
    assert ["TL-CodeLLaMA-2", "96.25", "93.75", "88.33"] in bfcl


def test_other_sets_and_other_numbers_of_samples_have_none():
    assert tables.published("rotbench_heavy", 210) == tables.published("rotbench_clean", 10) == []
    assert tables.published("toolworld", 100) == []


def test_the_files_are_whole():
    for file, rows in (("single_turn.csv", 11), ("ablation.csv", 8), ("multi_turn.csv", 10)):
        with (PAPER / file).open() as table:
            assert len(list(csv.DictReader(table))) == rows
        source = SHARED / "paper" / file
        if source.is_file():
            assert (PAPER / file).read_text() == source.read_text()


def test_without_the_files_there_are_no_rows(monkeypatch):
    monkeypatch.setattr(tables, "FOLDERS", ())
    assert tables.published("rotbench_clean", 105) == []


def test_a_table_in_markdown():
    text = tables.markdown("T", ["who", "TS"], [["a", "1.00"], ["b", 2]])
    assert text == "## T\n\n| who | TS |\n| --- | ---: |\n| a | 1.00 |\n| b | 2 |\n"


def test_kinds_of_error_that_never_occur_are_left_out_and_many_sets_make_several_tables(capsys):
    tables.print_kinds({f"s{i}": {"wrong_tool": 0, "correct": i} for i in range(6)})
    out = capsys.readouterr().out
    assert out.count("Calls by kind") == 2
    assert "wrong tool" not in out and "s0" in out and "s5" in out


def test_the_results_show_the_recorded_ablation():
    ran = subprocess.run([sys.executable, ROOT / "experiments" / "results_table.py"], capture_output=True, text=True)
    assert ran.returncode == 0 and len(ran.stdout.splitlines()) == 2 + 8, ran.stderr
    assert ran.stdout in (ROOT / "docs" / "results.md").read_text()


@pytest.mark.slow
def test_the_costs_of_what_needs_data_that_is_not_there_are_left_out_and_that_is_said(tmp_path, models_cache):
    script, nowhere = ROOT / "experiments" / "cost_table.py", os.environ | {"TLTRAIN_SHARED": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, script, f"cache.dir={models_cache}"], capture_output=True, text=True, env=nowhere
    )
    names = [line.split("|")[1].strip() for line in ran.stdout.splitlines()[2:]]
    assert ran.returncode == 0 and names[0] == "`ablation model=tiny`" and "`robustness`" not in names
    assert len(names) == 5 and "is missing: robustness, rotbench_ablation\n" in ran.stderr
