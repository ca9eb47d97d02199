"""With any reader, one malformed record does not hide the others: it is listed, or its error counts those after it."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf

from tests.support.format_samples import SAMPLES
from tests.support.irm_records import RECORD
from tests.support.reader_samples import CHAT, LOVE, RAW
from tltrain import config, data
from tltrain.data import native, turns
from tltrain.data.reading import ReadReport
from tltrain.errors import RecordError

GOOD = {
    **SAMPLES,
    "openai": CHAT,
    "tl_training": RAW,
    "tltrain": json.loads(native.dumps(LOVE)),
    "irm": RECORD,
    "turns": turns.turn_records(LOVE)[0],
    "auto": SAMPLES["sharegpt"],
}
BAD = {"nothing": "of any format"}


def read(name, path, on_error):
    keys = {"name": name, "path": str(path), "on_error": on_error}
    report = ReadReport()
    node = OmegaConf.merge(OmegaConf.structured(config.FileData), keys)
    return list(data.trajectories(node, 0, report)), report


@pytest.fixture(params=sorted(GOOD))
def given(request, tmp_path):
    """Return a reader's name, and a file of four records of which it can read the first and the third."""
    path = tmp_path / "data.jsonl"
    records = [GOOD[request.param], BAD, GOOD[request.param], BAD]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return request.param, path


def test_malformed_records_are_left_out_and_listed(given):
    found, report = read(*given, "skip")
    assert len(found) == 2 and report.read == 2
    assert [line.partition(":")[0] for line in report.skipped] == [f"{given[1]}, record {n}" for n in (2, 4)]


def test_the_first_malformed_record_says_how_many_fail_alike(given):
    with pytest.raises(RecordError) as caught:
        read(*given, "stop")
    said = str(caught.value)
    assert said.startswith(f"{given[1]}, record 2: ")
    assert said.endswith(
        "; of the records after it 1 of 2 fail alike; data.on_error=skip leaves such records out and lists them"
    )
