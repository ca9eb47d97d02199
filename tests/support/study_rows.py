"""Rows of the study as the runner writes them, with results that a test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.study import rows

PROTOCOL = "a" * 64


def header(arm: str, seed: int, **more: Any) -> dict[str, Any]:
    """A row's header."""
    stage = {"seconds": 60.0, "reused": False, "updates": 10, "target_tokens": 1000, "processor_seconds": 100.0}
    return {
        "arm": arm,
        "seed": seed,
        "protocol": PROTOCOL,
        "tuned": "b" * 64,
        "dry_run": False,
        "fingerprint": "c",
        "commit": "d" * 40,
        "code": "e",
        "asked": ["questions", "confusable"],
        "versions": {"torch": "2"},
        "machine": {"processors": 2, "machine": "x86_64", "gpu": None},
        "words": [],
        "costs": {"stages": {"model_sft": stage}, "processor_seconds": 120.0},
        "metrics": {"recorded/margin": 0.5},
    } | more


def answers(name: str, levels: Sequence[int], template: int = 2) -> list[rows.Line]:
    """Make questions that reach as many of TS, PI, CF as `levels` says; each group of `template` shares a task."""
    return [
        {
            "set": name,
            "id": str(number),
            "cluster": f"task {number // template}",
            **{level: int(have > place) for place, level in enumerate(("ts", "pi", "cf"))},
            "grade": "correct" if have == 3 else "wrong_tool",
            "reward": 1.0 if have == 3 else -1.5,
        }
        for number, have in enumerate(levels)
    ]


def conversations(valid: Sequence[int]) -> list[rows.Line]:
    """Make conversations of two calls; the second call fails if there is no valid answer."""
    return [
        {
            "set": "conversations",
            "id": str(number),
            "cluster": f"task {number}",
            "va": one,
            "success": one,
            "calls": 2,
            "de": 0,
            "ce": 1 - one,
            "ended": "finish",
        }
        for number, one in enumerate(valid)
    ]


def write(folder: Path, results: Mapping[tuple[str, int], Sequence[rows.Line]], **more: Any) -> Path:
    """Write a row for each arm and seed; return the folder."""
    for (arm, seed), lines in results.items():
        rows.write(folder / rows.name_of(arm, seed), header(arm, seed, **more), lines)
    return folder
