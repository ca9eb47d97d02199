"""Tables of the report as data, rendered by the page, Markdown and LaTeX."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from tltrain.evaluation.metrics import METRICS
from tltrain.grading import RewardTable
from tltrain.report import numbers as num
from tltrain.report.numbers import Numbers
from tltrain.report.pooled import pool
from tltrain.report.sweep import Sweep, axis_value, other_axes, stage_table, switches
from tltrain.report.wording import MINUS, better, interval, listed, p_value, plural, quantity, set_name, signed
from tltrain.runtime.durations import duration
from tltrain.views import tables

FULL_SHADE = 15.0  # difference in points at which shading is strongest


@dataclass(frozen=True, slots=True)
class Column:
    label: str
    title: str = ""
    numeric: bool = True
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        text: the main text.
        value: the sort key; None: the text.
        sub: a smaller second line.
        shade: -1 (much worse) to 1 (much better) than the baseline; None: not shaded.
        strong: whether the difference is significant.
        bar: length of a bar behind the text, 0 to 1.
        span: number of columns that the cell spans.
        kind: its style: "tick", "failed", "paper", "words".
    """

    text: str
    value: float | str | None = None
    sub: str = ""
    shade: float | None = None
    strong: bool = False
    bar: float | None = None
    span: int = 1
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table. `groups`: headings over several columns as (label, count); the first column names the row."""

    name: str
    caption: str
    columns: list[Column]
    rows: list[list[Cell]]
    groups: list[tuple[str, int]] = field(default_factory=list)


def plain(name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], words: int = 1) -> Table:
    """Make a table whose first `words` columns are words and whose other columns are numbers."""
    heads = [Column(label, numeric=number >= words) for number, label in enumerate(columns)]
    return Table(name, caption, heads, [list(row) for row in rows])


def number(value: float | None, digits: int = 1) -> Cell:
    if value is None:
        return Cell("–", float("-inf"))
    return Cell(f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS), value)


# The ablation


def ablation(sweep: Sweep, numbers: Numbers) -> Table:
    """Return a table like the paper's: the axes, then the levels of each benchmark, ours next to the paper's."""
    on_or_off, others = switches(sweep), [axis for axis in other_axes(sweep) if axis != "seed"]
    columns = [Column("Row", numeric=False)]
    columns += [Column(axis.upper() if len(axis) <= 4 else axis, kind="tick") for axis in on_or_off]
    columns += [Column(axis, numeric=False) for axis in others]
    groups = [("", len(columns))]
    for name, levels in numbers.sets.items():
        columns += [Column(METRICS[level].name, METRICS[level].meaning) for level in levels]
        groups.append((f"{set_name(name)}, %", len(levels)))
        theirs = paper_levels(sweep, numbers, name)
        columns += [Column(METRICS[level].name, f"the paper's {METRICS[level].name}") for level in theirs]
        groups += [(f"{set_name(name)}: the paper's", len(theirs))] if theirs else []
    rows = []
    for i, row in enumerate(sweep.rows):
        cells = [Cell(row.label, i, sub=_state(sweep, i))]
        cells += [_tick(row.axes.get(axis)) for axis in on_or_off]
        cells += [Cell(axis_value(row.axes.get(axis)), kind="words") for axis in others]
        if row.finished:
            for name in numbers.sets:
                cells += [_ours(sweep, numbers, (i, name, level)) for level in numbers.sets[name]]
                cells += [_theirs(row.axes, name, level) for level in paper_levels(sweep, numbers, name)]
        elif len(columns) > len(cells):
            why = " · ".join(dict.fromkeys(str(job.error) for job in row.failed)) or "no job of this row has run"
            word = "failed: " if row.failed else ""
            cells.append(Cell(word + why[:300], float("-inf"), span=len(columns) - len(cells), kind="failed"))
        rows.append(cells)
    return Table("ablation", "Mean over seeds", columns, rows, groups)


def _state(sweep: Sweep, i: int) -> str:
    row = sweep.rows[i]
    words = ["baseline"] if i == sweep.baseline_row else []
    if row.failed and row.finished:
        words.append(f"{len(row.failed)} of {plural(len(row.seeds), 'seed')} failed")
    return ", ".join(words)


def _tick(value: object) -> Cell:
    on = value is True
    return Cell("✓" if on else "·", int(on), kind="tick")


def _ours(sweep: Sweep, numbers: Numbers, key: num.Key) -> Cell:
    summary, found = numbers.summaries.get(key), numbers.comparisons.get(key)
    if summary is None:
        return Cell("–", float("-inf"))
    text = f"{summary.mean:.1f}" + (f" ±{summary.std:.1f}" if summary.std is not None else "")
    if found is not None:
        sub = f"{signed(found.value)}\n{interval(found)}"
        distance = abs(found.value) if better(key, found) else -abs(found.value)
        return Cell(text, summary.mean, sub, _shade(distance), found.beyond_chance)
    base = numbers.summaries.get((sweep.baseline_row, *key[1:])) if sweep.baseline_row is not None else None
    if base is None or key[0] == sweep.baseline_row:
        return Cell(text, summary.mean)
    return Cell(text, summary.mean, f"{signed(summary.mean - base.mean)}, no interval")


def _shade(distance: float) -> float:
    return round(max(-1.0, min(1.0, distance / FULL_SHADE)), 3)


def pooled(sweep: Sweep) -> Table | None:
    """Tabulate each row's mean of TS, PI and CF over the single-turn sets; None if there are fewer than two sets."""
    found = pool(sweep)
    if len(found.n) < 2:
        return None
    asked = listed(f"{set_name(name)} ({n:,})" for name, n in found.n.items())
    rows = []
    for i, row in enumerate(sweep.rows):
        summary, difference = found.summaries.get(i), found.comparisons.get(i)
        mean = number(summary.mean if summary else None)
        spread = f" ±{summary.std:.1f}" if summary and summary.std is not None else ""
        cells = [Cell(row.label, i), replace(mean, text=mean.text + spread)]
        if difference is None:
            cells += [Cell("", float("-inf"))] * 3
        else:
            cells += [
                Cell(
                    signed(difference.value),
                    difference.value,
                    shade=_shade(difference.value),
                    strong=difference.beyond_chance,
                ),
                Cell(interval(difference), difference.low),
                Cell(p_value(difference.p_holm), difference.p_holm),
            ]
        rows.append(cells)
    heads = ["Row", "mean, %", "difference", "95 % interval", "p, Holm over rows"]
    title = f"Mean of TS, PI and CF, all sets weighted equally, without questions trained on: {asked}"
    return plain("pooled", title, heads, rows)


# The paper's


def paper_ablation() -> list[dict[str, str]]:
    """Return the rows of the paper's ablation as printed; an empty list if the file does not exist."""
    folder = next((folder for folder in tables.FOLDERS if folder.is_dir()), None)
    if folder is None:
        return []
    with (folder / "ablation.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


METHODS = ("mae", "pkt", "irm")


def paper_row(axes: dict[str, object]) -> dict[str, str] | None:
    """Return the paper's row with the same methods; None if the axes do not determine them."""
    if not all(isinstance(axes.get(method), bool) for method in METHODS):
        return None
    wanted = [axis_value(axes[method]) for method in METHODS]
    return next((row for row in paper_ablation() if [row[method] for method in METHODS] == wanted), None)


def paper_levels(sweep: Sweep, numbers: Numbers, name: str) -> list[str]:
    """Return the levels of a set for which the paper's ablation has numbers on the same number of samples."""
    prefix, n = tables.COLUMNS.get(name, ("", None))
    if numbers.n.get(name) != n or not any(paper_row(row.axes) for row in sweep.rows):
        return []
    columns = paper_ablation()[0]
    return [level for level in numbers.sets[name] if f"{prefix}_{level}" in columns]


def _theirs(axes: dict[str, object], name: str, level: str) -> Cell:
    row = paper_row(axes)
    if row is None:
        return Cell("–", float("-inf"), kind="paper")
    return _paper_cell(row, f"{tables.COLUMNS[name][0]}_{level}", level)


def _paper_cell(row: dict[str, str], column: str, level: str) -> Cell:
    base = paper_ablation()[0]
    difference = float(row[column]) - float(base[column])
    distance = -difference if METRICS[level].lower_is_better else difference
    is_base = row is base or row["name"] == base["name"]
    if is_base:
        return Cell(row[column], float(row[column]), kind="paper")
    return Cell(row[column], float(row[column]), signed(difference, 2), _shade(distance), kind="paper")


def paper_table() -> Table | None:
    """Return the paper's whole ablation, in its layout and with its shading."""
    published = paper_ablation()
    if not published:
        return None
    names = [key for key in published[0] if key not in (*METHODS, "name")]
    columns = [Column("Row", numeric=False), *(Column(method.upper(), kind="tick") for method in METHODS)]
    columns += [Column(METRICS[key.rpartition("_")[2]].name, METRICS[key.rpartition("_")[2]].meaning) for key in names]
    groups = [("", 1 + len(METHODS))]
    for key in names:
        label = set_name(key.rpartition("_")[0]) + ", %"
        groups = [*groups[:-1], (label, groups[-1][1] + 1)] if groups[-1][0] == label else [*groups, (label, 1)]
    rows = [
        [
            Cell(row["name"], i),
            *(_tick(row[method] == "true") for method in METHODS),
            *(_paper_cell(row, key, key.rpartition("_")[2]) for key in names),
        ]
        for i, row in enumerate(published)
    ]
    return Table("paper", "The paper's ablation, CodeLlama-7B", columns, rows, groups)


def published(numbers: Numbers) -> list[Table]:
    """Return all published rows for the sets in this sweep that have as many samples as the paper's."""
    return [
        plain(
            f"published-{name}",
            f"Published on {set_name(name)}, %",
            ["Who", "TS", "PI", "CF"],
            [[Cell(who, i), *(Cell(value, float(value)) for value in values)] for i, (who, *values) in enumerate(rows)],
        )
        for name in numbers.sets
        if (rows := tables.published(name, numbers.n[name]))
    ]


# Errors, other scorings, costs, jobs


def errors(sweep: Sweep, name: str) -> Table | None:
    """Tabulate calls by kind of error, in percent of a row's calls over its seeds, except kinds that never occur."""
    counts = [num.error_kinds(row, name) for row in sweep.rows]
    kinds = list(dict.fromkeys(kind for one in counts for kind, calls in one.items() if calls))
    order = [kind.name for kind in fields(RewardTable)]
    kinds.sort(key=lambda kind: order.index(kind) if kind in order else len(order))
    if not kinds:
        return None
    rows = []
    for i, (row, found) in enumerate(zip(sweep.rows, counts, strict=True)):
        total = sum(found.values())
        shares = [found.get(kind, 0) / total if total else None for kind in kinds]
        rows.append(
            [
                Cell(row.label, i),
                *(
                    Cell("–", -1.0) if share is None else Cell(f"{100 * share:.1f}", share, bar=round(share, 3))
                    for share in shares
                ),
                Cell(f"{total:,}" if total else "–", total),
            ]
        )
    heads = [kind.replace("_", " ") for kind in kinds]
    return plain(f"errors-{name}", f"Calls on {set_name(name)}, % by kind", ["Row", *heads, "calls"], rows)


def other_scorings(sweep: Sweep) -> Table | None:
    """Tabulate the seed means of other metrics: RoTBench's released scoring, all calls of an answer, reward, ..."""
    keys: dict[str, None] = {}
    for row in sweep.rows:
        for job in row.finished:
            for key, value in job.metrics.items():
                name, _, level = key.rpartition("/")
                main = "/" not in name and level in (*METRICS, "n")
                if name and not main and num.is_number(value):
                    keys.setdefault(key)
    if not keys:
        return None
    rows = []
    for i, row in enumerate(sweep.rows):
        values = [[job.metrics[key] for job in row.finished if num.is_number(job.metrics.get(key))] for key in keys]
        rows.append([Cell(row.label, i), *(number(sum(v) / len(v) if v else None, 2) for v in values)])
    heads = [f"{set_name(key.partition('/')[0])} {key.partition('/')[2].replace('/', ' ')}" for key in keys]
    return plain("scorings", "Other scorings, mean over seeds", ["Row", *heads], rows)


STAGES = ("data", "mae", "sft", "pkt", "irm", "eval")


def stage_order(name: str) -> int:
    """Return a stage's position in the pipeline; unknown stages come last."""
    return STAGES.index(name) if name in STAGES else len(STAGES)


def stages(sweep: Sweep) -> Table | None:
    """Tabulate the cost of each kind of stage: how often it was needed and built, and how long it took."""
    by_name: dict[str, list[tuple]] = {}
    for uses in stage_table(sweep.rows).values():
        by_name.setdefault(uses[0].name, []).append((uses[0], len(uses), sum(not use.reused for use in uses)))
    rows = []
    for i, (name, found) in enumerate(sorted(by_name.items(), key=lambda item: stage_order(item[0]))):
        needed, built = sum(n for _, n, _ in found), sum(n for *_, n in found)
        spent = sum(stage.seconds * n for stage, _, n in found)
        saved = sum(stage.seconds * (uses - n) for stage, uses, n in found)
        tokens = sum(stage.tokens or 0 for stage, *_ in found)
        once = sum(stage.seconds for stage, *_ in found)
        memory = max((stage.peak_memory_bytes or 0 for stage, *_ in found), default=0)
        rows.append(
            [
                Cell(name, i),
                Cell(str(needed), needed),
                Cell(str(built), built),
                Cell(str(needed - built), needed - built),
                Cell(duration(spent), spent),
                Cell(duration(saved), saved),
                Cell(quantity(tokens or None), tokens),
                Cell(quantity(tokens / once if tokens and once else None), tokens / once if once else 0),
                Cell(quantity(memory or None, "B", 1024), memory),
            ]
        )
    heads = ["Stage", "needed", "built", "from the cache", "time spent", "time saved"]
    return plain("stages", "Cost by stage", [*heads, "tokens", "tokens/s", "peak memory"], rows) if rows else None


def jobs(sweep: Sweep) -> Table:
    """Tabulate every job with its folder and its outcome."""
    rows = [
        [
            Cell(row.label, i),
            Cell(str(job.seed), job.seed, kind="words"),
            Cell(f"failed: {job.error}", kind="failed") if job.error is not None else Cell("finished", kind="words"),
            Cell(duration(sum(s.seconds for s in job.stages if not s.reused) if job.stages else None), kind="words"),
            Cell(job.folder, kind="words"),
        ]
        for i, row in enumerate(sweep.rows)
        for job in row.seeds
    ]
    return plain("jobs", "Jobs", ["Row", "seed", "state", "time", "folder"], rows, words=5)
