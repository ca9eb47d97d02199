"""Filters of pages: what they offer, and what they show in a browser, without script and with only the keyboard."""

from __future__ import annotations

import pytest

from tests.support import chromium
from tests.support.page_samples import LEARNED, MESSAGES, SETTINGS, conversation, outcome, rendered
from tltrain.views import filters, inspect_page
from tltrain.views.filters import Filter

pytestmark = pytest.mark.slow

SHOWN = "[...document.querySelectorAll('.item')].filter((one) => one.checkVisibility()).length"


def test_only_filters_that_split_the_items_are_offered():
    of = [["a"], ["a", "b"]]
    split, alike = Filter("x", "all", of, ["a", "b"]), Filter("x", "all", [["a"], ["a"]], ["a"])
    assert filters.useful([split, alike, Filter("x", "all", [], [])]) == [split]


def test_the_commonest_values_come_first_and_a_value_counts_once_an_item():
    found = filters.by_count("x", "all", [["a", "a"], ["b"], ["b"], []])
    assert found.values == ["b", "a"] and found.counts == {"b": 2, "a": 1}
    assert len(filters.by_count("x", "all", [[str(n) for n in range(99)]]).values) == filters.MOST_VALUES


def test_members_are_taken_in_turn():
    assert list(filters.in_turn([[1, 2, 3], [4], [5, 6]])) == [1, 4, 5, 2, 6, 3]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if chromium.PROGRAM is None:
        pytest.skip("no chromium on this machine")
    with chromium.Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of 6 conversations and a page of the trainer's view of 6, by name."""
    wrong = {"message": 0, "text": "f()", "de": True, "ce": True, "kind": "wrong_tool", "error": "<b>http</b>"}
    records = [
        *[outcome(True, id=f"right {n}", meta={"scenario": "a"}) for n in range(3)],
        *[outcome(False, id=f"wrong {n}", meta={"scenario": "b"}) for n in range(2)],
        outcome(False, id="called", calls=[wrong]),
    ]
    learned = [conversation(id=f"c-{n}", messages=(LEARNED,)) for n in range(4)]
    texts = {
        "transcripts": rendered("a run", records, {"DE": "1 [0, 2]"}),
        "inspect": inspect_page.page([*learned, *[conversation(messages=MESSAGES)] * 2], SETTINGS),
    }
    folder = tmp_path_factory.mktemp("pages")
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


def choose(browser, label: str) -> int:
    """Choose the radio button with this label and return how many items are shown."""
    browser.run(f"[...document.querySelectorAll('label')].find((one) => one.textContent === {label!r}).click()")
    return browser.run(SHOWN)


def test_conversations_are_filtered_by_outcome_kind_of_error_and_scenario(browser, pages):
    browser.open(pages["transcripts"])
    assert browser.problems == [] and browser.requests == [pages["transcripts"].as_uri()]
    assert browser.run(SHOWN) == 6
    assert choose(browser, "failed (3)") == 3
    assert choose(browser, "CE: <b>http</b> (1)") == 1
    assert "1" in browser.names("StaticText") and " of 6 conversations shown" in browser.names("StaticText")
    assert choose(browser, "succeeded (3)") == 0
    assert choose(browser, "anything (6)") == 3
    assert choose(browser, "a (3)") == 3
    assert choose(browser, "b (2)") == 0
    assert choose(browser, "all (6)") == 2


def test_the_trainers_view_is_filtered_by_what_is_not_learned(browser, pages):
    browser.open(pages["inspect"])
    assert browser.problems == [] and browser.run(SHOWN) == 6
    assert choose(browser, "some turn is not learned (2)") == 2
    assert choose(browser, "every turn is learned (4)") == 4


@pytest.mark.parametrize("name", ["transcripts", "inspect"])
def test_the_keyboard_alone_filters_and_unfolds_without_script(browser, pages, name):
    browser.open(pages[name], script=False)
    try:
        browser.press("Tab")
        if name == "transcripts":
            browser.press("ArrowDown")
            assert browser.run(SHOWN) == 3
        for _ in range(3 if name == "transcripts" else 2):
            browser.press("Tab")
        browser.press(" ")  # unfold all
        folded = "[...document.querySelectorAll('.item > .body')].filter((one) => !one.checkVisibility()).length"
        assert browser.run(folded) == (3 if name == "transcripts" else 0)  # those that the filter hides
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_a_link_to_a_folded_conversation_unfolds_it(browser, pages):
    browser.open(pages["transcripts"])
    body = "document.querySelector('#c5')"
    assert not browser.run(f"{body}.checkVisibility()")
    browser.run("location.hash = '#c5'")
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert browser.run(f"{body}.checkVisibility()")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["transcripts", "inspect"])
def test_pages_are_readable_in_light_and_dark_and_fit_a_phone(browser, pages, name, dark):
    browser.open(pages[name], 375, dark)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.run("document.scrollingElement.scrollWidth") == 375
    found = browser.contrasts()
    assert len(found) > 60 and found[0][0] >= 4.5, found[:5]  # WCAG 2, level AA
    assert all(browser.names("radio"))
