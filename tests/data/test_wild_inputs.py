"""Inputs taken from public reports, if their folder (`TLTRAIN_CASES`) exists: each is read, or refused in one line."""

from __future__ import annotations

import pytest

from tests.support import wild_inputs

REFUSED = {
    "17c-args-truncated": "expected valid JSON",
    "19-orphan-tool": "expected an answer to a call of the assistant message before it",
    "20-image-part": "expected one of text",
    "23f-lines-of-lists": "found a list, of messages without tools",
    "24b-nan": "found NaN, which is not JSON",
    "10-empty-assistant": "record 3: messages[1].content: expected a string, found null",
}
"""Inputs that are rightly refused, and part of the error. All others are read."""
LEARNED = {
    "02-hermes-text": "2 read: +get_weather | +get_weather +text",
    "05-parallel-unanswered": "1 read: +get_weather +get_weather +get_weather",
    "08-reasoning": "2 read: +get_weather +text | +get_weather",
    "09-call-off-offer": "3 read: +get_wether | +get_weather | +get_weather",
    "11-sharegpt": "1 read: +get_weather +text",
    "12-xlam": "1 read: +get_weather",
    "13-glaive": "1 read: +get_weather +text",
    "34-late-answers": "1 read: +get_weather +get_weather",
    "35-list-empty-arguments": "1 read: +now",
    "36-tool-call-blocks-in-text-and-field": "1 read: +get_weather",
}
ASKED = {
    "43-irrelevance": "2 asked: get_weather | no call",
    "44-golden-dialects": "3 asked: get_weather get_weather | ",
    "45-null-golden": "1 asked: get_weather",
}
"""Inputs that are benchmark questions."""
NOTED = {
    "09-call-off-offer": "of tools that are not on offer",
    "25-duplicate-tools": "two of one name with different",
    "26-multi-system": "a later system message kept in its place",
    "27-no-tools": "records without tools and calls",
    "33-null-arguments": "null arguments left out",
}
INPUTS = dict(wild_inputs.inputs())


@pytest.mark.skipif(not INPUTS, reason=f"no inputs in {wild_inputs.FOLDER}: TLTRAIN_CASES=FOLDER names another")
@pytest.mark.parametrize("name", INPUTS or ["none"])
def test_an_input_is_read_or_refused_in_one_line(name):
    if wild_inputs.is_asked(INPUTS[name]):
        assert wild_inputs.asked(INPUTS[name]).startswith(ASKED.get(name, ""))
        return
    said = wild_inputs.outcome(INPUTS[name], "auto")
    if name in REFUSED:
        assert said.startswith("error: ") and REFUSED[name] in said and "\n" not in said
        return
    assert not said.startswith("error: "), said
    assert said.startswith(LEARNED.get(name, ""))
    assert NOTED.get(name, "") in said
