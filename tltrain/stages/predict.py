"""stage=predict: predict the next call of one conversation.

    python -m tltrain stage=predict data.path=messages.json model.path=outputs/pkt/TIME/model
    python -m tltrain stage=predict data.path=messages.json source=endpoint source.url=URL source.model=NAME

Reads the paper's inference format (a list of messages with roles System, User, Assistant, Output) or a chat-completions
object with `messages` and `tools`. Prints the call as text and as JSON, and writes both to `prediction.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain.data.chat import read_history
from tltrain.errors import TltrainError
from tltrain.grading import grade
from tltrain.runtime import runs, terminal
from tltrain.sources import check, open_source
from tltrain.stages.evaluations import words
from tltrain.trajectory import Sample


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    if (path := cfg.data.get("path")) is None:
        raise TltrainError("stage=predict reads a conversation: give data.path=messages.json")
    if not isinstance(path, str):
        raise TltrainError("stage=predict reads one conversation: give data.path=FILE, not a list")
    tools, messages, instructions = read_history(path)
    check(cfg)
    sample = Sample(str(path), tools, messages, (), instructions)
    with open_source(cfg) as source:
        (text,), model_path = source([sample]), source.name
        said: Mapping[str, Any] = next(iter(getattr(source, "native_answers", ())), {})
    if text is None:
        raise TltrainError(f"{path}: the conversation is too long for the model, see the line above")
    judged = grade(words.judged_text(cfg, text, tools), None, tools)
    call = judged.prediction and {"name": judged.prediction.name, "arguments": dict(judged.prediction.arguments)}
    metrics = {
        "model": model_path,
        "text": text,
        "call": call,
        "agrees_with_documentation": not judged.de,
        "reason": judged.reason,
        **({"said": said} if said else {}),
    }
    runs.write_json(folder / "prediction.json", metrics)
    runs.finish(folder, cfg, metrics)
    for part in ("thought", "text"):
        if said.get(part) and said[part] != text:
            terminal.console.print(f"{part}: {said[part]}", markup=False)
    terminal.console.print(text, markup=False)
    terminal.console.print(json.dumps(call, ensure_ascii=False), markup=False)
    if judged.de:
        terminal.errors.print(f"This call contradicts the tools' documentation: {judged.reason}", markup=False)
    return metrics
