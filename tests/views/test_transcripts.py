"""The page of conversations is escaped and complete, and loads and runs nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from tests.support.page_samples import outcome, record, rendered
from tltrain.evaluation.transcripts import Transcript
from tltrain.views import transcripts

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>&amp;\x00\u202e\ud800 \' "'


class Reader(HTMLParser):
    """Reads what a browser would see: elements with attributes, and the text of the body."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "body" in self.open:
            self.text += data


def read(*records, numbers=None) -> Reader:
    return Reader(rendered("a run", records, numbers or {}))


def test_the_page_shows_every_conversation_its_marks_and_what_was_wrong():
    page = read(record(), record(id="t2"), numbers={"DE": "33.3 [0, 50]"})
    assert not page.open
    for said in ("33.3 [0, 50]", "1. t1", "2. t2", "Where is it?", "look(at='x')", "dunno", "1 tool on offer"):
        assert said in page.text
    assert "DE: documentation errors" in page.text and "CE: calling errors" not in page.text
    for said in (
        "look(at, how?)",
        "not a call: no `(`",
        "the tool answered with an error: http",
        "no success",
        '"missing"',
    ):
        assert said in page.text
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    places = {attributes.get("id") for _, attributes in page.elements}
    assert {"#c1", "#c2", "#top"} == set(links) and {link[1:] for link in links} <= places
    assert page.text.count("1 DE") == page.text.count("1 CE") == 2


def test_a_message_of_several_calls_shows_its_thought_its_words_and_what_is_wrong_with_each():
    made = [{"name": "look", "arguments": {"at": at}} for at in "xy"]
    messages = [
        {"role": "user", "content": "Where is it?"},
        {"role": "assistant", "content": "Both at once.", "calls": made, "thought": "Hm."},
        {"role": "tool", "content": "nothing"},
        {"role": "tool", "content": "Error: gone"},
    ]
    judged = {"message": 1, "de": False, "ce": False, "reason": "agrees", "error": None}
    calls = [judged | {"text": 'look(at="x")'}, judged | {"text": 'look(at="y")', "ce": True, "error": "http"}]
    text = read(record(messages=messages, calls=calls)).text
    said = ("Hm.", "Both at once.", 'look(at="x")', 'look(at="y")', "the tool answered with an error: http")
    places = [text.index(part) for part in said]
    assert places == sorted(places) and text.count("the tool answered with an error") == 1


def test_whatever_was_said_is_text():
    evil = record(
        id=EVIL,
        meta={"scenario": EVIL},
        instructions=EVIL,
        tools=[{"name": EVIL, "description": EVIL, "parameters": {"properties": {EVIL: {}}}}],
        messages=[{"role": role, "content": EVIL} for role in ("user", "assistant", "tool", "assistant")],
        calls=[{"message": 1, "text": EVIL, "de": True, "ce": True, "reason": EVIL, "error": EVIL}],
        ended="turn limit",
        outcome={"success": None, "error": EVIL},
    )
    page = read(evil, numbers={EVIL: EVIL})
    assert not {"script", "img", "iframe", "object", "link", "base", "form"} & {tag for tag, _ in page.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.text.count('<script>alert("x")</script>') > 10
    source = rendered(EVIL, [evil])
    assert not re.search("[\x00\u202e\ud800]", source)
    assert source.encode("utf-8")


def test_the_page_loads_and_runs_nothing():
    source = rendered("a run", [record()])
    assert "default-src 'none'" in source
    assert not re.search(r"https?:|src=|url\(|@import", source)


def test_long_texts_are_cut_on_the_page():
    long = record(messages=[{"role": "user", "content": "q"}, {"role": "tool", "content": "x" * 3_000_000}], calls=[])
    source = rendered("a run", [long])
    assert len(source) < 20_000
    assert "and 2,998,500 more characters" in source


def test_many_tools_are_counted_and_a_page_of_none_is_whole():
    tools = [{"name": f"f{n}", "description": "", "parameters": {}} for n in range(80)]
    text = read(record(tools=tools)).text
    assert "80 tools on offer" in text and "and 20 more" in text
    assert not read().open


def test_failing_conversations_come_first_with_their_line_of_the_file():
    records = [outcome(True, id="a"), outcome(False, id="b"), outcome(None, id="c"), outcome(None, id="d", valid=False)]
    source = rendered("a run", records)
    assert re.findall(r"<h2>(.*?)</h2>", re.sub("</?bdi>", "", source)) == ["2. b", "4. d", "1. a", "3. c"]
    assert "2 of 4 conversations failed. Failing ones come first." in source


def test_several_conversations_are_folded_and_a_few_are_not():
    folds = re.findall(r'<details class="item[^>]*>', rendered("a run", [outcome(True)] * 4))
    assert len(folds) == 4 and not any("open" in fold for fold in folds)
    assert rendered("a run", [outcome(True)] * 3).count(" open><summary><h2>") == 3


def test_what_went_wrong_is_named_once_a_kind():
    bad = {"message": 0, "text": "f()", "de": True, "ce": True, "kind": "wrong_tool", "error": "http"}
    said = [
        (outcome(True), []),
        (outcome(False), ["wrong outcome"]),
        (outcome(None, ended="turn limit", valid=False), ["end: turn limit"]),
        (outcome(None, valid=False), ["no valid answer"]),
        (outcome(True, calls=[bad, bad]), ["DE: wrong tool", "CE: http"]),
    ]
    for given, kinds in said:
        assert transcripts.kinds(Transcript.from_json(given)) == kinds


def test_ten_thousand_conversations_make_a_page_of_every_kind_of_error_that_says_what_it_leaves_out():
    rare = outcome(False, id="rare", ended="environment error")
    records = [*[outcome(False)] * 4_000, *[outcome(True)] * 5_999, rare]
    source = rendered("a run", records)
    assert source.count('<details class="item') == transcripts.MOST and len(source) < 1_000_000
    assert "4,001 of 10,000 conversations failed." in source
    assert "9,500 conversations are not on it (3,501 of them failed); those on it are taken in turn" in source
    assert ">10000. <bdi>rare</bdi><" in source


def test_large_conversations_leave_a_page_that_a_browser_can_show():
    large = outcome(False, messages=[{"role": "tool", "content": "x" * 3000}] * 1000, calls=[])
    source = rendered("a run", [large] * 20)
    assert len(source) < 1.1 * transcripts.BUDGET and "of them failed" in source
    few = [record(messages=[{"role": "tool", "content": "x" * 3000}] * 10_000, calls=[])] * 2
    assert rendered("a run", few).count('<details class="item') == 1  # one is shown, whatever its size
