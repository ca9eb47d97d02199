"""Open files as users have them: compressed, in UTF-16, in shards. The first bytes decide, not the name.

gzip, Zstandard, bzip2 and xz are decompressed while they are read, and UTF-16 and UTF-32 are read as UTF-8.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, cast

from tltrain.data import hub, nearby
from tltrain.data.json_text import parse_json
from tltrain.errors import FieldError, TltrainError
from tltrain.runtime.json_files import MAX_BYTES

CHUNK = 1 << 16
for _encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
    codecs.lookup(_encoding)  # imports its module now rather than when a file's content asks for it
SUFFIXES = (".jsonl", ".json", ".ndjson", ".parquet", ".arrow")
"""Suffixes of the files in a folder that are shards; one of `COMPRESSED` may follow."""
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
METADATA = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json", "package.json")
TOO_LONG = f"a record of at most {MAX_BYTES >> 20} MiB"
"""The limit of a record's size, for errors; even a small compressed file may contain a very long one."""

_SPLIT = re.compile(r"(?:^|[-_./])(train|training|test|valid|validation|dev|eval)(?=[-_./]|$)")
_STATED_SPLIT = {"training": "train", "valid": "validation", "dev": "validation", "eval": "validation"}
_AS_JSON = "read it with {} and write JSON lines"
_TEXT_TABLES = (".csv", ".tsv")
_FOREIGN = {
    b"PK\x03\x04": "a zip archive: unpack it first (unzip FILE)",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"SQLite format": "an SQLite database: export its rows as JSON lines",
    b"\x89PNG": "a picture",
    b"%PDF": "a PDF document",
    b"version https://git-lfs": "a pointer of Git LFS instead of the file: git lfs pull",
    b"{'": f"Python's notation: {_AS_JSON.format('ast.literal_eval')}",
    b"[{'": f"Python's notation: {_AS_JSON.format('ast.literal_eval')}",
    b"//": "comments, which JSON does not have: take them out",
    b"/*": "comments, which JSON does not have: take them out",
    b"<!DOCTYPE": "a page of HTML: download the file itself",
    b"<html": "a page of HTML: download the file itself",
}
"""First bytes of files that cannot be read as they are, and the kind of each."""


def files_of(path: Any) -> list[str]:
    """Return the files that a path stands for: all of a list, a folder's shards by name, otherwise the path itself.

    A dataset that `datasets` saved (`save_to_disk`) lists its own files. A dataset on the hub is downloaded.

    Raises:
        TltrainError: a folder has no shards, or has shards of several splits.
    """
    if isinstance(path, Sequence) and not isinstance(path, str):
        return [file for each in path for file in files_of(each)]
    if hub.is_dataset(path):
        path = hub.downloaded(path)
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        is_folder = False
    return _shards(Path(path)) if is_folder else [str(path)]


def _shards(folder: Path) -> list[str]:
    saved = folder / "state.json"
    if saved.is_file() and (listed := _saved_files(saved)):
        return listed
    found = [Path(above) / name for above, _, names in os.walk(folder) for name in names if _is_shard(name)]
    shards = sorted(file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts))
    if not shards:
        suffixes = ", ".join(SUFFIXES)
        raise TltrainError(f"{folder}: expected a file of JSON or a folder with {suffixes}, found a folder without any")
    splits = {_split_of(file.relative_to(folder)) for file in shards} - {""}
    if len(splits) > 1:
        raise TltrainError(
            f"{folder}: expected one split, found {', '.join(sorted(splits))}: give the files to read, "
            f"data.path=[{shards[0]},...], or the folder of one split"
        )
    return list(map(str, shards))


def _is_shard(name: str) -> bool:
    bare = next((name.removesuffix(suffix) for suffix in COMPRESSED if name.endswith(suffix)), name)
    return bare.endswith(SUFFIXES) and name not in METADATA and not name.startswith("cache-")


def _split_of(file: Path) -> str:
    found = _SPLIT.search(str(file).lower())
    return "" if found is None else _STATED_SPLIT.get(found[1], found[1])


def _saved_files(state: Path) -> list[str]:
    """Return the files that `datasets.save_to_disk` lists."""
    try:
        with open_file(state) as file:
            listed = parse_json(file.read(MAX_BYTES).decode("utf-8", "replace"), "state")["_data_files"]
        names = [Path(str(entry["filename"])).name for entry in listed]
    except (FieldError, KeyError, TypeError):
        return []
    return [str(state.parent / name) for name in names]


@contextmanager
def open_file(path: str | PathLike[str]) -> Iterator[io.BufferedReader]:
    """Open a file to read its text as UTF-8.

    Raises:
        TltrainError: the file does not exist, is a folder, or is not text; or, while it is read, its compressed data is
            damaged or its text is not Unicode.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed below; the body's errors must not be caught here)
    except OSError as error:
        hint = nearby.file_hint(path)
        raise TltrainError(f"{path}: expected a file of JSON, found: {error.strerror}{hint}") from None
    except ValueError as error:  # a NUL in the path
        raise TltrainError(f"{str(path)!r}: expected a file of JSON, found: {error}") from None
    with ExitStack() as stack:
        stack.enter_context(file)
        for _ in range(3):  # compressed, then in UTF-16
            head = file.peek(32)[:32]
            kind = next((kind for magic, kind in _KINDS.items() if head.startswith(magic)), _unmarked(head))
            if kind is None:
                break
            file = stack.enter_context(_converted(path, kind(file)))
        foreign = next((what for magic, what in _FOREIGN.items() if head.startswith(magic)), None)
        if str(path).lower().endswith(_TEXT_TABLES) and not head.lstrip().startswith((b"{", b"[")):
            foreign = f"a table of text: {_AS_JSON.format('pandas.read_csv')}"
        if foreign is not None:
            raise TltrainError(f"{path}: expected a file of JSON, found {foreign}")
        yield file


def check_file(path: str | PathLike[str]) -> None:
    """Raise a TltrainError, as `open_file` does, if a file does not exist. Do not open it: a pipe is read only once."""
    try:
        there = not stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        there = False
    if not there:
        with open_file(path):
            pass


Convert = Callable[[BinaryIO], Iterator[bytes]]


def _decompressed(opened: Callable[[BinaryIO], BinaryIO]) -> Convert:
    def chunks(file: BinaryIO) -> Iterator[bytes]:
        with opened(file) as inner:
            while chunk := inner.read(CHUNK):
                yield chunk

    return chunks


def _zstd(file: BinaryIO) -> BinaryIO:
    import pyarrow as pa

    return cast(BinaryIO, pa.input_stream(pa.PythonFile(file, mode="r"), compression="zstd"))


def _recoded(encoding: str) -> Convert:
    def chunks(file: BinaryIO) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(encoding)()
        while chunk := file.read(CHUNK):
            yield decoder.decode(chunk).encode("utf-8")
        yield decoder.decode(b"", final=True).encode("utf-8")

    return chunks


_KINDS: dict[bytes, Convert] = {
    b"\x1f\x8b": _decompressed(lambda file: cast(BinaryIO, gzip.GzipFile(fileobj=file))),
    b"\x28\xb5\x2f\xfd": _decompressed(_zstd),
    b"BZh": _decompressed(lambda file: cast(BinaryIO, bz2.BZ2File(file))),
    b"\xfd7zXZ\x00": _decompressed(lambda file: cast(BinaryIO, lzma.LZMAFile(file))),  # noqa: SIM115
    b"\xff\xfe\x00\x00": _recoded("utf-32"),
    b"\x00\x00\xfe\xff": _recoded("utf-32"),
    b"\xff\xfe": _recoded("utf-16"),
    b"\xfe\xff": _recoded("utf-16"),
}
"""First bytes of a file -> how it is read; longer ones come before their own prefixes."""


def _unmarked(head: bytes) -> Convert | None:
    """Return how to read UTF-16 without a byte order mark, as some editors write it."""
    if len(head) >= 4 and head[:1] in b"[{" and head[1:2] == b"\0" and head[2:3] != b"\0":
        return _recoded("utf-16-le")
    if len(head) >= 4 and head[:1] == b"\0" and head[1:2] in (b"[", b"{"):
        return _recoded("utf-16-be")
    return None


class _Chunks(io.RawIOBase):
    """The bytes of an iterator as a file."""

    def __init__(self, path: str | PathLike[str], chunks: Iterator[bytes]) -> None:
        self.path, self.chunks, self.left = path, chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.left:
            try:
                self.left = next(self.chunks)
            except StopIteration:
                return 0
            except UnicodeError as error:
                raise TltrainError(f"{self.path}: expected text in UTF-8 or UTF-16, found: {error}") from None
            except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
                raise TltrainError(f"{self.path}: expected a whole compressed file, found: {error}") from None
        count = min(len(buffer), len(self.left))
        buffer[:count] = self.left[:count]
        self.left = self.left[count:]
        return count


def _converted(path: str | PathLike[str], chunks: Iterator[bytes]) -> io.BufferedReader:
    return io.BufferedReader(_Chunks(path, chunks), CHUNK)


# --- tables ---------------------------------------------------------------------------------------------------------


_TABLES = (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")


def is_table(head: bytes) -> bool:
    """Return whether a file's first bytes are those of Parquet or Arrow."""
    return head.startswith(_TABLES)


def table_rows(path: str | PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet or Arrow file, a batch at a time in memory.

    Raises:
        TltrainError: the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(path, "rb") as file:
            head = file.read(6)
        if head.startswith(b"PAR1"):
            with pq.ParquetFile(path) as table:
                for batch in table.iter_batches(batch_size=256):
                    yield from batch.to_pylist(maps_as_pydicts="lossy")
            return
        with pa.OSFile(str(path), "rb") as source:  # not mapped into memory: a damaged file would end the process
            opened = pa.ipc.open_file if head == b"ARROW1" else pa.ipc.open_stream
            reader = opened(source)
            batches = map(reader.get_batch, range(reader.num_record_batches)) if head == b"ARROW1" else reader
            for batch in batches:
                batch.validate(full=True)  # unchecked, offsets that point outside would be followed
                for start in range(0, batch.num_rows, 256):
                    yield from batch.slice(start, 256).to_pylist(maps_as_pydicts="lossy")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TltrainError(f"{path}: expected a Parquet or Arrow file, found: {str(error).splitlines()[0]}") from None


def plain(value: Any, where: str) -> Any:
    """Return a table's value as one that JSON has; dates and decimal numbers become text. Raises FieldError."""
    if isinstance(value, dict):
        return {str(key): plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, f"{where}[{i}]") for i, inner in enumerate(value)]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise FieldError(where, "a number", str(value))
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise FieldError(where, "text", f"{len(value)} bytes that are not UTF-8") from None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
