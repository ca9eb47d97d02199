"""`transcripts.html`: conversations to read, one page that needs neither network nor script.

All that a model, a user or a tool said is escaped, kept from changing the direction of what stands around it, and cut
where it is long (`transcripts.jsonl` has it whole). The page's own policy forbids it to load or run anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

MOST = 1500
"""Characters of one message that the page shows."""

MOST_TOOLS = 60
"""Tools of one conversation whose documentation the page names."""

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --quiet: #57606a; --page: #fff; --box: #f4f6f8; --line: #d0d7de;
  --user: #0b62b5; --model: #6a3ea1; --good: #116329; --bad: #b3201b; --bad-box: #fdeceb; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --quiet: #9aa4ae; --page: #14171b; --box: #1e2329;
  --line: #3a424b; --user: #6cb2ff; --model: #c9a3ff; --good: #5fd07a; --bad: #ff8f87; --bad-box: #3a1f1e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 0; }
a { color: var(--user); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .5rem; margin: 1rem 0; }
dl div { background: var(--box); border-radius: .4rem; padding: .5rem .7rem; }
dt { color: var(--quiet); font-size: .85rem; } dd { margin: 0; font-weight: 600; }
nav ol { padding: 0; margin: .5rem 0; list-style: none; max-height: 24rem; overflow: auto;
  border: 1px solid var(--line); border-radius: .4rem; }
nav li { padding: .3rem .7rem; border-bottom: 1px solid var(--line); }
nav li:last-child { border: 0; }
section { border-top: 2px solid var(--line); margin-top: 2rem; padding-top: 1rem; }
.about { color: var(--quiet); font-size: .9rem; margin: .3rem 0; }
.message { margin: .6rem 0; padding: .5rem .8rem; background: var(--box); border-left: 4px solid var(--line);
  border-radius: .3rem; }
.message h3 { margin: 0 0 .2rem; font-size: .85rem; color: var(--quiet); font-weight: 600; }
.user { border-color: var(--user); } .assistant { border-color: var(--model); }
.assistant.wrong { background: var(--bad-box); border-color: var(--bad); }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font: .9rem/1.45 ui-monospace, monospace;
  unicode-bidi: plaintext; }
bdi { unicode-bidi: isolate; }
.mark { display: inline-block; border: 1px solid; border-radius: .3rem; padding: 0 .35rem; font-size: .8rem;
  font-weight: 600; white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); } .quiet { color: var(--quiet); }
.why { color: var(--bad); font-size: .9rem; margin: .3rem 0 0; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--quiet); }
details li { margin: .2rem 0; }
"""

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{name}</title><style>{style}</style></head><body>
<h1>{title}</h1>
"""

WHO = {"user": "User", "assistant": "Model", "tool": "Tool"}


def page(title: str, records: Sequence[Mapping[str, Any]], numbers: Mapping[str, str]) -> Iterator[str]:
    """The page, piece by piece.

    Args:
        records: conversations as the lines of `transcripts.jsonl` have them.
        numbers: what to show above them, name -> number.
    """
    yield HEAD.format(name=_escaped(title), title=_text(title), style=STYLE)
    yield '<dl id="top">'
    yield from (f"<div><dt>{_text(name)}</dt><dd>{_text(number)}</dd></div>" for name, number in numbers.items())
    yield '</dl>\n<nav aria-label="Conversations"><h2>Conversations</h2><ol>\n'
    yield from (_entry(number, record) for number, record in enumerate(records, start=1))
    yield "</ol></nav>\n"
    for number, record in enumerate(records, start=1):
        yield from _conversation(number, record)
    yield "</body></html>\n"


def _entry(number: int, record: Mapping[str, Any]) -> str:
    """A line of the list."""
    query = next((message["content"] for message in record["messages"] if message["role"] == "user"), "")
    return (
        f'<li><a href="#c{number}">{number}. {_text(record["id"])}</a> {_marks(record)}'
        f'<div class="about">{_text(query, 120)}</div></li>\n'
    )


def _marks(record: Mapping[str, Any]) -> str:
    """How a conversation came out: success, end, counts of errors."""
    success = record["outcome"].get("success")
    marks = [] if success is None else [_mark("good", "success") if success else _mark("bad", "no success")]
    if record["ended"] != "finish":
        marks.append(_mark("bad", record["ended"]))
    elif not record["valid"]:
        marks.append(_mark("bad", "no valid answer"))
    for kind in ("de", "ce"):
        if count := sum(call[kind] for call in record["calls"]):
            marks.append(_mark("bad", f"{count} {kind.upper()}"))
    return " ".join(marks)


def _conversation(number: int, record: Mapping[str, Any]) -> Iterator[str]:
    scenario = record["meta"].get("scenario")
    about = [
        f"{len(record['calls'])} calls",
        f"ended: {record['ended']}",
        *([f"scenario: {scenario}"] if scenario else []),
    ]
    yield f'<section id="c{number}"><h2>{number}. {_text(record["id"])}</h2>\n'
    yield f'<p class="about">{_text(" · ".join(about))} {_marks(record)} <a href="#top">to the top</a></p>\n'
    yield _tools(record["tools"], record["instructions"])
    judged = {call["message"]: call for call in record["calls"]}
    for at, message in enumerate(record["messages"]):
        yield _message(message, judged.get(at))
    unfold = " open" if record["outcome"].get("success") is False or "error" in record["outcome"] else ""
    yield (
        f"<details{unfold}><summary>What the checker says</summary>"
        f"{_block(json.dumps(record['outcome'], ensure_ascii=False, indent=1))}</details></section>\n"
    )


def _tools(tools: Sequence[Mapping[str, Any]], instructions: str) -> str:
    items = [
        f"<li><code>{_text(_signature(tool), 300)}</code> {_text(tool['description'], 300)}</li>"
        for tool in tools[:MOST_TOOLS]
    ]
    if len(tools) > MOST_TOOLS:
        items.append(f'<li class="quiet">and {len(tools) - MOST_TOOLS} more</li>')
    said = _block(instructions) if instructions else ""
    return f"<details><summary>{len(tools)} tools on offer</summary>{said}<ul>{''.join(items)}</ul></details>\n"


def _signature(tool: Mapping[str, Any]) -> str:
    schema = tool["parameters"]
    required = set(schema.get("required") or ())
    names = [name if name in required else f"{name}?" for name in schema.get("properties") or ()]
    return f"{tool['name']}({', '.join(names)})"


def _message(message: Mapping[str, Any], judged: Mapping[str, Any] | None) -> str:
    role = message["role"]
    if judged is not None:
        text = judged["text"]
    elif message.get("call"):
        text = f"{message['call']['name']} {json.dumps(message['call']['arguments'], ensure_ascii=False)}"
    else:
        text = message["content"]
    marks, why = "", ""
    if judged and judged["de"]:
        marks += " " + _mark("bad", "DE")
        why += f'<p class="why">{_text(judged["reason"], 400)}</p>'
    if judged and judged["ce"]:
        marks += " " + _mark("bad", "CE")
        why += f'<p class="why">the tool answered with an error: {_text(judged["error"].replace("_", " "))}</p>'
    wrong = " wrong" if why else ""
    return f'<div class="message {role}{wrong}"><h3>{WHO.get(role, "?")}{marks}</h3>{_block(text)}{why}</div>\n'


def _mark(style: str, words: str) -> str:
    return f'<span class="mark {style}">{_text(words)}</span>'


def _block(text: str) -> str:
    """Text as it was written, cut where it is long."""
    if not text:
        return '<p class="quiet">(nothing)</p>'
    rest = len(text) - MOST
    more = f'<p class="quiet">(and {rest:,} more characters)</p>' if rest > 0 else ""
    return f"<pre>{_escaped(text[:MOST])}</pre>{more}"


def _text(text: str, limit: int = 200) -> str:
    """A short text in a line."""
    line = " ".join(str(text).split())
    return f"<bdi>{_escaped(line if len(line) <= limit else line[: limit - 1] + '…')}</bdi>"


# Controls (a NUL ends some readers' text), marks that turn the direction of writing, lone surrogates.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _escaped(text: str) -> str:
    return escape(_INVISIBLE.sub("\ufffd", text))
