"""Shared fixtures: public data, the command line run in this process, small tokenizers of both families."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.command_line import Ran, command_line
from tests.support.once import once as made_once
from tltrain.errors import TltrainError
from tltrain.runtime import runs
from tltrain.runtime.resolver import resolve

# No deadline: an example's time depends on the machine. Derandomized, so that a run can be repeated.
settings.register_profile("tltrain", deadline=None, derandomize=True)
settings.load_profile("tltrain")


def pytest_collection_finish():
    """Import what most runs import, and freeze all objects so that `gc.collect` need not scan them.

    A worker of a whole test run imports these libraries sooner or later; a single test may need none of them.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        from tests.support import preloaded  # noqa: F401

        del sys.modules["wandb"]  # hidden from the libraries only, as `tltrain.tracking.prepared` does
    gc.set_threshold(20_000, 20, 20)
    _freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None):
    """Freeze again after each file what its tests have imported and cached."""
    result = yield
    if nextitem is None or nextitem.path != item.path:
        _freeze()
    return result


def _freeze() -> None:
    """Exempt all objects that are alive now from garbage collection.

    Each run calls `gc.collect` two or three times, which takes 0.25 s to scan all objects of the libraries. Without
    this, and with Python's thresholds for automatic collection, a fifth of the processor time of the tests is spent on
    collection.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def tltrain(tmp_path, models_cache, undrawn):
    """`tltrain("stage=mae", ...) -> Ran`: run the command line in this process, with its own run folder.

    Its pictures are drawn only if the test is marked `pictures`.
    """
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
    """`write(value)`: write a JSON file, or JSON lines if given several values."""
    count = 0

    def write(*values: object) -> Path:
        nonlocal count
        count += 1
        path = tmp_path / f"file{count}.json"
        path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))
        return path

    return write


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder shared by all workers of this test run."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"


@pytest.fixture(scope="session")
def once(shared_folder):
    """`once(name, make)`: return the result of `make(folder)`, called by the first worker that asks and shared by all.

    No test may change the content of the folder.
    """
    return partial(made_once, shared_folder)


@pytest.fixture(scope="session")
def run_once(once, models_cache):
    """`run_once("stage=sft", ...) -> Ran`: run a command line once per test run, and share the result."""

    def run(*words: str) -> Ran:
        name = hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
        ran = once(name, lambda folder: command_line(*words, folder=folder / "run", cache=models_cache))
        assert ran.status == 0, f"{words} ended with status {ran.status}:\n{ran.out}\n{ran.err}"
        return ran

    return run


@pytest.fixture(scope="session")
def models_cache(shared_folder) -> Path:
    """The folder of base models, each prepared once per test run."""
    return shared_folder / "cache"


TEXT = [
    'System: Function:\ndef getPapersByKeywords(words: string):\n    """\n    Find papers.\n    """',
    "User: get paper details by keywords, then finish",
    'Assistant: getPaperDetails(id="12", full=true)',
    'Output: {"papers": [1, 2, 3]}',
    'Assistant: finish(answer="Done: 3 papers")',
] * 4


@pytest.fixture(scope="session")
def byte_level():
    """A byte-level BPE tokenizer (like those of GPT-2, SmolLM2, Qwen)."""
    from tltrain.models.loading import byte_level_tokenizer

    return byte_level_tokenizer(TEXT, 400)


@pytest.fixture(scope="session")
def sentencepiece():
    """A SentencePiece-like tokenizer (like LLaMA's): `▁` for spaces, one of them before the text, byte fallback."""
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
def undrawn(request, monkeypatch):
    """Leave an empty file, or an empty drawing in a page, in place of each picture.

    Drawing takes a third of a small run's time, and most of a page's.
    """
    if request.node.get_closest_marker("pictures") is None:
        from matplotlib.figure import Figure

        save = Figure.savefig

        def leave(figure: Figure, file, **how) -> None:
            if isinstance(file, Path):
                file.touch()
            elif how.get("format") == "svg":
                file.write('<svg viewBox="0 0 1 1"></svg>')
            else:
                save(figure, file, **how)

        monkeypatch.setattr(Figure, "savefig", leave)


@pytest.fixture
def made(monkeypatch) -> list[tuple[str, str]]:
    """(stage, folder) of all stages that ran; stubs that write their files replace the stages."""
    ran: list[tuple[str, str]] = []

    def run(cfg, folder: Path) -> dict:
        stage = cfg.stage.name
        ran.append((stage, folder.name))
        if cfg.seed == 13:
            raise TltrainError("an unlucky number")
        for path in (cfg.data.get("path"), cfg.model.path):
            assert path is None or Path(path).exists()
        if stage == "mae":
            (folder / "train.jsonl").write_text(f"{cfg.stage.mae} {cfg.data.get('size')}\n")
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
    monkeypatch.setattr(launch, "SHOWN", ())  # the stubs produce nothing to show
    return ran
