"""Shared fixtures: where public data is, the command line in this process, small tokenizers of both families."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.command_line import Ran, command_line
from tltrain.errors import TltrainError
from tltrain.runtime import runs
from tltrain.runtime.resolver import resolve

settings.register_profile("tltrain", deadline=None)  # how long an example takes says more of the machine
settings.load_profile("tltrain")


@pytest.fixture
def tltrain(tmp_path, models_cache):
    """`tltrain("stage=mae", ...) -> Ran`: the command line, in this process, with a run folder of its own."""
    count = 0

    def run(*words: str, folder: Path | None = None, status: int = 0) -> Ran:
        nonlocal count
        count += 1
        ran = command_line(*words, folder=folder or tmp_path / f"run{count}", cache=models_cache)
        assert ran.status == status, f"{words} ended with status {ran.status}:\n{ran.out}\n{ran.err}"
        return ran

    return run


@pytest.fixture
def write(tmp_path):
    """`write(value)`: a file of JSON, or of JSON lines where there are several values."""
    count = 0

    def write(*values: object) -> Path:
        nonlocal count
        count += 1
        path = tmp_path / f"file{count}.json"
        path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))
        return path

    return write


@pytest.fixture(scope="session")
def models_cache(tmp_path_factory) -> Path:
    """Base models are made ready once a test session."""
    return tmp_path_factory.mktemp("cache")


TEXT = [
    'System: Function:\ndef getPapersByKeywords(words: string):\n    """\n    Find papers.\n    """',
    "User: get paper details by keywords, then finish",
    'Assistant: getPaperDetails(id="12", full=true)',
    'Output: {"papers": [1, 2, 3]}',
    'Assistant: finish(answer="Done: 3 papers")',
] * 4


@pytest.fixture(scope="session")
def byte_level():
    """A byte-level BPE tokenizer (as GPT-2, SmolLM2, Qwen)."""
    from tltrain.models.loading import byte_level_tokenizer

    return byte_level_tokenizer(TEXT, 400)


@pytest.fixture(scope="session")
def sentencepiece():
    """A SentencePiece-like tokenizer (as LLaMA's): `▁` for spaces, one put before the text, bytes for the unknown."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    words = ["▁" + piece for text in TEXT for piece in text.replace("\n", " ").split(" ")]
    trained.train_from_iterator(words, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    bytes_first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {token: number for number, token in enumerate([*bytes_first, *model["vocab"]])}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>", unk_token="<unk>")


@pytest.fixture
def no_picture(monkeypatch):
    """`rewards.png` of stage=irm takes a third of a small run's time; it has tests of its own."""
    monkeypatch.setattr("tltrain.stages.irm.show_rewards", lambda *args: None)


@pytest.fixture
def made(monkeypatch) -> list[tuple[str, str]]:
    """(stage, its folder) of all stages that ran; instead of the stages, stand-ins that leave their files."""
    ran: list[tuple[str, str]] = []

    def run(cfg, folder: Path) -> dict:
        stage = cfg.stage.name
        ran.append((stage, folder.name))
        if cfg.seed == 13:
            raise TltrainError("an unlucky number")
        for path in (cfg.data.path, cfg.model.path):
            assert path is None or Path(path).exists()
        if stage == "mae":
            (folder / "train.jsonl").write_text(f"{cfg.stage.mae} {cfg.data.size}\n")
        elif stage == "eval":
            (folder / "predictions.jsonl").write_text('{"set": "toolworld", "id": "1"}\n')
        else:
            text = f"{stage} {cfg.stage.get('w_max')} {Path(cfg.data.path).read_text()}"
            if stage == "irm":
                text += (Path(cfg.model.path) / "config.json").read_text()
            (folder / "model").mkdir()
            (folder / "model" / "config.json").write_text(text)
        name = cfg.benchmark.name
        numbers = {f"{name}/ts": 30.0, f"{name}/pi": 20.0, f"{name}/cf": 10.0, "details": {name: {"rows": {}}}}
        metrics = numbers if stage == "eval" else {"train": {"tokens": 5}}
        runs.write_json(folder / "metrics.json", metrics)
        return metrics

    from tltrain.entry import launch

    stages = {f"tltrain.stages.{name}:run" for name in ("mae", "supervised", "irm", "eval")}
    monkeypatch.setattr(launch, "resolve", lambda name: run if name in stages else resolve(name))
    return ran
