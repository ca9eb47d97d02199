"""A sweep's report on disk: report.html, report.md, ablation.csv, ablation.tex."""

from __future__ import annotations

from pathlib import Path

from tltrain.report import exports, page
from tltrain.report.numbers import derive
from tltrain.report.sweep import Sweep
from tltrain.runtime import runs


def write_report(sweep: Sweep, folder: Path) -> Path:
    """Leave the four files in `folder`, each whole or not at all; returns the page, which is written last.

    All of them are made before the first is written, so that what cannot be shown leaves an earlier report alone.
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
