"""stage=mae through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import Ran
from tests.support.reader_samples import RAW_LOVE, RAW_WORK, SYSTEM, TEXTS, WORK_TEXTS

TINY = ("model=tiny", "hardware.bf16=false")
FEW = (*TINY, "data.size=12", "stage.args.max_steps=2")
SHORT = ("benchmark.size=4", "stage.max_new_tokens=8")


def mae(tltrain, path: Path, *words: str, data: str = "tl_training", **options) -> Ran:
    return tltrain("stage=mae", f"data={data}", f"data.path={path}", *words, **options)


def learned(lines: list[dict]) -> list[list[bool]]:
    """Return for each trajectory of a train.jsonl which assistant messages may be learned."""
    return [[m.get("learn", True) for m in line["messages"] if m["role"] == "assistant"] for line in lines]


@pytest.mark.pictures
def test_mae_counts_what_it_drops_and_why(tltrain, write):
    ran = mae(tltrain, write(RAW_LOVE, RAW_WORK))
    counts = {"trajectories": 2, "calls": 7, "kept": 3, "dropped_error": 3, "dropped_no_answer": 1}
    assert ran.metrics.items() >= counts.items()
    assert ran.metrics["error_kinds"] == {"api_message": 2, "unexpected_argument": 1}
    assert ran.metrics["records_read"] == 2
    assert learned(ran.lines("train.jsonl")) == [[False, True, True], [False, False, False, True]]
    assert (ran.folder / "error_kinds.png").read_bytes().startswith(b"\x89PNG")
    assert "dropped error" in ran.out and "42.9%" in ran.out


def test_the_strict_rule_reads_prose_as_prose(tltrain, write):
    ran = mae(tltrain, write(RAW_LOVE, RAW_WORK), "stage.rule=strict")
    assert (ran.metrics["dropped_error"], ran.metrics["kept"]) == (2, 4)
    assert learned(ran.lines("train.jsonl"))[1] == [False, False, True, True]


def test_truth_that_the_data_does_not_know_is_one_line(tltrain, write):
    ran = mae(tltrain, write(RAW_LOVE, RAW_WORK), "stage.rule=failed", status=1)
    assert "stage.rule=failed: trajectory love does not say which calls went wrong" in ran.err.splitlines()[-1]
    assert "stage.rule=paper" in ran.err.splitlines()[-1]


def test_a_train_file_of_toolworld_keeps_the_truth(tltrain):
    made = tltrain("stage=mae", "data=toolworld", "data.size=20", "data.error_rate=0.35", "stage.rule=failed")
    again = mae(tltrain, made.folder / "train.jsonl", "stage.rule=errors", data="tltrain")
    assert 0 < made.metrics["dropped_error"] < again.metrics["dropped_error"] + again.metrics["not_learned_by_source"]
    random = tltrain("stage=mae", "data=toolworld", "data.size=20", "data.error_rate=0.35", "stage.rule=random")
    paper = tltrain("stage=mae", "data=toolworld", "data.size=20", "data.error_rate=0.35")
    assert random.metrics["dropped_at_random"] == paper.metrics["dropped_error"] > 0
    assert "dropped at random" in random.out and "The rules paper and strict differ" in random.out


def test_the_difference_of_the_rules_is_counted_and_shown(tltrain, write):
    ran = mae(tltrain, write(RAW_LOVE, RAW_WORK))
    found = ran.metrics["rules_differ"]
    assert [found[name] for name in ("answers", "both", "only_paper", "only_strict")] == [4, 2, 1, 0]
    (example,) = found["examples"]
    assert (example["trajectory"], example["paper"], example["strict"]) == ("work", "api_message", None)
    assert "differ on 1 of 4 answers (25.0%): 0 are an error under strict only, 1 under paper only" in ran.out
    assert example["answer"] in ran.out and "stage.rule=strict" in ran.out
    assert mae(tltrain, write(RAW_LOVE, RAW_WORK), "stage.mae=false").metrics["rules_differ"] is None


def flagged(is_error: bool) -> dict:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return {
        "tools": [{"name": "f"}],
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "42" if is_error else "Error: 42", "is_error": is_error},
            {"role": "assistant", "content": "Bye."},
        ],
    }


def test_a_flag_in_the_data_decides_under_the_strict_rule_alone(tltrain, write):
    path = write(flagged(True), flagged(False))
    strict, paper = (mae(tltrain, path, f"stage.rule={rule}", data="openai") for rule in ("strict", "paper"))
    assert learned(strict.lines("train.jsonl")) == [[False, True], [True, True]]
    assert learned(paper.lines("train.jsonl")) == [[True, True], [False, True]]
    assert strict.metrics["error_kinds"] == {"flagged": 1}
    again = mae(tltrain, paper.folder / "train.jsonl", "stage.rule=strict", data="tltrain")  # the flag is in the file
    assert again.metrics["dropped_error"] == 1


def test_without_mae_only_turns_without_an_answer_go(tltrain, write):
    ran = mae(tltrain, write(RAW_LOVE, RAW_WORK), "stage.mae=false")
    assert (ran.metrics["kept"], ran.metrics["dropped_error"], ran.metrics["dropped_no_answer"]) == (6, 0, 1)
    assert not (ran.folder / "error_kinds.png").exists()


def test_train_jsonl_reads_back_with_the_same_flags(tltrain, write):
    first = mae(tltrain, write([RAW_LOVE, RAW_WORK]))
    again = mae(tltrain, first.folder / "train.jsonl", "stage.mae=false", data="tltrain")
    assert again.lines("train.jsonl") == first.lines("train.jsonl")
    assert (again.metrics["kept"], again.metrics["not_learned_by_source"]) == (3, 4)


PARALLEL = {
    "version": 1,
    "id": "both",
    "tools": [{"name": "search", "description": "Finds.", "parameters": {"type": "object", "properties": {}}}],
    "messages": [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "",
            "thought": "Both at once.",
            "calls": [
                {"name": "search", "arguments": {"q": 1}, "id": "a"},
                {"name": "search", "arguments": {"q": 2}, "id": "b"},
            ],
        },
        {"role": "tool", "content": '{"error": "quota exceeded"}', "answers": "b"},
        {"role": "tool", "content": "Listen.", "answers": "a"},
        {"role": "assistant", "content": "Bye."},
    ],
}


def test_of_several_calls_in_a_message_the_failed_one_alone_is_flagged(tltrain, write):
    first = mae(tltrain, write(PARALLEL), data="tltrain")
    (line,) = first.lines("train.jsonl")
    assert [call.get("learn", True) for call in line["messages"][1]["calls"]] == [True, False]
    del line["messages"][1]["calls"][1]["learn"]
    assert line == PARALLEL
    counts = {"calls": 3, "kept": 2, "dropped_error": 1, "dropped_no_answer": 0}
    assert first.metrics.items() >= counts.items()
    again = mae(tltrain, first.folder / "train.jsonl", "stage.mae=false", data="tltrain")
    assert again.lines("train.jsonl") == first.lines("train.jsonl")
    assert (again.metrics["kept"], again.metrics["not_learned_by_source"]) == (2, 1)


def test_several_calls_are_written_as_turns_of_their_own_where_a_file_has_one_a_turn(tltrain, write):
    path = mae(tltrain, write(PARALLEL), data="tltrain").folder / "train.jsonl"
    turns = mae(tltrain, path, "stage.write=turns", data="tltrain").folder / "mae_data.json"
    calls = ["search(q=1)", "Listen.", "search(q=2)", '{"error": "quota exceeded"}', "Bye."]
    records = json.loads(turns.read_text())
    assert [record["id"] for record in records] == ["Turn 1: both", "Turn 3: both"]
    assert [entry["content"] for entry in records[-1]["conversations"][2:]] == calls


def test_mae_writes_the_released_file_of_turns(tltrain, write):
    ran = mae(tltrain, write([RAW_LOVE, RAW_WORK]), "stage.write=turns")
    assert json.loads((ran.folder / "mae_data.json").read_text()) == [
        {"id": "Turn 2: love", "conversations": TEXTS[:5]},
        {"id": "Turn 3: love", "conversations": TEXTS},
        {"id": "Turn 4: work", "conversations": WORK_TEXTS},
    ]


def test_mae_writes_the_papers_raw_file(tltrain, write):
    raw = mae(tltrain, write(RAW_LOVE, RAW_WORK), "stage.write=raw").folder / "raw_data.json"
    written = json.loads(raw.read_text())
    for record, source in zip(written, (RAW_LOVE, RAW_WORK), strict=True):
        system, *messages = record.pop("conversations")
        assert json.loads(system.pop("content")) == json.loads(SYSTEM) and system == {"role": "system"}
        assert [m["content"].split("\n")[0] for m in messages] == [
            m["content"].split("\n")[0] for m in source["conversations"][1:]
        ]
        assert record == {key: value for key, value in source.items() if key != "conversations"}
    from_source, from_written = (mae(tltrain, path).lines("train.jsonl") for path in (write(RAW_LOVE, RAW_WORK), raw))
    assert from_written == from_source


def test_toolworld_writes_raw_files_of_any_size(tltrain):
    ran = tltrain("stage=mae", "data.size=5", "stage.write=raw")
    assert len(json.loads((ran.folder / "raw_data.json").read_text())) == 5
    same = tltrain("stage=mae", "data.size=5", "stage.write=raw")
    assert (same.folder / "raw_data.json").read_bytes() == (ran.folder / "raw_data.json").read_bytes()
    other = tltrain("stage=mae", "data.size=5", "stage.write=raw", "seed=1")
    assert (other.folder / "raw_data.json").read_bytes() != (ran.folder / "raw_data.json").read_bytes()


def broken() -> dict:
    record = json.loads(json.dumps(RAW_LOVE))
    record["conversations"][4]["content"] = "search"
    return record


def test_a_broken_record_ends_in_one_line(tltrain, write):
    path = write(RAW_LOVE, broken(), RAW_WORK)
    ran = mae(tltrain, path, status=1)
    assert ran.err == (
        f"{path}, record 2: conversations[4].content: expected a tool's name, a line break and its arguments as JSON, "
        'found "search"; of the records after it 0 of 1 fail alike; data.on_error=skip leaves such records out and '
        "lists them\n"
    )
    left = {file.name for file in ran.folder.iterdir() if file.is_file()}
    assert left == {".lock", "error.txt", "tltrain.log"}


def test_a_broken_record_is_skipped_and_listed(tltrain, write):
    path = write(RAW_LOVE, broken(), RAW_WORK)
    ran = mae(tltrain, path, "data.on_error=skip")
    assert (ran.metrics["records_read"], ran.metrics["records_skipped"], ran.metrics["calls"]) == (2, 1, 7)
    (line,) = (ran.folder / "skipped.txt").read_text().splitlines()
    assert line.startswith(f"{path}, record 2: conversations[4].content: expected")
    assert "skipped.txt" in ran.err


def test_what_reading_and_mae_leave_out_is_said_before_training(tltrain, write):
    """The log names it with its share, so that it is visible on the terminal, not only in metrics.json."""
    words = ("data=tl_training", f"data.path={write(RAW_LOVE, broken(), RAW_WORK)}", "data.on_error=skip")
    ran = tltrain("stage=pkt", *words, *FEW[:2], "stage.args.max_steps=1", "data.holdout=0")
    assert "1 of 3 (33.3 %) records could not be read: see" in ran.err
    assert "4 of 7 (57.1 %) calls are not learned: 3 answered with an error, 1 without an answer" in ran.out + ran.err


def test_replies_between_the_users_turns_are_learned_by_a_key(tltrain, write):
    ask = {"role": "user", "content": "Advice?"}
    calls = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "a", "function": {"name": "search", "arguments": {"query": "love"}}}],
    }
    record = {
        "tools": [{"name": "search", "parameters": {"properties": {"query": {"type": "string"}}}}],
        "messages": [
            ask,
            {"role": "assistant", "content": "On what?"},
            {"role": "user", "content": "Love."},
            calls,
            {"role": "tool", "content": "Listen."},
            {"role": "assistant", "content": "Listen."},
            ask,
            calls,  # never answered
            ask,
            {"role": "assistant", "content": "Rest.", "weight": 0},
            ask,
            {"role": "assistant", "content": "Bye."},
        ],
    }
    path = write(record)
    without = mae(tltrain, path, data="openai")
    assert learned(without.lines("train.jsonl")) == [[False, True, False, False, False, True]]
    assert (without.metrics["dropped_no_answer"], without.metrics["replies_not_learned"]) == (3, 2)
    assert "2 text after which the conversation goes on (data.learn_replies=true learns it)" in without.err
    replies = mae(tltrain, path, "data.learn_replies=true", data="openai")
    assert learned(replies.lines("train.jsonl")) == [[True, True, True, False, False, True]]
    assert (replies.metrics["dropped_no_answer"], replies.metrics["not_learned_by_source"]) == (1, 1)
