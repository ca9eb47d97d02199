"""The lines of the study in README and docs: written between marks, so that a test holds them to the rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.study import paper
from experiments.study.design import Study
from experiments.study.markdown import difference, signed, table
from experiments.study.mechanisms import controls, mechanisms
from experiments.study.summary import Summary
from tltrain.errors import TltrainError

MARKS = "<!-- the study: written by experiments/study/analyze.py -->", "<!-- end of the study -->"
PAPER_MARKS = (
    "<!-- the study beside the paper: written by experiments/study/analyze.py -->",
    "<!-- end of the table -->",
)
BEHIND_MARKS = (
    "<!-- behind the numbers of the study: written by experiments/study/analyze.py -->",
    "<!-- end of the numbers -->",
)
CONTROLS_MARKS = (
    "<!-- controls and remedies of the study: written by experiments/study/analyze.py -->",
    "<!-- end of the controls -->",
)
"""Marks of what a document has if it has room for it."""


def with_study(text: str, summary: Summary | None, study: Study, name: str, picture: str) -> str:
    """A document's text with everything of the study that it has marks for; the findings are in each.

    Raises:
        TltrainError: it has no marks for them.
    """
    text = with_block(text, findings(summary, study), name, picture)
    for marks, lines in (
        (PAPER_MARKS, beside_the_paper(summary, study)),
        (BEHIND_MARKS, mechanisms(summary)),
        (CONTROLS_MARKS, controls(summary, study)),
    ):
        if marks[0] in text:
            text = with_block(text, lines, name, marks=marks)
    return text


def findings(summary: Summary | None, study: Study) -> list[str]:
    """The lines of README and docs: one for each hypothesis, one on what they are of, one on how to run it again.

    None as long as no row stands.
    """
    if summary is None:
        return []
    lines = [_finding(one, study) for one in summary["hypotheses"].values()]
    seeds = max((one["seeds"] for one in summary["hypotheses"].values()), default=0)
    lines.append(
        f"- SmolLM2-135M on generated tools never trained on; {len(summary['rows'])} rows, at most {_seeds(seeds)}; "
        f"points with 95 % intervals (t over paired seeds){_spread(summary, study)}."
    )
    lines.append(
        "- Again: `experiments/study/run.sh`, `python -m experiments.study.analyze`. The protocol "
        f"({summary['protocol'][:8]}) is older than the rows."
    )
    return lines


def _spread(summary: Summary, study: Study) -> str:
    """How far the seeds of one arm lie apart at most, in a measure of the hypotheses: what one seed is worth."""
    names = dict.fromkeys(name for one in study.hypotheses.values() for name in one.measures)
    found = [
        (one["measures"][name]["deviation"], name)
        for one in summary["arms"].values()
        for name in names
        if name in one["measures"] and one["measures"][name]["deviation"] is not None
    ]
    if not found:
        return ""
    deviation, name = max(found)
    return f"; an arm's own seeds deviate by up to {deviation:.1f} ({study.measures[name].title})"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def beside_the_paper(summary: Summary | None, study: Study, title: str = "") -> list[str]:
    """The table of what the paper reports beside what was found here; nothing as long as no row stands."""
    lines = [
        [
            f"{one['title']}: {study.measures[name].title}",
            f"{part['baseline_mean']:.1f} → {part['arm_mean']:.1f}, {difference(part)}",
            "; ".join(
                f"{each.set} {each.baseline:.1f} → {each.arm:.1f}, {signed(each.arm - each.baseline)}"
                for each in paper.published(hypothesis, study.measures[name])
            ),
        ]
        for hypothesis, one in (summary["hypotheses"] if summary else {}).items()
        for name, part in one["measures"].items()
    ]
    return table(title, ["", "here, SmolLM2-135M", "the paper, CodeLLaMA-2-7B, one run"], lines)


def _finding(one: Mapping[str, Any], study: Study) -> str:
    """What a hypothesis says: both arms, their difference, what could have been seen, and the verdict."""
    parts = [
        f"{study.measures[name].title} {part['baseline_mean']:.1f} → {part['arm_mean']:.1f}, {difference(part)}"
        for name, part in one["measures"].items()
    ]
    if not parts:
        return f"- **{one['title']}**: no row has been run yet."
    detectable = [part["detectable_holm"] for part in one["measures"].values()]
    seen = "" if None in detectable else f"; detectable: {' and '.join(f'{value:.1f}' for value in detectable)}"
    return f"- **{one['title']}**: {'; '.join(parts)}{seen}; {_judged(one)}."


def _judged(one: Mapping[str, Any]) -> str:
    """The verdict, behind the p that it rests on; a descriptive comparison rests on none."""
    if one["verdict"].startswith("descriptive"):
        return str(one["verdict"])
    p = "p < 0.001" if one["p_holm"] < 0.001 else f"p = {one['p_holm']:.3f}"
    return f"{p} after Holm: {one['verdict']}"


def block(lines: Sequence[str], picture: str = "", marks: tuple[str, str] = MARKS) -> str:
    """The lines between their marks, and the picture below them.

    Args:
        picture: its path from the document's folder; without one there is none.
    """
    shown = ["", f"![Differences to the baselines, with intervals]({picture})"] if picture else []
    return "\n".join([marks[0], *(["", *lines, *shown, ""] if lines else []), marks[1]])


def with_block(text: str, lines: Sequence[str], name: str, picture: str = "", marks: tuple[str, str] = MARKS) -> str:
    """A document's text with these lines, and a picture, between its marks.

    Raises:
        TltrainError: it has no marks.
    """
    pattern = re.compile(re.escape(marks[0]) + ".*?" + re.escape(marks[1]), re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise TltrainError(f"{name}: expected the lines of the study once between `{marks[0]}` and `{marks[1]}`")
    return pattern.sub(lambda _: block(lines, picture, marks), text)
