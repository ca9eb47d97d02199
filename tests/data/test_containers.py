"""Files as users have them: compressed, in UTF-16, wrapped, in shards, as tables."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.support.reader_samples import CHAT, CHAT_READ
from tltrain import config, data
from tltrain.data import json_stream
from tltrain.data.reading import ReadReport, records
from tltrain.errors import RecordError, TltrainError

TWO = [{"a": "ä"}, {"a": [1, {"b": None}]}]
LINES = "".join(json.dumps(each) + "\n" for each in TWO)
PRETTY = json.dumps(TWO[0], indent=2)


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def read(tmp_path, content, name="data.bin", **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [record for _, record in records(path, **options)]


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        LINES.replace("\n", "\r\n\r\n"),
        json.dumps(TWO),
        json.dumps(TWO, indent=1),
        "\n".join(json.dumps(each, indent=2) for each in TWO),
        "".join(json.dumps(each, indent=2) for each in TWO),
        ",\n".join(json.dumps(each, indent=2) for each in TWO),
        json.dumps({"data": TWO}),
        json.dumps({"data": TWO, "version": 1, "made": {"by": ["x"]}}, indent=2),
        json.dumps({"version": 1, "records": TWO}, indent=2),
        json.dumps({"version": 1, "records": TWO}),
        "\ufeff" + json.dumps({"rows": TWO}, indent=2),
    ],
)
def test_the_same_records_however_they_are_written(tmp_path, content):
    assert read(tmp_path, content) == TWO
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        bare = content.removeprefix("\ufeff")
        assert read(tmp_path, bare.encode(encoding)) == TWO


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd])
@pytest.mark.parametrize("content", [LINES.encode(), json.dumps(TWO, indent=1).encode("utf-16")])
def test_compressed_files_are_known_by_their_content(tmp_path, compress, content):
    assert read(tmp_path, compress(content)) == TWO


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_a_damaged_compressed_file_is_one_line(tmp_path, compress):
    whole = compress((LINES * 3000 + json.dumps({"x": random.Random(0).randbytes(9000).hex()}) + "\n").encode())
    with pytest.raises(TltrainError, match="expected a whole compressed file, found") as caught:
        read(tmp_path, whole[: len(whole) // 2])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04" + b"\0" * 30, "found a zip archive: unpack it first"),
        (b"SQLite format 3\0" + b"\0" * 30, "found an SQLite database"),
        (b"version https://git-lfs.github.com/spec/v1\noid x\n", "found a pointer of Git LFS"),
        (b"{'messages': []}\n", "found Python's notation: read it with ast.literal_eval and write JSON lines"),
        (b"// mine\n[]\n", "found comments, which JSON does not have"),
        (b"<!DOCTYPE html><html>", "found a page of HTML: download the file itself"),
        ("{}".encode("utf-16") + b"\x00", "expected text in UTF-8 or UTF-16, found"),
        (b"PAR1" + b"\0" * 30, "expected a Parquet or Arrow file, found"),
        (b"ARROW1\0\0" + b"\0" * 30, "expected a Parquet or Arrow file, found"),
    ],
)
def test_a_file_that_holds_no_records_is_named_for_what_it_is(tmp_path, content, said):
    with pytest.raises(TltrainError, match=said) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_a_table_of_text_is_named_with_what_reads_it(tmp_path):
    path = tmp_path / "chats.csv"
    path.write_text("query,tools,answers\nRome,[],[]\n")
    with pytest.raises(TltrainError, match=r"found a table of text: read it with pandas\.read_csv"):
        list(records(path))
    path.write_text(LINES)
    assert [record for _, record in records(path)] == TWO


@pytest.mark.parametrize("between", [" ", "", ", ", "\t"])
def test_several_records_of_one_line_are_read(tmp_path, between):
    line = between.join(map(json.dumps, TWO))
    assert read(tmp_path, line) == TWO
    assert read(tmp_path, f"{line}\n{line}\n") == TWO + TWO


def test_lists_and_wrapped_lists_are_not_held_in_memory(tmp_path):
    item = {"text": "x" * 10_000}
    for opening, closing in (("[", "]"), ('{\n"data": [', "]}")):
        path = tmp_path / "many.json"
        path.write_text(opening + ",\n".join([json.dumps(item)] * 2_000) + closing)
        tracemalloc.start()
        try:
            assert sum(1 for _ in records(path)) == 2_000
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < path.stat().st_size / 2


@pytest.mark.parametrize(
    "content", ['{"a": "' + "x" * 3000 + '"}\n', '[{"a": "' + "x" * 3000, '{\n"a": "' + "x" * 3000]
)
def test_a_record_that_is_too_long_is_one_line_however_small_its_file(tmp_path, content, monkeypatch):
    monkeypatch.setattr(json_stream, "MAX_BYTES", 1000)
    monkeypatch.setattr(json_stream, "_CHUNK", 500)
    with pytest.raises(RecordError, match=r"record 1: \w+: expected a record of at most 256 MiB"):
        read(tmp_path, gzip.compress((content * 3).encode()))


VALUES = st.none() | st.text(max_size=8) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=40)
@given(st.lists(VALUES | st.dictionaries(st.text(max_size=3), VALUES, max_size=3), max_size=6))
def test_values_that_are_cut_anywhere_are_read_whole(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("cut") / "data.json"
    path.write_text(json.dumps([{"v": value} for value in values], ensure_ascii=False, indent=1))
    chunk, json_stream._CHUNK = json_stream._CHUNK, 3
    try:
        assert [record["v"] for _, record in records(path)] == values
    finally:
        json_stream._CHUNK = chunk


def test_a_broken_first_line_does_not_hide_that_these_are_lines(tmp_path):
    report = ReadReport()
    assert read(tmp_path, '{"a": "cut\n{"a": 2}\n', on_error="skip", report=report) == [{"a": 2}]
    assert "record 1: line: expected valid JSON" in report.skipped[0]


def test_lines_of_lists_are_records_each_and_the_reader_says_what_it_expects(tmp_path):
    path = tmp_path / "lists.jsonl"
    path.write_text((json.dumps(CHAT["messages"]) + "\n") * 2)
    with pytest.raises(RecordError, match=r"record 1: record: expected an object .*, found a list, of messages"):
        list(trajectories(path))


# --- tables, folders, lists of files --------------------------------------------------------------------------------


def trajectories(path, **keys):
    node = OmegaConf.merge(OmegaConf.structured(config.FileData), {"name": "openai", "path": path, **keys})
    return data.trajectories(node, 0, ReadReport())


def table(texts: bool) -> pa.Table:
    names = ("messages", "tools")
    row = {name: json.dumps(CHAT[name]) if texts else CHAT[name] for name in names}
    if not texts:
        row["messages"] = [
            {**entry, "content": "Advice please"} if i == 1 else entry for i, entry in enumerate(row["messages"])
        ]
        row["messages"] = json.loads(json.dumps(row["messages"]))
        for entry in row["messages"]:
            for call in entry.get("tool_calls", []):
                arguments = call["function"]["arguments"]
                call["function"]["arguments"] = json.loads(arguments) if isinstance(arguments, str) else arguments
    return pa.Table.from_pylist([row, row])


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_tables_are_read_with_what_arrow_makes_of_records(tmp_path, kind, texts):
    path, rows = tmp_path / "table", table(texts)
    if kind == "parquet":
        pq.write_table(rows, path)
    else:
        opened = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as sink, opened(sink, rows.schema) as writer:
            writer.write_table(rows)
    found = list(trajectories(str(path)))
    assert [each.messages for each in found] == [CHAT_READ] * 2 and [each.id for each in found] == ["1", "2"]


def test_a_table_with_values_that_json_lacks(tmp_path):
    import datetime

    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"day": [datetime.date(2026, 1, 2), None], "x": [1.5, float("nan")]}), path)
    report = ReadReport()
    assert [record for _, record in records(path, "skip", report)] == [{"day": "2026-01-02", "x": 1.5}]
    assert report.skipped == [f"{path}, record 2: row.x: expected a number, found nan"]


def write_shards(folder, *names):
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(CHAT) + "\n")
    return folder


def test_a_folder_of_shards_and_a_list_of_files_are_numbered_on(tmp_path):
    folder = write_shards(tmp_path, "part-1.jsonl", "part-0.jsonl", "more/x.json", "README.md", ".cache/a.jsonl")
    (folder / "part-2.jsonl.gz").write_bytes(gzip.compress((json.dumps(CHAT) + "\n").encode()))
    assert [each.id for each in trajectories(str(folder))] == ["1", "2", "3", "4"]
    two = [str(folder / "part-1.jsonl"), str(folder / "part-2.jsonl.gz")]
    assert [each.id for each in trajectories(two)] == ["1", "2"]


def test_an_error_in_a_shard_names_the_shard_and_its_record(tmp_path):
    folder = write_shards(tmp_path, "a.jsonl", "b.jsonl")
    (folder / "b.jsonl").write_text(json.dumps(CHAT) + "\n{}\n")
    with pytest.raises(RecordError, match=r"b\.jsonl, record 2: messages: expected a list"):
        list(trajectories(str(folder)))


def test_a_folder_with_several_splits_is_refused(tmp_path):
    folder = write_shards(tmp_path, "data/train-00000-of-00001.jsonl", "data/test-00000-of-00001.jsonl")
    with pytest.raises(TltrainError, match="expected one split, found test, train: give the files to read"):
        list(trajectories(str(folder)))
    assert len(list(trajectories([str(folder / "data" / "train-00000-of-00001.jsonl")]))) == 1


def test_a_folder_without_shards_is_one_line(tmp_path):
    write_shards(tmp_path, "README.md")
    with pytest.raises(TltrainError, match="found a folder without any"):
        data.check_place(OmegaConf.create({"name": "openai", "path": str(tmp_path)}))


def test_a_dataset_that_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_list(
        [{"messages": json.dumps(CHAT["messages"]), "tools": json.dumps(CHAT["tools"])}] * 3
    )
    made.save_to_disk(tmp_path / "one", num_shards=2)
    assert [each.messages for each in trajectories(str(tmp_path / "one"))] == [CHAT_READ] * 3
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(tmp_path / "both")
    with pytest.raises(TltrainError, match="expected one split, found test, train"):
        list(trajectories(str(tmp_path / "both")))
    assert len(list(trajectories(str(tmp_path / "both" / "train")))) == 3


def test_a_dataset_of_the_hub_is_downloaded_and_read(tmp_path, monkeypatch, caplog):
    import huggingface_hub

    asked = []

    def download(repo, **options):
        asked.append((repo, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    write_shards(tmp_path, "data/train-00000.jsonl", "data/test-00000.jsonl")
    assert len(list(trajectories("hf://datasets/owner/name@v1/data/train-00000.jsonl"))) == 1
    inside = "data/train-00000.jsonl"
    expected = {"repo_type": "dataset", "revision": "v1", "allow_patterns": [inside, f"{inside}/*"]}
    assert asked == [("owner/name", expected)] and not caplog.messages
    with pytest.raises(TltrainError, match="expected one split, found test, train"):
        list(trajectories("hf://datasets/owner/name"))
    assert "without @REVISION" in caplog.text
    data.check_place(OmegaConf.create({"name": "openai", "path": "hf://datasets/owner/name"}))
    assert len(asked) == 2  # a check downloads nothing


@pytest.mark.parametrize("path", ["hf://owner/name", "hf://datasets/name", "hf://datasets/o/n/../../x"])
def test_a_path_of_the_hub_that_names_no_dataset_is_one_line(path):
    with pytest.raises(TltrainError, match="expected hf://datasets/OWNER/NAME"):
        list(trajectories(path))


def test_a_dataset_that_cannot_be_downloaded_is_one_line(monkeypatch):
    import huggingface_hub

    def download(repo, **options):
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(TltrainError, match=r"cannot be downloaded, offline; data\.path=FOLDER reads a copy"):
        list(trajectories("hf://datasets/owner/name@v1"))


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_a_damaged_table_is_one_line_and_does_not_end_the_process(tmp_path, kind):
    path, rows = tmp_path / "table", table(texts=True)
    opened = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as sink, opened(sink, rows.schema) as writer:
        writer.write_table(rows)
    whole = path.read_bytes()
    for end in range(8, len(whole) - 200, max(len(whole) // 40, 1)):
        path.write_bytes(whole[:end])
        with pytest.raises(TltrainError, match="expected a Parquet or Arrow file, found") as caught:
            list(trajectories(str(path)))
        assert "\n" not in str(caught.value)


def test_a_record_with_a_key_twice_is_left_out_alone(tmp_path):
    twice = '{"id": 1, "id": 2}'
    for name, text in {"a.jsonl": f'{twice}\n{{"id": 3}}\n', "a.json": f'[{twice},\n{{"id": 3}}]'}.items():
        (tmp_path / name).write_text(text)
        report = ReadReport()
        assert [record for _, record in records(tmp_path / name, "skip", report)] == [{"id": 3}]
        assert report.skipped[0].endswith("expected each key of an object once, found id twice")


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"train": TWO, "test": TWO}, "train, test"),
        ({"test": TWO, "train": TWO}, "test, train"),
        ({"version": 1, "validation": TWO, "train_extra": TWO}, "validation, train_extra"),
        ({"data": TWO, "test": TWO}, "data, test"),
    ],
)
def test_several_lists_of_records_are_refused(tmp_path, content, named, indent):
    with pytest.raises(TltrainError, match=rf"file: expected one list of records, found those of {named}; write the"):
        read(tmp_path, json.dumps(content, indent=indent))


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["train", "test", "validation", "samples"])
def test_the_only_list_of_records_is_read_whatever_its_name(tmp_path, name, indent):
    assert read(tmp_path, json.dumps({name: TWO, "test ": [], "tags": ["x"]}, indent=indent)) == TWO


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "x"}], "examples": TWO},
        {"items": [{"type": "message", "role": "user"}, {"type": "function_call"}]},
        {"data": [{"role": "user", "content": "x"}]},
    ],
)
def test_an_object_that_is_a_record_is_not_taken_for_a_list_of_them(tmp_path, record, indent):
    assert read(tmp_path, json.dumps(record, indent=indent)) == [record]
