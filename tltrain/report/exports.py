"""Export the sweep for other programs and for papers: report.md, ablation.csv, ablation.tex."""

from __future__ import annotations

import csv
import io
import re

from tltrain.evaluation.metrics import METRICS
from tltrain.report import grid, publication
from tltrain.report.grid import Table
from tltrain.report.numbers import Numbers
from tltrain.report.pooled import pool
from tltrain.report.sweep import Sweep, axis_value, is_textless, other_axes, switches
from tltrain.report.wording import caveats, finding, set_name, signed, what_was_run
from tltrain.views import tables


def markdown(sweep: Sweep, numbers: Numbers) -> str:
    """Render the report in Markdown: finding, tables of results, errors and costs, failed jobs, command to rerun it."""
    parts = [
        f"# {_line(sweep.name)}\n",
        _line(finding(sweep, numbers)) + "\n",
        _line(what_was_run(sweep, numbers)) + "\n",
    ]
    parts += [f"- {_line(one)}" for one in caveats(sweep, numbers)] + [""]
    parts.append(_markdown("Results", grid.ablation(sweep, numbers)))
    if numbers.comparisons:
        parts.append(
            f"Mean over seeds in % (± standard deviation); difference to {_line(sweep.baseline or '')} in points with "
            "its 95 % interval; **bold**: more than chance (p < 5 % after Holm's correction).\n"
        )
    found = [grid.pooled(sweep), *(grid.errors(sweep, name) for name in numbers.sets)]
    found += [grid.other_scorings(sweep), grid.stages(sweep)]
    parts += [_markdown(table.caption, table) for table in found if table]
    failed = [(row.label, job) for row in sweep.rows for job in row.failed]
    if failed:
        parts.append("## Failed jobs\n")
        parts += [f"- {_line(label)}, seed {job.seed}: {_line(str(job.error))}" for label, job in failed] + [""]
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", sweep.command)), default=0))
    parts += [
        "## Run\n",
        f"{fence}sh\n{sweep.command}\n{fence}\n",
        *([f"{publication.LEGEND}\n"] if is_textless(sweep) else []),
        f"Commit {_line(sweep.commit)}, {_line(sweep.created)}.",
    ]
    parts.append("Versions: " + ", ".join(f"{_line(name)} {_line(str(v))}" for name, v in sweep.versions.items()) + ".")
    return "\n".join(parts) + "\n"


def _line(text: str, limit: int = 1000) -> str:
    """Return `text` as one line of literal Markdown."""
    flat = " ".join(text.split())[:limit]
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", flat)


def _markdown(title: str, table: Table) -> str:
    groups = [label for label, span in table.groups for _ in range(span)] or [""] * len(table.columns)
    heads = [
        _line(f"{group.removesuffix(', %')} {c.label}".strip()) for group, c in zip(groups, table.columns, strict=True)
    ]
    rows = []
    for row in table.rows:
        cells = []
        for cell in row:
            text = _line(" ".join(filter(None, [cell.text, cell.sub and f"({cell.sub})"])))
            cells += [f"**{text}**" if cell.strong else text, *[""] * (cell.span - 1)]
        rows.append(cells)
    return tables.markdown(_line(title), heads, rows)


def comma_separated(sweep: Sweep, numbers: Numbers) -> str:
    """Return one CSV line per row: its axes and name, then mean, spread, difference, interval and p by set and level.

    With several sets, columns `mean_`... hold the pooled numbers (`tltrain.report.pooled`).
    """
    out = io.StringIO()
    keys = [(name, level) for name, levels in numbers.sets.items() for level in levels]
    axes = [axis for axis in sweep.axes if axis != "seed"]
    statistics = ("", "_std", "_difference", "_low", "_high", "_p_holm")
    writer = csv.writer(out, lineterminator="\n")
    heads = [f"{name}_{level}{what}" for name, level in keys for what in statistics]
    overall = pool(sweep)
    several = len(overall.n) > 1
    heads += [f"mean{what}" for what in statistics] if several else []
    writer.writerow(map(spreadsheet_cell, [*axes, "name", *heads, "seeds", "failed", "error"]))
    for i, row in enumerate(sweep.rows):
        cells: list[object] = []
        found_in = [(numbers.summaries.get((i, *key)), numbers.comparisons.get((i, *key))) for key in keys]
        found_in += [(overall.summaries.get(i), overall.comparisons.get(i))] if several else []
        for summary, found in found_in:
            cells += [summary and _digits(summary.mean), summary and _digits(summary.std)]
            cells += [_digits(v) for v in (found.value, found.low, found.high)] if found else [None] * 3
            cells.append(f"{found.p_holm:.4f}" if found else None)
        why = " · ".join(dict.fromkeys(" ".join(str(job.error).split()) for job in row.failed))
        values = [axis_value(row.axes[axis]) if axis in row.axes else "" for axis in axes]
        writer.writerow(map(spreadsheet_cell, [*values, row.label, *cells, len(row.finished), len(row.failed), why]))
    return out.getvalue()


_FORMULA = re.compile(r"[=+\-@\t＝＋－＠]")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?|[-+]?(inf|nan)")


def spreadsheet_cell(value: object) -> object:
    """Return a cell that a spreadsheet does not compute: text that begins like a formula gets a leading apostrophe.

    Numbers are unchanged, so other programs can read them. The characters are those that OWASP lists for CSV
    injection.
    """
    if not isinstance(value, str):
        return value
    text = re.sub(r"[\r\n]+", " ", value)  # the csv module leaves a lone carriage return unquoted, which ends a row
    return f"'{text}" if _FORMULA.match(text.lstrip(" ")) and not _NUMBER.fullmatch(text) else text


def _digits(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


SPECIAL = {
    **{c: "\\" + c for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
}


def _tex(text: str) -> str:
    return "".join(SPECIAL.get(c, c) for c in " ".join(text.split()))


def latex(sweep: Sweep, numbers: Numbers) -> str:
    """Return a LaTeX table: booktabs, check marks, differences in small type, significant ones in bold."""
    on_or_off = switches(sweep)
    others = [axis for axis in other_axes(sweep) if axis != "seed"]
    sets = numbers.sets
    width = sum(map(len, sets.values()))
    start = 1 + len(on_or_off) + len(others)
    spans, rules, column = [], [], start + 1
    for name, levels in sets.items():
        spans.append(rf"\multicolumn{{{len(levels)}}}{{c}}{{{_tex(set_name(name))}}}")
        rules.append(rf"\cmidrule(lr){{{column}-{column + len(levels) - 1}}}")
        column += len(levels)
    heads = ["", *(_tex(axis.upper()) for axis in on_or_off), *map(_tex, others)]
    lines = [
        f"% {_tex(finding(sweep, numbers))}",
        r"% \usepackage{booktabs,amssymb}",
        rf"\begin{{tabular}}{{l{'c' * len(on_or_off)}{'l' * len(others)}{'r' * width}}}",
        r"\toprule",
        f"{'& ' * start}{' & '.join(spans)} \\\\" if spans else "",
        "".join(rules),
        " & ".join([*heads, *(METRICS[level].name for levels in sets.values() for level in levels)]) + r" \\",
        r"\midrule",
    ]
    for i, row in enumerate(sweep.rows):
        cells = [_tex(row.label)]
        cells += [r"\checkmark" if row.axes.get(axis) is True else "" for axis in on_or_off]
        cells += [_tex(axis_value(row.axes.get(axis))) for axis in others]
        if row.finished:
            cells += [_tex_cell(numbers, (i, name, level)) for name, levels in sets.items() for level in levels]
        elif width:
            cells.append(rf"\multicolumn{{{width}}}{{l}}{{failed}}")
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*filter(None, lines), r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex_cell(numbers: Numbers, key: tuple[int, str, str]) -> str:
    summary, found = numbers.summaries.get(key), numbers.comparisons.get(key)
    if summary is None:
        return "--"
    text = f"{summary.mean:.1f}" + (rf" {{\scriptsize $\pm${summary.std:.1f}}}" if summary.std is not None else "")
    if found is None:
        return text
    text = rf"\textbf{{{text}}}" if found.beyond_chance else text
    return rf"{text} {{\scriptsize ({_tex(signed(found.value))})}}"
