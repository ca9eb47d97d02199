"""report.html in a browser: headless Chromium opens it from disk as a reader would."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.support import chromium
from tests.support.sweep_sample import hostile, sweep
from tltrain.report import numbers
from tltrain.report.publication import published
from tltrain.report.write import write_report

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="no chromium on this machine")

FLIPS = "[...document.querySelectorAll('#cards > .card')]"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def made():
    return sweep({"rotbench_clean": 105, "rotbench_heavy": 40, "toolalpaca_real": 114})


@pytest.fixture(scope="module")
def report(made, tmp_path_factory):
    return write_report(made, tmp_path_factory.mktemp("report"))


def clean(browser, path):
    """Check that nothing was logged or thrown, and nothing requested except the page itself."""
    assert browser.problems == []
    assert browser.requests == [path.as_uri()]


def fits(browser):
    """Check that nothing is wider than the window, with every table behind a chart unfolded."""
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    return browser.run("document.scrollingElement.scrollWidth <= innerWidth") and browser.run("innerWidth")


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("dark", [False, True])
def test_it_opens_from_disk_without_errors_or_requests(browser, report, width, dark):
    browser.open(report, width, dark)
    clean(browser, report)
    assert fits(browser) == width
    sections = browser.run("[...document.querySelectorAll('main > section')].map((one) => one.id)")
    assert sections == ["results", "flips", "differences", "errors", "robustness", "curves", "cost", "run"]
    background = "getComputedStyle(document.body).backgroundColor"
    assert browser.run(background) == ("rgb(18, 21, 24)" if dark else "rgb(247, 247, 245)")
    assert browser.run("getComputedStyle(document.querySelector('figure > svg text')).fill") != browser.run(background)


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_what_is_under_it(browser, report, dark):
    browser.open(report, dark=dark)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    found = browser.contrasts()
    assert len(found) > 500 and found[0][0] >= 4.5, found[:5]  # WCAG 2, level AA


def test_the_pages_policy_lets_nothing_in_and_nothing_out(browser, report):
    browser.open(report)
    browser.run("document.body.append(Object.assign(document.createElement('script'), { text: 'window.pwned = 1' }))")
    browser.run(
        "new Promise((done) => { const one = new Image(); one.onerror = done; one.src = 'https://127.0.0.1:9/'; })"
    )
    assert browser.run("typeof pwned") == "undefined" and len(browser.problems) == 2
    assert all("Content Security Policy" in problem for problem in browser.problems)


def test_light_or_dark_is_the_readers_choice(browser, report):
    browser.open(report, dark=False)
    browser.run("document.querySelector('#theme [value=dark]').click()")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(18, 21, 24)"
    browser.run("document.querySelector('#theme [value=\"\"]').click()")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(247, 247, 245)"


def order(browser, column):
    """Return the first column and one other column of the ablation table, top to bottom."""
    return browser.run(
        "[...document.querySelectorAll('#ablation tbody tr')].map((row) => "
        f"[row.cells[0].firstChild.data, row.cells[{column}]?.dataset.v ?? ''])"
    )


def test_tables_sort_by_keyboard_and_say_how(browser, report, made):
    browser.open(report)
    column = 6  # CF of the first set
    head = f"document.querySelectorAll('#ablation .heads th')[{column}]"
    before = order(browser, column)
    browser.run(f"{head}.querySelector('button').focus()")
    browser.press("Enter")
    falling = [float(value) for _, value in order(browser, column)]
    assert falling == sorted(falling, reverse=True) and browser.run(f"{head}.getAttribute('aria-sort')") == "descending"
    browser.press("Enter")
    rising = [float(value) for _, value in order(browser, column)]
    assert rising == falling[::-1] and browser.run(f"{head}.getAttribute('aria-sort')") == "ascending"
    browser.run("document.querySelector('#ablation .heads button').click()")
    assert order(browser, column) == before  # sorted by row again: the original order
    assert browser.run("document.querySelectorAll('#ablation [aria-sort]').length") == 1


def choose(browser, **fields):
    """Set the filters as a reader does; return the flips shown and the page's summary of them."""
    for name, value in fields.items():
        browser.run(
            f"(() => {{ const field = document.querySelector('#filters').elements.{name};"
            f"field.value = {value!r}; field.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
        )
    shown = browser.run(f"{FLIPS}.map((one) => [one.querySelector('code').textContent, one.innerText])")
    return shown, browser.run("document.querySelector('#count').textContent")


def test_flips_are_filtered(browser, report, made):
    browser.open(report)
    jobs = [made.rows[row].seeds[0] for row in (0, 7)]
    expected = numbers.flips(*jobs, "cf")
    gained = [flip for flip in expected if flip.gained]
    words = f"{len(expected)} flipped: {len(gained)} gained, {len(expected) - len(gained)} lost from A to B."
    shown, said = choose(browser, a="0", b="7", seed="0", level="2")
    assert said.startswith(words) and len(shown) == 5
    browser.run("document.querySelector('#more').click()")
    order = browser.run(f"{FLIPS}.map((one) => one.querySelector('.flag').textContent.slice(2))")
    assert order == sorted(order, reverse=True) and order[0] == "lost"  # failing ones first
    assert len(choose(browser)[0]) == min(25, len(expected))
    shown, said = choose(browser, direction="lost")
    assert {one for one, _ in shown} == {flip.id for flip in expected if not flip.gained}
    assert all("▼ lost" in text for _, text in shown)
    shown, said = choose(browser, direction="", text="CALDO verde", set="0")
    matching = [flip for flip in expected if flip.name == "rotbench_clean" and "caldo verde" in f"{flip.a} {flip.b}"]
    assert {one for one, _ in shown} == {flip.id for flip in matching} and f"{len(matching)} flipped" in said
    assert choose(browser, text="nobody wrote this") == ([], "No sample matches.")
    options = "[...document.querySelector('#filters').elements.grade.options]"
    grade = browser.run(f"{options}.find((one) => one.text === 'hallucinated').value")
    shown, _ = choose(browser, text="", set="", grade=grade)
    wrong = {flip.id for flip in expected if "hallucinated" in (flip.a.grade, flip.b.grade)}
    assert wrong and {one for one, _ in shown} == wrong
    others = numbers.flips(made.rows[3].seeds[0], jobs[1])
    assert choose(browser, grade="", a="3", seed="0")[1].startswith(f"{len(others)} flipped")
    seeds = browser.run("[...document.querySelector('#filters').elements.seed.options].map((one) => one.value)")
    assert seeds == ["0"]  # the other job of that row failed
    clean(browser, report)


def test_a_legend_hides_its_line(browser, report):
    browser.open(report)
    browser.run("window.figure = document.querySelector('#chart-train-loss')")
    lines = "[...figure.querySelectorAll(':scope > svg [data-series]')]"
    shown = f"{lines}.filter((one) => one.dataset.series === '1' && one.getClientRects().length).length"
    before = browser.run(shown)
    browser.run("figure.querySelector('.legend [data-series=\"1\"]').focus()")
    dim = browser.run(f"{lines}.filter((one) => one.matches('.dim')).map((one) => one.dataset.series)")
    assert before and "1" not in dim and "0" in dim
    browser.press("Enter")
    assert browser.run(shown) == 0
    assert browser.run("document.activeElement.getAttribute('aria-pressed')") == "false"
    browser.press("Enter")
    assert browser.run(shown) == before


def test_screen_readers_find_names_and_tables(browser, report):
    browser.open(report)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    for role in ("image", "button", "combobox", "searchbox", "region", "table", "navigation", "link", "radio"):
        names = [name for found, name in roles if found == role]
        assert names and all(names), role
    charts = browser.run("document.querySelectorAll('figure.chart').length")
    assert sum(role == "image" for role, _ in roles) == charts
    assert browser.run("document.querySelectorAll('figure.chart details table').length") == charts
    assert browser.run("new Set([...document.querySelectorAll('[id]')].map((one) => one.id)).size") == browser.run(
        "document.querySelectorAll('[id]').length"
    )
    assert ("cell", "on") in roles or ("StaticText", "on") in roles  # a tick mark is read as a word


def visible(browser, selector):
    """Count the visible elements that match a selector."""
    found = f"[...document.querySelectorAll('{selector}')]"
    return browser.run(f"{found}.filter((one) => one.getClientRects().length).length")


def test_without_script_it_is_complete(browser, report, made):
    browser.open(report, script=False)
    try:
        assert visible(browser, "#cards > .card") == 5
        assert visible(browser, "#rest > summary") == 1
        assert browser.run("document.querySelectorAll('#rest .card').length") == 15
        assert visible(browser, "#filters, #theme, #more, #copy, thead button") == 0
        assert visible(browser, "#ablation tbody tr") == len(made.rows)
        assert visible(browser, "figure.chart > svg") > 5
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_failed_jobs_are_rows_that_say_why(browser, made, tmp_path):
    rows = [*made.rows]
    failed = [type(job)(job.seed, error="killed: it took too long") for job in rows[5].seeds]
    rows[5] = type(rows[5])(rows[5].label, rows[5].axes, failed)
    path = write_report(
        type(made)(**{**{name: getattr(made, name) for name in made.__slots__}, "rows": rows}), tmp_path
    )
    browser.open(path, 375)
    clean(browser, path)
    row = "document.querySelectorAll('#ablation tbody tr')[5].innerText"
    assert "failed: killed: it took too long" in browser.run(row)
    browser.run("document.querySelectorAll('#ablation .heads button')[4].click()")
    assert order(browser, 0)[-1][0] == rows[5].label  # rows without a number stay last
    assert fits(browser) == 375


def test_hostile_text_stays_text_and_fits(browser, tmp_path):
    path = write_report(hostile(), tmp_path)
    browser.open(path, 375)
    clean(browser, path)
    assert browser.run("typeof pwned") == "undefined" and browser.run("document.images.length") == 0
    assert browser.run("document.scripts.length") == 2
    assert fits(browser) == 375
    assert "</script><script>" in browser.run(f"{FLIPS}[0].querySelector('pre').textContent")


def test_a_table_that_goes_on_to_the_right_says_so_until_its_end(browser, report):
    browser.open(report, 375)
    sheet = "document.querySelector('#results .sheet')"
    extent = browser.run(f"{sheet}.querySelector('.extent').innerText")
    assert extent.startswith("8 rows, 19 columns: RoTBench clean, RoTBench clean: the paper's, RoTBench heavy")
    says = f"(({{hidden, textContent}}) => hidden ? '' : textContent)({sheet}.querySelector('.on'))"
    assert browser.run(says) == "More columns to the right →"
    table = f"{sheet}.querySelector('.scroll')"
    browser.run(f"{table}.scrollLeft = {table}.scrollWidth")
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert browser.run(says) == ""


def test_a_table_of_many_rows_goes_on_below_and_says_so(browser, made, tmp_path):
    rows = [replace(made.rows[n % 2], label=f"row {n}") for n in range(60)]
    path = write_report(replace(made, rows=rows, baseline="row 0"), tmp_path)
    browser.open(path)
    clean(browser, path)
    sheet = "document.querySelector('#results .sheet')"
    assert "60 rows" in browser.run(f"{sheet}.querySelector('.extent').innerText")
    assert browser.run(f"{sheet}.querySelector('.on').textContent").startswith("More rows below ↓")
    assert browser.run(f"{sheet}.getBoundingClientRect().height < 800")


def test_a_page_without_texts_says_why_there_are_hashes(browser, made, report, tmp_path):
    path = write_report(published(made), tmp_path)
    for script in (True, False):
        browser.open(path, script=script)
        try:
            said = browser.run("document.querySelector('.textless').innerText")
            assert "report.texts=false" in said and "SHA-256" in said and "may not have the right" in said
            heading, digest = "h4", "pre"
            card = f"{FLIPS}[0].querySelector('.expected')"
            assert browser.run(f"{card}.querySelector({heading!r}).textContent") == "Accepted (SHA-256, beginning)"
            assert re.fullmatch('"[0-9a-f]{12}"', browser.run(f"{card}.querySelector({digest!r}).textContent"))
            assert browser.run(f"{FLIPS}[0].querySelectorAll('.side pre').length") == 0  # no empty boxes
        finally:
            browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "SHA-256" not in report.read_text(encoding="utf-8")
