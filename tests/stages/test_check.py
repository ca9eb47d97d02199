"""stage=check: what a data set contains, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.processes import probe
from tltrain.data.survey import alike, distribution

DESK = ROOT / "examples" / "support_desk" / "conversations.jsonl"


def chat(name: str, question: str = "Hi", answer: str = "2", **more) -> dict:
    """Return a conversation with one call of `gcd` and a final reply."""
    made = {"id": "a", "type": "function", "function": {"name": "gcd", "arguments": '{"x": 4}'}}
    return {
        "id": name,
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": None, "tool_calls": [made]},
            {"role": "tool", "tool_call_id": "a", "content": answer},
            {"role": "assistant", "content": f"It is {answer}."},
        ],
        "tools": [{"type": "function", "function": {"name": "gcd", "parameters": {"properties": {"x": {}}}}}],
        **more,
    }


def check(tltrain, path: Path, *words: str, **options):
    return tltrain("stage=check", "data=openai", f"data.path={path}", *words, **options)


def findings(ran) -> dict[str, dict]:
    return {each["title"]: each for each in ran.metrics["findings"]}


def finding(ran, words: str) -> dict:
    (found,) = (each for title, each in findings(ran).items() if words in title)
    return found


@pytest.fixture
def desk(run_once):
    return run_once("stage=check", "data=openai", f"data.path={DESK}")


def test_the_support_desk_has_the_numbers_that_its_readme_tells(desk):
    found = desk.metrics
    assert (found["conversations"], found["calls"], found["replies"]) == (40, 77, 43)
    assert found["error_calls"] == {"paper": 13, "strict": 18}
    assert [found["learned"][rule]["kept"] for rule in ("paper", "strict")] == [104, 99]
    assert finding(desk, "strict only")["count"] == 8
    assert finding(desk, "paper only")["count"] == 3
    assert finding(desk, "after which the conversation goes on")["count"] == 3
    read = {"format": "openai", "path": str(DESK), "files": 1, "bytes": DESK.stat().st_size, "recognised": "openai"}
    assert found["data"].items() >= read.items()
    assert found["tools"]["on_offer"] == 12
    assert found["lengths"]["turns of the assistant"] == {"least": 2, "median": 3, "p90": 4, "most": 5, "sum": 120}


def test_a_finding_has_ten_examples_with_place_and_reason(desk, tltrain):
    failed = finding(desk, "answered with an error")
    assert (failed["count"], failed["of"], len(failed["examples"])) == (18, 77, 10)
    assert failed["examples"][0] == {
        "where": "chat-01",
        "text": 'track_shipment(tracking_number="TN336100")',
        "note": "connection: Error: connection timed out",
    }
    off_offer = finding(desk, "of tools that are not on offer")
    assert off_offer["examples"] == [{"where": f"{DESK}, record 23", "text": "", "note": ""}]
    fewer = check(tltrain, DESK, "stage.examples=2")
    assert len(finding(fewer, "answered with an error")["examples"]) == 2


def test_the_terminal_and_the_page_show_the_same(desk):
    page = (desk.folder / "check.html").read_text(encoding="utf-8")
    for title, each in findings(desk).items():
        assert title in desk.out and title.replace("'", "&#39;") in page
        assert f"{each['count']:,}" in page
    assert "104 (86.7%)" in desk.out and ">104 <small>86.7%</small>" in page
    assert "stage.rule=strict" in page and "track_shipment(tracking_number=" in page
    assert "<script" not in page and "src=" not in page and "href=" not in page


def test_copies_and_repeated_questions_are_told_apart(tltrain, write):
    renamed = json.loads(json.dumps(chat("copy")).replace('"a"', '"other"'))  # ids of calls are not words
    rows = (chat("first"), renamed, chat("again", answer="3"), chat("new", question="What is it?"))
    ran = check(tltrain, write(*rows))
    assert ran.metrics["duplicates"] == {"conversations": 1, "questions": 1}
    assert finding(ran, "word for word")["examples"] == [{"where": "copy", "text": "Hi", "note": "as first"}]
    assert finding(ran, "whose question")["examples"] == [{"where": "again", "text": "Hi", "note": "as first"}]


def test_what_would_be_lost_is_counted_with_its_reason(tltrain, write):
    words = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    unanswered = chat("unanswered")
    del unanswered["messages"][2]
    marked = chat("marked", question="Marked?")
    for message in marked["messages"]:
        message["weight"] = 0
    rows = (chat("reply", messages=[*words, *chat("x")["messages"]]), unanswered, marked, {"messages": 3}, {"id": "e"})
    ran = check(tltrain, write(*rows))
    assert ran.metrics["records_skipped"] == 2 and ran.metrics["records_read"] == 3
    unreadable = finding(ran, "cannot be read")
    assert (unreadable["count"], unreadable["of"]) == (2, 5)
    assert [each["text"] for each in unreadable["examples"]] == ["messages: expected a list"]
    assert unreadable["examples"][0]["where"] == "2 times" and "record 4" in unreadable["examples"][0]["note"]
    assert finding(ran, "although the conversation goes on")["examples"][0]["where"] == "unanswered"
    assert finding(ran, "after which the conversation")["examples"] == [{"where": "reply", "text": "Yes?", "note": ""}]
    assert finding(ran, "marks as history")["count"] == 2
    assert finding(ran, "nothing is learned")["examples"][0]["where"] == "marked"
    assert (ran.folder / "skipped.txt").read_text().count("\n") == 2
    learned = check(tltrain, write(*rows), "data.learn_replies=true")
    assert not any("after which the conversation" in title for title in findings(learned))
    assert learned.metrics["learned"]["strict"]["kept"] == ran.metrics["learned"]["strict"]["kept"] + 1


def test_the_format_that_auto_takes_is_said_with_the_reason(tltrain, write):
    answers = [{"name": "gcd", "arguments": {"x": 4}}]
    tools = [{"name": "gcd", "parameters": {"x": {"type": "integer"}}}]
    path = write({"query": "Hi", "answers": answers, "tools": tools})
    ran = tltrain("stage=check", "data=auto", f"data.path={path}")
    assert (ran.metrics["data"]["format"], ran.metrics["data"]["recognised"]) == ("auto", "xlam")
    assert "data=xlam, since it has " in ran.out
    assert f"data=xlam, since {ran.metrics['data']['shown_by']}".replace("`", "") in (
        (ran.folder / "check.html").read_text(encoding="utf-8").replace("`", "")
    )


def test_a_strangers_text_is_only_text_on_the_page(tltrain, write):
    evil = '<script>alert("x")</script><img src=x onerror=alert(1)>\u202e'
    ran = check(tltrain, write(chat(evil, question=evil, answer=f"Error: {evil}"), chat("copy", question=evil)))
    page = (ran.folder / "check.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page and "<script" not in page and "<img" not in page and "\u202e" not in page


def test_nothing_to_read_is_one_line(tltrain, write):
    ran = check(tltrain, write({"messages": 3}), status=1)
    assert "no conversation could be read: " in ran.err and "messages: expected a list" in ran.err.splitlines()[-1]
    missing = check(tltrain, Path("nowhere.jsonl"), status=1)
    assert "nowhere.jsonl" in missing.err.splitlines()[-1]


def test_tokens_are_counted_where_a_tokenizer_is_at_hand(tltrain, write, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (tmp_path / "config.json").write_text("{}")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ran = check(tltrain, write(chat("one")), f"model.path={tmp_path}")
    # System: Function: def gcd(x: any = None): """ Args: x (any): """ User: Hi Assistant: gcd(x=4) Output: 2
    # Assistant: It is 2.
    assert ran.metrics["lengths"]["tokens"]["most"] == ran.metrics["longest"][0]["tokens"] == 22
    (tmp_path / "tokenizer.json").unlink()
    line = check(tltrain, write(chat("one")), f"model.path={tmp_path}", status=1).err.splitlines()[-1]
    assert "counts tokens by tokenizer.json, which is not in this folder" in line


def test_neither_torch_nor_transformers_is_loaded(tmp_path):
    ran = probe(tmp_path, "stage=check", "data=openai", f"data.path={DESK}", "hydra.run.dir=run")
    assert ran.stdout.splitlines()[-1] == "loaded: []", ran.stderr


def test_errors_of_records_are_grouped_by_what_is_wrong():
    lines = [
        "a.jsonl, record 3: messages[2].role: expected one of user, tool, found 5",
        "a.jsonl, record 9: messages[7].role: expected one of user, tool, found null",
        "b.jsonl, record 1: tools: expected a list, found 3",
    ]
    assert alike(lines) == [
        ("messages[…].role: expected one of user, tool", 2, lines[0]),
        ("tools: expected a list", 1, lines[2]),
    ]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([7], (7, 7, 7, 7, 7)),
        (range(1, 11), (1, 5, 9, 10, 55)),
        ([3, 1, 2], (1, 2, 3, 3, 6)),
    ],
)
def test_a_distribution_takes_values_that_occur(sizes, expected):
    assert tuple(distribution(list(sizes)).values()) == expected
