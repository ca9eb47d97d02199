"""source=endpoint with `transformers serve` and a small model: its answers equal the local model's."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NEEDED = ("openai", "fastapi", "uvicorn", "pydantic")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (pip install 'transformers[serving]')"
    ),
]
SAMPLES = 24


@contextmanager
def serving(model: Path, log: Path) -> Iterator[str]:
    """Run `transformers serve` with one model on a free port; yield the URL of its API."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], env=environment, stdout=output, stderr=output
        )
    try:
        for _ in range(240):
            assert server.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def model(run_once) -> Path:
    """`tiny`, briefly trained: it writes complete calls, so the answers are worth comparing."""
    words = ["stage=sft", "model=tiny", "data.size=120", "stage.args.gradient_accumulation_steps=1"]
    return run_once(*words).folder / "model"


@pytest.fixture(scope="module")
def endpoint(model, tmp_path_factory) -> Iterator[list[str]]:
    """The overrides for a server with that model."""
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving(model, log) as url:
        yield ["source=endpoint", f"source.url={url}", f"source.model={model}", "source.concurrency=2"]


WORDS = ["stage=eval", f"benchmark.size={SAMPLES}", "stage.max_new_tokens=48"]


def test_greedy_answers_agree_with_the_local_model(tltrain, model, endpoint, tmp_path):
    local = tltrain(*WORDS, f"model.path={model}", "hardware.bf16=false")
    served = tltrain(*WORDS, *endpoint, f"cache.dir={tmp_path / 'cache'}")
    ours, theirs = ([line["prediction"] for line in ran.lines("predictions.jsonl")] for ran in (local, served))
    assert len(ours) == SAMPLES and len(set(ours)) >= 4  # not the same for every question
    assert theirs == ours
    same = ("toolworld/ts", "toolworld/pi", "toolworld/cf", "toolworld/reward", "too_long")
    assert [served.metrics[key] for key in same] == [local.metrics[key] for key in same]
    assert len(list((tmp_path / "cache" / "endpoint").rglob("*.json"))) == SAMPLES


def test_chat_mode_works_through(tltrain, endpoint, tmp_path):
    words = [*WORDS, *endpoint, f"cache.dir={tmp_path / 'cache'}", "source.mode=chat", "benchmark.size=4"]
    ran = tltrain(*words)
    assert len(ran.lines("predictions.jsonl")) == 4
    kept = [json.loads(path.read_text()) for path in (tmp_path / "cache" / "endpoint").rglob("*.json")]
    assert {one["response"]["object"] for one in kept} == {"chat.completion"}
    texts = {one["response"]["choices"][0]["message"]["content"].strip() for one in kept}
    assert {line["prediction"] for line in ran.lines("predictions.jsonl")} == texts


def test_what_the_server_refuses_is_told_in_one_line(tltrain, endpoint, tmp_path):
    words = [*WORDS, *endpoint, f"cache.dir={tmp_path / 'cache'}", "benchmark.size=2", "source.model=other"]
    ran = tltrain(*words, status=1)
    assert "Server is pinned to" in ran.err.splitlines()[-1] and "Traceback" not in ran.err
