"""Terminal output: progress bars (plain lines if the output is not a terminal), status and tables."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tltrain.runtime import redact

T = TypeVar("T")


def silence() -> None:
    """Silence this process: of several processes only rank 0 prints."""
    console.quiet = errors.quiet = True
    logging.getLogger().addHandler(logging.NullHandler())  # without a handler Python prints warnings to standard error


console = Console(highlight=False, soft_wrap=True, emoji=False)
"""Standard output: results."""
errors = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
"""Standard error: progress and errors, so that results can be piped."""


class LogFile(logging.FileHandler):
    """The run's log file. A failure to write it (a full disk) neither ends the run nor hides the original error."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore the error: logging's default would print a traceback for each line."""


class Handler(logging.Handler):
    """Log to the terminal, above any running progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else None
        errors.print(self.format(record), style=style, markup=False)


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show a progress bar; yield `advance(steps=1, note="")`. Without a terminal, print a line every 10 seconds.

    A bar inside another one is not shown.
    """
    if _showing:
        yield lambda steps=1, note=None: None
        return
    _showing.append(description)
    try:
        with _shown_progress(description, total) as advance:
            yield advance
    finally:
        _showing.pop()


_showing: list[str] = []


@contextmanager
def _shown_progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    if not errors.is_terminal:
        with _plain_progress(description, total) as advance:
            yield advance
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task(description, total=total, note="")

        def advance(steps: int = 1, note: str | None = None) -> None:
            bar.update(task, advance=steps)
            if note is not None:
                bar.update(task, note=note)

        yield advance


@contextmanager
def _plain_progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    done, start, last = 0, time.monotonic(), time.monotonic()

    def advance(steps: int = 1, note: str | None = None) -> None:
        nonlocal done, last
        done += steps
        if time.monotonic() - last > 10:
            last = time.monotonic()
            errors.print(f"{description}: {done}/{total or '?'} {note or ''}".rstrip(), markup=False)

    yield advance
    if time.monotonic() - start > 2:
        errors.print(f"{description}: done in {time.monotonic() - start:.0f} s", markup=False)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, with a progress bar."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(description, total) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def status(description: str) -> Iterator[None]:
    """Show a spinner for work of unknown length (loading libraries, reading weights)."""
    if not errors.is_terminal:
        with _plain_progress(description, None):
            yield
        return
    with errors.status(Text(description)):
        yield


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table, the first column aligned left, the others right."""
    grid = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        grid.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        # No markup, since a cell may contain text from the data. Masked here, since a cell may be wrapped.
        grid.add_row(*(Text(redact.known(str(cell))) for cell in row))
    wide = Console(width=None if console.is_terminal else 160, highlight=False, file=sys.stdout)
    wide.quiet = console.quiet
    wide.print(grid)
