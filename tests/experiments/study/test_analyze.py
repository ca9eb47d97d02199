"""From rows to results: numbers by hand, verdicts by the protocol's rules, and documents held to the rows."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import yaml

from experiments.study import analyze, design, forest
from experiments.study.documents import PAPER_MARKS, block, findings, with_block
from experiments.study.page import NOTHING, page
from experiments.study.summary import load
from tests.support import study_rows
from tltrain.errors import TltrainError

STUDY = design.load()


def rows_of(tmp_path, seeds=5, gain=(1, 1, 2, 1, 1), arms=STUDY.groups[0].arms):
    """Rows of the confirmatory arms. Each seed, `gain` of 10 questions are right that the baseline has wrong."""
    base, found = [0] * 10, {}
    for seed in range(seeds):
        better = [3] * gain[seed] + [0] * (10 - gain[seed])
        valid = [int(have > 0) for have in better]
        for arm in ("sft", "sft_35"):
            found[arm, seed] = [
                *study_rows.answers("questions", base),
                *study_rows.answers("confusable", base),
                *study_rows.conversations([0] * 10),
            ]
        for arm in ("pkt", "irm"):
            found[arm, seed] = [*study_rows.answers("questions", better), *study_rows.answers("confusable", better)]
        for arm in ("mae_35", "all_35"):
            found[arm, seed] = [*study_rows.answers("questions", better), *study_rows.conversations(valid)]
    return study_rows.write(tmp_path / "rows", {key: lines for key, lines in found.items() if key[0] in arms})


def summary_of(folder):
    return load(folder, study_rows.PROTOCOL)


def test_a_summary_has_every_hypothesis_with_its_numbers(tmp_path):
    found = summary_of(rows_of(tmp_path))
    pkt = found["hypotheses"]["pkt"]["measures"]["ts_confusable"]
    assert pkt["value"] == pytest.approx(12) and list(pkt["differences"].values()) == [10, 10, 20, 10, 10]
    # deviation sqrt(20), standard error 2, t of 4 degrees of freedom 2.7764; t = 6: p = 0.0039
    assert (pkt["low"], pkt["high"]) == pytest.approx((12 - 5.553, 12 + 5.553), abs=1e-3)
    assert pkt["p"] == pytest.approx(0.00388, abs=1e-4)
    assert found["hypotheses"]["pkt"]["p_holm"] == pytest.approx(4 * pkt["p"], abs=1e-5)
    assert found["hypotheses"]["all"]["seeds"] == 5 and set(found["hypotheses"]["all"]["measures"]) == {"va", "mean"}
    assert found["arms"]["sft"]["measures"]["ts"] == {"mean": 0, "deviation": 0, "n": 5}
    assert found["arms"]["pkt"]["grades"] == {"correct": 6, "wrong_tool": 44}
    assert found["arms"]["pkt"]["costs"]["3"]["processor_seconds"] == 120
    assert found["arms"]["pkt"]["metrics"] == {"recorded/margin": 0.5}
    assert "| pkt | 0.500 |" in page(found, STUDY)
    assert len(found["rows"]) == 30 and found["commits"] == ["d" * 40]
    named = {(one["arm"], one["baseline"], one["measure"]) for one in found["secondary"]}
    assert ("mae_35", "sft_35", "ce") in named and ("pkt", "sft", "ts") in named


PAIR = ("sft", "pkt")


def test_changed_answers_are_counted_by_grade_before_and_after(tmp_path):
    folder = rows_of(tmp_path, 2, (1, 3), PAIR)
    study_rows.write(folder, {("sft", 2): study_rows.answers("questions", [3])})  # without a partner: not counted
    summary = summary_of(folder)
    kept = {(one["set"]): one for one in summary["changed"] if (one["arm"], one["baseline"]) == ("pkt", "sft")}
    assert set(kept) == {"questions", "confusable"}
    assert kept["confusable"]["asked"] == 20 and kept["confusable"]["same"] == 16
    assert kept["confusable"]["grades"] == [["wrong_tool", "correct", 4]]
    assert kept["confusable"]["reward"] == [-1.5, -1.0]  # (16 * -1.5 + 4 * 1) / 20
    assert "| pkt − sft | confusable | 16 of 20 | -1.50 → -1.00 | wrong tool → correct 4 |" in page(summary, STUDY)


def test_ends_of_conversations_are_counted_with_their_calls_and_errors(tmp_path):
    lines = study_rows.conversations([1, 1, 0, 0, 0])
    for line in lines[2:]:
        line |= {"ended": "turn limit", "calls": 8, "de": 2, "ce": 3}
    lines.append(lines[0] | {"id": "no call", "ended": "text", "va": 0, "success": 0, "calls": 0, "ce": 0})
    summary = summary_of(study_rows.write(tmp_path, {("mae_35", seed): lines for seed in range(2)}))
    assert summary["arms"]["mae_35"]["ends"] == {
        "finish": {"conversations": 4, "success": 4, "no_error": 4, "calls": 8, "de": 0, "ce": 0},
        "turn limit": {"conversations": 6, "success": 0, "no_error": 0, "calls": 48, "de": 12, "ce": 18},
        "text": {"conversations": 2, "success": 0, "no_error": 2, "calls": 0, "de": 0, "ce": 0},
    }
    assert "| mae_35 | text | 2 | 0.0 | 16.7 | 0.0 | 100.0 | 0.0 | 0.0 |" in page(summary, STUDY)
    assert "| mae_35 | turn limit | 6 | 8.0 | 50.0 | 0.0 | 0.0 | 25.0 | 37.5 |" in page(summary, STUDY)


def test_the_page_has_no_table_without_a_line_and_puts_numbers_to_the_right(tmp_path):
    written = page(summary_of(rows_of(tmp_path, 1, (2,), ["sft"])), STUDY)
    titles = [line.partition(",")[0] for line in written.splitlines() if line.startswith("## ")]
    assert titles == ["## Arms", "## Recorded calls", "## How conversations end", "## Costs", "## Rows"]
    assert "nan" not in written and "| arm | nats by which a failing call is less likely" in written
    compared = page(summary_of(rows_of(tmp_path, 2, (2, 1), PAIR)), STUDY)
    (ruled,) = [after for before, after in pairwise(compared.splitlines()) if before.startswith("| arms | measure |")]
    assert ruled == "| --- | --- | ---: | ---: | ---: | ---: |"


@pytest.mark.parametrize(
    ("seeds", "gain", "verdict"),
    [
        (5, (5, 5, 6, 5, 5), "shown"),
        (5, (1, 1, 2, 1, 1), "shown for these questions alone"),
        (5, (0, 3, 0, 0, 1), "not shown"),
        (3, (5, 5, 6), "descriptive: 3 of 5 seeds"),
    ],
)
def test_verdicts_follow_the_protocol(tmp_path, seeds, gain, verdict):
    found = summary_of(rows_of(tmp_path, seeds, gain, PAIR))
    assert found["hypotheses"]["pkt"]["verdict"] == verdict


def test_a_conjunction_needs_both_and_what_was_not_run_is_not_shown(tmp_path):
    folder = rows_of(tmp_path)
    for seed in range(5):
        lines = [*study_rows.answers("questions", [3] * 5 + [0] * 5), *study_rows.conversations([0] * 10)]
        study_rows.write(folder, {("all_35", seed): lines})
        (folder / f"irm-{seed}.jsonl.gz").unlink()
    found = summary_of(folder)["hypotheses"]
    assert found["all"]["p"] == found["all"]["p_holm"] == 1 and found["all"]["verdict"] == "not shown"
    assert found["all"]["measures"]["mean"]["p"] == 0
    assert (found["irm"]["p"], found["irm"]["verdict"]) == (1, "descriptive: 0 of 5 seeds")
    lines = findings(summary_of(folder), STUDY)
    assert "- **IRM**: no row has been run yet." in lines and len(lines) == 6


def test_a_descriptive_comparison_names_no_p_and_one_seed_no_interval(tmp_path):
    lines = findings(summary_of(rows_of(tmp_path, 1, (2,), PAIR)), STUDY)
    assert lines[1] == "- **PKT**: TS, confusable tools 0.0 → 20.0, +20.0."
    assert "2 rows, 1 of 5 planned seeds, so without a verdict." in lines[4]


def test_hypotheses_with_other_numbers_of_seeds_each_say_theirs(tmp_path):
    folder = rows_of(tmp_path, 3, (0, 1, 5))
    (folder / "irm-2.jsonl.gz").unlink()
    lines = findings(summary_of(folder), STUDY)
    assert lines[1].endswith("; descriptive: 3 of 5 seeds.") and lines[2].endswith("; descriptive: 2 of 5 seeds.")
    assert "verdict" not in lines[4]


def test_rows_of_two_protocols_or_of_a_dry_run_beside_others_are_refused(tmp_path):
    folder = rows_of(tmp_path)
    with pytest.raises(TltrainError, match="of another protocol"):
        load(folder, "0" * 64)
    study_rows.write(folder, {("sft", 0): []}, dry_run=True)
    with pytest.raises(TltrainError, match="differ in dry_run"):
        summary_of(folder)


def test_public_sets_weigh_the_same_and_questions_trained_on_are_left_out(tmp_path):
    found = {}
    for arm, right in (("public_sft", 0), ("public_irm", 3)):
        for seed in range(3):
            lines = study_rows.answers("rotbench", [right] * 4)
            if (arm, seed) == ("public_sft", 1):
                lines[0]["seen"] = True
            for name in ("toolalpaca", "bfcl"):
                lines += study_rows.answers(name, [0] * 2)
            found[arm, seed] = lines
    summary = summary_of(study_rows.write(tmp_path, found))
    (pooled,) = [one for one in summary["secondary"] if one["measure"] == "pooled"]
    assert pooled["value"] == pytest.approx(100 / 3) and pooled["questions"] == 3 + 2 + 2
    assert "| public_irm − public_sft | +33.3 | -5 | not inferior |" in page(summary, STUDY)
    assert summary["margins"][0] == {"arm": "public_irm", "baseline": "public_sft", "margin": 5.0} | {
        "low": pytest.approx(100 / 3, abs=1e-5),
        "not_inferior": True,
    }


def test_an_incomplete_hypothesis_counts_as_not_run_in_the_correction(tmp_path):
    folder = rows_of(tmp_path, gain=(1, 1, 2, 1, 1))
    (folder / "pkt-4.jsonl.gz").unlink()
    found = summary_of(folder)["hypotheses"]
    assert found["pkt"]["p"] < found["mae"]["p"] * 4 and found["pkt"]["p_holm"] == 1
    assert found["mae"]["p_holm"] == pytest.approx(4 * found["mae"]["p"], abs=1e-5)
    text = page(summary_of(folder), STUDY)
    line = next(line for line in text.splitlines() if line.startswith("| PKT: TS, confusable"))
    assert "| – | – |" in line and line.endswith("descriptive: 4 of 5 seeds |")
    assert "- confirmatory: 29 of 30 rows" in text


def test_rows_of_a_cpu_and_of_a_gpu_are_not_compared(tmp_path):
    folder = rows_of(tmp_path, 1, (1,), PAIR)
    machine = {"processors": 8, "machine": "x86_64", "gpu": "H200"}
    study_rows.write(folder, {("pkt", 0): study_rows.answers("questions", [3])}, machine=machine)
    with pytest.raises(TltrainError, match="pkt is from a GPU and sft from a CPU in seed 0"):
        summary_of(folder)
    study_rows.write(folder, {("sft", 0): study_rows.answers("questions", [0])}, machine=machine)
    assert "gpu H200" in page(summary_of(folder), STUDY)
    study_rows.write(folder, {("another", 0): []}, machine=machine)
    with pytest.raises(TltrainError, match=r"another-0\.jsonl\.gz: the plan has no such row"):
        summary_of(folder)


def test_rows_of_ppo_with_too_few_calls_are_named(tmp_path):
    folder = rows_of(tmp_path, 2, (1, 1), ("sft", "irm"))
    for arm, calls in (("irm", 1499), ("irm_500", 444)):
        costs = {"stages": {"model_irm": {"seconds": 1.0, "sampled_calls": calls}}, "processor_seconds": 1.0}
        study_rows.write(folder, {(arm, 1): study_rows.answers("questions", [3] * 10)}, costs=costs)
    summary = summary_of(folder)
    assert summary["few_calls"] == {"irm-1": 1499}
    assert "which makes them departures: irm-1 (1,499)" in page(summary, STUDY)


def test_a_run_that_diverged_counts_in_the_sets_that_it_was_to_be_asked(tmp_path):
    folder = rows_of(tmp_path, 2, (1, 1), ("sft", "irm"))
    study_rows.write(folder, {("irm", 1): []}, diverged=True, asked=["questions"])
    summary = summary_of(folder)
    measured = {one["measure"] for one in summary["secondary"] if (one["arm"], one["baseline"]) == ("irm", "sft")}
    assert "mean" in measured and not measured & {"va", "de", "success"}
    assert "va" not in summary["arms"]["irm"]["measures"] and summary["arms"]["irm"]["measures"]["mean"]["n"] == 2


def test_a_run_that_diverged_has_every_answer_wrong(tmp_path):
    folder = rows_of(tmp_path, gain=(5,) * 5, arms=PAIR)
    study_rows.write(folder, {("pkt", 1): []}, diverged=True)
    pkt = summary_of(folder)["hypotheses"]["pkt"]["measures"]["ts_confusable"]
    assert list(pkt["differences"].values()) == [50, 0, 50, 50, 50]


# --- documents --------------------------------------------------------------------------------------------------------


def documents(tmp_path):
    file = tmp_path / "README.md"
    file.write_text(f"# Title\n\n{block(['formerly'])}\n\nmore\n")
    return [file]


def test_what_is_written_agrees_and_a_planted_number_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(forest, "draw", lambda *given: None)
    summary, out = summary_of(rows_of(tmp_path, arms=PAIR)), tmp_path / "out"
    texts = documents(tmp_path)
    analyze.write(summary, out, texts)
    assert analyze.disagreements(summary, out, texts) == []
    assert "more" in texts[0].read_text() and "formerly" not in texts[0].read_text()
    assert (
        "TS, confusable tools 0.0 → 12.0, +12.0 [+6.4, +17.6]; detectable: 10.5; p = 0.016 after Holm"
        in texts[0].read_text()
    )
    assert "](out/forest.svg)" in texts[0].read_text()

    texts[0].write_text(texts[0].read_text().replace("+12.0", "+13.0", 1))
    (said,) = analyze.disagreements(summary, out, texts)
    assert "README.md: the lines of the study are not those of these rows" in said

    analyze.write(summary, out, texts)
    record = json.loads((out / "summary.json").read_text())
    record["hypotheses"]["pkt"]["p_holm"] = 0.001
    (out / "summary.json").write_text(json.dumps(record))
    (said,) = analyze.disagreements(summary, out, texts)
    assert "hypotheses.pkt.p_holm: 0.001 is written, the rows give 0.0155" in said

    analyze.write(summary, out, texts)
    study_rows.write(tmp_path / "rows", {("pkt", 0): study_rows.answers("confusable", [0] * 10)})
    assert len(analyze.disagreements(summary_of(tmp_path / "rows"), out, texts)) > 5

    (out / "README.md").write_text("# The study\n")
    assert any("not the page" in said for said in analyze.disagreements(summary, out, texts))


def test_the_papers_numbers_stand_beside_where_a_document_has_room(tmp_path, monkeypatch):
    monkeypatch.setattr(forest, "draw", lambda *given: None)
    summary, texts = summary_of(rows_of(tmp_path)), documents(tmp_path)
    texts[0].write_text(f"{texts[0].read_text()}\n{block(['formerly'], marks=PAPER_MARKS)}\n")
    analyze.write(summary, tmp_path / "out", texts)
    written = texts[0].read_text()
    assert analyze.disagreements(summary, tmp_path / "out", texts) == [] and "formerly" not in written
    # ablation.csv: 74.56 and 77.78, 76.19 and 82.86; of IRM's mean on ToolAlpaca (88.60 + 84.21 + 57.02) / 3
    assert "0.0 → 12.0, +12.0 [+6.4, +17.6] | ToolAlpaca 74.6 → 77.8, +3.2; RoTBench 76.2 → 82.9, +6.7 |" in written
    assert "ToolAlpaca 62.6 → 76.6, +14.0; RoTBench 56.5 → 61.0, +4.4 |" in written
    assert written.count("ToolEyes 59.3 → ") == 2
    texts[0].write_text(written.replace("→ 82.9", "→ 92.9"))
    assert len(analyze.disagreements(summary, tmp_path / "out", texts)) == 1


def test_without_rows_the_page_says_so_and_the_documents_are_silent(tmp_path):
    (tmp_path / "rows").mkdir()
    assert load(tmp_path / "rows", study_rows.PROTOCOL) is None
    texts = documents(tmp_path)
    analyze.write(None, tmp_path / "out", texts)
    assert NOTHING in (tmp_path / "out" / "README.md").read_text()
    for file in texts:
        assert block([]) in file.read_text()
    assert not (tmp_path / "out" / "summary.json").exists()
    assert analyze.disagreements(None, tmp_path / "out", texts) == []
    (tmp_path / "out" / "summary.json").write_text("{}")
    assert analyze.disagreements(None, tmp_path / "out", texts)


def test_the_page_shows_what_the_settings_were_chosen_from(tmp_path):
    words = ["stage.supervised.args.learning_rate=1e-4", "stage.supervised.args.max_grad_norm=1.0"]
    candidates = [{"words": words, "mean": 46.5833}, {"words": words, "mean": "diverged"}]
    pilot = {"measure": "mean, questions", "value": -1.5, "differences": [-2.0, -1.0], "variance_of_seeds": 0.5}
    pilot |= {"variance_of_a_question": 900.0, "detectable_with_five_seeds": {"200": 4.25, "400": 3.0}}
    tuned = {"evidence": [{"step": "sft", "measure": "mean", "candidates": candidates, "chosen": 0}], "pilot": [pilot]}
    (tmp_path / "tuned.yaml").write_text(yaml.safe_dump(tuned))
    assert analyze.tuned_beside(tmp_path / "rows") == tuned and analyze.tuned_beside(tmp_path / "a" / "b") is None
    text = page(None, STUDY, tuned)
    assert "| sft: `learning_rate=1e-4` `max_grad_norm=1.0` | mean | 46.5833 | taken |" in text
    assert "| mean | diverged |  |" in text
    assert "| mean, questions | -1.5 | -2.0 -1.0 | 0.5 | 900.0 | 4.2 | 3.0 |" in text
    assert page(None, STUDY, None) in text


def test_a_document_without_marks_is_refused(tmp_path):
    with pytest.raises(TltrainError, match="once between"):
        with_block("no marks", [], "README.md")


def test_the_repositorys_documents_and_summary_follow_from_its_rows():
    """Active from the first row on: whatever README, docs/results.md and the page say of the study is computed."""
    assert analyze.disagreements(load(), tuned=analyze.tuned_beside()) == []


# --- the picture ------------------------------------------------------------------------------------------------------


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [forest.INK, forest.SHOWN, forest.OTHER])
@pytest.mark.parametrize("background", ["#ffffff", "#0d1117"])
def test_the_picture_is_legible_on_light_and_on_dark(colour, background):
    light, dark = sorted((luminance(colour), luminance(background)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3.8


@pytest.mark.pictures
def test_the_picture_shows_every_hypothesis_and_is_the_same_each_time(tmp_path):
    summary = summary_of(rows_of(tmp_path))
    drawn = forest.entries(summary, STUDY)
    assert [label for label, _, confirmatory, _ in drawn if confirmatory] == [
        "MAE: VA of conversations",
        "PKT: TS, confusable tools",
        "IRM: mean of TS, PI, CF",
        "MAE + PKT + IRM: VA of conversations",
        "MAE + PKT + IRM: mean of TS, PI, CF",
    ]
    for name in ("a.svg", "b.svg"):
        forest.draw(summary, STUDY, tmp_path / name)
    one, two = ((tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert one == two and b"<svg" in one and len(one) < 200_000
