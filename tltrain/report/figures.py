"""Charts of a sweep, each with a table of its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from tltrain.evaluation.metrics import METRICS
from tltrain.grading import RewardTable
from tltrain.report import charts, grid
from tltrain.report import numbers as num
from tltrain.report.charts import DASHES, SERIES, Dot, Line
from tltrain.report.grid import Cell, Table, plain
from tltrain.report.numbers import Numbers
from tltrain.report.sweep import Row, Sweep
from tltrain.report.wording import interval, listed, p_value, set_name, signed
from tltrain.runtime.durations import duration

POINTS = 40  # maximum points of a curve; with more steps, each point is a mean over several
TABLE_POINTS = 12
CURVES = {
    "train/loss": ("Training loss", "nats per target token"),
    "train/key_token_loss": ("Loss on key tokens", "nats per key token"),
    "irm/reward": ("Reward in IRM", "mean reward of sampled calls"),
    "irm/kl": ("KL to the reference model in IRM, per response (RLOO, GRPO: per token)", "nats"),
}
ROBUSTNESS = ("clean", "slight", "medium", "heavy", "union")


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend: the line's number, its label and how it is drawn."""

    series: int
    label: str
    colour: str
    dashes: str


@dataclass(frozen=True, slots=True)
class Chart:
    name: str
    title: str
    note: str
    svg: str
    table: Table
    legend: list[Key] = field(default_factory=list)
    shades: list[tuple[int, str]] = field(default_factory=list)


def curves(sweep: Sweep) -> list[Chart]:
    """Draw a chart for each curve that any job has; rows with identical curves (a shared stage) share a line."""
    names = dict.fromkeys(name for row in sweep.rows for job in row.finished for name in job.curves)
    known = [name for name in CURVES if name in names]
    return [
        chart for name in [*known, *sorted(names.keys() - set(known))] if (chart := _curve(sweep, name)) is not None
    ]


def _curve(sweep: Sweep, name: str) -> Chart | None:
    shared: dict[str, list[int]] = {}
    for i, row in enumerate(sweep.rows):
        points = [job.curves[name] for job in row.finished if job.curves.get(name)]
        if points:
            shared.setdefault(repr(points), []).append(i)
    firsts = [rows[0] for rows in shared.values()]
    means = {row: found for row in firsts if (found := _mean_curve(sweep.rows[row], name)) is not None}
    if not means:
        return None
    title, unit = CURVES.get(name, (name, ""))
    lines = [Line(row, *(part.tolist() for part in found[:4])) for row, found in means.items()]
    slug = name.replace("/", "-")
    labels = {rows[0]: listed(sweep.rows[row].label for row in rows) for rows in shared.values()}
    width = max(found[4] for found in means.values())
    note = [f"each point is the mean of {width} steps"] if width > 1 else []
    if any(len(row.finished) > 1 for row in sweep.rows):
        note.append("line: mean over seeds; band: lowest to highest seed")
    if any(len(rows) > 1 for rows in shared.values()):
        note.append("rows that share a training run share a line")
    table = _curve_table(slug, title, means, labels)
    svg = charts.line_chart(
        slug, f"{title} over optimizer steps; the numbers are in the table below", lines, "optimizer step", unit
    )
    text = "; ".join(note)
    return Chart(slug, title, text[:1].upper() + text[1:], svg, table, [key(row, labels[row]) for row in means])


def _mean_curve(row: Row, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int] | None:
    """Return steps, mean, lowest and highest over one row's seeds, and the number of steps averaged in a point."""
    seeds = []
    for job in row.finished:
        points = np.array(job.curves.get(name, []), dtype=float).reshape(-1, 2)
        points = points[np.isfinite(points).all(axis=1)]
        if len(points):
            seeds.append(points)
    if not seeds:
        return None
    width = -(-max(map(len, seeds)) // POINTS)
    parts = [[points[i : i + width].mean(axis=0) for i in range(0, len(points), width)] for points in seeds]
    steps = np.array(parts[0])[:, 0]
    values = np.stack([np.interp(steps, np.array(part)[:, 0], np.array(part)[:, 1]) for part in parts])
    return steps, values.mean(axis=0), values.min(axis=0), values.max(axis=0), width


def _curve_table(slug: str, title: str, means: Mapping[int, tuple], labels: Mapping[int, str]) -> Table:
    """Tabulate evenly spaced points of each line, including the last one."""
    steps = next(iter(means.values()))[0]
    chosen = sorted({round(i) for i in np.linspace(0, len(steps) - 1, TABLE_POINTS)})
    rows = [
        [
            Cell(f"{steps[i]:.0f}", float(steps[i])),
            *(grid.number(float(np.interp(steps[i], x, y)), 3) for x, y, *_ in means.values()),
        ]
        for i in chosen
    ]
    return plain(f"table-{slug}", title, ["step", *(labels[row] for row in means)], rows)


def key(series: int, label: str) -> Key:
    """Return a line's legend entry, styled as `charts.line_chart` draws the line."""
    dash = DASHES[series // 2 % len(DASHES)]
    dashes = "" if isinstance(dash, str) else " ".join(str(1.8 * length) for length in dash[1])
    return Key(series, label, f"--s{series % len(SERIES)}", dashes)


def differences(sweep: Sweep, numbers: Numbers) -> list[Chart]:
    """For each set, chart every row's difference to the baseline at the set's main level, with intervals."""
    found = []
    for name in numbers.sets:
        level = METRICS[numbers.main(name)]
        rows = {i: one for i in range(len(sweep.rows)) if (one := numbers.comparisons.get((i, name, level.key)))}
        if not rows:
            continue
        sign = -1 if level.lower_is_better else 1
        dots = [
            Dot(
                sweep.rows[i].label,
                sign * one.value,
                min(sign * one.low, sign * one.high),
                max(sign * one.low, sign * one.high),
                one.beyond_chance,
            )
            for i, one in rows.items()
        ]
        title = f"{level.name} on {set_name(name)} minus {sweep.baseline}"
        table = plain(
            f"table-difference-{name}",
            title,
            ["Row", "difference", "95 % interval", "p", "p, Holm", "seeds", "samples"],
            [
                [
                    Cell(sweep.rows[i].label, i),
                    Cell(signed(one.value), one.value, strong=one.beyond_chance),
                    Cell(interval(one), one.low),
                    Cell(p_value(one.p, 4), one.p),
                    Cell(p_value(one.p_holm, 4), one.p_holm),
                    Cell(str(one.seeds), one.seeds),
                    Cell(str(one.n), one.n),
                ]
                for i, one in rows.items()
            ],
        )
        label = "points" + (" fewer (better: right)" if level.lower_is_better else "")
        svg = charts.interval_chart(f"difference-{name}", title + ", with 95 % intervals", dots, label)
        found.append(Chart(f"difference-{name}", title, "Filled: more than chance", svg, table))
    return found


def robustness(sweep: Sweep, numbers: Numbers) -> list[Chart]:
    """Chart TS, PI and CF over RoTBench's noise levels if at least two of them were evaluated."""
    charts_ = []
    for prefix in ("rotbench_", "rotbench_third_"):
        levels = [level for level in ROBUSTNESS if prefix + level in numbers.sets]
        if len(levels) < 2:
            continue
        for metric in ("ts", "pi", "cf"):
            charts_.append(_robustness(sweep, numbers, prefix, levels, metric))
    return charts_


def _robustness(sweep: Sweep, numbers: Numbers, prefix: str, levels: Sequence[str], metric: str) -> Chart:
    lines, rows = [], []
    for i, row in enumerate(sweep.rows):
        found = [numbers.summaries.get((i, prefix + level, metric)) for level in levels]
        here = [(x, one.mean) for x, one in enumerate(found) if one is not None]
        if here:
            lines.append(Line(i, *zip(*here, strict=True)))
        rows.append([Cell(row.label, i), *(grid.number(one.mean if one else None) for one in found)])
    slug = f"{prefix}{metric}".replace("_", "-")
    title = f"{METRICS[metric].name} by level of noise" + (", third turn" if "third" in prefix else "")
    svg = charts.line_chart(slug, title, lines, "RoTBench's noise", "% of samples", ticks=levels)
    legend = [key(line.series, sweep.rows[line.series].label) for line in lines]
    return Chart(slug, title, "Mean over seeds", svg, plain(f"table-{slug}", title, ["Row", *levels], rows), legend)


def error_bars(sweep: Sweep, name: str) -> Chart | None:
    """Chart the shares of calls by kind of error, one bar per row."""
    table = grid.errors(sweep, name)
    if table is None:
        return None
    counted = [(row.label, num.error_kinds(row, name)) for row in sweep.rows]
    counted = [(label, found) for label, found in counted if sum(found.values())]
    kinds = [row.name for row in fields(RewardTable) if any(found.get(row.name) for _, found in counted)]
    parts = {kind: [100 * found.get(kind, 0) / sum(found.values()) for _, found in counted] for kind in kinds}
    shades = [KIND_SHADES[kind] for kind in kinds]
    title = f"Calls on {set_name(name)}"
    svg = charts.bar_chart(
        f"errors-{name}", f"{title} by kind of error", [label for label, _ in counted], parts, "% of calls", shades
    )
    legend = [(shade, kind.replace("_", " ")) for shade, kind in zip(shades, kinds, strict=True)]
    return Chart(f"errors-{name}", title, "", svg, table, shades=legend)


_KINDS = [row.name for row in fields(RewardTable)]
for _later in ("words_before_call", "missing_call"):  # later kinds, which leave the others their shades
    _KINDS.append(_KINDS.pop(_KINDS.index(_later)))
KIND_SHADES = {kind: shade for shade, kind in enumerate(_KINDS)}
STAGE_SHADES = {"data": 9, "mae": 4, "sft": 3, "pkt": 5, "irm": 7, "eval": 8}


def cost_bars(sweep: Sweep) -> Chart | None:
    """Chart the time of each row's stages over its seeds: the time spent and, outlined, the time the cache saved."""
    rows = [row for row in sweep.rows if any(job.stages for job in row.seeds)]
    if not rows:
        return None
    names = list(dict.fromkeys(stage.name for row in rows for job in row.seeds for stage in job.stages))
    names.sort(key=grid.stage_order)

    def seconds(row: Row, wanted: str | None, reused: bool) -> float:
        stages = [stage for job in row.seeds for stage in job.stages]
        return sum(s.seconds for s in stages if s.reused == reused and wanted in (None, s.name))

    parts = {name: [seconds(row, name, False) for row in rows] for name in names}
    saved = [seconds(row, None, True) for row in rows]
    longest = max((sum(values) for values in zip(*parts.values(), saved, strict=True)), default=0)
    unit, scale = ("hours", 3600) if longest > 7200 else ("minutes", 60) if longest > 180 else ("seconds", 1)
    scaled = {name: [value / scale for value in values] for name, values in parts.items()}
    shades = [STAGE_SHADES.get(name, i) for i, name in enumerate(names)]
    labels = [row.label for row in rows]
    svg = charts.bar_chart(
        "cost", "Time by row and stage", labels, scaled, unit, shades, [value / scale for value in saved]
    )
    table = plain(
        "table-cost",
        "Time by row and stage",
        ["Row", *names, "spent", "saved by the cache"],
        [
            [
                Cell(row.label, i),
                *(Cell(duration(parts[name][i]), parts[name][i]) for name in names),
                Cell(duration(seconds(row, None, False)), seconds(row, None, False)),
                Cell(duration(saved[i]), saved[i]),
            ]
            for i, row in enumerate(rows)
        ],
    )
    note = "All seeds of a row together. Outlined: time of stages that another row had already built"
    return Chart("cost", "Time by row", note, svg, table, shades=list(zip(shades, names, strict=True)))
