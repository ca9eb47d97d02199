"""Charts of the report as inline SVG: drawn by matplotlib, coloured by the page's style sheet.

We use matplotlib instead of a JavaScript charting library: it is already a dependency, and a chart takes 5 to 20 kB
instead of megabytes of library, needs no script and no `eval`, and can be printed. The style sheet does what a reader
wants from a chart (highlight a row, switch between light and dark): every line has its row's number (`data-series`),
and every colour is a variable of the style sheet. Text stays text, so it scales and can be searched and read aloud.
"""

from __future__ import annotations

import html
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# Placeholder colours that stand for variables of the style sheet; nothing else may use them.
INK, GRID, MUTED, SURFACE = "#0000f0", "#0000f1", "#0000f2", "#0000f3"
BETTER, WORSE = "#0000f4", "#0000f5"
SERIES = tuple(f"#0000a{number}" for number in range(8))
SHADES = tuple(f"#0000b{number:x}" for number in range(12))
VARIABLES = {
    **{INK: "--ink", GRID: "--grid", MUTED: "--muted", SURFACE: "--surface", BETTER: "--better", WORSE: "--worse"},
    **{colour: f"--s{number}" for number, colour in enumerate(SERIES)},
    **{colour: f"--k{number}" for number, colour in enumerate(SHADES)},
}
DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))
HATCHES = (
    "",
    "//",
    "\\\\",
    "",
    "||",
    "--",
    "",
    "xx",
    "//",
    "",
    "--",
    "\\\\",
)
"""Only line patterns: each dot of a pattern costs 400 bytes."""
SIZE = (400, 240)  # user units; text of size 12 stays readable on a phone, which is 320 pixels wide
FONT = 12

STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tltrain",  # the same chart always gives the same text
    "text.parse_math": False,  # a `$` in a label is literal
    "font.size": FONT,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "figure.facecolor": "none",
    "hatch.linewidth": 0.7,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line's points, the band around it, and the number of the row that it shows."""

    series: int
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Dot:
    """A value and the ends of its interval."""

    label: str
    value: float
    low: float
    high: float
    emphasised: bool


def line_chart(
    name: str,
    title: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    ticks: Sequence[str] | None = None,
) -> str:
    """Draw lines with bands; `ticks` labels the positions 0, 1, ... of a categorical axis."""
    with _drawing(SIZE) as (figure, axes):
        for line in lines:
            colour, dash = SERIES[line.series % len(SERIES)], DASHES[line.series // 2 % len(DASHES)]
            if line.low is not None and line.high is not None and any(map(float.__ne__, line.low, line.high)):
                band = axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
                band.set_gid(f"series-{line.series}")
            (drawn,) = axes.plot(line.x, line.y, color=colour, linestyle=dash, linewidth=1.8, solid_capstyle="round")
            drawn.set_gid(f"series-{line.series}")
            if ticks or len(line.x) == 1:
                drawn.set(marker="osD^vPX*"[line.series % 8], markersize=4.5)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.margins(x=0.02 if ticks is None else 0.06)
        if ticks is not None:
            axes.set_xticks(range(len(ticks)), [_clean(tick) for tick in ticks])
        return _svg(figure, name, title)


def interval_chart(name: str, title: str, dots: Sequence[Dot], x_label: str) -> str:
    """Draw differences with their intervals around zero; significant ones are filled and coloured by sign."""
    with _drawing((SIZE[0], 62 + 24 * len(dots))) as (figure, axes):
        axes.axvline(0, color=MUTED, linewidth=1.2)
        for y, dot in enumerate(dots):
            colour = MUTED if not dot.emphasised else BETTER if dot.value > 0 else WORSE
            axes.plot([dot.low, dot.high], [y, y], color=colour, linewidth=2.6 if dot.emphasised else 1.6)
            face = colour if dot.emphasised else SURFACE
            axes.plot([dot.value], [y], "o", color=colour, markerfacecolor=face, markersize=6.5, markeredgewidth=1.6)
        axes.set_yticks(range(len(dots)), [_clean(dot.label) for dot in dots], color=INK)
        axes.set_ylim(len(dots) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=x_label)
        return _svg(figure, name, title)


def bar_chart(
    name: str,
    title: str,
    labels: Sequence[str],
    parts: Mapping[str, Sequence[float]],
    x_label: str,
    shades: Sequence[int],
    ghosts: Sequence[float] | None = None,
) -> str:
    """Draw stacked horizontal bars, each part in a colour of SHADES; `ghosts` outlines saved amounts at the end."""
    with _drawing((SIZE[0], 62 + 24 * len(labels))) as (figure, axes):
        left = [0.0] * len(labels)
        for shade, values in zip(shades, parts.values(), strict=True):
            axes.barh(
                range(len(labels)),
                values,
                left=left,
                height=0.72,
                color=SHADES[shade % len(SHADES)],
                hatch=HATCHES[shade % len(HATCHES)],
                edgecolor=SURFACE,
                linewidth=0.8,
                gid=f"part-{shade}",
            )
            left = [start + value for start, value in zip(left, values, strict=True)]
        if ghosts is not None and any(ghosts):
            bars = range(len(labels))
            axes.barh(bars, ghosts, left=left, height=0.68, color="none", edgecolor=MUTED, linestyle=(0, (3, 2)))
        axes.set_yticks(range(len(labels)), [_clean(label) for label in labels], color=INK)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0)
        axes.set(xlabel=x_label)
        return _svg(figure, name, title)


@contextmanager
def _drawing(size: tuple[int, int]) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure of `size` user units. It does not belong to pyplot, so it need not be closed."""
    width, height = size
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that matplotlib's font lacks: the reader's font has them
        log.setLevel(logging.ERROR)
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()
        log.setLevel(level)


def _clean(label: str, limit: int = 34) -> str:
    """Make a label safe to measure and write: no control characters, no lone surrogates, at most `limit` characters."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in label)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _svg(figure: Figure, name: str, title: str) -> str:
    """Return the figure as an SVG element with unique ids (a page has several) and with variables as colours."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' id="(series|part)-(\d+)"', r' data-\1="\2"', text)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'fill="(#0000[abf][0-9a-f])"', r'style="fill: \1"', text)
    text = re.sub(r"#0000[abf][0-9a-f]", lambda m: f"var({VARIABLES[m[0]]})" if m[0] in VARIABLES else m[0], text)
    text = re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r' transform="rotate\(-?0 [^"]*"', "", text)
    box = re.search(r'viewBox="[^"]*"', text)
    label = html.escape(_clean(title, 200))
    head = f'<svg {box[0] if box else ""} role="img" aria-label="{label}">'
    return head + re.sub(r"\s*\n\s*", "\n", text[text.index(">") + 1 :]).strip()
