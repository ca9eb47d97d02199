"""When2Call's test set (Ross et al. 2025, arXiv 2504.18851): to call, to ask back, or to say that no tool can help.

    {"uuid": "...", "question": "...", "correct_answer": "tool_call" | "request_for_info" | "cannot_answer" | "direct",
     "answers": {"tool_call": "{\\"name\\": ..., \\"arguments\\": {...}}", "direct": "...", ...},
     "tools": ["{\\"name\\": ..., \\"description\\": ..., \\"parameters\\": {...}}", ...]}

If the right answer is `tool_call`, that call is golden; for all others no call is right, and which of them the words
choose is not scored. `meta["scenario"]` is the right answer. Types are BFCL's and are renamed as there.

Its training sets are conversations: `data=openai` reads them, and a final answer in words is learned as a message
without a call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tltrain.data import bfcl
from tltrain.data.arguments import checked, read_named_call
from tltrain.data.reading import expect, expect_choice, expect_id, expect_tools, member, parse_json
from tltrain.trajectory import Call, Message, Sample

CALL = "tool_call"
ANSWERS = (CALL, "request_for_info", "cannot_answer", "direct")


def parse_sample(record: Any, number: int, notes: Counter[str]) -> Iterator[Sample]:
    """Parse the one question of a record. Raises FieldError."""
    record = expect(record, dict, "record")
    right = expect_choice(record.get("correct_answer"), ANSWERS, "correct_answer")
    stated = [
        parse_json(each, f"tools[{i}]") if isinstance(each, str) else each
        for i, each in enumerate(member(record, "tools", list))
    ]
    tools = expect_tools([bfcl.function(each, f"tools[{i}]") for i, each in enumerate(stated)], "tools", notes)
    golden: tuple[Call, ...] = ()
    if right == CALL:
        said = member(member(record, "answers", dict), CALL, str, "answers")
        call = read_named_call(parse_json(said, f"answers.{CALL}"), f"answers.{CALL}", notes)
        golden = (checked(call, {tool.name: tool for tool in tools}, notes),)
    identity = str(number) if record.get("uuid") is None else expect_id({"id": record["uuid"]})
    question = Message("user", member(record, "question", str))
    yield Sample(identity, tools, (question,), golden, meta={"scenario": right}, abstain=not golden)
