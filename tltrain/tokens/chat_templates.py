"""Implement a native format with the model's own chat template and transformers' parser of chat responses.

Every server applies the template, so training renders exactly the prompts that will be used later. Rendering a call
with a name that occurs nowhere else shows what the template does with calls and where it puts a tool's name.
"""

from __future__ import annotations

import copy
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tltrain.errors import TltrainError
from tltrain.formats.native import Answer
from tltrain.tokens.argument_spans import argument_spans
from tltrain.tokens.encoder import Encoded
from tltrain.tokens.native_format import CallHead, Json, Prompt, Said, SaidCall
from tltrain.tokens.responses import LONGEST_REASON, PROBE, read_response, shown, thought_span
from tltrain.trajectory import Tool

if TYPE_CHECKING:
    from tltrain.tokens.native import NativeEncoder

_NAME = "qxzname"
"""A tool name that occurs in no conversation, all letters so that every template writes it unchanged."""
_THOUGHT = "Qxz thought."
_TODAY = re.compile(r"""strftime_now\(\s*(?:"([^"]*)"|'([^']*)')\s*\)""")
"""The expression with which a template asks for the current date."""


class TemplateFormat:
    """A `NativeFormat` of a chat template.

    Args:
        response: transformers' response template, which says how to read answers; None: they cannot be read.
        options: further variables of the template, by name.
        date: the date that the template uses as today, so that runs on other days render the same text.

    Raises:
        TltrainError: the template does not support tools, lacks a variable in `options`, or does not mark the end of an
            answer.
    """

    def __init__(
        self,
        encoder: NativeEncoder,
        name: str,
        template: str,
        response: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        date: str = "2024-07-26",
    ) -> None:
        self.name, self.template = name, template
        self._encoder, self._tokenizer = encoder, encoder.tokenizer
        self._response = None if response is None else dict(response)
        today = datetime.strptime(date, "%Y-%m-%d")
        self.date = date if _TODAY.search(template) else None
        self._dated = _TODAY.sub(lambda found: json.dumps(today.strftime(found[1] or found[2])), template)
        self._options = dict(options or {})
        for option in map(str, self._options):
            if not re.search(rf"\b{re.escape(option)}\b", template):
                raise TltrainError(f"format.options.{option}: the model's chat template has no such variable")
        self._prompt_text: Callable[[Sequence[Json], Sequence[Json]], str] = _remember_last(self._prompt)
        self._probe()

    # --- what the template does --------------------------------------------------------------------------------------

    def _probe(self) -> None:
        """Find out what the template can write.

        Raises:
            TltrainError: it does not write tools, calls, or an end token.
        """
        user = {"role": "user", "content": PROBE}
        calling = {"role": "assistant", "content": "", "tool_calls": [_call(_NAME, 0)]}
        offered = {"name": f"{_NAME}tool", "description": "", "parameters": {"type": "object", "properties": {}}}
        tools = [{"type": "function", "function": offered}]
        if f"{_NAME}tool" not in self._render([user], tools, True):
            raise TltrainError(
                f"format={self.name}: the model's chat template does not pass tools to the model; format=tl needs no "
                "template"
            )
        bare = self._render([user], tools, False)
        prompt = self._prompt_text([user], tools)
        self._opening = prompt[len(bare) :] if prompt.startswith(bare) else ""
        answered = [user, {"role": "assistant", "content": PROBE}]
        ends = [self._end_token([user, calling], tools), self._end_token(answered, tools)]
        self.stop_ids = frozenset(ends)
        two = {**calling, "tool_calls": [_call(f"{_NAME}a", 0), _call(f"{_NAME}b", 1)]}
        try:
            written = self._answer_text([user, two], tools)
            self.several_calls = f"{_NAME}a" in written and f"{_NAME}b" in written
        except TltrainError:
            self.several_calls = False
        if self.several_calls and sum(token in self.stop_ids for token in self._encode(written).ids) > 1:
            raise self._endless()  # it ends each call with it
        self.thoughts = self._writes(_THOUGHT, [user, {**answered[1], "reasoning_content": _THOUGHT}], tools)
        self.call_head = self._call_head([user, calling], tools)
        self.text_beside_calls = self._continues(user, {**calling, "content": PROBE}, tools)

    def _call_head(self, messages: Sequence[Json], tools: Sequence[Json]) -> CallHead | None:
        """Return the text around a call's name, if every readable call has the same text before its name."""
        calls = (self._response or {}).get("fields", {}).get("tool_calls")
        if not calls:
            return None
        written = self._answer_text(messages, tools)
        mark = calls["open"] if "open" in calls else _literal_beginning(calls["open_pattern"])
        before, _, behind = written.partition(_NAME)
        at = before.rfind(mark) if mark else -1
        if at < 0 or not behind:
            return None
        tokens = [str(token) for token in self._tokenizer.added_tokens_decoder.values()]
        special = max((token for token in tokens if behind.startswith(token)), key=len, default="")
        return CallHead(mark, before[at + len(mark) :], (special, " ") if special else (behind[0],))

    def _writes(self, what: str, messages: Sequence[Json], tools: Sequence[Json]) -> bool:
        """Return whether the text of an answer contains `what`."""
        try:
            return what in self._answer_text(messages, tools)
        except TltrainError:
            return False

    def _continues(self, user: Json, calling: Json, tools: Sequence[Json]) -> bool:
        """Return whether words beside a call are written as words, and the conversation can go on after its answer."""
        result = {"role": "tool", "name": _NAME, "tool_call_id": "call00000", "content": PROBE}
        answer = {"role": "assistant", "content": PROBE}
        try:
            written = self._answer_text([user, calling], tools)
            history = [user, calling, result]
            if not self._render([*history, answer], tools, False).startswith(self._prompt_text(history, tools)):
                return False
        except TltrainError:
            return False
        if self._response is None:
            return PROBE in written
        prompt = self._prompt_text([user], tools)
        read = read_response(written, prompt, self._response, (), self._special_tokens())
        return read.text == PROBE

    def _end_token(self, messages: Sequence[Json], tools: Sequence[Json]) -> int:
        """Return the token with which the template ends an answer: its last special token."""
        text = self._answer_text(messages, tools)
        if _NAME not in text and PROBE not in text:
            raise TltrainError(f"format={self.name}: the model's chat template does not write calls and answers")
        special = set(self._tokenizer.all_special_ids) | set(self._tokenizer.added_tokens_decoder)
        last = max(text.rfind(_NAME), text.rfind(PROBE))
        encoded = self._encode(text)
        behind = [
            token
            for token, (start, _) in zip(encoded.ids, encoded.spans, strict=True)
            if start > last and token in special
        ]
        if not behind:
            raise self._endless()
        return behind[-1]

    def _endless(self) -> TltrainError:
        return TltrainError(
            f"format={self.name}: the chat template does not end an answer with an end token of the tokenizer "
            f"{self._tokenizer.name_or_path}, so the model would not learn where to stop"
        )

    def _render(self, messages: Sequence[Json], tools: Sequence[Json], asks: bool) -> str:
        """Return the template's text; `asks` adds the generation prompt, after which the assistant speaks.

        Raises:
            TltrainError: the template refuses these messages.
        """
        try:
            return self._tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) or None,
                chat_template=self._dated,
                tokenize=False,
                add_generation_prompt=asks,
                **self._options,
            )
        except Exception as error:  # Jinja's own error, or any that an expression in the template raises
            why = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
            raise TltrainError(f"format={self.name}: the chat template refuses a conversation: {why}") from error

    def _prompt(self, messages: Sequence[Json], tools: Sequence[Json]) -> str:
        return self._render(messages, tools, True)

    def _answer_text(self, messages: Sequence[Json], tools: Sequence[Json]) -> str:
        """Return the template's text for the last message, which follows the prompt of the messages before it.

        Some templates write earlier messages differently once there is a later one (harmony drops their thoughts). Then
        this message is rendered by itself, and the text of the whole conversation must end with the same text.
        """
        whole, prompt = self._render(messages, tools, False), self._prompt_text(messages[:-1], tools)
        if whole.startswith(prompt):
            return whole[len(prompt) :]
        user = {"role": "user", "content": PROBE}
        alone, asked = self._render([user, messages[-1]], tools, False), self._render([user], tools, True)
        if alone.startswith(asked) and whole.endswith(alone[len(asked) :]):
            return alone[len(asked) :]
        raise TltrainError(
            f"format={self.name}: the chat template does not continue its own prompt with this answer: "
            f"{shown(prompt[-40:])} is not followed by it"
        )

    # --- tokens ------------------------------------------------------------------------------------------------------

    def _encode(self, text: str) -> Encoded:
        """Return the tokens of a text that continues a prompt."""
        return self._encoder.encode([text])[0]

    def prompt(self, messages: Sequence[Json], tools: Sequence[Json]) -> Prompt:
        """See `NativeFormat`; the whole text is tokenized at once, as servers do."""
        text = self._prompt_text(messages, tools)
        (encoded,) = self._encoder.encode([text], begins=True)
        at = len(text) - len(self._opening) if text.endswith(self._opening) else len(text)
        opening = next((i for i, (_, end) in enumerate(encoded.spans) if end > at), len(encoded.ids))
        return Prompt(encoded.ids, opening)

    def said(self, messages: Sequence[Json], tools: Sequence[Json]) -> Said:
        """See `NativeFormat`. Text after the end token belongs to the template; the model does not generate it."""
        text = self._answer_text(messages, tools)
        encoded = self._encode(text)
        last = max((i for i, token in enumerate(encoded.ids) if token in self.stop_ids), default=None)
        if last is None:
            raise TltrainError(f"format={self.name}: the chat template ends an answer without an end token")
        ids = encoded.ids[: last + 1]
        calls = messages[-1].get("tool_calls") or ()
        found = tuple(self._said_call(messages, tools, text, encoded, number) for number in range(len(calls)))
        return Said(ids, found, lambda: self._spans(messages, tools, ids, len(calls)))

    def _said_call(
        self, messages: Sequence[Json], tools: Sequence[Json], text: str, encoded: Encoded, number: int
    ) -> SaidCall:
        name = messages[-1]["tool_calls"][number]["function"]["name"]
        at = self._name_at(messages, tools, text, name, number)
        first = next(i for i, (_, end) in enumerate(encoded.spans) if end > at)

        def renamed(names: Sequence[str]) -> list[list[int]]:
            texts = [text[:at] + other + text[at + len(name) :] for other in names]
            return [each.ids for each in self._encoder.encode(texts)]

        last = next(i for i, (_, end) in enumerate(encoded.spans) if end >= at + len(name))
        return SaidCall(first, last + 1, renamed, lambda: self._arguments(messages, tools, text, encoded, number))

    def _name_at(self, messages: Sequence[Json], tools: Sequence[Json], text: str, name: str, number: int) -> int:
        """Return the index in an answer's text at which the name of one of its calls begins."""
        renamed = copy.deepcopy(dict(messages[-1]))
        renamed["tool_calls"][number]["function"]["name"] = _NAME
        alone = [{"role": "user", "content": PROBE}, renamed]
        for tried, offered in ((alone, ()), ([*messages[:-1], renamed], tools)):  # by itself a message is quick
            try:
                written = self._answer_text(tried, offered)
            except TltrainError:
                continue
            if written.count(_NAME) == 1 and written.replace(_NAME, name) == text:
                return written.index(_NAME)
        raise TltrainError(f"format={self.name}: the chat template changes the tool's name {shown(name)}")

    def _arguments(
        self, messages: Sequence[Json], tools: Sequence[Json], text: str, encoded: Encoded, number: int
    ) -> dict[int, str]:
        """Map each token's position to the first part of an argument with which the token shares a character."""

        def render(arguments: Json, history: Sequence[Json], offered: Sequence[Json]) -> str:
            changed = copy.deepcopy(dict(messages[-1]))
            changed["tool_calls"][number]["function"]["arguments"] = dict(arguments)
            return self._answer_text([*history, changed], offered)

        given = messages[-1]["tool_calls"][number]["function"]["arguments"]
        user = [{"role": "user", "content": PROBE}]
        for history, offered in ((user, ()), (messages[:-1], tools)):  # by itself a message is quick
            try:
                if render(given, history, offered) != text:
                    continue
                spans = argument_spans(text, given, partial(render, history=history, offered=offered))
            except TltrainError:
                continue
            return {
                position: span.part
                for span in reversed(spans)
                for position, (start, end) in enumerate(encoded.spans)
                if start < span.end and end > span.start
            }
        return {}

    def _spans(
        self, messages: Sequence[Json], tools: Sequence[Json], ids: Sequence[int], calls: int
    ) -> list[tuple[int, int]]:
        """Return the token range of each call: the tokens that it adds to the answer."""
        whole = messages[-1]
        versions = []
        for number in range(calls):
            fewer = {**whole, "tool_calls": list(whole["tool_calls"][:number])}
            if not number:
                del fewer["tool_calls"]
            text = self._answer_text([*messages[:-1], fewer], tools)
            versions.append(self._encode(text).ids)
        versions.append(list(ids))
        starts = [_common(one, other) for one, other in pairwise(versions)]
        last = next((i for i in reversed(range(len(versions[0]))) if versions[0][i] in self.stop_ids), 0)
        without = versions[0][: last + 1]
        tail = _common(without[::-1], list(ids)[::-1])
        ends = [*starts[1:], max(len(ids) - min(tail, len(without) - starts[0]), starts[-1])]
        return list(zip(starts, ends, strict=True))

    def _special_tokens(self) -> list[str]:
        """Return the texts of all special tokens, including those without a role such as end token."""
        added = self._tokenizer.added_tokens_decoder.values()
        return sorted({*self._tokenizer.all_special_tokens, *(token.content for token in added if token.special)})

    # --- reading -----------------------------------------------------------------------------------------------------

    def read(self, ids: Sequence[int], prompt: Sequence[int], tools: Sequence[Tool]) -> Answer:
        """See `NativeFormat`. If the parser fails on one call, the others are read without it.

        Raises:
            TltrainError: there is no response template for this format.
        """
        if self._response is None:
            raise TltrainError(
                f"format={self.name}: answers of this chat template cannot be read (the model has no "
                "response_template and TRL knows none): choose a named format, or put response_template into the "
                "model's tokenizer_config.json"
            )
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        before = self._tokenizer.decode(list(prompt), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return read_response(text, before, self._response, tools, self._special_tokens())

    def thought(self, ids: Sequence[int], prompt: Sequence[int]) -> range:
        """See `NativeFormat`: the tokens that share a character with `thought_span`."""
        if self._response is None:
            return range(0)

        def text(tokens: Sequence[int]) -> str:
            return self._tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)

        start, end = thought_span(text(ids), text(prompt), self._response)
        if start == end:
            return range(0)

        def until(count: int) -> int:
            return len(text(ids[:count]))

        first = bisect_right(range(len(ids)), start, key=until) - 1
        return range(first, bisect_left(range(len(ids) + 1), end, key=until))


def _literal_beginning(pattern: str) -> str:
    """Return the literal text with which every match of a regular expression begins; empty if there is none."""
    pieces = re.match(r"(?:\\[^A-Za-z0-9]|[^\\.^$*+?{}\[\]|()])*", pattern)
    found = re.findall(r"\\?.", pieces[0] if pieces else "", re.DOTALL)
    rest = pattern[sum(map(len, found)) :]
    if rest[:1] and rest[0] in "*?{":  # the last character is optional
        found = found[:-1]
    return "" if "|" in re.sub(r"\\.|\[[^]]*\]|\(.*\)", "", pattern) else "".join(piece[-1] for piece in found)


def _call(name: str, number: int) -> dict[str, Any]:
    return {"id": f"call{number:05d}", "type": "function", "function": {"name": name, "arguments": {}}}


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common prefix."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _remember_last(render: Callable[[Sequence[Json], Sequence[Json]], str]) -> Callable[..., str]:
    """Render a prompt once if it is needed twice in a row: for its tokens, and for the answer after it."""
    last: list[tuple[Sequence[Json], Sequence[Json], str]] = []

    def remembered(messages: Sequence[Json], tools: Sequence[Json]) -> str:
        if not last or list(last[0][0]) != list(messages) or list(last[0][1]) != list(tools):
            last[:] = [(messages, tools, render(messages, tools))]
        return last[0][2]

    return remembered
