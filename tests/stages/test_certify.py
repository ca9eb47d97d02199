"""stage=certify, and the certificate after training, through the command line; tests/serving serves the model."""

from __future__ import annotations

import json
import shutil

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from tests.support.composition import composed, in_job, mistake
from tests.support.small_runs import TRAINED, last_line
from tltrain import __main__ as entry
from tltrain.entry import checks
from tltrain.errors import TltrainError
from tltrain.models.encoders import TokenizationRecord, end_at
from tltrain.serving import server
from tltrain.serving.comparison import Certificate
from tltrain.stages import certify


@pytest.fixture
def trained(run_once):
    return run_once(*TRAINED)


@pytest.fixture
def asked(monkeypatch):
    """The numbers of prompts that were to be asked; the result is `asked.made`, and nothing is served."""

    class Asked(list):
        made = Certificate(2, 2, 1, 2, mode="chat", server="s")

    found = Asked()

    def certified(cfg, model, count):
        found.append(count)
        return found.made

    monkeypatch.setattr(certify, "certify", certified)
    monkeypatch.setattr(server, "missing", lambda: [])
    return found


@pytest.fixture
def ended(trained, tmp_path):
    """A copy of a training run that has ended without a certificate."""
    return shutil.copytree(trained.folder, tmp_path / "ended")


RESUMED = (*TRAINED, "stage.resume=true")


def test_a_training_keeps_what_a_server_and_a_certificate_need(trained):
    model = trained.folder / "model"
    record = TokenizationRecord.read(model)
    assert record.parser == {"transformers": "response_template", "vllm": "hermes", "sglang": "qwen25"}
    assert (record.format, record.bos, record.thinking) == ("qwen3", False, False)
    assert json.loads((model / "config.json").read_text())["use_cache"] is True  # trainers switch it off
    assert "tool_calls" in json.loads((model / "tokenizer_config.json").read_text())["response_template"]["fields"]
    assert json.loads((model / "generation_config.json").read_text())["eos_token_id"] == [3]
    assert "# tiny, stage=pkt" in (model / "README.md").read_text()
    kept = json.loads((model / "trained_prompts.json").read_text())
    assert kept["template"] == (model / "chat_template.jinja").read_text() and len(kept["prompts"]) > 2


def test_the_prompts_of_a_saved_folder_are_those_of_its_training(trained):
    model = trained.folder / "model"
    cfg = composed("stage=certify", f"model.path={model}", "data.size=8", "data.holdout=0.2")
    basis = certify.basis_of(cfg, model)
    asked, not_sent = certify.chosen(basis, certify.JudgedSource(cfg).split()[1], 3, certify.context_of(model))
    assert [basis.trained.differs(one) for one in asked] == [False] * len(asked) and len(asked) > 1
    assert not_sent == 0
    with pytest.raises(certify.NothingToAskError, match="of 0 conversations no turn with a call can be asked"):
        certify.chosen(basis, [], 3, None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"eos_token_id": 1}, [1, 4, 7]),
        ({"eos_token_id": [7, 2]}, [7, 2, 4]),
        ({}, [4, 7]),
        ({"eos_token_id": [4, 7]}, [4, 7]),
    ],
)
def test_generation_ends_at_all_tokens_that_end_an_answer(before, after, tmp_path):
    end_at(tmp_path, [4, 7])  # an adapter has no such file
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps({"top_p": 0.8, **before}))
    end_at(tmp_path, [4, 7])
    assert json.loads(file.read_text()) == {"top_p": 0.8, "eos_token_id": after}


def test_a_training_that_has_ended_is_certified_once(tltrain, ended, asked):
    ran = tltrain(*RESUMED, "certify=5", folder=ended)
    assert asked == [5] and ran.metrics["certificate"]["passed"] is True and "train" in ran.metrics
    assert "certified: 2 of 2 prompts equal, 1 answers with parsed calls" in ran.out
    tltrain(*RESUMED, "certify=5", folder=ended)
    assert asked == [5]


def test_a_failed_certificate_fails_the_run_and_keeps_its_files(tltrain, ended, asked):
    asked.made = Certificate(2, 1, 1, 2, mode="chat", server="s", problems=("prompt a: token 1 differs",))
    ran = tltrain(*RESUMED, "certify=2", folder=ended, status=1)
    assert "does not work as trained when it is served: 1 of 2 prompts equal" in last_line(ran)
    assert "prompt a: token 1 differs" in last_line(ran)
    assert ran.metrics["certificate"]["passed"] is False and "train" in ran.metrics
    assert (ended / "model" / "model.safetensors").is_file() and (ended / "error.txt").is_file()


def test_without_the_packages_a_line_says_so_and_the_training_succeeds(tltrain, ended, monkeypatch):
    monkeypatch.setattr(server, "missing", lambda: ["fastapi", "uvicorn"])
    ran = tltrain(*RESUMED, "certify=2", folder=ended)
    line = "certify: the model was not served: it takes fastapi, uvicorn: pip install 'tltrain[serve]', then stage=cert"
    assert line in ran.out + ran.err and "certificate" not in ran.metrics
    refused = tltrain("stage=certify", f"model.path={ended / 'model'}", "certify=2", status=1)
    assert last_line(refused).startswith("stage=certify: it takes fastapi, uvicorn: pip install 'tltrain[serve]'")


def test_an_adapter_alone_is_not_served(tltrain, ended, asked):
    (ended / "model" / "config.json").unlink()
    ran = tltrain(*RESUMED, "certify=2", folder=ended)
    assert "holds only an adapter, which `transformers serve` does not load: model.lora.merge=true" in ran.out + ran.err
    assert asked == []


@pytest.mark.parametrize(
    ("words", "mode", "count"),
    [
        (["stage=pkt"], RunMode.RUN, [20]),
        (["stage=sft", "certify=3"], RunMode.RUN, [3]),
        (["stage=pkt", "certify=0"], RunMode.RUN, []),
        (["stage=pkt"], RunMode.MULTIRUN, []),
        (["stage=pkt", "certify=3"], RunMode.MULTIRUN, [3]),
        (["stage=pipeline"], RunMode.RUN, []),
        (["stage=eval"], RunMode.RUN, []),
    ],
)
def test_how_many_prompts_are_asked_where_nothing_is_said(words, mode, count, monkeypatch):
    found = []
    monkeypatch.setattr(entry, "resolve", lambda name: lambda cfg, folder, metrics, n: found.append(n) or metrics)
    monkeypatch.setattr(entry.runs, "folder", lambda: None)
    with in_job(*words, f"hydra.mode={mode.name}") as cfg:
        assert HydraConfig.get().mode is mode
        assert entry.certified(cfg, {"seed": 0}) == {"seed": 0}
        assert entry.certified(cfg, {}) == {}  # on another machine of several, which has no metrics
    assert found == count


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["stage=mae", "certify=3"], "certify: stage=mae serves no model; stage=certify model.path=FOLDER does"),
        (["stage=pipeline", "certify=3"], "certify: stage=pipeline serves no model"),
        (["stage=eval", "certify_timeout=9"], "certify_timeout: stage=eval serves no model"),
        (["stage=pkt", "certify=-1"], "certify: expected a number from 0 to 10000, found -1"),
        (["stage=certify", "source=endpoint", "source.url=http://a"], "source.url: stage=certify reads no such key"),
        (["stage=certify", "model.path=./none"], "model.path=./none: there is no such folder"),
        (["stage=mae", "certify=0"], ""),
        (
            ["stage=certify", "certify=0"],
            "certify: stage=certify asks nothing with certify=0; give certify=N, or leave",
        ),
    ],
)
def test_keys(words, line):
    assert mistake(*words).startswith(line) if line else mistake(*words) == ""


def test_a_folder_has_to_be_given(tltrain):
    ran = tltrain("stage=certify", "certify=2", status=1)
    assert last_line(ran) == "stage=certify serves the folder of a model: give model.path=FOLDER"
    ran = tltrain("stage=certify", "certify=2", "model.path=none", status=1)
    assert last_line(ran) == "stage=certify serves the folder of a model: give model.path=FOLDER; none is no folder"


@pytest.mark.parametrize("words", [["stage=sft"], ["stage=pkt"]])
def test_a_certificate_that_is_asked_for_is_refused_before_the_training(words, monkeypatch):
    monkeypatch.setattr(server, "missing", lambda: ["fastapi"])
    cfg = composed(*words)
    checks.check_places(cfg)  # nobody asked for it: a line after the training will do
    cfg.certify = 3
    with pytest.raises(
        TltrainError, match=r"certify=3: it takes fastapi: pip install 'tltrain\[serve\]', or leave cert"
    ):
        checks.check_places(cfg)


def test_an_adapter_alone_cannot_be_certified(monkeypatch):
    monkeypatch.setattr(server, "obstacle", lambda: None)
    cfg = composed("stage=sft", "certify=3", "model.lora.r=2", "model.lora.merge=false")
    line = r"certify=3: an adapter without its base model is not served: model.lora.merge=true, or"
    with pytest.raises(TltrainError, match=line):
        checks.check_places(cfg)


def test_a_package_that_cannot_be_imported_is_named(monkeypatch):
    def imported(name):
        if name == "fastapi:__name__":
            raise ImportError("cannot import name 'x' from 'starlette'")

    monkeypatch.setattr(server, "missing", lambda: [])
    monkeypatch.setattr(server, "find_spec", lambda name: name)
    monkeypatch.setattr(server.resolver, "resolve", imported)
    assert server.obstacle() == (
        "fastapi is installed and cannot be imported (ImportError: cannot import name 'x' from 'starlette'): "
        "pip install 'tltrain[serve]' --force-reinstall"
    )
