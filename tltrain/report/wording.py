"""Put the report's numbers and names into words, and its main finding into a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from tltrain.evaluation.intervals import Difference
from tltrain.evaluation.metrics import METRICS
from tltrain.report.numbers import Key, Numbers
from tltrain.report.sweep import Sweep
from tltrain.runtime.shares import share

MINUS = "\N{MINUS SIGN}"
NAMES = {"rotbench": "RoTBench", "toolalpaca": "ToolAlpaca", "tooleyes": "ToolEyes", "bfcl": "BFCL"}


def set_name(name: str) -> str:
    """Format `rotbench_clean` as `RoTBench clean`."""
    first, _, rest = name.partition("_")
    return f"{NAMES.get(first, first)} {rest.replace('_', ' ')}".strip()


def signed(value: float, digits: int = 1) -> str:
    """Format a number with its sign, `+4.8`, `−0.3` or `±0.0`, so that colour is not the only cue."""
    text = f"{abs(value):.{digits}f}"
    return ("±" if not float(text) else "+" if value > 0 else MINUS) + text


def interval(found: Difference) -> str:
    """Format the ends of an interval: `[+1.2, +8.5]`."""
    return f"[{signed(found.low)}, {signed(found.high)}]"


def p_value(p: float, digits: int = 3) -> str:
    """Format a p-value: `0.041`, or `< 0.001` where rounding would make 0 of it."""
    least = 10**-digits
    return f"{p:.{digits}f}" if p >= least else f"< {least:.{digits}f}"


def quantity(value: float | None, unit: str = "", base: int = 1000) -> str:
    """Format a large number as `1.24 M` or `412 k`; with `base=1024`, format bytes as `1.4 GiB`."""
    if value is None:
        return "–"
    prefixes = ("", "k", "M", "G", "T") if base == 1000 else ("", "Ki", "Mi", "Gi", "Ti")
    power = 0
    while abs(value) >= base and power < len(prefixes) - 1:
        value, power = value / base, power + 1
    return (
        f"{value:.{0 if abs(value) >= 100 else 3}{'f' if abs(value) >= 100 else 'g'}} {prefixes[power]}{unit}".strip()
    )


def moment(text: str) -> str:
    """Format an ISO 8601 time for readers; other text is returned unchanged."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{when:%Y-%m-%d %H:%M} {when.tzname() or ''}".strip()


def plural(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(words: Iterable[str]) -> str:
    """Join words as `a`, `a and b` or `a, b and c`."""
    words = list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def better(key: Key, found: Difference) -> bool:
    """Return whether the difference is an improvement."""
    return (found.value > 0) != METRICS[key[2]].lower_is_better


def what_was_run(sweep: Sweep, numbers: Numbers) -> str:
    """Describe rows, seeds and benchmarks in one sentence."""
    jobs = [job for row in sweep.rows for job in row.seeds]
    seeds = len({job.seed for job in jobs})
    where = listed(f"{set_name(name)} ({plural(n, 'sample')})" for name, n in numbers.n.items())
    failed = sum(job.error is not None for job in jobs)
    text = f"{plural(len(sweep.rows), 'row')} × {plural(seeds, 'seed')}" + (f" on {where}" if where else "")
    return f"{text}. " + (f"{failed} of {plural(len(jobs), 'job')} failed." if failed else "Every job finished.")


def finding(sweep: Sweep, numbers: Numbers) -> str:
    """State the sweep's main finding, computed from its numbers; it claims only significant differences."""
    if not numbers.sets:
        return "No job has a result."
    if sweep.baseline is None or sweep.baseline_row is None:
        return f"{_highest(sweep, numbers)} There is no baseline row, so no difference is tested."
    if not numbers.comparisons:
        return f"{sweep.baseline} cannot be compared with any row: they share no samples and seeds."
    nothing = _nothing_right(numbers)
    if set(nothing) == set(numbers.sets):
        return f"No row answered anything right on {listed(map(set_name, nothing))}: there is nothing to compare."
    real = {key: found for key, found in numbers.comparisons.items() if found.beyond_chance}
    said = _with_differences(sweep, numbers, sweep.baseline_row, real) if real else _without(sweep, numbers)
    return f"{said} No row answered anything right on {listed(map(set_name, nothing))}." if nothing else said


def _nothing_right(numbers: Numbers) -> list[str]:
    """Return the sets on which no row has a right answer, at any level that counts right answers."""
    most: dict[str, float] = {}
    for (_, name, level), summary in numbers.summaries.items():
        if not METRICS[level].lower_is_better:
            most[name] = max(most.get(name, 0.0), *summary.values)
    return [name for name in numbers.sets if most.get(name) == 0]


def _with_differences(sweep: Sweep, numbers: Numbers, baseline: int, real: Mapping[Key, Difference]) -> str:
    """Describe the largest difference, preferably at a set's main level, and count all those that the table marks."""
    main = {key for key in real if key[2] == numbers.main(key[1])}
    key = max(main or real, key=lambda one: (better(one, real[one]), abs(real[one].value)))
    found, (row, name, level) = real[key], key
    base = numbers.summaries[baseline, name, level]
    verb = "gains most over" if better(key, found) else "falls furthest behind"
    above = sum(better(one, real[one]) for one in real)
    rows, others = len({one[0] for one in real}), len({one[0] for one in numbers.comparisons})
    return (
        f"{sweep.rows[row].label} {verb} {sweep.baseline}: {METRICS[level].name} on {set_name(name)} goes from "
        f"{base.mean:.1f} to {base.mean + found.value:.1f} % ({signed(found.value)} points, 95 % interval "
        f"{interval(found)}). Of {plural(len(numbers.comparisons), 'difference')} in the table, {len(real)} "
        f"{'is' if len(real) == 1 else 'are'} more than chance: {above or 'none'} for the better and "
        f"{len(real) - above or 'none'} for the worse, in {rows} of {plural(others, 'other row')}."
    )


def _without(sweep: Sweep, numbers: Numbers) -> str:
    main = {key: found for key, found in numbers.comparisons.items() if key[2] == numbers.main(key[1])}
    key = max(main, key=lambda one: abs(main[one].value))
    row, name, _ = key
    levels = listed(dict.fromkeys(METRICS[one[2]].name for one in numbers.comparisons))
    alone = ""
    if main[key].low > 0 or main[key].high < 0:
        alone = f"; with {len(numbers.comparisons)} comparisons that may be chance"
    return (
        f"No row differs from {sweep.baseline} by more than chance in {levels}. The largest difference is "
        f"{sweep.rows[row].label} on {set_name(name)}: {signed(main[key].value)} points, 95 % interval "
        f"{interval(main[key])}{alone}."
    )


def _highest(sweep: Sweep, numbers: Numbers) -> str:
    name = next(iter(numbers.sets))
    level = numbers.main(name)
    means = {i: numbers.summaries.get((i, name, level)) for i in range(len(sweep.rows))}
    found = {i: summary.mean for i, summary in means.items() if summary is not None}
    if not found:
        return ""
    best = (min if METRICS[level].lower_is_better else max)(found, key=found.__getitem__)
    word = "Lowest" if METRICS[level].lower_is_better else "Highest"
    return f"{word} {METRICS[level].name} on {set_name(name)}: {sweep.rows[best].label}, {found[best]:.1f} %."


def caveats(sweep: Sweep, numbers: Numbers) -> list[str]:
    """Return what a reader should know about the reliability of the intervals."""
    notes = []
    seeds = {found.seeds for found in numbers.comparisons.values()}
    if seeds == {1}:
        notes.append("One seed: the intervals are over samples only; another training run may give other results.")
    elif seeds and max(seeds) < 5:
        notes.append(
            f"{max(seeds)} seeds: the spread between training runs is only roughly known, so the intervals (Student's "
            "t) are wide; each further seed narrows them considerably."
        )
    partly = [row.label for row in sweep.rows if row.failed and row.finished]
    if partly:
        notes.append(f"Fewer seeds than the others because jobs failed: {listed(partly)}.")
    return notes + _ended_early(sweep)


def _ended_early(sweep: Sweep) -> list[str]:
    """Count for each row the answers that ended before their call, in one sentence per reason."""
    said = {
        "length": "Answers that were cut at the token limit before a call could be read",
        "content_filter": "Answers that the server's content filter withheld or cut",
        "other": "Answers that the server ended for another reason",
    }
    notes = []
    for reason, words in said.items():
        found = []
        for row in sweep.rows:
            counted = [details.get("finish_reasons") or {} for job in row.finished for details in job.details.values()]
            if count := sum(counts.get(reason, 0) for counts in counted):
                found.append(f"{row.label} {share(count, sum(sum(counts.values()) for counts in counted))}")
        if found:
            notes.append(f"{words}: {listed(found)}.")
    return notes
