"""Run the command line in this process and keep its output."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from tests.support.typed import settled


@dataclass
class Ran:
    """The result of a command line: exit status, standard output and error, and its run folder."""

    status: int
    out: str
    err: str
    folder: Path

    @property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.folder / "metrics.json").read_text())

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Read a JSON-lines file of the run."""
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]


def command_line(*words: str, folder: Path, cache: Path) -> Ran:
    """Run `python -m tltrain words...` in this process, with the run folder `folder` and base models in `cache`."""
    from hydra.core.global_hydra import GlobalHydra

    from tests.support import composition
    from tltrain import __main__ as entry

    words = tuple(settled(words))
    given = {word.partition("=")[0] for word in words}
    defaults = {
        "tracking": "none",
        **({} if "stage=certify" in words else {"certify": 0}),
        "hardware.threads": 1,
        "cache.dir": cache,
        "hydra.run.dir": f"'{folder}'",
    }
    argv = ["tltrain", *words, *(f"{key}={value}" for key, value in defaults.items() if key not in given)]
    out, err, status = io.StringIO(), io.StringIO(), 0
    GlobalHydra.instance().clear()
    with mock.patch.object(sys, "argv", argv), composition.quick(), redirect_stdout(out), redirect_stderr(err):
        try:
            entry.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        finally:
            GlobalHydra.instance().clear()
    return Ran(status, out.getvalue(), err.getvalue(), folder)
