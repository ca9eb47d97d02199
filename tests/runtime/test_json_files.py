"""Files that runs leave: whatever stands in them, reading ends in a value or in one kind of error."""

from __future__ import annotations

import pytest

from tltrain.runtime import json_files


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "nested deeper than 100"),
        (b"[" * 102 + b"]" * 102, "nested deeper than 100"),
        (b'{"a": 1', "delimiter"),
        (b"\xff", "utf-8"),
        (b"", "Expecting value"),
    ],
)
def test_what_is_no_json_is_a_value_error(tmp_path, content, said):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        json_files.read(tmp_path / "file")


def test_values_are_read(tmp_path):
    (tmp_path / "file").write_text("[" * 100 + "1" + "]" * 100)
    value = json_files.read(tmp_path / "file")
    while isinstance(value, list):
        (value,) = value
    assert value == 1
    with pytest.raises(ValueError, match="expected a JSON object, found list"):
        json_files.read_object(tmp_path / "file")
    (tmp_path / "file").write_text('{"a": [null, 1e3]}')
    assert json_files.read_object(tmp_path / "file") == {"a": [None, 1000.0]}
