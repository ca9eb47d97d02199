"""No command line stores or prints a secret, however the secret comes in and whichever stage runs.

A stand-in for the stages leaks its configuration by every means that a stage has; real stages run in the slow set.
The tests iterate over what the package registers, so future stages, groups and keys are covered too.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import sys
import typing
import warnings
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from tests.support.fake_endpoint import Reply, completion, message, serving
from tests.support.paths import ROOT
from tests.support.small_runs import ALGORITHMS, FEW, SMALL
from tltrain import config
from tltrain.config import reads
from tltrain.entry import launch
from tltrain.errors import TltrainError
from tltrain.runtime import runs, terminal
from tltrain.runtime.resolver import resolve

SECRET = "Planted/Secret+1234=Zq"
"""A secret with characters that URLs and base64 encode."""
IN_URL = quote(SECRET, safe="")
SAMPLE, SLOW = ("mae", "pipeline"), pytest.mark.slow
"""Stages that continuous integration runs; `make test-slow` runs all."""
FORMS = (
    SECRET,
    IN_URL,
    SECRET.replace("/", "\\/"),
    *(base64.b64encode(b"u" * n + SECRET.encode()).decode()[4:-4] for n in range(3)),
)
ENDPOINT = ("source=endpoint", "source.model=m", "benchmark.limit=3", "source.retries=0")
WAYS = {
    "override": ("source.url=http://host/v1", f"+source.extra.api_key='{SECRET}'"),
    "header in a mapping": ("source.url=http://host/v1", f"+source.extra={{authorization:'Bearer {SECRET}'}}"),
    "list": ("source.url=http://host/v1", f"+source.extra.headers=[[X-Api-Key,'{SECRET}']]"),
    "user of a URL": (f"source.url='http://user:{SECRET}@host/v1'",),
    "user of a URL, encoded": (f"source.url='http://user:{IN_URL}@host/v1'",),
    "query of a URL": (f"source.url='http://host/v1?api_key={IN_URL}'",),
    "variable": ("source.url=http://host/v1", "+source.extra.tag=${oc.env:PLANTED_TOKEN}"),
    "variable of any name": ("source.url=http://host/v1", "+source.extra.api_key=${oc.env:PLANTED}"),
    "default of a variable": ("source.url=http://host/v1", f"+source.extra.tag=${{oc.env:NO_TOKEN,'{SECRET}'}}"),
    "named variable": ("source.url=http://host/v1", "source.api_key_env=PLANTED"),
    "environment of the job": ("source.url=http://host/v1", f"+hydra.job.env_set.CORPORATE_API_KEY='{SECRET}'"),
    "another log": ("source.url=http://host/v1", "hydra/job_logging=default", f"+source.extra.api_key='{SECRET}'"),
    "no such key": (f"source.api_key='{SECRET}'",),
    "no such key of the stage": (f"+stage.access_token='{SECRET}'",),
    "no choice": (f"source.url='http://user:{SECRET}@host'", "benchmark=nothing"),
    "wrong type": (f"+source.extra.api_key='{SECRET}'", f"seed='{SECRET}'"),
    "no grammar": (f"+source.extra={{api_key:{SECRET}",),
}


@pytest.fixture
def planted(tltrain, monkeypatch):
    """`planted("stage=eval", ...)` runs the command line, with the secret in the variables that its words refer to."""

    def run(*words: str, status: int = 1):
        for name in ("PLANTED_TOKEN", "PLANTED"):
            monkeypatch.delenv(name, raising=False)
            if re.search(rf"\b{name}\b", " ".join(words)):
                monkeypatch.setenv(name, SECRET)
        return tltrain(*words, status=status)

    return run


@pytest.fixture
def leaking(monkeypatch) -> list:
    """The configurations passed to the stand-in for the stages, which leaks them by every means that a stage has."""
    given: list = []

    def run(cfg, folder: Path) -> dict:
        given.append(cfg)
        coded = [base64.b64encode(b"u" * n + SECRET.encode()).decode() for n in range(3)]
        leaks = [SECRET, IN_URL, *coded, json.dumps({"a": SECRET}), f"http://user:{SECRET}@host?key={IN_URL}"]
        for leak in leaks:
            print(leak)
            terminal.console.print(leak)
            terminal.errors.print(leak)
            logging.getLogger("tltrain.stage").warning("%s", leak)
            logging.getLogger("library").info("%s", leak)
            warnings.warn(leak, stacklevel=1)
        terminal.table(SECRET, ["a"], [[leak] for leak in leaks])
        runs.write_json(folder / "a.json", {"a": leaks, SECRET: 1})
        runs.write_lines(folder / "b.jsonl", map(json.dumps, leaks))
        with runs.writing(folder / "c.html") as file:
            file.writelines(leaks)
        try:
            raise ValueError(SECRET)
        except ValueError:
            logging.getLogger("tltrain.stage").exception("failed")
        runs.finish(folder, cfg, {"score": 1.0, "said": leaks})
        raise TltrainError(f"the server says {SECRET}")

    ours = {f"{config.stage_module(name)}:run" for name in config.STAGES}
    monkeypatch.setattr(launch, "resolve", lambda name: run if name in ours else resolve(name))
    monkeypatch.setattr(launch, "wanted", lambda cfg: False)
    return given


def held(*places: Path | str) -> list[str]:
    """Return the files below folders, and the texts, that contain the secret in any form."""
    found = []
    for place in places:
        if isinstance(place, str):
            found += [line for line in place.splitlines() if any(form in line for form in FORMS)]
            continue
        files = [file for file in place.rglob("*") if file.is_file()]
        found += [str(file) for file in files if any(form.encode() in file.read_bytes() for form in FORMS)]
        found += [str(file) for file in place.rglob("*") if any(form in file.name for form in FORMS)]
    return found


# --- ways in ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("way", WAYS)
def test_a_secret_stays_nowhere_whichever_way_it_comes(planted, leaking, tmp_path, way):
    ran = planted("stage=eval", *ENDPOINT, *WAYS[way])
    assert not held(tmp_path, ran.out, ran.err)
    if leaking:
        assert "the server says <masked>" in ran.err and ran.metrics["score"] == 1.0
    else:
        assert len(ran.err.splitlines()) == 1 and "Traceback" not in ran.err


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_stage_itself_is_given_the_real_values(planted, leaking):
    words = [WAYS[way] for way in ("override", "variable", "header in a mapping")]
    planted("stage=eval", *ENDPOINT, "source.url=http://host/v1", *(way[1] for way in words[:2]))
    first = config.plain(leaking[0].source.extra)
    ran = planted("stage=eval", *ENDPOINT, *words[2])
    second = config.plain(leaking[1].source.extra)
    assert first == {"api_key": SECRET, "tag": SECRET} and second == {"authorization": f"Bearer {SECRET}"}
    record = yaml.safe_load((ran.folder / ".hydra" / "config.yaml").read_text())
    assert record["source"]["extra"] == {"authorization": "<masked>"}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "stage", [pytest.param(name, marks=SLOW if name not in SAMPLE else ()) for name in config.STAGES]
)
def test_no_stage_leaves_a_secret_nor_does_its_refusal(planted, leaking, tmp_path, stage):
    ran = planted(f"stage={stage}", f"+hydra.job.env_set.CORPORATE_API_KEY='{SECRET}'")
    assert leaking and not held(tmp_path, ran.out, ran.err)
    refused = planted(f"stage={stage}", f"+stage.api_key='{SECRET}'")
    assert len(leaking) == 1 and refused.err and not held(tmp_path, refused.out, refused.err)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_sweep_leaves_no_secret_while_it_runs_nor_after(planted, leaking, tmp_path, monkeypatch):
    seen = []  # as each job begins
    monkeypatch.setattr(terminal.errors, "rule", lambda *words, **how: seen.append(held(tmp_path)))
    where = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    words = (f"+source.extra.api_key='{SECRET}',other-secret-value", "source.url=http://host/v1")
    ran = planted("-m", "stage=eval", *ENDPOINT, *words, where)
    assert [cfg.source.extra.api_key for cfg in leaking] == [SECRET, "other-secret-value"]
    assert seen == [[]] * 2 and not held(tmp_path, ran.out, ran.err)
    files = [*tmp_path.rglob("*.yaml"), *tmp_path.rglob("*.log")]
    texts = "".join(file.read_text() for file in files) + ran.out + ran.err
    assert len(files) >= 7 and "other-secret-value" not in texts


def test_no_folder_is_named_after_a_secret(planted, tmp_path):
    sweep = tmp_path / "sweep"
    words = (f"hydra.sweep.dir={sweep}", "hydra.sweep.subdir=${hydra.job.override_dirname}")
    ran = planted("-m", "stage=eval", *ENDPOINT, "+source.extra.api_key=abc", *words)
    assert ran.err.startswith("hydra.sweep.subdir: its folders would be named after a secret") and not sweep.exists()


def test_the_printed_configuration_holds_no_secret(planted):
    for words in (["--cfg", "job", "--resolve"], ["--info", "all"], ["--help"]):
        ran = planted(*words, "stage=eval", *ENDPOINT, *WAYS["override"], *WAYS["variable"], status=0)
        assert ran.out and not held(ran.out, ran.err)


def test_arguments_that_libraries_write_down_take_no_secret(planted, tmp_path):
    for word in (f"+stage.args.trackio_space_id='http://user:{SECRET}@host'", f"+stage.args.hub_token='{SECRET}'"):
        ran = planted("stage=sft", word)
        assert ran.err.startswith("stage.args.") and "environment variable" in ran.err
        assert not held(tmp_path, ran.out, ran.err)


def test_every_file_is_written_by_the_one_writer():
    """For any other writer, this test must state why no secret of a run can reach it."""
    others = {
        "runtime/runs.py": "is that writer",
        "runtime/memory.py": "asks the kernel for the peak of memory",
        "models/encoders.py": "numbers beside a model",
        "training/sft.py": "sums beside a checkpoint",
        "training/reward_function.py": "appends to a file, and masks what it appends",
        "stages/irm_conversations.py": "appends to a file, and masks what it appends",
        "entry/launch.py": "to the processes of the run, in a folder that is removed",
        "environments/sandbox_kernel.py": "to the kernel",
        "environments/sandbox_bwrap.py": "to the kernel",
        "entry/side_by_side.py": "the configuration, for its user alone, in a folder that is removed",
        "environments/sandbox.py": "the probe of the machine, a constant",
        "runtime/shared_secret.py": "the secret itself, for its user alone",
        "serving/recorder.py": "token ids and a port, in a folder that is removed",
        "serving/llama_cpp.py": "a port, in a folder that is removed",
        "serving/server.py": "what a server says, in a folder that is removed",
    }
    ways = ("write_text(", "write_bytes(", "OmegaConf.save(", '.open("w', '.open("a', ', "w"', ', "a"', "json.dump(")
    found = {
        file.relative_to(ROOT / "tltrain").as_posix()
        for file in (ROOT / "tltrain").rglob("*.py")
        if any(way in file.read_text(encoding="utf-8") for way in ways)
    }
    pipes = {"environments/bfcl_worker.py", "environments/bfcl_process.py", "environments/sandbox_worker.py"}
    assert found - pipes <= others.keys()


# --- servers ----------------------------------------------------------------------------------------------------------


REPLIES = {"text": completion, "chat": lambda text: message(content=text)}


@pytest.mark.parametrize("mode", ["text", pytest.param("chat", marks=pytest.mark.slow)])
def test_a_server_that_repeats_the_key_spreads_it_nowhere(tltrain, tmp_path, monkeypatch, mode):
    pytest.importorskip("openai")
    echo = [SECRET, f"Basic {base64.b64encode(f'user:{SECRET}'.encode()).decode()}", json.dumps(SECRET), IN_URL]
    monkeypatch.setenv("CORPORATE", SECRET)
    with serving() as server:
        words = (
            "stage=eval",
            *ENDPOINT,
            f"source.url={server.url}",
            f"source.mode={mode}",
            f"cache.dir={tmp_path / 'c'}",
        )
        words += ("source.api_key_env=CORPORATE", f"+source.extra.user_token='{SECRET}'")
        body = REPLIES[mode](" ".join(echo)).content | {"key": SECRET, "usage": {SECRET: 1}}
        server.reply = lambda *asked: Reply(body, headers={"X-Echo": SECRET})
        ran = tltrain(*words)
        assert not held(tmp_path, ran.out, ran.err) and len([*tmp_path.rglob("endpoint/*/*.json")]) == 3
        assert server.asked[-1].headers["authorization"] == f"Bearer {SECRET}"
        assert server.asked[-1].body["user_token"] == SECRET
        assert all("<masked>" in line["prediction"] for line in ran.lines("predictions.jsonl"))
        tltrain(*(word.replace(SECRET, "another-secret") for word in words))  # cached answers are found again
        assert len(server.asked) == 3
        server.reply = lambda *asked: Reply(f"no: {' '.join(echo)}", 401, {"WWW-Authenticate": SECRET})
        ran = tltrain(*words, "source.cache=false", status=1)
        assert "HTTP 401: no: <masked> Basic dXNlcjp<masked>" in ran.err and not held(tmp_path, ran.out, ran.err)


# --- the whole walk ---------------------------------------------------------------------------------------------------

TEXTS = sorted(
    {
        f"{place}:{name}"
        for place, schema in config.SCHEMAS.items()
        for name, kind in typing.get_type_hints(schema).items()
        if kind is str or str in typing.get_args(kind)
    }
)
"""Every key that accepts text, by the path of its schema."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("key", TEXTS)
def test_no_key_that_takes_a_text_leaves_a_secret(planted, leaking, tmp_path, key):
    place, _, name = key.partition(":")
    _, *where = place.split("/")
    node = "" if where == ["config"] else f"{where[0]}."
    chosen = [f"{where[0]}={where[1]}"] if len(where) > 1 and where[0] in ("stage", "source", "tracking") else []
    value = f"'https://user:{SECRET}@host/v1?token={IN_URL}'"
    for word in (f"++{node}{name}={value}", f"++{node}{name}=${{oc.env:PLANTED_TOKEN}}"):
        ran = planted(*(["stage=eval"] if not chosen or where[0] != "stage" else []), *chosen, word)
        assert not held(tmp_path, ran.out, ran.err)


TOOL = 'Function:\ndef f(a: string):\n    """\n    Find a.\n\n    Args:\n        a (string): A word.\n    """'
TRAINED = (*SMALL, "data.size=6", "data.holdout=0.2", "stage.args.max_steps=2")
REAL = {
    "demo": (
        *(*SMALL, "model.demo.train_size=6", "model.demo.test_size=3", "stage.max_new_tokens=8"),
        *("stage.args.max_steps=2", "+model.demo.irm_steps=1", "model.irm.args.gradient_accumulation_steps=2"),
    ),
    "mae": ("data.size=6",),
    "sft": TRAINED,
    "pkt": TRAINED,
    "irm": (*SMALL, *FEW, *ALGORITHMS["ppo"]),
    "eval": ("model.path={trained}/model", "benchmark.size=2", "stage.max_new_tokens=2"),
    "predict": ("model.path={trained}/model", "data.path={conversation}", "hardware.bf16=false"),
    "certify": ("model.path={trained}/model", "data.size=3", "certify=1"),
    "export": ("model.path={trained}/model",),
    "check": ("data.size=3",),
    "inspect": ("model=tiny", "data.size=3"),
    "analyze": ("model=tiny", "data.size=3"),
    "plan": ("model=tiny",),
    "cache": (),
    "chat": (*SMALL, "data.size=6", "stage.tools={tools}", "stage.max_new_tokens=4"),
    "gate": (
        *(*SMALL, "data.size=6", "stage.max_new_tokens=4", "stage.supervised.args.max_steps=1"),
        *("stage.threshold=-100", "stage.certain=false"),  # passes whatever the result
    ),
    "report": ("report.path={trained}",),
    "pipeline": (
        *(*SMALL, "data.size=6", "stage.irm=false", "stage.eval.max_new_tokens=2"),
        "stage.benchmarks=[{{name: toolworld, size: 2}}]",
    ),
}
"""Words that make each stage run on little data; a new stage has to be added here."""


def test_every_stage_really_runs_in_the_slow_set():
    assert REAL.keys() == config.STAGES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("stage", config.STAGES)
def test_real_stages_leave_no_secret(tltrain, run_once, tmp_path, write, monkeypatch, stage):
    monkeypatch.setenv("PLANTED_TOKEN", SECRET)
    trained = run_once("stage=sft", *TRAINED).folder
    conversation = write([{"role": "System", "content": TOOL}, {"role": "User", "content": SECRET}])
    tools = write([{"type": "function", "function": {"name": "f", "description": "Find a.", "parameters": {}}}])
    words = [word.format(trained=trained, conversation=conversation, tools=tools) for word in REAL[stage]]
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    if reads.reads(stage, "tracking.tags"):
        words += ["tracking=wandb", "tracking.tags=['${oc.env:PLANTED_TOKEN}']"]
    ran = tltrain(f"stage={stage}", *words, f"+hydra.job.env_set.CORPORATE_API_KEY='{SECRET}'")
    conversation.unlink()  # what the user wrote
    assert not held(tmp_path, ran.out, ran.err)
