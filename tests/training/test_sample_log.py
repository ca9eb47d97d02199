"""`samples.jsonl`: what a resumed run keeps of it."""

from __future__ import annotations

import json

import pytest

from tltrain.training.reward_function import SampleLog, SampleRecord


def write(path, *texts):
    """Write a line of `samples.jsonl` for each text, with steps from 1."""
    records = [SampleRecord(step, sampled=text).to_json() for step, text in enumerate(texts, 1)]
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8", newline="")
    return lines


@pytest.mark.parametrize("text", ["f()", "a\u2028b", "a\u2029b", "a\x85b", "a\x1cb", "a\nb", "\r"])
def test_the_lines_of_earlier_steps_are_kept_whatever_was_sampled(tmp_path, text):
    file = tmp_path / "samples.jsonl"
    lines = write(file, text, "f()", "later")
    SampleLog(file, 1, 1).forget_after(2)
    assert file.read_bytes().decode() == "".join(lines[:2])


@pytest.mark.parametrize("last", [b'{"step": 2, "sampled": "f', b"\0\0\0", b"\xff", b"[" * 100_000])
def test_a_line_that_was_being_written_is_dropped(tmp_path, last):
    file = tmp_path / "samples.jsonl"
    (line,) = write(file, "f()")
    with file.open("ab") as more:
        more.write(last)
    SampleLog(file, 1, 1).forget_after(1)
    assert file.read_bytes().decode() == line
