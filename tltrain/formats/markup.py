"""Read a tool's answer as XML or HTML: elements become nested dicts, in one pass, even if the markup is invalid."""

from __future__ import annotations

import html
import re
from typing import Any

_LENGTH = 20_000  # characters of an answer that are read: errors are stated at its beginning
_NESTING = 32
_TOKEN = re.compile(
    r"<!--.{0,500}?-->|<[?!][^>]{0,500}>|<(?P<close>/?)(?P<name>[A-Za-z_][\w:.-]{0,100})(?P<rest>[^<>]{0,2000})>",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r"""([A-Za-z_][\w:.-]{0,100})\s{0,5}=\s{0,5}(?:"([^"<>]{0,1000})"|'([^'<>]{0,1000})')""")
_VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")
)


def read_markup(text: str) -> dict[str, Any] | None:
    """Return the elements of a text that begins with a tag: name -> text, or a dict of its attributes and elements.

    Names lose their namespace. Of sibling elements with the same name, only the first is kept, with its children.
    Return None if the text does not begin with markup.
    """
    text = text[:_LENGTH]
    first = _TOKEN.match(text)
    if first is None:
        return None
    root = _Element("")
    stack, at = [root], 0
    for token in _TOKEN.finditer(text):
        stack[-1].text.append(text[at : token.start()])
        at = token.end()
        name = (token["name"] or "").rpartition(":")[2].lower()
        if not name:
            continue
        if token["close"]:
            if any(element.name == name for element in stack[1:]):
                while stack.pop().name != name:  # elements left open inside it end with it
                    pass
        elif len(stack) <= _NESTING:
            element = _Element(name)
            element.attributes = {
                key.rpartition(":")[2]: html.unescape(double or single)
                for key, double, single in _ATTRIBUTE.findall(token["rest"])
                if not key.startswith("xmlns")
            }
            stack[-1].elements.append(element)
            if not token["rest"].endswith("/") and name not in _VOID:
                stack.append(element)
    stack[-1].text.append(text[at:])
    return root.value() if root.elements else None


class _Element:
    def __init__(self, name: str) -> None:
        self.name = name
        self.text: list[str] = []
        self.attributes: dict[str, str] = {}
        self.elements: list[_Element] = []

    def value(self) -> Any:
        """Return its text if it holds nothing else, otherwise its attributes and elements."""
        if not self.elements and not self.attributes:
            return self.plain()
        members: dict[str, Any] = dict(self.attributes)
        for element in self.elements:
            members.setdefault(element.name, element.value())
        if (text := self.plain()) and "message" not in members:
            members["message"] = text
        return members

    def plain(self) -> str:
        return html.unescape("".join(self.text)).strip()
