"""From rows to results: `experiments/results/study/summary.json`, page, picture, and the lines of the documents.

    python -m experiments.study.analyze            write them all
    python -m experiments.study.analyze --check    say what does not agree with the rows, and end with status 1

Everything is computed from the files in `rows/`. The documents have their lines between two marks, so that no number of
the study stands in them that this module has not written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments.study import design
from experiments.study.design import ROOT, ROWS
from experiments.study.documents import findings, with_study
from experiments.study.page import page
from experiments.study.summary import Summary, load
from tltrain.errors import TltrainError
from tltrain.runtime import json_files, runs

RESULTS = ROOT / "experiments" / "results" / "study"
SUMMARY, PICTURE = "summary.json", "forest.svg"
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "results.md")


def write(
    summary: Summary | None,
    folder: Path = RESULTS,
    documents: Sequence[Path] = DOCUMENTS,
    tuned: Mapping[str, Any] | None = None,
) -> None:
    """Write summary, page and picture, and the lines of the documents."""
    study = design.load()
    folder.mkdir(parents=True, exist_ok=True)
    if summary is not None:
        from experiments.study import forest

        runs.write_json(folder / SUMMARY, summary)
        forest.draw(summary, study, folder / PICTURE)
    (folder / "README.md").write_text(page(summary, study, tuned), encoding="utf-8")
    for document in documents:
        document.write_text(_written(document, summary, study, folder), encoding="utf-8")


def disagreements(
    summary: Summary | None,
    folder: Path = RESULTS,
    documents: Sequence[Path] = DOCUMENTS,
    tuned: Mapping[str, Any] | None = None,
) -> list[str]:
    """What stands in `folder` and in the documents and does not follow from the rows, in words."""
    study, found = design.load(), []
    file = folder / SUMMARY
    written = json_files.read_object(file) if file.is_file() else None
    now = None if summary is None else json.loads(json.dumps(summary))
    if written != now:
        found += [f"{file}: {where}" for where in _differing(written, now)]
    if not (folder / "README.md").is_file() or (folder / "README.md").read_text(encoding="utf-8") != page(
        summary, study, tuned
    ):
        found.append(f"{folder / 'README.md'}: not the page of these rows")
    for document in documents:
        if document.read_text(encoding="utf-8") != _written(document, summary, study, folder):
            found.append(f"{document}: the lines of the study are not those of these rows")
    return found


def tuned_beside(folder: Path = ROWS) -> Mapping[str, Any] | None:
    """The content of `tuned.yaml` beside the folder of rows; None as long as nothing is tuned."""
    file = folder.parent / design.TUNED.name
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None


def _written(document: Path, summary: Summary | None, study: design.Study, folder: Path) -> str:
    """A document's text with the study's lines and its picture, which is in `folder`."""
    picture = os.path.relpath(folder / PICTURE, document.parent).replace(os.sep, "/")
    return with_study(document.read_text(encoding="utf-8"), summary, study, document.name, picture)


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
        summary, tuned = load(options.rows), tuned_beside(options.rows)
        if summary is not None and options.out is None and options.rows.resolve() != ROWS:
            raise TltrainError("--rows: with rows of another folder, give --out too")
        if options.check:
            found = disagreements(summary, folder, documents, tuned)
            print("\n".join(found) or "Everything agrees with the rows.")
            return int(bool(found))
        write(summary, folder, documents, tuned)
    except TltrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(findings(summary, design.load())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
