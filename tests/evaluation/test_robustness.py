"""The curve over RoTBench's levels of noise, and the drop from clean to the worst."""

from __future__ import annotations

import json

import pytest

from tests.support.paths import ROTBENCH, needs_rotbench
from tltrain.data import rotbench
from tltrain.evaluation.robustness import drop
from tltrain.formats.calls import render_call
from tltrain.trajectory import example


def level(*rights: bool, start: int = 0) -> list[tuple[str, bool]]:
    return [(str(start + i), right) for i, right in enumerate(rights)]


def test_the_drop_is_to_the_worst_level():
    levels = {
        "clean": level(*[True] * 8, *[False] * 2),
        "slight": level(*[True] * 9, False),
        "heavy": level(*[False] * 10),
    }
    found = drop(levels)
    assert (found.clean, found.level, found.worst, found.value) == (80, "heavy", 0, 80)
    assert found.low == pytest.approx(50, abs=10) and found.high == 100
    assert drop({"clean": levels["clean"], "slight": levels["slight"]}).value == pytest.approx(-10)


def test_without_clean_or_another_level_there_is_no_drop():
    assert drop({"slight": level(True), "heavy": level(False)}) is None
    assert drop({"clean": level(True)}) is None
    assert drop({"clean": [], "heavy": level(False)}) is None


def test_a_query_is_drawn_with_all_its_samples():
    clean = level(*[True] * 50, *[False] * 50)
    same = drop({"clean": clean, "heavy": clean + clean})
    assert (same.value, same.low, same.high) == (0, 0, 0)  # no query changes
    other = drop({"clean": clean, "heavy": [(f"x{query}", right) for query, right in clean]})
    # independent: 1.96 * sqrt(2 * 50 * 50 / 100)
    assert other.value == 0 and other.high == pytest.approx(13.9, abs=2) and other.low == pytest.approx(-13.9, abs=2)


@needs_rotbench
@pytest.mark.pictures
def test_the_stage_draws_the_curve(tltrain, tmp_path):
    """Golden answers at clean; at heavy the first sample of every query is answered with nonsense."""
    words, lines = [], []
    for turn in ("first", "third"):
        for name in ("clean", "heavy"):
            samples = list(rotbench.read_samples(ROTBENCH, [name], turns=(turn,)))
            seen: set[str] = set()
            for sample in samples:
                right = name == "clean" or sample.query in seen
                seen.add(sample.query)
                lines.append({"prediction": render_call(example(sample.goldens[0])) if right else "none"})
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["benchmark=rotbench", f"benchmark.path={ROTBENCH}", "benchmark.levels=[clean,heavy]"]
    ran = tltrain("stage=eval", *words, "benchmark.turns=[first,third]", f"stage.predictions={file}")
    metrics = ran.metrics
    for turn, prefix in (("first", "rotbench"), ("third", "rotbench_third")):
        fall = metrics["robustness"][turn]["ts"]
        assert fall["level"] == "heavy"
        clean = metrics["details"][f"{prefix}_clean"]["scoring"]["fixed"]["all"]["ts"]["percent"]
        assert metrics[f"{prefix}/drop/ts"] == fall["drop"] == pytest.approx(clean - fall["worst"], abs=1e-3)
        assert fall["worst"] == pytest.approx(50, abs=2) and fall["low"] > 40
    assert (ran.folder / "robustness.png").read_bytes().startswith(b"\x89PNG")
    assert "from clean to the worst level" in ran.out and "first turn, TS" in ran.out
    # The released scoring counts golden calls without arguments as wrong, also at clean.
    official = tltrain(
        "stage=eval", *words, "benchmark.turns=[first,third]", f"stage.predictions={file}", "benchmark.scoring=official"
    )
    assert official.metrics["robustness"]["first"]["ts"]["clean"] == official.metrics["rotbench_clean/official/ts"]


@needs_rotbench
def test_one_level_has_no_curve(tltrain, tmp_path):
    samples = list(rotbench.read_samples(ROTBENCH, ["clean"], turns=("first",)))
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps({"prediction": "none"}) + "\n" for _ in samples))
    words = ["benchmark=rotbench", f"benchmark.path={ROTBENCH}", f"stage.predictions={file}"]
    ran = tltrain("stage=eval", *words)
    assert "robustness" not in ran.metrics and not (ran.folder / "robustness.png").exists()
