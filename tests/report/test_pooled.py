"""The report's mean over sets, and conversations as its samples, compared with hand-computed numbers."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from tests.support.sweep_sample import conversation, small, sweep
from tltrain.evaluation import conversation_lines
from tltrain.evaluation.intervals import cluster_percentage, paired_difference
from tltrain.evaluation.predictions import Prediction
from tltrain.evaluation.transcripts import Transcript
from tltrain.report import exports, gather, grid, numbers, page, samples
from tltrain.report.pooled import pool
from tltrain.report.sweep import Job

# --- the mean over sets ----------------------------------------------------------------------------------------------


def answers(name, levels, seen=()):
    """Make a set's lines: a sample reaches as many of TS, PI, CF as `levels` says; those in `seen` were trained on."""
    return [
        Prediction(
            name,
            str(i),
            scores={level: have > place for place, level in enumerate(("ts", "pi", "cf"))},
            meta={"seen": i in seen},
        )
        for i, have in enumerate(levels)
    ]


def asked(seed, *sets):
    """Make a job that answered these sets."""
    lines = [line for one in sets for line in one]
    names = dict.fromkeys(line.set for line in lines)
    return Job(seed, metrics={f"{n}/{level}": 0.0 for n in names for level in ("ts", "pi", "cf")}, predictions=lines)


def test_the_mean_over_sets_weighs_them_alike_and_leaves_out_what_any_row_was_trained_on():
    base = asked(0, answers("a", [3, 0, 0, 0], seen={0}), answers("b", [3, 0]))
    other = asked(0, answers("a", [0, 3, 3, 0]), answers("b", [3, 1]))
    found = pool(small(("base", [base]), ("other", [other])))
    assert found.n == {"a": 3, "b": 2}
    assert found.summaries[0].mean == pytest.approx((0 + 50) / 2)
    assert found.summaries[1].mean == pytest.approx((200 / 3 + 200 / 3) / 2)
    assert found.comparisons[1].value == pytest.approx(200 / 3 - 25)
    assert found.comparisons[1].low < found.comparisons[1].value < found.comparisons[1].high


def test_the_mean_over_sets_of_one_size_has_the_interval_of_all_samples_together():
    rng = np.random.default_rng(0)
    levels = {name: (rng.integers(0, 4, 200).tolist(), rng.integers(0, 4, 200).tolist()) for name in "ab"}
    rows = [("base", [asked(0, *(answers(name, levels[name][0]) for name in "ab"))])]
    rows += [("other", [asked(0, *(answers(name, levels[name][1]) for name in "ab"))])]
    found = pool(small(*rows)).comparisons[1]
    ours = [[100 * have / 3 for name in "ab" for have in levels[name][side]] for side in (0, 1)]
    known = paired_difference(*ours)
    assert found.value == pytest.approx(known.value)
    assert found.low == pytest.approx(known.low, abs=0.5) and found.high == pytest.approx(known.high, abs=0.5)
    assert found.p == pytest.approx(known.p, abs=0.1)


def test_seeds_with_equal_answers_do_not_narrow_the_interval_of_the_mean():
    """All seeds of a row answer the same samples: a second seed with the same answers is not a second sample."""
    rng = np.random.default_rng(0)
    levels = {name: rng.integers(0, 4, (2, 100)).tolist() for name in "ab"}

    def row(side, seeds):
        return [asked(seed, *(answers(name, levels[name][side]) for name in "ab")) for seed in range(seeds)]

    one, two = (pool(small(("base", row(0, n)), ("other", row(1, n)))).comparisons[1] for n in (1, 2))
    assert two.high - two.low == pytest.approx(one.high - one.low, rel=0.03)


def test_a_job_without_one_of_the_sets_has_no_mean_over_them():
    whole, part = asked(0, answers("a", [3]), answers("b", [3])), asked(0, answers("a", [3]))
    found = pool(small(("base", [whole]), ("other", [part])))
    assert set(found.summaries) == {0} and not found.comparisons
    assert grid.pooled(small(("base", [part]))) is None


def test_the_mean_over_sets_is_in_the_page_the_markdown_and_the_csv():
    found = sweep({"rotbench_clean": 24, "toolalpaca_real": 12})
    derived = numbers.derive(found)
    title = "all sets weighted equally"
    assert title in page.render(found, derived) and title in exports.markdown(found, derived)
    (first, *_) = csv.DictReader(io.StringIO(exports.comma_separated(found, derived)))
    assert float(first["mean"]) == pytest.approx(pool(found).summaries[0].mean, abs=0.01)


# --- conversations ---------------------------------------------------------------------------------------------------


def held(*records):
    """Make a job with these conversations."""
    lines = conversation_lines.predictions([Transcript.from_json(record) for record in records], "world_multi")
    levels = {f"world_multi/{level}": 0.0 for level in ("de", "ce", "va", "success") if level in lines[0].scores}
    return Job(0, metrics=levels | {"world_multi/n": len(records)}, predictions=lines)


def test_conversations_of_two_rows_are_compared_one_by_one():
    a = held(*(conversation(i, 2, 4, "turn limit", False) for i in range(20)))
    b = held(*(conversation(i, i % 2, 1 + i % 3) for i in range(20)))
    found = numbers.derive(small(("base", [a]), ("other", [b])))
    assert found.sets == {"world_multi": ["de", "ce", "va", "success"]}
    assert [found.summaries[0, "world_multi", level].mean for level in ("de", "ce", "va")] == [50, 25, 0]
    assert found.summaries[1, "world_multi", "de"].mean == pytest.approx(100 * 10 / 39)  # of calls, not conversations
    difference = found.comparisons[1, "world_multi", "de"]
    assert difference.value == pytest.approx(100 * 10 / 39 - 50) and difference.high < 0
    assert found.comparisons[1, "world_multi", "va"].value == 100


def test_the_interval_of_a_share_of_calls_is_that_of_drawing_conversations():
    rng = np.random.default_rng(1)
    calls = rng.integers(1, 9, 300)
    errors = rng.binomial(calls, 0.3)
    values = np.array(conversation_lines.linearized(errors.tolist(), calls.tolist()))
    known = cluster_percentage(errors.tolist(), calls.tolist())
    assert 100 * values.mean() == pytest.approx(known.value)
    drawn = rng.multinomial(300, np.full(300, 1 / 300), 4000) @ values / 3
    assert np.percentile(drawn, [2.5, 97.5]) == pytest.approx([known.low, known.high], abs=0.5)
    assert conversation_lines.linearized([0, 0], [0, 0]) == [0, 0]


def test_conversations_flip_and_are_no_kinds_of_error():
    rows = small(("base", [held(conversation(0, 0, 1, "turn limit", None))]), ("other", [held(conversation(0, 1, 1))]))
    found = samples.flipping_samples(rows)
    assert found["levels"] == ["va", "success"] and len(found["samples"]) == 1
    assert "Question 0" in found["texts"] and numbers.error_kinds(rows.rows[0], "world_multi") == {}


def test_a_jobs_conversations_are_read_where_it_held_some(tmp_path):
    place = tmp_path / "eval_world_multi"
    place.mkdir()
    (place / "transcripts.jsonl").write_text(json.dumps(conversation(7, 1, 2)) + "\n")
    (place / "metrics.json").write_text(json.dumps({"details": {"world_multi": {}}}))
    (tmp_path / "metrics.json").write_text(json.dumps({"world_multi/va": 100.0}))
    (line,) = gather.read_job(tmp_path, 0).predictions
    assert (line.set, line.id, line.scores["de"], line.scores["va"]) == ("world_multi", "7", 0.5, True)
