"""The plan and the protocol: they agree, every arm composes, and a change after the seal is noticed."""

from __future__ import annotations

import re
import shutil
from functools import cache

import pytest
import yaml

from experiments.study import design
from experiments.study import statistics as st
from experiments.study.run import arm_words
from tests.support.composition import composed, in_job
from tltrain.errors import TltrainError
from tltrain.stages import pipeline

STUDY = design.load()
TEXT = (design.HERE / "PROTOCOL.md").read_text(encoding="utf-8")


def test_the_protocol_is_sealed():
    assert design.SEAL.read_text() == design.seal_text(), "changed since: run.sh --seal, if no row stands"
    assert len(design.protocol_hash()) == 64


def test_a_change_after_the_seal_is_noticed(tmp_path):
    shutil.copytree(design.HERE, tmp_path / "study", ignore=shutil.ignore_patterns("rows"))
    here = tmp_path / "study"
    assert design.protocol_hash(here) == design.protocol_hash()
    with (here / "conf" / "benchmark" / "questions.yaml").open("a") as file:
        file.write("limit: 5\n")
    (here / "conf" / "more.yaml").write_text("")
    with pytest.raises(
        TltrainError, match=r"changed since the protocol was sealed: conf/benchmark/questions.yaml, conf/m"
    ):
        design.protocol_hash(here)
    (here / "protocol.sha256").unlink()
    with pytest.raises(TltrainError, match="--seal"):
        design.protocol_hash(here)


def test_rows_go_seed_by_seed_over_all_arms_of_a_group():
    order = [(arm.name, seed) for _, arm, seed in STUDY.rows()]
    confirmatory = STUDY.groups[0].arms
    assert order[:12] == [(name, seed) for seed in (0, 1) for name in confirmatory]
    assert len(order) == len(set(order)) == sum(group.seeds * len(group.arms) for group in STUDY.groups)
    tiers = [group.tier for group in STUDY.groups]
    assert tiers == sorted(tiers)
    needed = {name for one in STUDY.hypotheses.values() for name in (one.arm, one.baseline)}
    assert needed == set(confirmatory) and STUDY.groups[0].seeds == len(STUDY.seeds) == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: plan["groups"][0]["arms"].append("x"), "arm x is not described"),
        (lambda plan: plan["arms"].update(x={"experiment": "sft", "hours": 1}), "arm x is in no group"),
        (lambda plan: plan["hypotheses"]["mae"].update(measures=["x"]), "measure x is not described"),
        (lambda plan: plan["arms"]["sft"].update(settings=["x"]), "chooses the setting x"),
        (lambda plan: plan["arms"]["sft"].update(extra=["x"]), "evaluation x is not described"),
        (lambda plan: plan["tuning"].update(seed=3), "one of the study's seeds"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(tmp_path, change, said):
    plan = yaml.safe_load(design.PLAN.read_text())
    change(plan)
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(plan))
    with pytest.raises(TltrainError, match=said):
        design.load(file)


# --- the configuration ------------------------------------------------------------------------------------------------

FIRST = {step.setting: step.candidates[-1].keep for step in STUDY.tuning}
"""Some words for each setting."""


@cache
def arm(name: str):
    """The configuration of an arm."""
    one = STUDY.arms[name]
    paths = [f"paths.{need}=/data" for need in one.needs]
    search = f"hydra.searchpath=[file://{design.CONF}]"
    return composed(search, f"+experiment=study/{one.experiment}", "seed=4", *arm_words(one, FIRST), *paths)


@pytest.mark.parametrize("name", STUDY.arms)
def test_every_arm_composes(name):
    cfg = arm(name)
    assert (cfg.stage.name, cfg.seed, cfg.model.name) == ("pipeline", 4, "smollm2_135m")
    assert cfg.stage.rl.kl_limit is None and cfg.stage.rl.too_long_answer.name == "skip"
    assert cfg.reward.open_text == ("exact" if name == "irm_priced" else "ignored")
    ideas = {"mae": cfg.stage.mae, "pkt": cfg.stage.pkt, "irm": cfg.stage.irm}
    assert ("irm" in STUDY.arms[name].settings or name == "rejection") or not ideas["irm"]
    assert ("pkt" in STUDY.arms[name].settings) == ideas["pkt"]
    asked = [each if isinstance(each, str) else each.name for each in cfg.stage.benchmarks]
    assert design.asked(STUDY.arms[name].experiment, STUDY.arms[name].words) == asked


def test_a_control_without_ppo_makes_as_many_updates():
    ours, theirs = arm("sft_continued").stage.supervised.args, arm("irm").stage.rl.args
    chosen = {"gradient_accumulation_steps": 16, "max_steps": 32}
    assert {key: ours[key] for key in chosen} == {key: theirs[key] for key in chosen} == chosen
    sampled = arm("rejection").stage
    assert sampled.rl.args.learning_rate == sampled.supervised.args.learning_rate == 2e-4


def test_an_arm_and_its_baseline_differ_in_the_idea_alone():
    expected = {"mae": {"mae"}, "pkt": {"pkt"}, "irm": {"irm"}, "all": {"mae", "pkt", "irm"}}
    for name, one in STUDY.hypotheses.items():
        ours, theirs = arm(one.arm), arm(one.baseline)
        assert ours.data == theirs.data
        assert {idea for idea in ("mae", "pkt", "irm") if ours.stage[idea] != theirs.stage[idea]} == expected[name]
        for measure in one.measures:
            for cfg in (ours, theirs):
                assert set(STUDY.measures[measure].sets) <= set(cfg.stage.benchmarks)
        assert ours.data.error_rate == (0.35 if one.arm.endswith("_35") else 0.17)


def test_the_tuning_grid_is_the_same_for_sft_and_pkt_and_sees_no_test_tool():
    sft, pkt, *_ = STUDY.tuning
    assert sft.candidates == pkt.candidates and len(sft.candidates) == 6
    for words in (STUDY.tuning_words, STUDY.dry_run.tuning):
        asked = re.findall(r"\{[^}]*\}", " ".join(words))
        assert asked and all("split: validation" in one for one in asked)
    search = f"hydra.searchpath=[file://{design.CONF}]"
    for step in STUDY.tuning:
        for candidate in step.candidates[-1:]:
            composed(search, f"+experiment=study/{step.experiment}", *candidate.keep, *candidate.only_here)


@pytest.mark.parametrize(
    ("experiment", "words", "sizes"),
    [
        ("sft", (), {"questions": 400, "confusable": 600, "conversations": 240, "recorded": 2000}),
        ("mae_35", (*STUDY.extra["sampled"],), {"questions": 400}),
        ("irm", STUDY.tuning_words, {"questions": 200, "confusable": 200}),
        ("pkt", STUDY.dry_run.words, {"questions": 4, "confusable": 4, "conversations": 2, "recorded": 6}),
    ],
)
def test_the_pipeline_accepts_what_an_arm_is_asked(experiment, words, sizes):
    with in_job(f"hydra.searchpath=[file://{design.CONF}]", f"+experiment=study/{experiment}", *words) as cfg:
        asked = dict(pipeline.benchmark(choice) for choice in cfg.stage.benchmarks)
        pipeline.check(cfg, list(asked.items()))
    assert {name: choice.size for name, choice in asked.items()} == sizes
    expected = "validation" if words == STUDY.tuning_words else "test"
    assert {str(choice.split) for choice in asked.values()} == {expected}


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_names_every_arm_hypothesis_and_number_of_seeds():
    for name in STUDY.arms:
        assert f"`{name}`" in TEXT or re.fullmatch(r"w[139]_(clipped|free)", name), name
    table = [line for line in TEXT.splitlines() if re.match(r"\| [\w;%, ']+ \| [123] \| [235] \|", line)]
    assert [(int(cells[2]), int(cells[3])) for cells in (line.split("|") for line in table)] == [
        (group.tier, group.seeds) for group in STUDY.groups
    ]
    for group, line in zip(STUDY.groups, table, strict=True):
        assert group.name == "dose" or re.findall(r"`(\w+)`", line) == list(group.arms)
    for number, one in enumerate(STUDY.hypotheses.values(), 1):
        assert re.search(rf"\| H{number} \| .*`{one.arm}`.*`{one.baseline}`", TEXT)


def test_the_pages_smallest_detectable_differences_are_computed():
    rows = re.findall(r"^\| H\d, (?:VA|TS|mean), (\d+) \w+ \| (.*) \|$", TEXT, re.MULTILINE)
    assert len(rows) == 3
    for (questions, cells), variance in zip(rows, (4550, 1505, 1505), strict=True):
        for cell, spread in zip(cells.split(" | "), (0, 2, 4), strict=True):
            sources = st.Sources(spread**2, variance)
            found = [st.smallest_detectable(sources, 5, int(questions), alpha) for alpha in (0.05, 0.0125)]
            assert [f"{value:.1f}" for value in found] == cell.split(" / ")


def test_the_pages_hours_are_the_plans():
    table = TEXT[TEXT.index("| arm | a row, hours |") :]
    assert dict(re.findall(r"\| `(\w+)` \| ([\d.]+)", table)) == {
        name: f"{arm.hours:.1f}" for name, arm in STUDY.arms.items()
    }
