"""The report's numbers, compared with hand-computed ones, and its files, whatever models wrote."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from tests.support.sweep_sample import hostile, small, sweep
from tests.support.sweep_sample import job_of as job
from tltrain.errors import TltrainError
from tltrain.evaluation.intervals import holm, paired_difference
from tltrain.evaluation.predictions import Prediction
from tltrain.report import exports, grid, numbers, page, samples, wording
from tltrain.report.publication import published
from tltrain.report.sweep import Job, StageCost, load, save
from tltrain.report.write import write_report


@pytest.mark.parametrize(
    ("p", "digits", "text"),
    [(0.0412, 3, "0.041"), (0.0002, 3, "< 0.001"), (0.0002, 4, "0.0002"), (0.0, 4, "< 0.0001"), (1, 3, "1.000")],
)
def test_no_p_value_is_printed_as_zero(p, digits, text):
    assert wording.p_value(p, digits) == text


def test_answers_that_a_server_ended_are_among_the_caveats():
    ended = {"set": {"finish_reasons": {"stop": 6, "length": 2}}, "other": {"finish_reasons": {"content_filter": 2}}}
    made = small(("base", [job(0, [1, 0])]), ("x", [job(0, [1, 1], details=ended), job(1, [1, 1])]))
    notes = wording.caveats(made, numbers.derive(made))
    assert "Answers that were cut at the token limit before a call could be read: x 2 of 10 (20.0 %)." in notes
    assert "Answers that the server's content filter withheld or cut: x 2 of 10 (20.0 %)." in notes


def test_a_row_is_the_mean_and_sample_deviation_of_its_seeds():
    found = numbers.derive(small(("base", [job(0, [1, 0]), job(1, [1, 1]), Job(2, error="killed")])))
    summary = found.summaries[0, "set", "cf"]
    assert (summary.mean, summary.values) == (75, (50, 100))
    assert summary.std == pytest.approx(25 * 2**0.5)
    assert found.sets == {"set": ["ts", "cf"]} and found.n == {"set": 2} and found.main("set") == "cf"
    assert numbers.derive(small(("base", [job(0, [1, 0])]))).summaries[0, "set", "cf"].std is None


def test_with_one_seed_the_interval_is_that_of_the_paired_bootstrap():
    a, b = [0] * 60 + [1] * 40, [0] * 42 + [1] * 58
    found = numbers.derive(small(("base", [job(0, a)]), ("other", [job(0, b)]))).comparisons[1, "set", "cf"]
    known = paired_difference([100.0 * x for x in a], [100.0 * x for x in b])
    assert (found.value, found.n, found.seeds) == (18, 100, 1)
    assert found.low == pytest.approx(known.low, abs=1.5) and found.high == pytest.approx(known.high, abs=1.5)
    assert found.p < 0.01 and found.beyond_chance


def test_seeds_that_disagree_widen_the_interval():
    base = [job(seed, [0, 1] * 50) for seed in (0, 1)]
    same = [job(seed, [0, 1, 1, 1, 1] * 20) for seed in (0, 1)]  # +30 twice
    spread = [job(0, [1, 1] * 50), job(1, [0, 1] * 45 + [1, 1] * 5)]  # +50 and +5 average to +27.5
    found = numbers.derive(small(("base", base), ("same", same), ("spread", spread))).comparisons
    steady, shaky = found[1, "set", "cf"], found[2, "set", "cf"]
    assert (steady.value, shaky.value) == pytest.approx((30, 27.5))
    assert steady.beyond_chance and not shaky.beyond_chance
    assert shaky.high - shaky.low > 1.5 * (steady.high - steady.low)
    assert shaky.low < 0  # from two seeds alone there may be no difference


def test_seeds_with_samples_of_their_own_are_paired_within_each():
    def named(seed, right):
        lines = [replace(line, id=f"{seed}/{line.id}") for line in job(seed, right).predictions]
        return replace(job(seed, right), predictions=lines)

    base, other = [named(s, [0] * 30 + [1] * 10) for s in (0, 1)], [named(s, [1] * 40) for s in (0, 1)]
    found = numbers.derive(small(("base", base), ("other", other))).comparisons[1, "set", "cf"]
    assert (found.value, found.n, found.seeds) == (75, 80, 2) and found.beyond_chance


def test_what_is_the_same_is_not_beyond_chance():
    rows = [(label, [job(0, [0, 1] * 20)]) for label in ("base", "other")]
    found = numbers.derive(small(*rows))
    assert found.comparisons[1, "set", "cf"].p == 1 and (0, "set", "cf") not in found.comparisons
    assert "No row differs from base by more than chance in TS and CF" in wording.finding(small(*rows), found)


def test_two_samples_prove_nothing():
    found = numbers.derive(small(("base", [job(0, [0, 0])]), ("other", [job(0, [1, 1])]))).comparisons
    assert found[1, "set", "cf"].value == 100 and not found[1, "set", "cf"].beyond_chance


def test_holm_corrects_step_by_step_in_the_order_given():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_many_rows_need_more_to_be_beyond_chance():
    base, better = [0] * 20 + [1] * 80, [0] * 13 + [1] * 87
    few = small(("base", [job(0, base)]), ("other", [job(0, better)]))
    many = small(("base", [job(0, base)]), *((f"r{i}", [job(0, better)]) for i in range(7)))
    assert numbers.derive(few).comparisons[1, "set", "cf"].beyond_chance
    assert not numbers.derive(many).comparisons[1, "set", "cf"].beyond_chance


@pytest.mark.slow
def test_intervals_cover_what_training_runs_differ_by():
    rng, covered, alarms, times = np.random.default_rng(0), 0, 0, 150

    def jobs(difficulty):
        odds = [1.5 * (difficulty + rng.normal(0, 0.3)) for _ in range(4)]  # training runs move CF by some 5 points
        return [job(seed, rng.random(len(one)) < 1 / (1 + np.exp(-one))) for seed, one in enumerate(odds)]

    for time in range(times):
        difficulty = rng.normal(0, 1, 100)
        made = small(("base", jobs(difficulty)), ("same", jobs(difficulty)))
        found = numbers.derive(made, time).comparisons[1, "set", "cf"]
        covered += found.low <= 0 <= found.high
        alarms += found.beyond_chance
    assert covered / times > 0.88 and alarms / times < 0.12


@pytest.mark.parametrize(
    ("rows", "baseline", "expected"),
    [
        (
            [("base", [job(0, [0] * 40)]), ("x", [job(0, [1] * 40)])],
            "base",
            "x gains most over base: CF on set goes",
        ),
        ([("base", [job(0, [1] * 40)]), ("x", [job(0, [0] * 40)])], "base", "x falls furthest behind base"),
        ([("base", [Job(0, error="no")]), ("x", [job(0, [1])])], "base", "base cannot be compared with any row"),
        ([("a", [job(0, [0])]), ("x", [job(0, [1])])], None, "Highest CF on set: x, 100.0 %."),
        ([("base", [Job(0, error="no")])], "base", "No job has a result."),
    ],
)
def test_the_finding_is_what_the_numbers_say(rows, baseline, expected):
    made = small(*rows, baseline=baseline)
    assert wording.finding(made, numbers.derive(made)).startswith(expected)


def answers(ts: list[int], cf: list[int]) -> Job:
    lines = [
        Prediction("set", str(i), scores={"ts": bool(a), "cf": bool(b)})
        for i, (a, b) in enumerate(zip(ts, cf, strict=True))
    ]
    return Job(0, metrics={"set/ts": 1.0, "set/cf": 1.0, "set/n": len(ts)}, predictions=lines)


def test_the_finding_counts_what_the_table_marks():
    """Every level counts, not only a set's main level: no sentence may say "none" above five marked cells."""

    base = ("base", [answers([0, 1] * 30, [0, 1] * 30)])
    better_ts = ("x", [answers([1, 1] * 30, [0, 1] * 30)])
    worse = ("y", [answers([0, 0] * 30, [0, 0] * 30)])
    made = small(base, better_ts, worse)
    found = numbers.derive(made)
    marked = sum(bool(cell.strong) for row in grid.ablation(made, found).rows for cell in row)
    assert marked == 3
    said = wording.finding(made, found)
    assert said.endswith("3 are more than chance: 1 for the better and 2 for the worse, in 2 of 2 other rows.")
    only_ts = wording.finding(small(base, better_ts), numbers.derive(small(base, better_ts)))
    assert only_ts.startswith("x gains most over base: TS on set goes from 50.0 to 100.0 %")


def test_where_nothing_was_right_the_finding_says_so():
    nothing = small(*((name, [answers([0] * 40, [0] * 40)]) for name in ("base", "x")))
    said = wording.finding(nothing, numbers.derive(nothing))
    assert said == "No row answered anything right on set: there is nothing to compare."


def test_where_lower_is_better_less_is_a_gain():
    def tools(seed, de):
        lines = [Prediction("tooleyes", str(i), scores={"de": bool(one)}) for i, one in enumerate(de)]
        return Job(seed, metrics={"tooleyes/de": 100 * sum(de) / len(de), "tooleyes/n": len(de)}, predictions=lines)

    made = small(("base", [tools(0, [1] * 40)]), ("x", [tools(0, [0] * 40)]))
    assert wording.finding(made, numbers.derive(made)).startswith("x gains most over base: DE on ToolEyes goes")
    cell = grid.ablation(made, numbers.derive(made)).rows[1][-1]
    assert cell.shade == 1 and cell.sub.startswith("\N{MINUS SIGN}100.0")


def test_flips_are_the_samples_on_which_two_jobs_differ():
    a, b = job(0, [1, 0, 1, 0]), job(0, [1, 1, 0, 0])
    assert [(flip.id, flip.gained) for flip in numbers.flips(a, b)] == [("1", True), ("2", False)]
    assert numbers.flips(a, b, "ts") == []
    part = replace(b, predictions=[replace(one, scores={**one.scores, "cf": 0.5}) for one in b.predictions])
    assert {flip.gained for flip in numbers.flips(a, part)} == {False}  # in part is not reached
    assert numbers.percent(part, a.predictions[0].set, "cf") == 50
    found = samples.flipping_samples(small(("base", [a]), ("other", [b])))
    assert [one[1] for one in found["samples"]] == ["1", "2"] and found["left_out"] == 0
    assert [found["texts"][line[0]] for line in found["answers"][1]["lines"]] == ["f(1)", "f(2)"]


def test_the_papers_numbers_stand_beside_sets_of_their_size():
    made = sweep({"rotbench_clean": 105, "toolalpaca_real": 20})
    table = grid.ablation(made, numbers.derive(made, 0))
    assert [label for label, _ in table.groups] == [
        "",
        "RoTBench clean, %",
        "RoTBench clean: the paper's",
        "ToolAlpaca real, %",
    ]
    everything = table.rows[-1]
    assert [cell.text for cell in everything[1:4]] == ["✓", "✓", "✓"]
    assert [cell.text for cell in everything[7:10]] == ["83.81", "54.29", "42.86"]
    assert [cell.sub for cell in everything[7:10]] == ["+7.62", "\N{MINUS SIGN}0.95", "+4.76"]


def test_without_the_papers_benchmarks_its_table_is_open(tmp_path):
    opened = '<details class="block" open><summary>The paper'
    assert opened in write_report(sweep({"toolworld": 10}), tmp_path).read_text()
    assert opened not in write_report(sweep({"rotbench_clean": 105}), tmp_path).read_text()


def test_costs_count_a_stage_once_however_often_it_is_needed():
    def staged(seed, reused):
        stages = [
            StageCost("sft", 60.0, 1000, None, reused, "f"),
            StageCost("eval", 10.0, None, 2**30, False, f"e{reused}"),
        ]
        return Job(seed, stages=stages)

    table = grid.stages(small(("base", [staged(0, False)]), ("irm", [staged(0, True)])))
    assert [[cell.text for cell in row[:6]] for row in table.rows] == [
        ["sft", "2", "1", "1", "1 min 0 s", "1 min 0 s"],
        ["eval", "2", "2", "0", "20 s", "–"],
    ]
    assert [row[-1].text for row in table.rows] == ["–", "1 GiB"]


def test_a_sweep_survives_json(tmp_path):
    made = sweep({"set": 3})
    lines = made.rows[0].seeds[0].predictions
    lines[0] = replace(lines[0], answer="a lone \ud800, a \u2028, a \0 and \N{SNOWMAN}")
    save(made, tmp_path / "sweep.json")
    assert load(tmp_path / "sweep.json") == made


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda record: record.pop("commit"), "commit: missing"),
        (lambda record: record.update(colour="red"), "colour: unknown; expected name, command"),
        (lambda record: record["rows"][1].update(seeds="0"), r"rows\[1\].seeds: expected list, found str"),
        (lambda record: record["rows"][0]["seeds"][0].pop("seed"), r"rows\[0\].seeds\[0\].seed: missing"),
        (
            lambda record: record["rows"][0]["seeds"][0]["predictions"][0].update(ts="yes"),
            r"rows\[0\].seeds\[0\].predictions\[0\].ts: expected true or false, found \"yes\"",
        ),
    ],
)
def test_a_file_that_is_not_a_sweep_is_reported_in_one_line(tmp_path, change, expected):
    path = tmp_path / "sweep.json"
    save(sweep({"set": 1}), path)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(TltrainError, match=expected) as raised:
        load(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_missing_file_and_invalid_json_are_reported_in_one_line(tmp_path):
    with pytest.raises(TltrainError, match="No such file"):
        load(tmp_path / "sweep.json")
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(TltrainError, match="found invalid JSON"):
        load(tmp_path / "sweep.json")


def test_the_files_say_what_the_numbers_are(tmp_path):
    made = sweep({"rotbench_clean": 30})
    assert write_report(made, tmp_path) == tmp_path / "report.html"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ablation.csv",
        "ablation.tex",
        "report.html",
        "report.md",
    ]
    with (tmp_path / "ablation.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    found = numbers.derive(made)
    assert [(line["mae"], line["pkt"], line["irm"]) for line in lines[:3]] == [
        ("false", "false", "false"),
        ("true", "false", "false"),
        ("false", "true", "false"),
    ]
    assert float(lines[4]["rotbench_clean_cf"]) == pytest.approx(
        found.summaries[4, "rotbench_clean", "cf"].mean, abs=0.01
    )
    assert float(lines[4]["rotbench_clean_cf_low"]) == pytest.approx(
        found.comparisons[4, "rotbench_clean", "cf"].low, abs=0.01
    )
    assert (lines[3]["seeds"], lines[3]["failed"]) == ("1", "1") and "out of memory" in lines[3]["error"]
    text = (tmp_path / "report.md").read_text()
    assert wording.finding(made, found).split("[")[0] in text and "MAE + PKT, seed 1: training: CUDA" in text
    tex = (tmp_path / "ablation.tex").read_text()
    assert tex.count(r"\checkmark") == 12 and r"\multicolumn{3}{c}{RoTBench clean}" in tex
    body = tex[tex.index(r"\midrule") : tex.index(r"\bottomrule")]
    assert {line.count("&") for line in body.splitlines()[1:]} == {6}


def test_an_error_while_rendering_leaves_the_earlier_report(tmp_path, monkeypatch):
    made = sweep({"set": 5})
    write_report(made, tmp_path)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    monkeypatch.setattr(page, "render", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(replace(made, name="other"), tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_whatever_models_wrote_stays_text(tmp_path):
    write_report(hostile(), tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert text.count("<script") == text.count("</script>") == 2 and "<img" not in text and "{{ 7*7 }}" in text
    assert len(text) < 600_000
    data = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', text, re.DOTALL)[1])
    assert any(one.endswith("characters more]") for one in data["texts"])
    markdown = (tmp_path / "report.md").read_text()
    assert "<img" not in re.sub(r"\\<", "", markdown.partition("## Run")[0])
    tables = re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)
    assert tables
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert len(list(csv.reader(io.StringIO((tmp_path / "ablation.csv").read_text())))) == 9


def test_a_page_stays_small_and_says_what_is_left_out():
    def long(seed, right, name):
        made = job(seed, right, name)
        lines = [replace(line, answer=f"{line.id}{seed}{name}" * 200) for line in made.predictions]
        return replace(made, predictions=lines)

    jobs = [[long(0, [(i + r) % 2 for i in range(2000)], "a"), long(1, [1] * 5, "b")] for r in range(2)]
    jobs[1][1] = long(1, [0] * 5, "b")
    found = samples.flipping_samples(small(("base", jobs[0]), ("other", jobs[1])))
    kept = [found["sets"][one[0]] for one in found["samples"]]
    assert kept.count("b") == 5 and 0 < kept.count("a") < 2000  # the small set is complete, whatever the other takes
    assert len(kept) + found["left_out"] == 2005
    assert len(json.dumps(found)) < 1.3 * samples.BUDGET


def test_a_sample_flips_whatever_the_order_of_its_golden_arguments_and_each_time_it_is_asked():
    def asked(*right, golden):
        made = job(0, right)
        return replace(made, predictions=[replace(line, id="same", goldens=[golden]) for line in made.predictions])

    base = asked(0, 1, golden={"name": "f", "arguments": {"x": 1, "y": 2}})
    other = asked(1, 1, golden={"arguments": {"y": 2, "x": 1}, "name": "f"})
    found = samples.flipping_samples(small(("base", [base]), ("other", [other])))
    assert len(found["samples"]) == len(numbers.flips(base, other)) == 1


def test_latex_and_markdown_take_their_special_characters_as_text():
    made = small(("a_b & 50% | x", [job(0, [1])]), baseline=None)
    found = numbers.derive(made)
    assert r"a\_b \& 50\% | x" in exports.latex(made, found)
    assert r"a\_b & 50% \| x" in exports.markdown(made, found)


ODD = Prediction("", "7", goldens=["none", 3], scores={"de": 0.25}, meta={"query": 4, "seen": "yes"})


@pytest.mark.parametrize(
    "made",
    [
        small(),
        small(("base", [])),
        small(("base", [Job(0, error="no")]), ("x", [Job(0, error="no")])),
        small(("base", [Job(0, metrics={"set/ts": 40.0, "set/n": 5})]), ("x", [Job(1, metrics={"set/ts": 50.0})])),
        small(("tiny", [job(0, [1, 0])]), ("large", [job(0, [1, 1])]), baseline=None),
        small(("base", [job(0, [1])]), ("base", [job(1, [0])])),
        small(("base", [Job(0, predictions=[ODD], metrics={"a": "b", "x/y/z": 1, "set/ts": float("nan")})])),
        small(
            ("base", [job(0, [1], curves={"train/loss": [[1, float("nan")], [2, 3.0]], "new": [], "irm/kl": [[1, 0]]})])
        ),
    ],
    ids=["no rows", "no jobs", "all failed", "metrics alone", "no baseline", "same label", "odd lines", "odd curves"],
)
def test_every_sweep_has_a_report(tmp_path, made):
    text = write_report(made, tmp_path).read_text()
    assert wording.finding(made, numbers.derive(made)).split("[")[0][:40] in text


def test_without_lines_a_difference_has_no_interval():
    made = small(
        ("base", [Job(0, metrics={"set/ts": 40.0, "set/n": 5})]), ("x", [Job(1, metrics={"set/ts": 50.0, "set/n": 5})])
    )
    assert grid.ablation(made, numbers.derive(made)).rows[1][-1].sub == "+10.0, no interval"


def test_without_texts_the_numbers_stay_and_questions_and_answers_go():
    whole = sweep({"rotbench_clean": 24, "toolalpaca_real": 12})
    bare = published(whole)
    assert numbers.derive(bare) == numbers.derive(whole)
    shown = page.render(bare, numbers.derive(bare)) + exports.markdown(bare, numbers.derive(bare))
    assert "what does" not in shown and "search_flights" not in shown and "See you later" not in shown
    assert "search_flights" in page.render(whole, numbers.derive(whole))
    left, all_of_them = samples.flipping_samples(bare), samples.flipping_samples(whole)
    assert len(left["samples"]) == len(all_of_them["samples"]) > 0


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", " =1", "-", "\uff1d1"]
)
def test_a_cell_that_a_spreadsheet_would_compute_is_escaped(text):
    found = small((text, [Job(0, error=f"{text} failed")]), ("fine", [job(0, [1, 0])]))
    found = replace(
        found,
        axes={"model.name": [text, -5.4]},
        rows=[replace(r, axes={"model.name": v}) for r, v in zip(found.rows, (text, -5.4), strict=True)],
    )
    table = list(csv.reader(io.StringIO(exports.comma_separated(found, numbers.derive(found)), newline="")))
    heads, first, second = table
    assert first[0] == first[heads.index("name")] == f"'{text}".replace("\r", " ")
    assert first[heads.index("error")].startswith("'" if " ".join(text.split())[:1] in "=+-@\uff1d" else text[0])
    assert second[0] == "-5.4"


@pytest.mark.parametrize(
    "number", ["-5.4", "+3", "-0.0000", "1e-05", "-1.5e+10", "-.5", "-inf", "nan", "12.", -5.4, None, 3]
)
def test_a_number_is_no_formula(number):
    assert exports.spreadsheet_cell(number) == number
