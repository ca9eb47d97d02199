"""A tracker never stops a job, and nothing that a run writes contains a secret."""

from __future__ import annotations

import http.server
import logging
import sys
import threading
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.support.processes import process
from tests.support.small_runs import SMALL
from tests.support.tracked import FEW, read
from tests.support.typed import last_of_each
from tltrain.runtime import redact

KEY = "0123456789abcdef0123456789abcdef01234567"  # as long as wandb requires
NOWHERE = "http://127.0.0.1:9"  # the `discard` port, on which nothing listens


def mae(folder: Path, *words: str, **environment: str):
    """Run `stage=mae` in its own process, since wandb reads its environment only once."""
    size = [] if any(word.startswith("data=") for word in words) else ["data.size=3"]
    command = [sys.executable, "-m", "tltrain", *last_of_each(["stage=mae", *size, "hydra.run.dir=run", *words])]
    return process(command, folder, HOME=str(folder), **environment)


def about_tracking(text: str) -> list[str]:
    return [line for line in text.splitlines() if "wandb" in line or "tracking" in line]


# --- a tracker that fails -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_costs_a_line(tmp_path):
    start = time.monotonic()
    ran = mae(tmp_path, "tracking.mode=online", WANDB_BASE_URL=NOWHERE, WANDB_API_KEY=KEY)
    assert ran.returncode == 0 and time.monotonic() - start < 40, ran.stderr  # it takes 3 s; machines may be busy
    assert (tmp_path / "run" / "metrics.json").is_file()
    found = read(tmp_path / "run")
    first, last = about_tracking(ran.stderr)
    assert first.startswith(f"wandb: {NOWHERE} cannot be reached (")
    assert first.endswith(f"; tracking continues offline; upload it with: wandb sync {found.folder.parent}")
    assert last == f"wandb sync {found.folder.parent}"
    assert found.names >= {"mae/calls"} and found.artifacts
    assert [path.name for path in (tmp_path / "run" / "wandb").glob("*run-*")] == [found.folder.name]


@pytest.mark.slow
def test_without_a_key_a_job_is_tracked_offline_and_asks_nothing(tmp_path):
    ran = mae(tmp_path, "tracking.mode=online", WANDB_BASE_URL=NOWHERE)
    assert ran.returncode == 0
    first, _ = about_tracking(ran.stderr)
    assert first.startswith(
        "wandb: there is no API key: set WANDB_API_KEY or run `wandb login`; tracking continues off"
    )
    ran = mae(tmp_path, "tracking.mode=online", "hydra.run.dir=other", WANDB_API_KEY="short")
    assert ran.returncode == 0 and "WANDB_API_KEY invalid" in about_tracking(ran.stderr)[0]


class NotWandb(http.server.BaseHTTPRequestHandler):
    """A server that answers everything with content that wandb cannot use."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *args):
        pass


@pytest.mark.slow
def test_a_server_that_is_not_wandb_costs_a_line(tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotWandb) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        words = ["tracking.mode=online", "tracking.timeout=2"]
        ran = mae(tmp_path, *words, WANDB_BASE_URL=url, WANDB_API_KEY=KEY)
        server.shutdown()
    assert ran.returncode == 0, ran.stderr
    found = read(tmp_path / "run")
    first, last = about_tracking(ran.stderr)
    assert first.startswith("wandb: ") and first.endswith(f"upload it with: wandb sync {found.folder.parent}")
    assert last == f"wandb sync {found.folder.parent}" and found.names >= {"mae/calls"}
    assert [path.name for path in (tmp_path / "run" / "wandb").glob("*run-*")] == [found.folder.name]


TRAINING = ("stage=pkt", *SMALL, *FEW, "data.size=4")


@pytest.mark.parametrize(
    ("method", "words", "times"),
    [
        ("log", TRAINING, 4),  # 2 steps, their summary, the held-out loss
        ("log_artifact", ("stage=mae", "data.size=3"), 1),
        ("finish", ("stage=mae", "data.size=3"), 1),
    ],
)
def test_a_tracker_that_breaks_is_warned_of_once_and_the_job_goes_on(tltrain, monkeypatch, method, words, times):
    from wandb.sdk.wandb_run import Run

    calls, works = [], getattr(Run, method)

    def breaks(self, *args, **kwargs):
        calls.append(method)
        if method == "finish":
            works(self, *args, **kwargs)
        raise RuntimeError("the disk is\nfull")

    monkeypatch.setattr(Run, method, breaks)
    ran = tltrain(*words, "tracking=wandb")
    assert len(calls) == times
    assert ran.err.count("tracking: ") == 1
    assert "tracking: RuntimeError: the disk is full; the job continues\n" in ran.err
    assert ran.metrics
    if words is TRAINING:
        assert (ran.folder / "model" / "model.safetensors").is_file() and len(ran.lines("history.jsonl")) >= 2


def test_a_tracker_that_cannot_begin_is_warned_of_and_the_job_goes_on(tltrain, monkeypatch):
    import wandb

    monkeypatch.setattr(wandb, "init", lambda **settings: 1 / 0)
    ran = tltrain("stage=mae", "data.size=3", "tracking=wandb")
    assert about_tracking(ran.err) == ["tracking: ZeroDivisionError: division by zero; the job continues"]
    assert ran.metrics["trajectories"] == 3


def test_a_job_that_fails_is_tracked_as_failed_and_fails_still(tltrain, monkeypatch):
    monkeypatch.setattr("tltrain.stages.training_runs.save_model", lambda *args: Path("/no/such/file").read_text())
    ran = tltrain(*TRAINING, "tracking=wandb", status=1)
    assert ran.err.splitlines()[-1].startswith("[Errno 2]") and not (ran.folder / "metrics.json").exists()
    assert read(ran.folder).of("exit")[0]["exit_code"] == 1


def test_a_job_that_has_nothing_to_do_leaves_no_run(tltrain):
    ran = tltrain("stage=pkt", *SMALL, "data.size=4", "stage.args.max_length=10", "tracking=wandb", status=1)
    assert not (ran.folder / "wandb").exists()


# --- secrets --------------------------------------------------------------------------------------------------------

SECRETS = {
    "WANDB_API_KEY": "wandb-key-marker-" + "0" * 40,
    "OPENAI_API_KEY": "openai-key-marker-1234",
    "HF_TOKEN": "hf-token-marker-1234",
    "DATABASE_PASSWORD": "password-marker-1234",
}


def holding(folder: Path, *secrets: str) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)]


def test_no_secret_reaches_any_file_of_a_run(tmp_path):
    words = [
        "tracking.mode=online",  # so that wandb reads its key
        "tracking.tags=['${oc.env:HF_TOKEN}']",
        f"tracking.group=from-{SECRETS['OPENAI_API_KEY']}",  # a shell's $OPENAI_API_KEY
        "cache.dir='c/${oc.env:DATABASE_PASSWORD}'",
        "+hydra.job.env_set.CORPORATE_API_KEY='typed/marker+1234'",
        "tracking.entity='https://me:typed%2Fmarker-2@host'",  # neither a secret's name nor a known value
    ]
    ran = mae(tmp_path, *words, WANDB_BASE_URL=NOWHERE, **SECRETS)
    assert ran.returncode == 0, ran.stderr
    found = read(tmp_path / "run")
    assert found.run["tags"][0] == "<masked>" and found.run["run_group"] == "from-<masked>"
    assert found.config["cache"]["dir"] == "c/<masked>" and "tracking.group=from-<masked>" in str(
        found.of("environment")
    )
    secrets = [*SECRETS.values(), "typed/marker", "typed%2Fmarker"]
    assert not holding(tmp_path, *secrets)
    assert not [value for value in secrets if value in ran.stdout + ran.stderr]


def test_no_secret_reaches_an_error(tltrain, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    words = ["stage=mae", "data=openai", f"data.path=/no/{SECRETS['HF_TOKEN']}", "tracking=wandb"]
    ran = tltrain(*words, status=1)
    assert "/no/<masked>: expected a file" in ran.err
    assert (ran.folder / "error.txt").read_text() == ran.err
    assert not holding(ran.folder, *SECRETS.values())


def test_a_token_is_no_argument(tltrain):
    ran = tltrain("stage=pkt", "+stage.args.hub_token=hf_marker_1234", status=1)
    assert ran.err == "stage.args.hub_token: this is set by the environment variable HF_TOKEN\n"
    assert "hub_token=<masked>" in (ran.folder / ".hydra" / "overrides.yaml").read_text()
    assert not holding(ran.folder, "hf_marker_1234")


def test_what_counts_as_secret(monkeypatch):
    for name in ("A_TOKEN", "MYSQL_PASSWD", "AWS_ACCESS_KEY_ID", "TOKENIZERS_PARALLELISM", "MONKEY"):
        monkeypatch.setenv(name, f"value of {name}")
    monkeypatch.setenv("SHORT_KEY", "on")
    assert (
        redact.text("1 value of A_TOKEN, value of MYSQL_PASSWD, value of AWS_ACCESS_KEY_ID")
        == "1 <masked>, <masked>, <masked>"
    )
    harmless = "value of TOKENIZERS_PARALLELISM, value of MONKEY, on"
    assert redact.text(harmless) == harmless
    cfg = {"api_key": "a", "hub_token": "b", "login": [{"password": "c"}], "client_secret": "d", "token": "e"}
    kept = {"pad_token": "<pad>", "max_new_tokens": 5, "tokenizer": "f", "api_key_2": None, "keys": "g", "monkey": "h"}
    masked = {
        "api_key": "<masked>",
        "hub_token": "<masked>",
        "login": [{"password": "<masked>"}],
        "client_secret": "<masked>",
    }
    assert redact.config(OmegaConf.create(cfg | kept)) == masked | {"token": "<masked>"} | kept


def test_a_log_masks_what_is_put_into_its_messages(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "marker-of-mine")
    record = logging.LogRecord("a", logging.INFO, "b", 1, "%s of %d", ("marker-of-mine", 3), None)
    assert redact.Filter().filter(record) and record.getMessage() == "<masked> of 3"
    record = logging.LogRecord("a", logging.INFO, "b", 1, "%d %%", (3,), None)
    assert redact.Filter().filter(record) and record.getMessage() == "3 %"
