"""A row's file, `rows/ARM-SEED.jsonl.gz`: a header, then a line for each question and each conversation.

The header has the arm, the seed, the hash of the protocol, digests of the tuned settings and of the stages, the commit,
versions, costs and the flat metrics. The lines hold what was right, not what was written: texts stay with the run. The
same results give the same bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.study.statistics import measured_ratio
from tltrain.errors import TltrainError
from tltrain.evaluation.metrics import SINGLE_TURN
from tltrain.evaluation.predictions import PREDICTIONS, Prediction
from tltrain.evaluation.records import read_lines
from tltrain.evaluation.transcripts import TRANSCRIPTS, Transcript
from tltrain.runtime import fingerprints, json_files

FORMAT = 1
RECORDED = "recorded_calls.jsonl"
"""What the benchmark toolworld_turns writes for each recorded call."""
RECORDED_KEYS = ("open_text", "failed", "mistake", "loss", "golden_loss", "keys", "keys_right", "keys_loss")

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RowFile:
    """What a file holds. `lines`: by set, in the order of the benchmark."""

    header: Mapping[str, Any]
    lines: Mapping[str, list[Line]]

    @property
    def arm(self) -> str:
        """The name of its arm."""
        return str(self.header["arm"])

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.header["seed"])


def name_of(arm: str, seed: int) -> str:
    """The file's name."""
    return f"{arm}-{seed}.jsonl.gz"


def write(path: Path, header: Mapping[str, Any], lines: Iterable[Line]) -> None:
    """Write a row, completely or not at all; the same content gives the same bytes."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0, compresslevel=9) as file:
        for line in ({"format": FORMAT, **header}, *lines):
            file.write((json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n").encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(packed.getvalue())
    os.replace(part, path)


def read(path: Path) -> RowFile:
    """Read a row.

    Raises:
        TltrainError: it is damaged, of another format, or named after another row.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            header, *lines = (json.loads(line) for line in file)
        if header["format"] != FORMAT:
            raise TltrainError(f"{path}: format {header['format']}, expected {FORMAT}")
        sets: dict[str, list[Line]] = {}
        for line in lines:
            sets.setdefault(line.pop("set"), []).append(line)
        found = RowFile(header, sets)
        named = name_of(found.arm, found.seed)
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TltrainError(f"{path}: not a row of the study: {type(error).__name__}: {error}") from None
    if path.name != named:
        raise TltrainError(f"{path}: its header says {named}")
    return found


def read_all(folder: Path) -> list[RowFile]:
    """All rows of a folder, by name."""
    return [read(path) for path in sorted(folder.glob("*.jsonl.gz"))]


# --- from a run -------------------------------------------------------------------------------------------------------


def evaluations(folder: Path) -> Iterator[tuple[str, Path]]:
    """Set and folder of each evaluation of a pipeline's run."""
    for place in sorted(folder.glob("eval_*")):
        yield place.name.removeprefix("eval_"), place


def lines_of(name: str, place: Path) -> list[Line]:
    """The lines of one evaluation's folder; a question that is asked twice is numbered.

    Raises:
        TltrainError: it has no results per question, or those of several sets, which would weigh by their sizes.
    """
    lines, asked = _lines_of(name, place), Counter[str]()
    for line in lines:
        asked[line["id"]] += 1
        if asked[line["id"]] > 1:
            line["id"] = f"{line['id']}#{asked[line['id']]}"
    return lines


def _lines_of(name: str, place: Path) -> list[Line]:
    if (place / RECORDED).is_file():
        return [_recorded(name, record) for record in read_lines(place / RECORDED, lambda record: record)]
    if (place / TRANSCRIPTS).is_file():
        return [_conversation(name, one) for one in read_lines(place / TRANSCRIPTS, Transcript.from_json)]
    if (place / PREDICTIONS).is_file():
        answers = list(read_lines(place / PREDICTIONS, Prediction.from_json))
        if len(sets := dict.fromkeys(one.set for one in answers)) > 1:
            raise TltrainError(f"{place}: answers of {', '.join(sets)}, and a row has one set in a folder")
        return [_answer(name, one) for one in answers]
    raise TltrainError(f"{place}: no {PREDICTIONS}, {TRANSCRIPTS} or {RECORDED}: not a finished evaluation")


def _cluster(meta: Mapping[str, Any], sample: str) -> str:
    """What a sample is resampled with: its task template, else itself."""
    return str(meta.get("task", sample))


def _answer(name: str, one: Prediction) -> Line:
    levels = {level: int(bool(one.scores[level])) for level in SINGLE_TURN}
    seen = {"seen": True} if one.seen else {}
    return {
        "set": name,
        "id": one.id,
        "cluster": _cluster(one.meta, one.id),
        **levels,
        "grade": one.grade,
        "reward": one.reward,
        **seen,
    }


def _conversation(name: str, one: Transcript) -> Line:
    success = {} if one.success is None else {"success": int(one.success)}
    return {
        "set": name,
        "id": one.id,
        "cluster": _cluster(one.meta, one.id),
        "va": int(one.valid),
        **success,
        "calls": len(one.calls),
        "de": sum(call.de for call in one.calls),
        "ce": sum(call.ce for call in one.calls),
        "ended": one.ended,
    }


def _recorded(name: str, record: Mapping[str, Any]) -> Line:
    values = {
        key: round(record[key], 5) if isinstance(record[key], float) else record[key]
        for key in RECORDED_KEYS
        if key in record
    }
    return {"set": name, "id": f"{record['id']}/{record.get('turn', '')}", "cluster": _cluster(record, ""), **values}


def metrics_of(folder: Path) -> dict[str, float]:
    """SET/NAME -> the flat numbers of each evaluation of a run; SET is the folder's, which is unique in a row."""
    found = {}
    for name, place in evaluations(folder):
        for key, value in json_files.read_object(place / "metrics.json").items():
            if "/" in key and isinstance(value, int | float):
                found[f"{name}/{key.partition('/')[2]}"] = value
    return found


def fingerprints_of(folder: Path) -> list[str]:
    """The fingerprint of each stage of a finished run."""
    return [stage["fingerprint"] for stage in json_files.read_object(folder / "metrics.json")["stages"]]


def made(row: RowFile, run: Path) -> bool:
    """Whether `run` is finished and the one that the row is of."""
    if not (run / "metrics.json").is_file():
        return False
    return fingerprints.fingerprint(fingerprints_of(run)) == row.header["fingerprint"]


def run_of(row: RowFile, work: Path) -> Path:
    """Where `run.sh --work` runs a row."""
    return work / f"{row.arm}-{row.seed}" / "main"


# --- numbers of lines -------------------------------------------------------------------------------------------------


def results(lines: Iterable[Line], level: str) -> dict[str, float]:
    """Sample -> its number in percent (`calls`: a count), whose mean is the row's.

    `mean` is that of TS, PI and CF; `de` and `ce` are shares of calls; `with_error` says whether any call failed. Of
    recorded calls: `key_accuracy` is a share of the key tokens of calls without a mistake, and `margin` the nats by
    which a failing call is less likely than the golden one; open text is left out of both.

    Raises:
        TltrainError: a line has no such number.
    """
    lines = list(lines)
    try:
        if level in ("de", "ce"):
            values = measured_ratio([line[level] for line in lines], [line["calls"] for line in lines])
            return {line["id"]: value for line, value in zip(lines, values, strict=True)}
        if level == "key_accuracy":
            asked = [line for line in lines if line["keys"] and line["mistake"] is None and not line["open_text"]]
            values = measured_ratio([line["keys_right"] for line in asked], [line["keys"] for line in asked])
            return {line["id"]: value for line, value in zip(asked, values, strict=True)}
        if level == "margin":
            failing = [line for line in lines if line.get("golden_loss") is not None and not line["open_text"]]
            return {line["id"]: line["loss"] - line["golden_loss"] for line in failing}
        if level == "mean":
            return {line["id"]: 100 * statistics.fmean(line[each] for each in SINGLE_TURN) for line in lines}
        if level == "with_error":
            return {line["id"]: 100.0 * (line["ce"] > 0) for line in lines}
        scale = 1.0 if level in ("calls", "reward") else 100.0
        return {line["id"]: scale * line[level] for line in lines}
    except KeyError as error:
        raise TltrainError(f"a line of the row has no {error}, which the measure {level} needs") from None
