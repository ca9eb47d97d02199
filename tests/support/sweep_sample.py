"""An artificial sweep like that of the ablation: 8 rows, 2 seeds, 2 benchmarks of the paper's sizes; deterministic.

python -m tests.support.sweep_sample FOLDER      # writes sweep.json and the report, to look at
"""

from __future__ import annotations

import itertools
import math
import random
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tltrain.evaluation.predictions import Prediction
from tltrain.formats.calls import render_call
from tltrain.grading import PAPER_REWARD
from tltrain.report.sweep import Job, Row, StageCost, Sweep
from tltrain.trajectory import Call

SIZES = {"rotbench_clean": 105, "toolalpaca_real": 114}
HARDER = {
    "toolalpaca_real": -0.3,
    "rotbench_slight": 0.3,
    "rotbench_medium": 0.6,
    "rotbench_heavy": 1.1,
    "rotbench_union": 0.8,
}
TOOLS = {
    "get_translation_nllb": {"input_text": "See you later", "tgt_lang": "jpn_Jpan", "src_lang": "eng_Latn"},
    "get_activity_by_price": {"price": 0.0},
    "search_flights": {"from": "Lisbon", "to": "Cairo", "passengers": 2},
    "get_recipe": {"name": "caldo verde", "vegetarian": True},
    "finish": {"answer": "<any>"},
    "convert_currency": {"amount": 129.5, "source": "EUR", "target": "JPY"},
}
GRADES = ("format_error", "tool_hallucination", "wrong_tool", "hallucinated_and_redundant_or_missing", "hallucinated")
GRADES += ("redundant_or_missing", "wrong_value", "correct")


def line(name: str, number: int, skill: float, rng: random.Random) -> Prediction:
    """Make a prediction whose grade improves with `skill`."""
    tool = list(TOOLS)[number % len(TOOLS)]
    difficulty = random.Random(f"{name}/{number}").gauss(HARDER.get(name, 0.0), 1.2)
    grade = GRADES[min(max(int(5.4 + 1.7 * (skill - difficulty + rng.gauss(0, 0.45))), 0), 7)]
    golden, call = Call(tool, TOOLS[tool]), Call(tool, dict(TOOLS[tool]))
    first = next(iter(call.arguments))
    if grade == "wrong_tool":
        call = Call("ask_to_user", {"question": "Which one?"})
    elif grade == "tool_hallucination":
        call = Call(tool + "_v2", call.arguments)
    elif grade.startswith("halluc"):
        call = Call(tool, {**call.arguments, "language": "en"})
    elif grade == "redundant_or_missing":
        call = Call(tool, {key: value for key, value in call.arguments.items() if key != first})
    elif grade == "wrong_value":
        call = Call(tool, {**call.arguments, first: "something else"})
    text = "I will look that up for you (" if grade == "format_error" else render_call(call)
    level = GRADES.index(grade)
    return Prediction(
        set=name,
        id=f"first_turn/{name.rpartition('_')[2]}/{number}",
        answer=text,
        call=None if grade == "format_error" else {"name": call.name, "arguments": dict(call.arguments)},
        goldens=[{"name": golden.name, "arguments": dict(golden.arguments)}],
        grade=grade,
        scores={"ts": level >= 3, "pi": level >= 6, "cf": level == 7},
        reward=PAPER_REWARD[grade],
        reason="the accepted call" if level == 7 else f"{grade.replace('_', ' ')}: `{call.name}` for `{tool}`",
        meta={"query": f"Question {number}: what does {tool.replace('_', ' ')} say about item {number}?"},
    )


def curve(seed: str, start: float, end: float, noise: float, steps: int = 160) -> list[list[float]]:
    """Make a noisy exponential curve from start to end."""
    rng = random.Random(seed)
    return [
        [step, round(end + (start - end) * math.exp(-4 * step / steps) + rng.gauss(0, noise), 4)]
        for step in range(1, steps + 1)
    ]


def job(mae: bool, pkt: bool, irm: bool, seed: int, sizes: dict[str, int], effect: float) -> Job:
    """Make one job of the ablation; parts that two jobs share (a training run, a data pass) are the same in both."""
    rng = random.Random(f"{mae}{pkt}{irm}{seed}")
    skill = effect * (0.05 * mae + 0.15 * pkt + 0.35 * irm) + rng.gauss(0, 0.05)
    lines = [line(name, number, skill, rng) for name, size in sizes.items() for number in range(size)]
    metrics: dict[str, Any] = {}
    details: dict[str, Any] = {}
    for name, size in sizes.items():
        members = [one for one in lines if one.set == name]
        for level in ("ts", "pi", "cf"):
            metrics[f"{name}/{level}"] = round(100 * sum(one.scores[level] for one in members) / size, 4)
        metrics |= {f"{name}/n": size, f"{name}/reward": round(sum(one.reward for one in members) / size, 4)}
        kinds = [kind.name for kind in fields(PAPER_REWARD)]
        details[name] = {"rows": {kind: sum(one.grade == kind for one in members) for kind in kinds}}
    trained = f"{mae}{pkt}{seed}"
    curves = {
        "train/loss": curve("loss" + trained, 2.1 + 0.4 * pkt, 0.25 + 0.05 * pkt - 0.03 * mae, 0.08),
        "train/key_token_loss": curve("key" + trained, 4.3, 0.5 - 0.2 * pkt, 0.15),
    }
    stages = [
        StageCost("data", 4.2, 412_000, None, pkt or irm, f"data-{mae}-{seed}"),
        StageCost("pkt" if pkt else "sft", 61.5 + 8 * pkt, 1_240_000, 1_480_000_000, irm, f"train-{trained}"),
    ]
    if irm:
        curves |= {
            "irm/reward": curve("reward" + trained, -1.2 + 0.2 * pkt, 0.1 + 0.2 * pkt + 0.05 * mae, 0.2, 60),
            "irm/kl": curve("kl" + trained, 0.0, 0.8 + 0.3 * pkt, 0.08, 60),
        }
        stages.append(StageCost("irm", 128.0 + 6 * mae, 388_000, 2_310_000_000, False, f"irm-{trained}"))
    stages.append(StageCost("eval", 33.0, 96_000, 900_000_000, False, f"eval-{trained}-{irm}"))
    return Job(seed, f"outputs/sweep/{mae:d}{pkt:d}{irm:d}-{seed}", None, metrics, details, lines, curves, stages)


def job_of(seed, right, name="set", **more):
    """Make a job with a sample for each of `right`, which is its CF; TS is always reached."""
    lines = [
        Prediction(
            set=name,
            id=str(i),
            answer=f"f({i})",
            grade="correct" if cf else "wrong_value",
            scores={"ts": True, "cf": bool(cf)},
        )
        for i, cf in enumerate(right)
    ]
    metrics = {f"{name}/ts": 100.0, f"{name}/cf": 100 * sum(right) / len(right), f"{name}/n": len(right)}
    return Job(seed, metrics=metrics, predictions=lines, **more)


def small(*rows, baseline="base", **more):
    """Make a sweep of rows (label, [jobs]) without facts about where it ran."""
    made = [Row(label, {"method": label}, jobs) for label, jobs in rows]
    values = [label for label, _ in rows]
    return Sweep("s", "tltrain", "c", {}, "", "", baseline, {"method": values}, made, **more)


def conversation(number, errors, calls, ended="finish", success=True):
    """Make a line of transcripts.jsonl whose first calls are errors."""
    return {
        "id": str(number),
        "messages": [{"role": "user", "content": f"Question {number}"}],
        "calls": [{"de": i < errors, "ce": i < errors - 1} for i in range(calls)],
        "ended": ended,
        "answer": "So." if ended == "finish" else None,
        "valid": ended == "finish",
        "outcome": {} if success is None else {"success": success},
    }


def sweep(sizes: dict[str, int] | None = None, effect: float = 1.0, seeds: int = 2, failures: bool = True) -> Sweep:
    """Make the sweep; with `failures` one job ran out of memory; `effect` 0 makes all rows alike except for chance."""
    rows = []
    for irm, pkt, mae in itertools.product((False, True), repeat=3):
        jobs = [job(mae, pkt, irm, seed, sizes or SIZES, effect) for seed in range(seeds)]
        if failures and (mae, pkt, irm) == (True, True, False):
            jobs[-1] = Job(seeds - 1, jobs[-1].folder, "training: CUDA out of memory at step 112 of 160 (41 GiB asked)")
        label = " + ".join(n for n, on in (("MAE", mae), ("PKT", pkt), ("IRM", irm)) if on) or "Standard SFT"
        rows.append(Row(label, {"mae": mae, "pkt": pkt, "irm": irm}, jobs))
    return Sweep(
        name="ablation",
        command="python -m tltrain +experiment=ablation model=tiny seed=0,1",
        commit="fc9c133",
        versions={"tltrain": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0"},
        config="stage:\n  name: pipeline\nmodel:\n  name: tiny\n",
        created="2026-11-22T23:10:00+00:00",
        baseline="Standard SFT",
        axes={"mae": [False, True], "pkt": [False, True], "irm": [False, True], "seed": list(range(seeds))},
        rows=rows,
        cache={"built": 36, "reused": 20, "seconds_saved": 612.0},
        environment={"machine": "2 CPU cores, 23 GiB", "python": "3.11.2", "system": "Linux 6.1"},
    )


if __name__ == "__main__":
    from tltrain.report.sweep import FILE, save
    from tltrain.report.write import write_report

    folder, levels = Path(sys.argv[1]), ("clean", "slight", "medium", "heavy", "union")
    several = {f"rotbench_{level}": 105 if level in ("clean", "union") else 210 for level in levels}
    for path, made in (
        (folder / "ablation", sweep()),
        (folder / "nothing", sweep(effect=0.0)),
        (folder / "robustness", sweep(several)),
    ):
        save(made, path / FILE)
        write_report(made, path)


HOSTILE = (
    "</script><script>window.pwned=1</script><img src=x onerror=pwned=1> & \"' $x_ {{ 7*7 }} | \ud800 \0 \u2028 %&_#"
)


def hostile():
    """Make a sweep in which everything from outside is hostile and one answer has 100 kB."""
    made = sweep({"set": 12})
    rows = [replace(row, label=f"{row.label} {HOSTILE}") for row in made.rows]
    for row in rows:
        for one in row.seeds:
            for number, line in enumerate(one.predictions):
                one.predictions[number] = replace(
                    line,
                    id=HOSTILE + str(number),
                    answer=HOSTILE + "x" * (100_000 if number == 3 else 0),
                    goldens=[{"name": HOSTILE}, HOSTILE],
                    reason=HOSTILE,
                    meta={"query": HOSTILE},
                )
    rows[2] = replace(rows[2], seeds=[Job(0, HOSTILE, HOSTILE), Job(1, HOSTILE, HOSTILE * 1000)])
    words = dict.fromkeys(("name", "command", "commit", "config", "created"), HOSTILE)
    return replace(
        made, **words, rows=rows, baseline=rows[0].label, versions={HOSTILE: HOSTILE}, environment={HOSTILE: HOSTILE}
    )
