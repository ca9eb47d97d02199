"""A stand-in for llama.cpp's converter that writes the precision instead of a model."""

from __future__ import annotations

from pathlib import Path

from tltrain.serving import gguf

CONVERTER = """
import os, pathlib, sys
where = sys.argv[sys.argv.index("--outfile") + 1]
assert "HF_TOKEN" not in os.environ and os.environ["HF_HUB_OFFLINE"] == "1"
SAID
pathlib.Path(where).write_bytes(b"GGUF" + sys.argv[sys.argv.index("--outtype") + 1].encode())
"""


def converter(folder: Path, said: str = "") -> gguf.Converter:
    """Write the stand-in to a folder; `said` is Python code that it runs first."""
    folder.mkdir(exist_ok=True)
    (folder / gguf.SCRIPT).write_text(CONVERTER.replace("SAID", said))
    return gguf.converter(str(folder))
