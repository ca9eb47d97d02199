"""Compare MAE's two rules with the truth: which tool answers are errors.

    TLTRAIN_SHARED=../shared python experiments/bench/mae_rules.py [--quick]

The truth is known in three places: 680 answers of many frameworks in 14 languages, part of which was held out while the
strict rule was tuned (tests/tool_answers/README.md); 150 answers of RoTBench's third turn labelled by hand (labels and
method: experiments/results/rotbench_answer_labels.json); and toolworld, which knows whether its tools failed. The
script prints precision and recall with 95 % Wilson intervals, where the released rule errs and through which pattern,
and the cost per turn at 1,000 and at 100,000 turns. The last line is one JSON object. `--quick` halves the sizes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from omegaconf import OmegaConf

from tltrain.formats.tool_errors import Rule, error_kind
from tltrain.mae import verdicts
from tltrain.toolworld import generate
from tltrain.trajectory import Call, Message, Trajectory

ROOT = Path(__file__).resolve().parents[2]
LABELS = ROOT / "experiments/results/rotbench_answer_labels.json"
SHARED = Path(os.environ.get("TLTRAIN_SHARED", ROOT / "../shared"))
TOOL_ANSWERS = ROOT / "tests/tool_answers/answers.jsonl"
TOOLWORLD_SIZE, TOOLWORLD_SEED = 4000, 2025
TURNS = (1_000, 100_000)
ROUNDS = 5


@dataclass(frozen=True)
class Labelled:
    """A tool's answer and whether it is an error."""

    answer: str
    error: bool


def tool_answers(part: str) -> list[Labelled]:
    """Return the labelled answers of one part, `dev` or `held_out`."""
    items = map(json.loads, TOOL_ANSWERS.read_text(encoding="utf-8").splitlines())
    return [Labelled(item["answer"], item["error"]) for item in items if item["part"] == part]


def rotbench_labelled() -> list[Labelled]:
    """Return the labelled answers in the order of the labels; exit if a text differs from the labelled one."""
    folder = SHARED / "data/rotbench/third_turn"
    levels: dict[str, list] = {}
    labelled = []
    for label in json.loads(LABELS.read_text())["labels"]:
        level = label["level"]
        if level not in levels:
            levels[level] = json.loads((folder / f"{level}.json").read_text(encoding="utf-8"))
        answer = levels[level][label["record"]]["conversations"][label["message"]]["value"]
        if hashlib.sha256(answer.encode()).hexdigest()[:16] != label["sha256"]:
            sys.exit(f"{folder / level}.json, record {label['record']}: not the text that was labelled")
        labelled.append(Labelled(answer, label["error"]))
    return labelled


def toolworld_labelled(size: int) -> list[Labelled]:
    """Return every answered call of generated trajectories; `meta["failed"]` is the truth."""
    labelled = []
    for trajectory in generate(size, seed=TOOLWORLD_SEED):
        failed = iter(trajectory.meta["failed"])
        for message, following in zip(trajectory.messages, (*trajectory.messages[1:], None), strict=True):
            if message.role == "assistant":
                truth = next(failed)
                if following is not None and following.role == "tool":
                    labelled.append(Labelled(following.text, bool(truth)))
    return labelled


def wilson(hits: int, of: int, z: float = 1.959964) -> list[float] | None:
    """Return the 95 % Wilson score interval of a share in percent; None if there are no cases."""
    if not of:
        return None
    share, scale = hits / of, 1 + z * z / of
    centre = (share + z * z / (2 * of)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return [round(100 * (centre - half), 2), round(100 * (centre + half), 2)]


def score(labelled: Iterable[Labelled], rule: Rule) -> dict[str, Any]:
    """Return counts, precision and recall in percent with intervals; precision or recall is None without cases."""
    pairs = Counter((error_kind(one.answer, rule) is not None, one.error) for one in labelled)
    hit, false_alarm, missed = pairs[True, True], pairs[True, False], pairs[False, True]
    return {
        "answers": pairs.total(),
        "errors": hit + missed,
        "flagged": hit + false_alarm,
        "precision": round(100 * hit / (hit + false_alarm), 2) if hit + false_alarm else None,
        "precision_interval": wilson(hit, hit + false_alarm),
        "recall": round(100 * hit / (hit + missed), 2) if hit + missed else None,
        "recall_interval": wilson(hit, hit + missed),
    }


def shown(row: dict[str, Any], name: str) -> str:
    """Format a share with its interval."""
    return "-" if row[name] is None else f"{row[name]} [{', '.join(map(str, row[name + '_interval']))}]"


def mistakes(labelled: Iterable[Labelled], rule: Rule, other: Rule) -> dict[str, list[str]]:
    """Return where `rule` errs: results dropped, by matching kind; errors kept, by the kind under `other`."""
    found: dict[str, list[str]] = {}
    for one in labelled:
        kind = error_kind(one.answer, rule)
        if (kind is not None) != one.error:
            other_kind = error_kind(one.answer, other) or "seen by neither rule"
            group = f"dropped a result, matched {kind}" if kind else f"kept an error, {other_kind}"
            found.setdefault(group, []).append(one.answer)
    return dict(sorted(found.items(), key=lambda group: -len(group[1])))


def cost_per_turn(answers: list[str], rule: Rule, turns: int) -> float:
    """Return microseconds per turn over trajectories of four turns: the median of rounds on the same answers."""
    trajectories = [_trajectory([answers[(4 * n + i) % len(answers)] for i in range(4)]) for n in range(turns // 4)]
    repeats = max(1, TURNS[-1] // turns // 20)  # so that a round is long enough to time
    times = []
    for _ in range(ROUNDS):
        start = perf_counter()
        for _ in range(repeats):
            for trajectory in trajectories:
                verdicts(trajectory, rule)
        times.append((perf_counter() - start) / repeats / turns)
    return 1e6 * median(times)


def _trajectory(answers: list[str]) -> Trajectory:
    messages = [Message("user", "query")]
    for answer in answers:
        messages += [Message.calling(Call("tool", {})), Message("tool", answer)]
    return Trajectory("bench", (), tuple(messages))


def main(quick: bool) -> None:
    names = ("paper", "strict")
    rules = {
        name: Rule.from_config(OmegaConf.to_container(OmegaConf.load(ROOT / f"conf/mae/{name}.yaml"))) for name in names
    }
    sources = {f"tool answers, {part.replace('_', ' ')}": tool_answers(part) for part in ("dev", "held_out")}
    if (SHARED / "data/rotbench").is_dir():
        labelled = rotbench_labelled()
        sources["rotbench"] = labelled
        sources["rotbench, even places"], sources["rotbench, odd places"] = labelled[::2], labelled[1::2]
    else:
        print(f"rotbench skipped: no folder {SHARED / 'data/rotbench'} (set TLTRAIN_SHARED)")
    sources["toolworld"] = toolworld_labelled(TOOLWORLD_SIZE // 2 if quick else TOOLWORLD_SIZE)

    results = {
        f"{source}/{name}": score(labelled, rules[name]) for source, labelled in sources.items() for name in names
    }
    print(f"{'source':22} {'rule':8} {'answers':>8} {'errors':>7} {'flagged':>8} {'precision':>23} {'recall':>23}")
    for key, row in results.items():
        source, name = key.rsplit("/", 1)
        print(
            f"{source:22} {name:8} {row['answers']:8} {row['errors']:7} {row['flagged']:8}"
            f" {shown(row, 'precision'):>23} {shown(row, 'recall'):>23}"
        )

    errs: dict[str, dict[str, int]] = {}
    for source in ("rotbench", "toolworld"):
        for name, other in (names, names[::-1]):
            groups = mistakes(sources.get(source, []), rules[name], rules[other])
            errs[f"{source}/{name}"] = {group: len(answers) for group, answers in groups.items()}
            if groups:
                print(f"\nwhere {name} errs on {source}:")
            for group, answers in groups.items():
                print(f"  {len(answers):5}  {group}   e.g. {' '.join(answers[0].split())[:70]!r}")

    answers = [one.answer for labelled in sources.values() for one in labelled]
    print(f"\ncost of a turn: {'turns':>8} {'us/turn':>8}")
    costs = {}
    for name in names:
        for turns in TURNS:
            turns = turns // 2 if quick else turns
            costs[f"{name}/{turns}"] = cost_per_turn(answers[: TURNS[0] // 2], rules[name], turns)
            print(f"{name:14} {turns:9} {costs[f'{name}/{turns}']:8.2f}")
    print(json.dumps({"rules": results, "errs": errs, "us_per_turn": costs}))


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--quick"]):
        sys.exit("usage: python experiments/bench/mae_rules.py [--quick]")
    main(quick="--quick" in sys.argv)
