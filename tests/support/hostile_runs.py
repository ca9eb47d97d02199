"""Readers of our own runs' files and of models, each with good files, which `tests/faults/test_hostile_files.py`
damages in addition to those of the registries' readers (`hostile_readers`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from omegaconf import OmegaConf

from tests.support import sweep_sample
from tests.support.hostile_readers import Reader
from tests.support.prediction_lines import line
from tests.support.reader_samples import CHAT, STUBS, TOOLS
from tltrain import data
from tltrain.data import chat
from tltrain.data.reading import ReadReport
from tltrain.runtime import manifests
from tltrain.sweeps.stage_cache import MANIFEST, MARK, StageCache

SAID = [
    {"role": "System", "content": STUBS},
    {"role": "User", "content": "Advice on love?"},
    {"role": "Assistant", "content": 'search(query="löve", limit=2)'},
    {"role": "Output", "content": "Listen."},
]


def _history(folder: Path, on_error: str, report: ReadReport) -> Any:
    return [chat.read_history(folder / "data.json")]


def _predictions(folder: Path, on_error: str, report: ReadReport) -> Any:
    from tltrain.stages.evaluations import saved_answers
    from tltrain.trajectory import Message, Sample

    samples = [Sample("x", TOOLS, (Message("user", "Hi"),), ())]
    saved_answers.read(OmegaConf.create({"format": {"name": "tl"}}), folder / "predictions.jsonl", samples)
    return []


def _compared(folder: Path, on_error: str, report: ReadReport) -> Any:
    from tltrain.stages.evaluations import compare

    compare.compare([str(folder / "a"), str(folder / "b")], 0)
    return []


def _analysed(folder: Path, on_error: str, report: ReadReport) -> Any:
    from tltrain.evaluation.predictions import count_grades, read_graded

    count_grades(read_graded(folder, "stage.results"))
    return []


def _gathered(folder: Path, on_error: str, report: ReadReport) -> Any:
    from tltrain.report import gather, sweep

    with mock.patch.object(gather, "commit", lambda: ""):  # the original calls git
        found = gather.gather(gather.job_folders(folder), "sweep", "tltrain")
    sweep.save(found, folder / "saved" / "sweep.json")
    sweep.load(folder / "saved" / "sweep.json")
    return []


def _loaded(folder: Path, on_error: str, report: ReadReport) -> Any:
    from tltrain.report import sweep

    sweep.load(folder / "sweep.json")
    return []


def _trained(folder: Path, on_error: str, report: ReadReport) -> Any:
    from tltrain.models import encoders

    data.trained_on(folder)
    encoders.TokenizationRecord.read(folder)
    return []


def _run_folder(folder: Path, on_error: str, report: ReadReport) -> Any:
    """Read what a second run in the same folder reads of the first."""
    from tltrain.runtime import runs
    from tltrain.sweeps import resuming
    from tltrain.training.reward_function import SampleLog

    cfg = OmegaConf.create({"stage": {"name": "sft"}, "overwrite": True, "seed": 0})
    runs.ended(folder)
    runs.check_stage(folder, cfg)
    with mock.patch.object(resuming, "decided_by", lambda cfg: DECIDED_BY):
        resuming.check(cfg, folder)
    SampleLog(folder / "samples.jsonl", 1, 1).forget_after(1)
    return []


def _checkpoints(folder: Path, on_error: str, report: ReadReport) -> Any:
    from tltrain.training import checkpoints

    found = checkpoints.resumable_checkpoint(folder / "checkpoints")
    if found is not None:
        checkpoints.kept_of(found)
    return []


def _build(folder: Path) -> dict[str, Any]:
    (folder / "metrics.json").write_bytes(BUILT)
    return {}


def _cache_entry(folder: Path, on_error: str, report: ReadReport) -> Any:
    """Check that the cache returns what was built, whatever an entry's manifest says."""
    cache = StageCache(folder)
    cache.entries()
    for entry in folder.glob("sft-*"):
        manifests.check(entry / "metrics.json")
    entry = cache.get("sft", DECIDED, _build)
    cache.release()
    assert (entry.folder / "metrics.json").read_bytes() == BUILT
    return []


def _base_model(folder: Path, on_error: str, report: ReadReport) -> Any:
    """Check that a cached base model is read only if unchanged, whatever the manifest next to it says."""
    manifests.changed_since_left(folder / "model")
    manifests.check(folder / "model")
    return []


DECIDED = {"seed": 0}
DECIDED_BY = {"configuration": {"seed": 0, "stage": {"a": [1]}}, "versions": {"torch": "1"}}
BUILT = b'{"train": {}}'


def _entry_files(folder: Path) -> dict[str, Any]:
    """Return the files of a cache entry as the cache writes it, made below `folder`."""
    cache = StageCache(folder)
    made = cache.get("sft", DECIDED, _build).folder
    cache.release()
    manifest = json.loads((made / MANIFEST).read_text())
    return {f"{made.name}/{MANIFEST}": manifest, f"{made.name}/{MARK}": b"", f"{made.name}/metrics.json": BUILT}


def of_runs(folder: Path) -> dict[str, Reader]:
    """Return readers of our own runs' files: anybody may send us such a folder, and disks fail. `folder` is scratch."""
    job = {"stage": {"name": "pipeline", "mae": True, "pkt": False, "irm": False}, "seed": 0}
    cost = {"name": "sft", "fingerprint": "0", "seconds": 1.0, "tokens": 5, "peak_memory_bytes": 1, "reused": False}
    metrics = {
        "set/ts": 30.0,
        "set/pi": 20.0,
        "details": {"set": {"rows": {}}},
        "stages": [cost],
        "score": 1.0,
        "seed": 0,
    }
    lines = [line("1", meta={"query": "?"}), line("2", "wrong_tool")]
    transcript = {
        "id": "1",
        "meta": {"scenario": "x"},
        "instructions": "",
        "tools": [{"name": "f", "description": "", "parameters": {}}],
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "f()"}],
        "calls": [{"message": 1, "turn": 1, "text": "f()", "call": None, "de": False, "ce": True, "ran": True}],
        "ended": "finish",
        "answer": "x",
        "valid": True,
        "outcome": {"success": True},
    }
    digest = [3, "06b05ab6733a618578af5f94892f3950"]
    kept = {
        "kl_coefficient": None,
        "stopped": None,
        "loss": 2.5,
        "loss_not_logged": 0.5,
        "logged_step": 2,
        "seconds": 1.5,
    }
    sample = {"step": 1, "id": "1", "sampled": "f()", "grade": "correct", "reward": 1.0, "reason": ""}
    entry = _entry_files(folder)
    return {
        "a conversation": Reader({"data.json": [{**CHAT, "messages": CHAT["messages"][:-1]}]}, _history),
        "a conversation in text": Reader({"data.json": SAID}, _history, whole=True),
        "stage.predictions": Reader({"predictions.jsonl": [{"prediction": "f()"}]}, _predictions),
        "stage.compare": Reader(
            {"a/predictions.jsonl": lines, "b/predictions.jsonl": lines, "a/metrics.json": metrics}, _compared
        ),
        "stage.compare of conversations": Reader(
            {"a/transcripts.jsonl": [transcript], "b/transcripts.jsonl": [transcript], "b/metrics.json": metrics},
            _compared,
        ),
        "stage.results": Reader({"predictions.jsonl": lines}, _analysed),
        "report.path": Reader(
            {
                "0/.hydra/config.yaml": yaml.safe_dump(job),
                "0/.hydra/overrides.yaml": yaml.safe_dump(["stage.mae=true", "seed=0"]),
                "0/metrics.json": metrics,
                "0/eval_set/predictions.jsonl": lines,
                "0/model_sft/history.jsonl": [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.0}],
                "1/.hydra/config.yaml": yaml.safe_dump({**job, "seed": 1}),
                "1/.hydra/overrides.yaml": yaml.safe_dump(["stage.mae=false", "seed=1"]),
                "1/metrics.json": metrics,
                "1/transcripts.jsonl": [transcript],
                "2/.hydra/config.yaml": yaml.safe_dump({**job, "seed": 2}),
                "2/.hydra/overrides.yaml": yaml.safe_dump(["seed=2"]),
                "2/error.txt": "it failed\n",
            },
            _gathered,
        ),
        "sweep.json": Reader({"sweep.json": _saved_sweep(folder)}, _loaded),
        "a trained model's own files": Reader(
            {
                data.TRAINED_ON: ["a", "b"],
                "tltrain.json": {"bos": True, "prompts": 1, "prompts_read_apart": 0, "version": 1},
            },
            _trained,
            whole=True,
        ),
        "a run's folder": Reader(
            {
                "metrics.json": metrics,
                "config.yaml": yaml.safe_dump({"stage": {"name": "sft"}, "seed": 0}),
                ".decided_by.json": DECIDED_BY,
                "samples.jsonl": [sample, {**sample, "step": 2}],
            },
            _run_folder,
        ),
        "checkpoints": Reader(
            {
                "checkpoints/checkpoint-7/complete.json": {**kept, "files": {"weights": digest}},
                "checkpoints/checkpoint-7/weights": b"abc",
                "checkpoints/checkpoint-x/complete.json": {**kept, "files": {"weights": digest}},
            },
            _checkpoints,
            ("checkpoints/checkpoint-7/complete.json",),
        ),
        "an entry of the cache": Reader(entry, _cache_entry, tuple(entry)[:1]),
        "a base model's manifest": Reader(
            {".model.manifest.json": {"weights": digest}, "model/weights": b"abc"},
            _base_model,
            (".model.manifest.json",),
        ),
    }


def _saved_sweep(folder: Path) -> dict[str, Any]:
    from tltrain.report import sweep

    found = sweep_sample.small(
        ("base", [sweep_sample.job_of(0, [True, False])]),
        ("other", [sweep_sample.job_of(0, [True, True])]),
    )
    sweep.save(found, folder / "sweep.json")
    return json.loads((folder / "sweep.json").read_text())


def of_models(folder: Path) -> dict[str, Reader]:
    """Return the reader of a model's folder, with the files of the model in `folder`."""
    files = {
        file.relative_to(folder).as_posix(): (
            json.loads(file.read_text())
            if file.suffix == ".json" and file.stat().st_size < 20_000
            else file.read_bytes()
        )
        for file in sorted(folder.iterdir())
        if file.is_file()
    }
    return {"model.path": Reader(files, _model, whole=True, imports=True)}


def _model(folder: Path, on_error: str, report: ReadReport) -> Any:
    import torch

    from tests.support.composition import composed
    from tests.support.small_runs import SMALL

    global _choice
    if _choice is None:
        _choice = composed("stage=eval", *SMALL).model
    from tltrain.models import encoders, loading

    encoders.load_encoder(str(folder), _choice)
    loading.load_model(str(folder), _choice, torch.float32, torch.device("cpu"))
    return []


_choice: Any = None
