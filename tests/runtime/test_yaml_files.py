"""YAML files that runs leave: whatever they contain, reading ends soon, in a value or in one kind of error."""

from __future__ import annotations

import time

import pytest

from tltrain.runtime import yaml_files

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
"""2^60 values in 60 lines."""


@pytest.mark.parametrize(
    "content",
    [
        *(b"[" * 3000, b"pkt: " + b"{a: " * 3000, b"- " * 3000 + b"x", b"? " * 3000, b"[" * 3000 + b"]" * 3000),
        *(b"a: [", b"\xff", b"\x00", b"a: *b", BOMB.encode(), b"{<<: *a}"),
        *(b"a: !!bool x", b"a: !!timestamp x", b"a: !!int ''", b"a: !!float x", b"!!python/object/apply:os.getcwd []"),
        *(b"{[1]: 2}", b"a: 2024-13-45"),
    ],
    ids=str,
)
def test_what_is_no_yaml_of_a_run_is_a_value_error(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    began = time.process_time()
    with pytest.raises(ValueError, match=r".") as error:
        yaml_files.read(tmp_path / "file")
    assert time.process_time() - began < 0.5
    assert "\n" not in str(error.value) and len(str(error.value)) <= 200


def test_values_are_read(tmp_path):
    (tmp_path / "file").write_text("a: [1, 2.5, null, true]\n'*b': 'x *y'\nc: ${d}\n# *e\n", encoding="utf-8")
    assert yaml_files.read(tmp_path / "file") == {"a": [1, 2.5, None, True], "*b": "x *y", "c": "${d}"}
