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
from tltrain.report.wording import p_value

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
TERMS = (
    "VA: % of conversations that end with an answer, right or wrong; in the training data of its arms 35 % of the "
    "calls fail, in that of the others 17 %."
)
"""What a reader of the lines cannot know; section 1 of the protocol."""


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
    hypotheses = list(summary["hypotheses"].values())
    seeds = {one["seeds"] for one in hypotheses if one["measures"]}
    whole = len(study.seeds)
    alike = len(seeds) == 1 and max(seeds) < whole  # said once, not in each line
    rows = f"{len(summary['rows'])} rows"
    if alike:
        rows += f", {max(seeds)} of {whole} planned seeds, so without a verdict"
    return [
        *(_finding(one, study, alike) for one in hypotheses),
        f"- SmolLM2-135M on generated tools never trained on: {rows}. 95 % intervals (t over paired seeds). {TERMS}",
        "- Again: `experiments/study/run.sh`, `python -m experiments.study.analyze`. The protocol "
        f"({summary['protocol'][:8]}) is older than the rows.",
    ]


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


def _finding(one: Mapping[str, Any], study: Study, alike: bool) -> str:
    """What a hypothesis says: both arms, their difference, and, where it is tested, what could be seen and the verdict.

    Args:
        alike: whether all hypotheses lack the same number of seeds, which is said elsewhere.
    """
    parts = [
        f"{study.measures[name].title} {part['baseline_mean']:.1f} → {part['arm_mean']:.1f}, {difference(part)}"
        for name, part in one["measures"].items()
    ]
    if not parts:
        return f"- **{one['title']}**: no row has been run yet."
    if not one["verdict"].startswith("descriptive"):
        detectable = " and ".join(f"{part['detectable_holm']:.1f}" for part in one["measures"].values())
        parts += [f"detectable: {detectable}", _judged(one)]
    elif not alike:
        parts.append(one["verdict"])
    return f"- **{one['title']}**: {'; '.join(parts)}."


def _judged(one: Mapping[str, Any]) -> str:
    """The verdict, behind the p that it rests on."""
    p = p_value(one["p_holm"])
    return f"p {p if p.startswith('<') else f'= {p}'} after Holm: {one['verdict']}"


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
