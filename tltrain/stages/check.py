"""stage=check: show what a data set contains before anything is trained, on the terminal and as a page.

    python -m tltrain stage=check data=openai data.path=chats.jsonl
    python -m tltrain stage=check data=openai data.path=chats.jsonl model.path=FOLDER   # tokens too

Writes `check.html` and the same numbers to `metrics.json`: the format, tools, calls, failing calls by both of MAE's
rules, duplicates, lengths, and what would be lost and why, with examples. Records that cannot be read are counted and
do not end the run. Neither torch nor transformers is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain import config
from tltrain.config import OnError
from tltrain.data import auto, hub, trajectories
from tltrain.data.judged import log_skipped, read_metrics
from tltrain.data.reading import ReadReport, files_of, records
from tltrain.data.rules import named_rule
from tltrain.data.survey import Survey
from tltrain.errors import TltrainError
from tltrain.runtime import runs, targets, terminal
from tltrain.views import check_page

LOOKED_AT = 100
"""Maximum number of records that are examined to recognize their format."""


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    data = cfg.data
    if "on_error" in data:
        data = config.merged(data, {"on_error": "skip"})
    survey = Survey(
        named_rule(cfg, "paper"),
        named_rule(cfg, "strict"),
        bool(data.get("learn_replies")),
        cfg.stage.examples,
        token_counter(cfg.model.path),
    )
    read = ReadReport()
    for item in terminal.track(trajectories(data, cfg.seed, read), "reading"):
        survey.add(item)
    log_skipped(read, folder)
    if not survey.counts["conversations"]:
        first = f": {read.skipped[0]}" if read.skipped else ""
        raise TltrainError(f"no conversation could be read{first}")
    metrics = {"data": source(data), **survey.metrics(read), **read_metrics(read)}
    with runs.writing(folder / "check.html") as file:
        file.write(check_page.page(metrics))
    runs.finish(folder, cfg, metrics)
    return metrics


def source(data: DictConfig) -> dict[str, Any]:
    """Return the chosen format, the evidence for it in the first record, and the files with their sizes in bytes."""
    found: dict[str, Any] = {"format": data.get(targets.TARGET) or data.name}
    if not data.get("path"):
        return found
    found["path"] = path = data.path if isinstance(data.path, str) else list(data.path)
    if any(hub.is_dataset(each) for each in ([path] if isinstance(path, str) else path)):
        return found
    files = [Path(file) for file in files_of(path)]
    found["files"], found["bytes"] = len(files), sum(file.stat().st_size for file in files if file.is_file())
    if data.name in auto.FORMATS or data.name == "auto":
        firsts = (record for _, record in islice(records(files[0], OnError.skip), LOOKED_AT))
        seen = next(filter(None, map(auto.recognised, firsts)), None)
        if seen is not None:
            found["recognised"], found["shown_by"] = seen
    return found


def token_counter(model: str | None) -> Callable[[str], int] | None:
    """Return a function that counts a text's tokens by the `tokenizer.json` of a model's folder; None without one.

    Raises:
        TltrainError: the folder has no such file, or it cannot be read.
    """
    if model is None:
        return None
    file = Path(model) / "tokenizer.json"
    if not file.is_file():
        raise TltrainError(f"model.path={model}: stage=check counts tokens by {file.name}, which is not in this folder")
    from tokenizers import Tokenizer  # without transformers and torch

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no narrower one
        raise TltrainError(f"{file}: not a tokenizer: {error}") from error
    tokenizer.no_truncation()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
