"""From rows to results: `experiments/results/study/summary.json`, page, picture, and the lines of the documents.

    python -m experiments.study.analyze            write them all
    python -m experiments.study.analyze --check    say what does not agree with the rows, and end with status 1

Everything is computed from the files in `rows/`. The documents have their lines between two marks, so that no number of
the study stands in them that this module has not written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.study import design, rows
from experiments.study import statistics as st
from experiments.study.design import ROOT, ROWS, Hypothesis, Measure, Study
from experiments.study.rows import RowFile
from tltrain.errors import TltrainError
from tltrain.evaluation.intervals import ALPHA
from tltrain.runtime import json_files, runs

RESULTS = ROOT / "experiments" / "results" / "study"
SUMMARY = "summary.json"
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "results.md")
MARKS = "<!-- the study: written by experiments/study/analyze.py -->", "<!-- end of the study -->"
NOTHING = "No row of the study has been run yet."

Summary = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Results:
    """One measure of all arms: arm -> seed -> sample -> number, and what each sample is resampled with."""

    arms: Mapping[str, st.Outcomes]
    cluster: Mapping[str, Hashable]


# --- numbers ----------------------------------------------------------------------------------------------------------


def checked(found: Sequence[RowFile], protocol: str) -> None:
    """Raise a TltrainError where rows do not belong together."""
    for key in ("protocol", "tuned", "dry_run"):
        values = {str(row.header.get(key)) for row in found}
        if len(values) > 1:
            raise TltrainError(f"the rows differ in {key}: {', '.join(sorted(values))}; they are no one study")
    for row in found:
        if row.header["protocol"] != protocol:
            raise TltrainError(f"{rows.name_of(row.arm, row.seed)}: of another protocol, {row.header['protocol']}")


def results_of(found: Iterable[RowFile], measure: Measure) -> Results:
    """The measure in all rows that have it. A run that diverged has no model: every answer of it counts as wrong."""
    having = [row for row in found if all(row.lines.get(name) for name in measure.sets)]
    several = len(measure.sets) > 1
    seen = {
        f"{name}/{line['id']}"
        for row in having
        for name in measure.sets
        for line in row.lines[name]
        if line.get("seen")
    }
    arms: dict[str, dict[int, dict[str, float]]] = {}
    cluster: dict[str, Hashable] = {}
    for row in having:
        numbers: dict[str, float] = {}
        sizes: dict[str, int] = {}
        for name in measure.sets:
            own = {
                f"{name}/{sample}": value
                for sample, value in rows.results(row.lines[name], measure.level).items()
                if not several or f"{name}/{sample}" not in seen
            }
            sizes |= dict.fromkeys(own, len(own))
            numbers |= own
            cluster |= {f"{name}/{line['id']}": (name, line["cluster"]) for line in row.lines[name]}
        if several:  # the plain mean of these is the mean over sets
            numbers = {
                sample: value * len(numbers) / (len(measure.sets) * sizes[sample]) for sample, value in numbers.items()
            }
        arms.setdefault(row.arm, {})[row.seed] = numbers
    samples = {sample for seeds in arms.values() for numbers in seeds.values() for sample in numbers}
    for row in found:
        if samples and row.header.get("diverged") and measure.unit == "points":
            wrong = 100.0 if measure.lower_is_better else 0.0
            arms.setdefault(row.arm, {})[row.seed] = dict.fromkeys(sorted(samples), wrong)
    return Results(arms, cluster)


def compared(results: Results, arm: str, baseline: str) -> st.Comparison | None:
    """An arm's comparison with its baseline; None where no seed has both."""
    ours, theirs = results.arms.get(arm, {}), results.arms.get(baseline, {})
    return st.compare(ours, theirs, results.cluster) if ours.keys() & theirs.keys() else None


def summarize(study: Study, found: Sequence[RowFile], digests: Mapping[str, str]) -> Summary:
    """All numbers of the study, as plain values.

    Args:
        digests: name of a row's file -> digest of its content.
    """
    measured = {name: results_of(found, measure) for name, measure in study.measures.items()}
    hypotheses = {name: _hypothesis(one, measured) for name, one in study.hypotheses.items()}
    corrected = st.verdicts({name: one["p"] for name, one in hypotheses.items()})
    for name, one in hypotheses.items():
        one["p_holm"] = round(corrected[name], 6)
        one["verdict"] = verdict(one, len(study.seeds))
    pairs = dict.fromkeys([*((one.arm, one.baseline) for one in study.hypotheses.values()), *study.secondary])
    secondary = [
        {"arm": arm, "baseline": baseline, "measure": name, **comparison.to_json()}
        for arm, baseline in pairs
        for name, results in measured.items()
        if (comparison := compared(results, arm, baseline)) is not None
    ]
    return {
        "protocol": found[0].header["protocol"],
        "tuned": found[0].header["tuned"],
        "rows": digests,
        "commits": sorted({str(row.header["commit"]) for row in found}),
        "versions": found[0].header["versions"],
        "machines": [json.loads(text) for text in sorted({json.dumps(row.header["machine"]) for row in found})],
        "hypotheses": hypotheses,
        "secondary": secondary,
        "margins": _margins(study, measured),
        "arms": {arm: _arm(arm, found, measured) for arm in study.arms if any(row.arm == arm for row in found)},
    }


def _hypothesis(one: Hypothesis, measured: Mapping[str, Results]) -> dict[str, Any]:
    comparisons = {name: compared(measured[name], one.arm, one.baseline) for name in one.measures}
    there = {name: comparison for name, comparison in comparisons.items() if comparison is not None}
    p = 1.0
    if len(there) == len(comparisons):
        p = st.both_needed([each.p for each in there.values()], [each.value for each in there.values()])
    return {
        "title": one.title,
        "arm": one.arm,
        "baseline": one.baseline,
        "seeds": min((each.seeds for each in there.values()), default=0) if len(there) == len(comparisons) else 0,
        "measures": {name: comparison.to_json() for name, comparison in there.items()},
        "p": round(p, 6),
    }


def verdict(one: Mapping[str, Any], seeds: int) -> str:
    """What a hypothesis' numbers say, by the rules of the protocol."""
    if one["seeds"] < seeds:
        return f"descriptive: {one['seeds']} of {seeds} seeds"
    parts = one["measures"].values()
    if one["p_holm"] < ALPHA:
        return "shown" if all(part["question_low"] > 0 for part in parts) else "shown for these questions alone"
    if any(part["high"] < 0 for part in parts):
        return "not shown: worse on a measure"
    return "not shown"


def _margins(study: Study, measured: Mapping[str, Results]) -> list[dict[str, Any]]:
    found = []
    for arm, baseline, points in study.margins:
        comparison = compared(measured["pooled"], arm, baseline)
        if comparison is not None:
            low = comparison.to_json()["low"]
            known = not isinstance(low, float) or st.not_inferior(low, points)
            found.append(
                {
                    "arm": arm,
                    "baseline": baseline,
                    "margin": points,
                    "low": low,
                    "not_inferior": known if isinstance(low, float) else None,
                }
            )
    return found


def _arm(arm: str, found: Sequence[RowFile], measured: Mapping[str, Results]) -> dict[str, Any]:
    own = [row for row in found if row.arm == arm]
    numbers = {}
    for name, results in measured.items():
        values = [statistics.fmean(samples.values()) for _, samples in sorted(results.arms.get(arm, {}).items())]
        if values:
            deviation = round(statistics.stdev(values), 4) if len(values) > 1 else None
            numbers[name] = {"mean": round(statistics.fmean(values), 4), "deviation": deviation, "n": len(values)}
    grades: dict[str, int] = {}
    for row in own:
        for line in row.lines.get("questions", []):
            grades[line["grade"]] = grades.get(line["grade"], 0) + 1
    named = {key for row in own for key in row.header["metrics"] if _is_shown(key)}
    metrics = {
        key: round(statistics.fmean(row.header["metrics"][key] for row in own if key in row.header["metrics"]), 4)
        for key in sorted(named)
    }
    return {
        "seeds": sorted(row.seed for row in own),
        "measures": numbers,
        "grades": dict(sorted(grades.items())),
        "metrics": metrics,
        "costs": {str(row.seed): row.header["costs"] for row in sorted(own, key=lambda row: row.seed)},
    }


def _is_shown(key: str) -> bool:
    """Whether a flat metric of a row is in the summary: of recorded calls, and the key tokens of a golden call."""
    return key.startswith("recorded/") or key.endswith("/key_tokens")


def load(folder: Path = ROWS, protocol: str | None = None) -> Summary | None:
    """The summary of the rows in a folder; None where there is none. Raises TltrainError."""
    found = rows.read_all(folder)
    if not found:
        return None
    checked(found, protocol or design.protocol_hash())
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.jsonl.gz"))}
    return summarize(design.load(), found, digests)


# --- words ------------------------------------------------------------------------------------------------------------


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


# --- files ------------------------------------------------------------------------------------------------------------


def write(summary: Summary | None, folder: Path = RESULTS, documents: Sequence[Path] = DOCUMENTS) -> None:
    """Write summary, page and picture, and the lines of the documents."""
    study = design.load()
    folder.mkdir(parents=True, exist_ok=True)
    if summary is not None:
        from experiments.study import forest

        runs.write_json(folder / SUMMARY, summary)
        forest.draw(summary, study, folder / "forest.svg")
    (folder / "README.md").write_text(page(summary, study), encoding="utf-8")
    for document in documents:
        text = document.read_text(encoding="utf-8")
        document.write_text(with_block(text, findings(summary, study), document.name), encoding="utf-8")


def disagreements(summary: Summary | None, folder: Path = RESULTS, documents: Sequence[Path] = DOCUMENTS) -> list[str]:
    """What stands in `folder` and in the documents and does not follow from the rows, in words."""
    study, found = design.load(), []
    file = folder / SUMMARY
    written = json_files.read_object(file) if file.is_file() else None
    now = None if summary is None else json.loads(json.dumps(summary))
    if written != now:
        found += [f"{file}: {where}" for where in _differing(written, now)]
    if not (folder / "README.md").is_file() or (folder / "README.md").read_text(encoding="utf-8") != page(
        summary, study
    ):
        found.append(f"{folder / 'README.md'}: not the page of these rows")
    for document in documents:
        text = document.read_text(encoding="utf-8")
        if text != with_block(text, findings(summary, study), document.name):
            found.append(f"{document}: the lines of the study are not those of these rows")
    return found


def _differing(written: Any, now: Any, where: str = "") -> list[str]:
    """The keys in which two values differ."""
    if isinstance(written, dict) and isinstance(now, dict):
        return [
            line
            for key in dict.fromkeys([*written, *now])
            for line in _differing(written.get(key), now.get(key), f"{where}.{key}" if where else str(key))
        ]
    if written == now:
        return []
    return [f"{where or 'the whole'}: {json.dumps(written)[:80]} is written, the rows give {json.dumps(now)[:80]}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare what is written with the rows")
    parser.add_argument("--rows", type=Path, default=ROWS, help="folder of rows, such as a dry run's")
    parser.add_argument("--out", type=Path, default=None, help="write here, and leave the documents alone")
    options = parser.parse_args(arguments)
    documents = DOCUMENTS if options.out is None else ()
    folder = options.out or RESULTS
    try:
        summary = load(options.rows)
        if summary is not None and options.out is None and options.rows.resolve() != ROWS:
            raise TltrainError("--rows: with rows of another folder, give --out too")
        if options.check:
            found = disagreements(summary, folder, documents)
            print("\n".join(found) or "Everything agrees with the rows.")
            return int(bool(found))
        write(summary, folder, documents)
    except TltrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(findings(summary, design.load())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
