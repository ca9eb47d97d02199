"""The served process: which requests it accepts, what it records and inherits, and when it ends."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT
from tltrain.serving import recorder, server


def answered(headers: list[tuple[bytes, bytes]], kind: str = "http") -> list[dict]:
    """Return the messages sent by an application that is guarded by `key`."""
    sent: list[dict] = []

    async def app(scope, receive, send):
        await send({"type": "reached"})

    async def send(event):
        sent.append(event)

    asyncio.run(recorder.guarded(app, "key")({"type": kind, "headers": headers}, None, send))
    return sent


def test_only_those_who_know_the_key_are_answered():
    assert answered([(b"authorization", b"Bearer key")]) == [{"type": "reached"}]
    for headers in ([], [(b"authorization", b"Bearer kez")], [(b"authorization", b"key")]):
        assert answered(headers)[0]["status"] == 401
    assert answered([], "lifespan") == [{"type": "reached"}]


def test_the_names_in_transformers_and_uvicorn_that_the_record_needs():
    import uvicorn
    from transformers.cli.serving.utils import BaseHandler, GenerateManager
    from transformers.cli.transformers import app

    parameters = inspect.signature(GenerateManager.generate_non_streaming).parameters
    assert list(parameters) == ["self", "model", "processor", "inputs", "gen_config", "request_id"]
    assert list(inspect.signature(uvicorn.Server.run).parameters) == ["self", "sockets"]
    assert list(inspect.signature(BaseHandler.get_processor_inputs_from_messages).parameters) == [
        "messages",
        "modality",
    ]
    assert "serve" in app.commands


def test_the_ids_of_each_answer_are_recorded_before_it_is_parsed(tmp_path, monkeypatch):
    import torch
    from transformers.cli.serving.utils import GenerateManager

    async def generate(self, model, processor, inputs, gen_config, request_id):
        return "text", 2, torch.tensor([7, 8])

    monkeypatch.setattr(GenerateManager, "generate_non_streaming", generate)
    recorder.record(tmp_path / recorder.ANSWERS)
    inputs = {"input_ids": torch.tensor([[1, 2]])}
    asked = GenerateManager.generate_non_streaming(None, None, None, inputs, None, "r")
    assert asyncio.run(asked)[0] == "text"
    (found,) = server.Server("", "", tmp_path).recorded().items()
    assert found[0] == "r" and (found[1].prompt, found[1].answer) == ([1, 2], [7, 8])


def test_it_ends_when_the_process_that_started_it_does(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "tltrain.serving.recorder"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    settings = {"folder": str(tmp_path), "options": [], "secret": "key", "place": str(tmp_path)}
    process.stdin.write(json.dumps(settings).encode() + b"\n")
    process.stdin.close()
    assert process.wait(timeout=120) == 0


def test_it_inherits_no_secrets_and_is_not_one_of_several():
    own = {
        "PATH": "/bin",
        "HF_HOME": "/h",
        "HF_TOKEN": "hf_a",
        "WANDB_API_KEY": "a",
        "OPENAI_API_KEY": "b",
        "TLTRAIN_SECRET": "c",
        "RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_PORT": "1",
        "TORCHELASTIC_RUN_ID": "x",
        "CUDA_VISIBLE_DEVICES": "0",
        "PYTHONPATH": "/own",
    }
    found = server.environment(own, 3)
    assert found == {
        "PATH": "/bin",
        "HF_HOME": "/h",
        "CUDA_VISIBLE_DEVICES": "0",
        "PYTHONPATH": f"{Path(server.__file__).parents[2]}{os.pathsep}/own",
        "PYTHONSAFEPATH": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "3",
    }


def test_what_the_server_said_last_is_told(tmp_path):
    (tmp_path / "log").write_text("first\n╭── Error ──╮\n│ no such folder │\n╰────╯\n\n")
    assert server.last_line(tmp_path) == "no such folder"
    (tmp_path / "log").write_text("")
    assert server.last_line(tmp_path) == "it said nothing"
