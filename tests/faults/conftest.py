"""The table of figures at the end of `make test-faults`."""

from __future__ import annotations

import pytest

TABLES: dict[str, list[dict[str, object]]] = {}
"""Title -> rows; filled by the long tests."""


@pytest.fixture
def figures():
    """`figures(title, column=value, ...)` adds a row to a table that is shown at the end."""
    return lambda title, **row: TABLES.setdefault(title, []).append(row)


def pytest_terminal_summary(terminalreporter):
    for title, rows in TABLES.items():
        columns = list(rows[0])
        cells = [columns, *([str(row[column]) for column in columns] for row in rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
        terminalreporter.write_line(f"\n{title}")
        for number, line in enumerate(cells):
            if number == 1:
                terminalreporter.write_line("| " + " | ".join("-" * width for width in widths) + " |")
            row = " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            terminalreporter.write_line(f"| {row} |")
