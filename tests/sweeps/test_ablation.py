"""The real ablation in a separate process, killed half-way and repeated: nothing is built twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def entries(cache: Path) -> dict[str, str]:
    """Return each complete entry's name and when it was built."""
    return {
        file.parent.name: json.loads(file.read_text())["created"] for file in (cache / "stages").glob("*/entry.json")
    }


@pytest.mark.slow
def test_the_smoke_ablation_killed_half_way_and_repeated(tmp_path):
    cache = tmp_path / "cache"

    def start(sweep: str) -> subprocess.Popen:
        words = [f"cache.dir={cache}", f"hydra.sweep.dir={tmp_path / sweep}", "tracking=none", "hardware.threads=1"]
        command = [sys.executable, "-m", "tltrain", "+experiment=smoke", *words]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    first = start("first")
    deadline = time.monotonic() + 300
    while len(entries(cache)) < 8:
        assert time.monotonic() < deadline and first.poll() is None, first.stdout.read()
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = entries(cache)
    second = start("second")
    out, _ = second.communicate(timeout=500)
    assert second.returncode == 0, out
    after = entries(cache)
    assert len(after) == 18 and {name: after[name] for name in before} == before
    assert "8 jobs" in out and "failed" not in out
    page = (tmp_path / "second" / "report.html").read_text()
    assert "MAE + PKT + IRM" in page
    third = start("third")  # everything is in the cache: this takes seconds
    out, _ = third.communicate(timeout=300)
    assert third.returncode == 0 and entries(cache) == after, out
    sweep = json.loads((tmp_path / "third" / "sweep.json").read_text())
    assert (sweep["cache"]["built"], sweep["cache"]["reused"]) == (0, 28)
    rows = [row["label"] for row in sweep["rows"]]
    assert rows[0] == sweep["baseline"] == "standard SFT" and len(rows) == 8
