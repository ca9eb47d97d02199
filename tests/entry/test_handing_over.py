"""How the process that the user started passes the configuration to its workers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from tests.support.composition import in_job
from tltrain.entry import launch
from tltrain.errors import TltrainError
from tltrain.runtime import messages, shared_secret


@pytest.fixture
def handed_over(monkeypatch, tmp_path):
    """`handed_over(words...)` returns what a launch passes to its workers, and the modes of its file and folder."""

    def hand_over(*words: str):
        found = {}

        def launcher(config, entrypoint):
            def start(*arguments):
                file = Path(arguments[-1])
                found.update(text=file.read_bytes(), modes=[one.stat().st_mode & 0o777 for one in (file, file.parent)])
                (tmp_path / "metrics.json").write_text("{}")

            return start

        monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", launcher)
        before = os.umask(0o000)
        try:
            with in_job("stage=pkt", "hardware=cpu", *words) as cfg:
                launch.launch(cfg, tmp_path)
                return found["text"], found["modes"], cfg, HydraConfig.instance().cfg
        finally:
            os.umask(before)

    return hand_over


def test_the_user_alone_can_read_what_workers_are_given(handed_over):
    text, modes, cfg, hydra = handed_over("hardware.processes=2")
    assert modes == [0o600, 0o700]
    json.loads(text)  # no pickle
    _, found, found_hydra, _ = messages.decode(text)
    assert found == cfg
    assert found_hydra.hydra.runtime == hydra.hydra.runtime
    assert found_hydra.hydra.job_logging == hydra.hydra.job_logging


def test_on_one_machine_each_run_has_a_new_secret(handed_over):
    secrets = {messages.decode(handed_over("hardware.processes=2")[0])[0] for _ in range(2)}
    assert len(secrets) == 2
    assert all(len(secret) == 64 for secret in secrets)


NODES = ("hardware.processes=1", "hardware.nodes=2", "hardware.node_rank=0", "hardware.rendezvous=HOST:1")


def test_several_machines_use_the_secret_of_the_user(handed_over, monkeypatch, tmp_path):
    monkeypatch.delenv("TLTRAIN_SECRET", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    assert messages.decode(handed_over(*NODES)[0])[0] == shared_secret.of_user(os.environ)
    monkeypatch.setenv("TLTRAIN_SECRET", "short")
    with pytest.raises(TltrainError, match="TLTRAIN_SECRET: expected at least 16 characters"):
        handed_over(*NODES)
