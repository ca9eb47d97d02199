"""From numbers to words: the page of results in Markdown, and the lines of the study in the documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.study.design import Study
from experiments.study.summary import Summary
from tltrain.errors import TltrainError

MARKS = "<!-- the study: written by experiments/study/analyze.py -->", "<!-- end of the study -->"
NOTHING = "No row of the study has been run yet."


def signed(value: float | None, digits: int = 1) -> str:
    """A number with its sign; a dash where there is none."""
    return "–" if value is None else f"{value:+.{digits}f}"


def difference(part: Mapping[str, Any]) -> str:
    """A difference with its interval over seeds: `+4.2 [+1.0, +7.4]`."""
    return f"{signed(part['value'])} [{signed(part['low'])}, {signed(part['high'])}]"


def findings(summary: Summary | None, study: Study) -> list[str]:
    """The lines of README and docs: one for each hypothesis, one on the whole, one on how to run it again.

    None as long as no row stands.
    """
    again = "`experiments/study/run.sh` and `python -m experiments.study.analyze` give these numbers again"
    if summary is None:
        return []
    lines = []
    for one in summary["hypotheses"].values():
        parts = [
            f"{study.measures[name].title} {difference(part)}"
            + (f" (detectable: {part['detectable_holm']:.1f})" if part["detectable_holm"] is not None else "")
            for name, part in one["measures"].items()
        ]
        if parts:
            lines.append(
                f"- **{one['title']}**: {'; '.join(parts)}; p = {one['p_holm']:.3f} after Holm: {one['verdict']}."
            )
        else:
            lines.append(f"- **{one['title']}**: no row has been run yet.")
    seeds = max((one["seeds"] for one in summary["hypotheses"].values()), default=0)
    lines.append(
        f"- {len(summary['rows'])} rows, at most {seeds} seeds in a comparison; points and 95 % intervals over seeds "
        "(Student's t, paired); SmolLM2-135M, generated tools never trained on."
    )
    lines.append(f"- {again}; the protocol (sha256 {summary['protocol'][:12]}) is older than the rows.")
    return lines


def block(lines: Sequence[str]) -> str:
    """The lines between their marks."""
    return "\n".join([MARKS[0], *(["", *lines, ""] if lines else []), MARKS[1]])


def with_block(text: str, lines: Sequence[str], name: str) -> str:
    """A document's text with these lines between its marks.

    Raises:
        TltrainError: it has no marks.
    """
    pattern = re.compile(re.escape(MARKS[0]) + ".*?" + re.escape(MARKS[1]), re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise TltrainError(f"{name}: expected the lines of the study once between `{MARKS[0]}` and `{MARKS[1]}`")
    return pattern.sub(lambda _: block(lines), text)


def page(summary: Summary | None, study: Study) -> str:
    """The page of results, in Markdown."""
    head = [
        "# The study",
        "",
        "Written by `python -m experiments.study.analyze` from the rows in `experiments/study/rows`. What was decided",
        "before the first row: [the protocol](../../study/PROTOCOL.md). What was done otherwise:",
        "[departures](departures.md).",
        "",
        *(findings(summary, study) or [NOTHING]),
        "",
    ]
    if summary is None:
        return "\n".join(head)
    parts = ["![Differences with intervals](forest.svg)", "", *_hypotheses_table(summary, study), ""]
    parts += [*_arms_table(summary, study), "", *_metrics_table(summary), "", *_secondary_table(summary, study), ""]
    parts += [*_costs_table(summary), ""]
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    parts += [f"Versions: {versions}. Commits: {', '.join(summary['commits'])}.", ""]
    return "\n".join([*head, *parts])


def _table(title: str, heads: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"## {title}",
        "",
        f"| {' | '.join(heads)} |",
        "| --- |" + " ---: |" * (len(heads) - 1),
        *(f"| {' | '.join(cells)} |" for cells in lines),
    ]


def _hypotheses_table(summary: Summary, study: Study) -> list[str]:
    lines = []
    for one in summary["hypotheses"].values():
        for name, part in one["measures"].items():
            each = " ".join(signed(value) for value in part["differences"].values())
            over = f"[{signed(part['question_low'])}, {signed(part['question_high'])}]"
            more = [part[key] for key in ("detectable_holm", "more_seeds", "more_questions")]
            lines.append(
                [
                    f"{one['title']}: {study.measures[name].title}",
                    difference(part),
                    each,
                    over,
                    f"{part['p']:.4f}",
                    f"{one['p_holm']:.4f}",
                    *("–" if value is None else f"{value:.1f}" for value in more),
                    one["verdict"],
                ]
            )
    heads = ["", "difference [t, 95 %]", "by seed", "over questions", "p", "p, Holm", "detectable"]
    return _table(
        "Hypotheses", [*heads, "with twice the seeds (at 5 %)", "with twice the questions (at 5 %)", "verdict"], lines
    )


def _arms_table(summary: Summary, study: Study) -> list[str]:
    names = [name for name in study.measures if any(name in arm["measures"] for arm in summary["arms"].values())]
    lines = []
    for arm, one in summary["arms"].items():
        cells = []
        for name in names:
            number = one["measures"].get(name)
            spread = "" if number is None or number["deviation"] is None else f" ± {number['deviation']:.1f}"
            cells.append("" if number is None else f"{number['mean']:.1f}{spread}")
        lines.append([arm, str(len(one["seeds"])), *cells])
    return _table(
        "Arms, mean ± deviation over seeds", ["arm", "seeds", *(study.measures[n].title for n in names)], lines
    )


def _metrics_table(summary: Summary) -> list[str]:
    names = sorted({name for arm in summary["arms"].values() for name in arm["metrics"]})
    lines = []
    for arm, one in summary["arms"].items():
        values = [one["metrics"].get(name) for name in names]
        lines.append([arm, *("" if value is None else f"{value:.3f}" for value in values)])
    return _table(
        "Recorded calls (nats a token, %) and key tokens of a golden call, means over seeds", ["arm", *names], lines
    )


def _secondary_table(summary: Summary, study: Study) -> list[str]:
    lines = [
        [
            f"{one['arm']} − {one['baseline']}",
            study.measures[one["measure"]].title,
            difference(one),
            f"[{signed(one['question_low'])}, {signed(one['question_high'])}]",
            f"{one['p']:.3f}",
            str(len(one["differences"])),
        ]
        for one in summary["secondary"]
    ]
    heads = ["arms", "measure", "difference [t, 95 %]", "over questions", "p, not corrected", "seeds"]
    return _table("All comparisons (secondary)", heads, lines)


def _costs_table(summary: Summary) -> list[str]:
    lines = []
    for arm, one in summary["arms"].items():
        for seed, costs in one["costs"].items():
            stages = costs["stages"]
            counted = {
                key: sum(stage.get(key) or 0 for stage in stages.values())
                for key in ("updates", "target_tokens", "sampled_tokens", "sampled_calls")
            }
            seconds = sum(stage["seconds"] for stage in stages.values())
            lines.append(
                [
                    f"{arm}, {seed}",
                    *(f"{value:,}" for value in counted.values()),
                    f"{seconds:,.0f}",
                    f"{costs['processor_seconds']:,.0f}",
                ]
            )
    heads = ["row", "updates", "target tokens", "sampled tokens", "sampled calls"]
    return _table("Costs", [*heads, "seconds of its stages, shared ones too", "processor seconds of its own"], lines)
