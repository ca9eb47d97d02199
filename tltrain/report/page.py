"""report.html: a sweep as one self-contained page that opens from disk and makes no network request.

The template escapes everything (Jinja2's autoescape; models' outputs are untrusted text), and the page's own content
security policy allows only our script, by its hash, and no request at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tltrain.evaluation.metrics import METRICS
from tltrain.evaluation.predictions import Prediction
from tltrain.report import figures, grid, samples, wording
from tltrain.report import numbers as num
from tltrain.report.charts import HATCHES
from tltrain.report.grid import Cell, Table
from tltrain.report.numbers import Numbers
from tltrain.report.sweep import Job, Sweep, is_textless
from tltrain.report.wording import plural, set_name
from tltrain.runtime.durations import duration
from tltrain.views import html_page

ASSETS = Path(__file__).parent / "assets"
STATIC_CARDS = 20  # flips shown in the page without JavaScript
FIRST_CARDS = 5  # how many of them are unfolded; page.js first shows this many too
TALL = 40  # a table with more rows scrolls by itself
HATCH_NAMES = {"": "none", "//": "slash", "\\\\": "back", "||": "bars", "--": "lines", "xx": "cross"}
CONFIG = 200_000  # maximum characters shown of the configuration


def render(sweep: Sweep, numbers: Numbers) -> str:
    """Render the page."""
    script = (ASSETS / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return html_page.render(
        ASSETS / "page.html.j2",
        css=(ASSETS / "page.css").read_text(encoding="utf-8"),
        js=script,
        policy=html_page.policy(f"sha256-{digest}"),
        matplotlib_version=version("matplotlib"),
        cell_attributes=cell_attributes,
        extent=extent,
        tall=TALL,
        first=FIRST_CARDS,
        hatches=[HATCH_NAMES[hatch] for hatch in HATCHES],
        **content(sweep, numbers),
    )


def content(sweep: Sweep, numbers: Numbers) -> dict[str, Any]:
    """Return the template's variables."""
    shown: dict[str, Any] = {
        "differences": figures.differences(sweep, numbers),
        "errors": [chart for name in numbers.sets if (chart := figures.error_bars(sweep, name))],
        "robustness": figures.robustness(sweep, numbers),
        "curves": figures.curves(sweep),
        "cost": figures.cost_bars(sweep),
        "flips": flips(sweep, numbers),
    }
    paper = grid.paper_table() if all(method in sweep.axes for method in grid.METHODS) else None
    extra = [grid.pooled(sweep), grid.other_scorings(sweep), paper, *grid.published(numbers)]
    tables = [table for table in extra if table]
    names = {"flips": "Flips", "differences": "Differences", "errors": "Errors", "robustness": "Robustness"}
    names |= {"curves": "Curves", "cost": "Cost"}
    is_there = {key: bool(content) for key, content in shown.items()}
    is_there["differences"] = bool(shown["differences"] or tables)
    levels = dict.fromkeys(level for found in numbers.sets.values() for level in found)
    jobs = [job for row in sweep.rows for job in row.seeds]
    return shown | {
        "sweep": _bounded(sweep),
        "finding": wording.finding(sweep, numbers),
        "what_was_run": wording.what_was_run(sweep, numbers),
        "caveats": wording.caveats(sweep, numbers),
        "sections": [
            ("results", "Results"),
            *((key, label) for key, label in names.items() if is_there[key]),
            ("run", "Run"),
        ],
        "ablation": grid.ablation(sweep, numbers),
        "several_seeds": any(summary.std is not None for summary in numbers.summaries.values()),
        "has_baseline": bool(numbers.comparisons),
        "has_paper": any(grid.paper_levels(sweep, numbers, name) for name in numbers.sets),
        "levels": [METRICS[level] for level in levels],
        "extra_tables": tables,
        "stages": grid.stages(sweep),
        "cache": cache_words(sweep),
        "static": static_flips(sweep, numbers),
        "textless": is_textless(sweep),
        "accepted": accepted(sweep),
        "data": embedded(shown["flips"]),
        "created": wording.moment(sweep.created),
        "run": {"created": wording.moment(sweep.created), "commit": sweep.commit},
        "jobs": grid.jobs(sweep),
        "any_failed": any(job.error is not None for job in jobs),
    }


def _bounded(sweep: Sweep) -> dict[str, Any]:
    """Return the sweep's descriptive texts, cut to a limited length."""
    return {
        "name": samples.cut(sweep.name, 200),
        "command": samples.cut(sweep.command, 10_000),
        "created": sweep.created,
        "baseline": sweep.baseline,
        "config": samples.cut(sweep.config, CONFIG),
        "versions": {key: samples.cut(str(value)) for key, value in sweep.versions.items()},
        "environment": {key: samples.cut(str(value)) for key, value in sweep.environment.items()},
    }


def cache_words(sweep: Sweep) -> str:
    """Describe what the cache saved."""
    built, reused, saved = (sweep.cache.get(key) for key in ("built", "reused", "seconds_saved"))
    if built is None or reused is None:
        return "The sweep has no record of the cache."
    words = f"{plural(int(built), 'stage')} built, {int(reused)} taken from the cache"
    return words + (f", which saved {duration(saved)}." if saved else ".")


# Flips


def pair(sweep: Sweep, numbers: Numbers) -> tuple[int, int] | None:
    """Choose the two rows shown first: the baseline and the row furthest from it, or the first and the last."""
    answered = [i for i, row in enumerate(sweep.rows) if any(job.predictions for job in row.finished)]
    if len(answered) < 2:
        return None
    a = sweep.baseline_row if sweep.baseline_row in answered else answered[0]
    main = {
        key: abs(found.value)
        for key, found in numbers.comparisons.items()
        if key[2] == numbers.main(key[1]) and key[0] in answered
    }
    furthest = max(main, key=main.__getitem__)[0] if main else answered[-1]
    return a, furthest if furthest != a else next(i for i in reversed(answered) if i != a)


def flips(sweep: Sweep, numbers: Numbers) -> dict[str, Any] | None:
    """Return the data that the page's script filters; None if fewer than two rows have answers."""
    rows = pair(sweep, numbers)
    if rows is None:
        return None
    found = samples.flipping_samples(sweep)
    if not found["levels"]:
        return None
    level = _level(numbers)
    found["set_names"] = [set_name(name) for name in found["sets"]]
    found |= {"textless": is_textless(sweep), "accepted": accepted(sweep)}
    return found | {"pair": rows, "level": found["levels"].index(level) if level in found["levels"] else 0}


def _level(numbers: Numbers) -> str:
    return numbers.main(next(iter(numbers.sets))) if numbers.sets else "cf"


def static_flips(sweep: Sweep, numbers: Numbers) -> dict[str, Any]:
    """Return the first flips of the first two rows, for readers without JavaScript."""
    rows = pair(sweep, numbers)
    jobs = _common(sweep, *rows) if rows else None
    if rows is None or jobs is None:
        return {"a": "", "b": "", "cards": [], "words": ""}
    level = _level(numbers)
    found = sorted(num.flips(*jobs, level), key=lambda flip: flip.gained)  # lost ones first
    a, b = (sweep.rows[row].label for row in rows)
    words = f"{plural(len(found), 'sample')} flipped in {level.upper()} from A ({a}) to B ({b}), seed {jobs[0].seed}"
    words += f"; the first {STATIC_CARDS} are shown." if len(found) > STATIC_CARDS else "."
    return {"a": a, "b": b, "words": words, "cards": [_card(flip, level) for flip in found[:STATIC_CARDS]]}


def accepted(sweep: Sweep) -> str:
    """Return the heading of a sample's golden calls."""
    return "Accepted (SHA-256, beginning)" if is_textless(sweep) else "Accepted"


def _common(sweep: Sweep, a: int, b: int) -> tuple[Job, Job] | None:
    """Return the two rows' jobs for the first seed that both have."""
    theirs = {job.seed: job for job in sweep.rows[b].finished}
    return next(((job, theirs[job.seed]) for job in sweep.rows[a].finished if job.seed in theirs), None)


def _card(flip: num.Flip, level: str) -> dict[str, Any]:
    def side(prediction: Prediction) -> dict[str, Any]:
        return {
            "right": prediction.reaches(level),
            "grade": samples.cut(prediction.grade).replace("_", " "),
            "prediction": samples.cut(prediction.answer),
            "reason": samples.cut(prediction.reason),
        }

    return {
        "direction": "gained" if flip.gained else "lost",
        "arrow": "▲" if flip.gained else "▼",
        "set": set_name(flip.name),
        "id": samples.cut(flip.id, 120),
        "question": samples.cut(flip.a.query),
        "goldens": samples.cut(samples.goldens(flip.a)),
        "a": side(flip.a),
        "b": side(flip.b),
    }


def embedded(value: Any) -> str:
    """Encode JSON for a script element: no `<` can close it, and JavaScript sees no character as a line end."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


# How a table and a cell look


def extent(table: Table) -> str:
    """State a table's size and its groups of columns, since a wide table continues out of sight."""
    size = f"{plural(len(table.rows), 'row')}, {plural(len(table.columns), 'column')}"
    groups = [label.removesuffix(", %") for label, _ in table.groups if label]
    return f"{size}: {', '.join(groups)}" if groups else size


def cell_attributes(cell: Cell) -> dict[str, str]:
    """Return the attributes of a cell: its sort key, classes and style."""
    finite = not isinstance(cell.value, float) or math.isfinite(cell.value)
    shaded = ["shaded", "better" if cell.shade > 0 else "worse"] if cell.shade else []
    named = {"strong": cell.strong, "bar": cell.bar is not None, cell.kind: bool(cell.kind)}
    style = (
        f"--d: {abs(cell.shade):.2f}" if cell.shade else f"--b: {100 * cell.bar:.1f}%" if cell.bar is not None else ""
    )
    return {
        "sort": (cell.text if cell.value is None else str(cell.value)) if finite else "",
        "classes": " ".join([*shaded, *(name for name, on in named.items() if on)]),
        "style": style,
    }
