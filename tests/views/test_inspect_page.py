"""The page of stage=inspect explains and shows every mark, escapes all text, and loads and runs nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from tests.support.page_samples import END, FAILED, LEARNED, MESSAGES, SETTINGS, conversation
from tltrain.views.inspect_page import Conversation, Counts, History, Settings, Token, Tools, Turn, counts, note, page

EVIL = (
    '<script>alert("x")</script><img src=x onerror=alert(1)>&amp;\x00\x1b\u202e\u2066\ud800 \' " {{ 7 * 7 }} {% raw %}'
)


class Reader(HTMLParser):
    """Reads what a browser would see: elements with attributes and texts. Checks that all elements are closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[list[str]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.texts.append([])
        if tag not in ("meta", "img", "br", "input"):
            self._open.append((tag, self.texts[-1]))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for _, texts in self._open:
            texts.append(data)

    def all(self, tag: str, style: str = "") -> list[str]:
        """Return the texts of all elements with this tag and class."""
        return [
            "".join(texts)
            for (name, attributes), texts in zip(self.elements, self.texts, strict=True)
            if name == tag and set(style.split()) <= set((attributes.get("class") or "").split())
        ]


def read(*conversations: Conversation, settings: Settings = SETTINGS) -> Reader:
    return Reader(page(conversations, settings))


def test_the_legend_comes_first_and_explains_every_mark_in_words():
    shown = read(conversation())
    assert shown.all("h2") == ["Legend", "In numbers", "Conversations"] and shown.all("h3") == ["1. c-1"]
    terms = shown.all("strong")
    assert terms == ["History.", "Learned, weight 1.", "Key token", "Weight.", "Not learned", "End token."]
    (legend,) = shown.all("dl", "legend")
    assert "prioritize key tokens" in legend and "mitigate adverse effects" in legend
    assert "w_max\xa0=\xa09" in legend and "stage.rule=strict" in legend


def test_tokens_are_marked_by_weight_and_key_tokens_by_more_than_colour():
    shown = read(conversation())
    turns = [text for text in shown.all("pre") if text.endswith("⏎")]
    assert turns == [" get_order(id)⏎", " Sent.⏎"]
    assert shown.all("b", "t k")[-2:] == [" get", "order"]  # their class makes them bold and underlined
    keys = [attributes for tag, attributes in shown.elements if tag == "b"][-2:]
    assert [(key["data-w"], key["style"]) for key in keys] == [("2.5", "--s:0.19")] * 2  # (2.5 - 1) / (9 - 1)
    style = page([conversation()], SETTINGS).partition("</style>")[0]
    assert re.search(r"\.k \{[^}]*text-decoration: underline", style) and "::after" in style
    said = "✓ learned 7 tokens, 2 of them key; weight 5 ÷ 2 = 2.5: key tokens carry 50\xa0% of this turn's weight"
    assert said in shown.all("p", "note")


def test_a_failed_call_is_struck_out_and_labelled_with_the_kind_of_error():
    shown = read(conversation())
    assert shown.all("del")[1:] == ["get_order(no=1)"]  # the first is in the legend
    heading, *marks = shown.all("span", "mark bad")
    assert heading == "error: missing argument"  # of the folded conversation
    assert marks == ["✗ not learned · error: missing argument", "error: missing argument"]
    assert shown.all("span", "mark good") == ["✓ learned"] * 2


def test_tools_are_folded_and_shown_once_for_conversations_that_share_them():
    other = Tools(("pay",), "Function:\ndef pay():\n")
    shown = read(conversation(), conversation(id="c-2"), conversation(id="c-3", tools=other))
    folds = [text.partition(":")[0] for text in shown.all("summary") if "on offer" in text]
    assert folds == ["2 tools on offer", "1 tool on offer"]
    assert ("details", {}) in shown.elements  # not `open`
    assert sum("def get_order" in text for text in shown.all("pre")) == 1
    links = {attributes["href"][1:] for tag, attributes in shown.elements if tag == "a"}
    assert links == {"tools1"} <= {attributes.get("id") for _, attributes in shown.elements}


def test_the_numbers_are_those_of_all_turns():
    no_answer = Turn((Token(" x", 0.0),), False, "no tool's answer follows")
    turns = [LEARNED, LEARNED, FAILED, no_answer, MESSAGES[-1]]
    reasons = {(FAILED.reason, FAILED.kind): 1, (no_answer.reason, ""): 1}
    assert counts(turns) == Counts(5, 3, reasons, 17, 4, (2.5, 2.5), 10 / 23, 4, 10 / 23)
    (numbers,) = read(conversation(messages=tuple(turns))).all("dl", "numbers")
    said = " ".join(numbers.split())
    for words in ("3 of 5", "1 × error: missing argument", "1 × no tool's answer follows", "4 of 17", "×2.5"):
        assert words in said
    assert "24 % of the tokens carry 43 % of the weight" in said


@pytest.mark.parametrize(
    ("others", "keys", "w_max", "said"),
    [
        (20, 1, 9.0, "weight 20 ÷ 1 = 20, at most 9:"),
        (1, 2, 9.0, "weight 1 ÷ 2 = 0.5, at least 1:"),
        (9, 3, 9.0, "weight 9 ÷ 3 = 3:"),
        (9, 3, None, "every token weighs 1 (standard SFT)"),
        (3, 0, 9.0, "plain text has no key tokens, so each weighs 1"),
    ],
)
def test_the_note_under_a_turn_says_how_its_weight_came_about(others, keys, w_max, said):
    weight = 1.0 if w_max is None else min(max(others / max(keys, 1), 1.0), w_max)
    turn = Turn((*[Token("k", weight, True)] * keys, *[Token("o")] * others))
    assert said in note(turn, w_max)


def test_tokens_that_carry_the_weight_without_being_key_are_marked_and_explained():
    turn = Turn(
        (Token(" get", 3.0, True), Token("_", 3.0), Token("order", 1.0, True), Token("("), Token("⏎", 3.0, is_end=True))
    )
    assert note(turn, 9.0, "shuffled") == (
        "5 tokens, 2 of them key; weight 3 ÷ 2 = 1.5: 3 tokens have it (random tokens) "
        "and carry 82\xa0% of the turn's weight"
    )
    for key_tokens in ("name", "shuffled"):
        shown = read(conversation(messages=(turn,)), settings=Settings(9.0, "strict", "tiny", key_tokens))
        assert shown.all("span", "t w") == ["_", "⏎"]
        assert f"stage.key_tokens={key_tokens}" in shown.all("dl", "legend")[0]
    assert "stage.key_tokens" not in read(conversation()).all("dl", "legend")[0]


def test_the_page_says_where_mae_and_weights_are_off():
    (legend,) = read(conversation(), settings=Settings(None, None, "tiny")).all("dl", "legend")
    assert "stage.w_max=null" in legend and "stage.mae=false" in legend


def test_whatever_was_said_is_text():
    evil = Conversation(
        id=EVIL,
        tools=Tools((EVIL, EVIL), EVIL),
        messages=(
            History(EVIL, EVIL, EVIL),
            Turn((Token(EVIL, 3.0, True), Token(EVIL), Token(EVIL, 0.0), END)),
            Turn((Token(EVIL, 0.0),), False, EVIL, EVIL),
        ),
        instructions=EVIL,
    )
    settings = Settings(9.0, EVIL, EVIL)
    source = page([evil, evil], settings)
    shown = Reader(source)
    assert not {"script", "img", "iframe", "object", "link", "base", "form"} & {tag for tag, _ in shown.elements}
    assert not [name for _, attributes in shown.elements for name in attributes if name.startswith("on")]
    (everything,) = shown.all("body")
    assert everything.count('<script>alert("x")</script>') == everything.count("{{ 7 * 7 }} {% raw %}") > 20
    assert not re.search("[\x00\x1b\u202e\u2066\ud800]", source)
    assert source.encode("utf-8")


def test_the_page_loads_and_runs_nothing():
    source = page([conversation()], SETTINGS)
    assert source.startswith("<!doctype html>") and "default-src 'none'" in source
    assert not re.search(r"https?:|src=|url\(|@import|<script", source)
    assert "width=device-width" in source and "prefers-color-scheme: dark" in source


def test_long_texts_are_cut_on_the_page():
    long = "x" * 3_000_000
    messages = (History("User", long), Turn((Token(long, 0.0),), False, "why"), Turn((Token("y"),) * 20_000))
    source = page([conversation(messages=messages, tools=Tools((long,), long))], SETTINGS)
    assert len(source) < 500_000
    assert source.count("(and 2,997,000 more characters)") == 2 and "(and 15,000 more tokens)" in source


def test_an_empty_page_is_complete():
    assert read().all("h2") == ["Legend", "In numbers", "Conversations"]
    assert read(conversation(messages=(), tools=Tools((), ""))).all("summary")[1:] == ["0 tools on offer: "]


def test_several_conversations_are_folded_in_the_order_of_the_data():
    shown = read(*[conversation(id=f"c-{n}") for n in range(4)])
    assert shown.all("h3") == ["1. c-0", "2. c-1", "3. c-2", "4. c-3"]
    folds = [attributes for tag, attributes in shown.elements if tag == "details" and "class" in attributes]
    assert len(folds) == 4 and not any("open" in fold for fold in folds)


def test_ten_thousand_conversations_make_a_page_that_says_what_it_leaves_out():
    source = page([conversation()] * 10_000, SETTINGS)
    assert source.count('<details class="item') == 500 and len(source) < 5_000_000
    assert "9,500 of 10,000 conversations are not on it" in source
    assert "20,000 <small>of 30,000</small>" in source  # the numbers are those of all
    long = conversation(messages=(Turn((Token("y"),) * 5_000),) * 20)
    assert len(page([long] * 20, SETTINGS)) < 10_000_000
