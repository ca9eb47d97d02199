"""Write a sweep's report to disk: report.html, report.md, ablation.csv, ablation.tex."""

from __future__ import annotations

from pathlib import Path

from tltrain.report import exports, page
from tltrain.report.numbers import derive
from tltrain.report.sweep import Sweep
from tltrain.runtime import runs


def write_report(sweep: Sweep, folder: Path) -> Path:
    """Write the four files atomically to `folder` and return the path of the page, which is written last.

    All of them are rendered before the first is written, so that an error leaves an earlier report intact.
    """
    numbers = derive(sweep)
    files = {
        "ablation.csv": exports.comma_separated(sweep, numbers),
        "ablation.tex": exports.latex(sweep, numbers),
        "report.md": exports.markdown(sweep, numbers),
        "report.html": page.render(sweep, numbers),
    }
    for name, text in files.items():
        with runs.writing(folder / name) as file:
            file.write(text)
    return folder / "report.html"
