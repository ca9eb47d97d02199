"""Checks, token by token, that turns are trained in the contexts that they have at inference."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any
from unittest import mock

from tests.support.native_formats import context
from tltrain.formats.native import messages_of, tools_of
from tltrain.tokens.native import NativeEncoder
from tltrain.tokens.packing import PackingReport, PackingSettings, pack
from tltrain.trajectory import Sample, Trajectory

PACKINGS = {
    "trajectory": PackingSettings("trajectory", 9.0),
    "branches": PackingSettings("trajectory", 9.0, branches=True),
    "turn": PackingSettings("turn", 9.0),
    "prefix_tree": PackingSettings("prefix_tree", 9.0),
}


class _FormatDate(datetime):
    """The day that `format.date` names by default, for templates that write the current one."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> _FormatDate:
        return cls(2024, 7, 26, tzinfo=tz)


def check_prompts(own: NativeEncoder, item: Trajectory, options: Mapping[str, Any] | None = None) -> None:
    """Check that each turn's prompt has the ids of the chat template, applied by transformers as a server does.

    Args:
        options: further template variables.
    """
    learned = list(own.turns(item, 9.0))
    messages, owners = messages_of(own.conversation_messages(item), "", item.tools)
    asked = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    assert len(learned) == len(asked) and None not in owners
    for turn, at in zip(learned, asked, strict=True):
        with mock.patch("transformers.utils.chat_template_utils.datetime", _FormatDate):
            server = own.tokenizer.apply_chat_template(
                messages[:at], tools=tools_of(item), add_generation_prompt=True, return_dict=False, **(options or {})
            )
        assert turn.prompt.ids == server
        history = own.conversation_messages(item)[: owners[at]]
        assert turn.prompt.ids == own.prompt(Sample("s", item.tools, history, ()))
        assert turn.said.ids[-1] in own.native.stop_ids
        assert own.native.stop_ids.isdisjoint(turn.said.ids[:-1])


def check_contexts(own: NativeEncoder, item: Trajectory, packing: str) -> None:
    """Check that each target is predicted after exactly its turn's prompt and the turn's text so far."""
    wanted = {}
    turns = list(own.turns(item, 9.0))
    for turn in turns:
        for target in turn.targets:
            before = (*turn.prompt.ids, *turn.said.ids[: target.offset + 1])
            wanted[before] = (target.token, target.weight, target.key)
    report, found = PackingReport(), {}
    for layout in pack([item], own, PACKINGS[packing], report):
        for number, position in enumerate(layout.positions):
            is_key = bool(layout.keys[number])
            found[tuple(context(layout, position))] = (layout.targets[number], layout.weights[number], is_key)
    assert found == wanted
    assert report.turns == len(turns) and (report.samples == 1 or packing != "branches")
