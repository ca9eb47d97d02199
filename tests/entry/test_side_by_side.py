"""Stages that run at the same time, each in its own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import read_write

from tests.support.composition import in_job
from tltrain.entry import side_by_side
from tltrain.entry.composed import compose
from tltrain.entry.side_by_side import Job
from tltrain.errors import TltrainError

CHECK = ("stage=mae", "data=toolworld", "tracking=none")
"""A stage that loads no torch."""


@pytest.fixture(autouse=True)
def of_a_run(tmp_path):
    """A job of Hydra's, whose configuration the processes take over."""
    with in_job(*CHECK):
        hydra = HydraConfig.instance().cfg
        with read_write(hydra.hydra.runtime):
            hydra.hydra.runtime.output_dir = str(tmp_path)
        yield


def job(folder: Path, *words: str) -> Job:
    folder.mkdir(parents=True)
    return Job(compose([*CHECK, *words]), folder, " ".join(words))


@pytest.mark.slow  # three processes
def test_stages_run_in_processes_of_their_own_and_return_their_metrics_in_order(tmp_path, capfd):
    jobs = [job(tmp_path / f"of_{size}", f"data.size={size}", "hardware.threads=2") for size in (3, 1, 2)]
    found = side_by_side.run(jobs, at_a_time=2)
    assert [metrics["trajectories"] for metrics in found] == [3, 1, 2]
    assert all((one.folder / "train.jsonl").is_file() for one in jobs)
    out, err = capfd.readouterr()
    said = [line for line in (out + err).splitlines() if line.startswith("of_3: ") and "──" not in line]
    assert said and "of_1: data.size=1" in err


def test_each_process_has_its_share_of_the_threads_and_nobody_else_can_read_its_configuration(tmp_path, monkeypatch):
    seen = []
    real = subprocess.Popen

    def start(command, **how):
        file = Path(command[-1])
        threads = side_by_side.messages.decode(file.read_bytes())[0].hardware.threads
        seen.append((threads, os.environ["OMP_NUM_THREADS"], file.stat().st_mode & 0o777))
        return real([sys.executable, "-c", ""], **how)

    monkeypatch.setattr(subprocess, "Popen", start)
    jobs = [job(tmp_path / name, "hardware.threads=5") for name in "ab"]
    for one in jobs:
        (one.folder / "metrics.json").write_text("{}")
    assert side_by_side.run(jobs, at_a_time=2) == [{}, {}]
    assert seen == [(2, "2", 0o600)] * 2


@pytest.mark.slow  # two processes
def test_a_stage_that_fails_is_named_and_stops_the_others(tmp_path):
    bad = job(tmp_path / "bad", "hardware.threads=2")
    bad.cfg.data = compose(["stage=mae", "data=openai", f"data.path={tmp_path / 'none.jsonl'}"]).data
    endless = job(tmp_path / "endless", "data.size=1000000", "hardware.threads=2")
    start = time.monotonic()
    with pytest.raises(TltrainError, match=r"^bad: .*none\.jsonl") as error:
        side_by_side.run([bad, endless], at_a_time=2)
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 60 and not (endless.folder / "metrics.json").exists()


def test_a_process_that_is_killed_is_explained(tmp_path, monkeypatch):
    real = subprocess.Popen
    suicide = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(subprocess, "Popen", lambda command, **how: real([sys.executable, "-c", suicide], **how))
    with pytest.raises(TltrainError, match=r"killed by SIGKILL; .* stage\.parallel=1$"):
        side_by_side.run([job(tmp_path / name, "hardware.threads=2") for name in "ab"], at_a_time=2)


def test_no_more_stages_than_threads_run_at_the_same_time():
    assert [side_by_side.possible(4, threads) for threads in (1, 2, 8)] == [1, 2, 4]


def stage_processes(run: int) -> list[int]:
    """Return the processes of stages that the threads of process `run` have started."""
    children = [file.read_text().split() for file in Path(f"/proc/{run}/task").glob("*/children")]
    return [
        int(pid) for pids in children for pid in pids if b"stage_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@pytest.mark.slow  # several processes
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_no_stage_outlives_the_run_that_started_it(tmp_path, sent, status):
    words = ["model=tiny", "stage.train_size=2000", "hardware.threads=2", f"hydra.run.dir={tmp_path / 'run'}"]
    with subprocess.Popen([sys.executable, "-m", "tltrain", *words], cwd=tmp_path) as run:
        deadline = time.monotonic() + 60
        while len(mine := stage_processes(run.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(2)  # they have begun to run their stages
        run.send_signal(sent)
        assert run.wait(60) == status
    assert len(mine) == 2
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in mine) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in mine if Path(f"/proc/{pid}").exists()]
    assert not (tmp_path / "run" / "metrics.json").exists()
