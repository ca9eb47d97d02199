"""stage=predict: predict the next call of one conversation.

    python -m tltrain stage=predict data.path=messages.json model.path=outputs/pkt/TIME/model
    python -m tltrain stage=predict data.path=messages.json source=endpoint source.url=URL source.model=NAME

Reads the paper's inference format (a list of messages with roles System, User, Assistant, Output) or a chat-completions
object with `messages` and `tools`. Prints the calls as text and as JSON, and writes both to `prediction.json`: `call`
is the first one, and `calls` are all of an answer that makes several, as answers in native formats may.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain.data.chat import read_history
from tltrain.errors import TltrainError
from tltrain.evaluation.records import call_to_json
from tltrain.formats.native import Answer
from tltrain.grading import AnswerGrade, grade, grade_answer
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
        native: Sequence[Answer | None] = getattr(source, "native_answers", ())
        said = native[0].to_json() if native and native[0] is not None else {}
        several_calls = getattr(source, "several_calls", False)
        endings: Sequence[str | None] = source.endings.last if hasattr(source, "endings") else ()
    if text is None:
        raise TltrainError(f"{path}: the conversation is too long for the model, see the line above")
    read = words.judged_text(cfg, text, tools)
    judged = grade_answer(read, (), tools) if several_calls else grade(read, None, tools)
    of_calls = judged.of_calls if isinstance(judged, AnswerGrade) else (judged,)
    calls = [None if one.prediction is None else call_to_json(one.prediction) for one in of_calls]
    call = None if judged.prediction is None else call_to_json(judged.prediction)
    metrics = {
        "model": model_path,
        "text": text,
        "call": call,
        **({"calls": calls} if len(calls) > 1 else {}),
        "agrees_with_documentation": not judged.de,
        "reason": judged.reason,
        **({"finish_reason": endings[0]} if any(endings) else {}),
        **({"said": said} if said else {}),
    }
    runs.write_json(folder / "prediction.json", metrics)
    runs.finish(folder, cfg, metrics)
    for part in ("thought", "text"):
        if said.get(part) and said[part] != text:
            terminal.console.print(f"{part}: {said[part]}", markup=False)
    terminal.console.print(text, markup=False)
    for one in calls:
        terminal.console.print(json.dumps(one, ensure_ascii=False), markup=False)
    if not any(calls):
        terminal.errors.print(f"No call can be read from this answer: {judged.reason}", markup=False)
    elif judged.de:
        what = "This call contradicts" if len(calls) == 1 else "Calls contradict"
        terminal.errors.print(f"{what} the tools' documentation: {judged.reason}", markup=False)
    return metrics
