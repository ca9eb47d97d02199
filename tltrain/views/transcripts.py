"""`transcripts.html`: conversations to read, one page that needs neither network nor script.

All text of a model, user or tool is escaped, isolated in its writing direction, and cut if it is long
(`transcripts.jsonl` has it in full). The page's own policy forbids it to load or run anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter

from tltrain.evaluation.records import Transcript, TranscriptCall, TranscriptMessage
from tltrain.trajectory import Tool
from tltrain.views.html_page import END, block, head, line

MOST_TOOLS = 60
"""Most tools of one conversation that the page documents."""

STYLE = """
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
.user { border-color: var(--link); } .assistant { border-color: var(--model); }
.assistant.wrong { background: var(--bad-box); border-color: var(--bad); }
.mark { display: inline-block; border: 1px solid; border-radius: .3rem; padding: 0 .35rem; font-size: .8rem;
  font-weight: 600; white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); }
.why { color: var(--bad); font-size: .9rem; margin: .3rem 0 0; }
.thought { color: var(--quiet); font-style: italic; }
details li { margin: .2rem 0; }
"""

WHO = {"user": "User", "assistant": "Model", "tool": "Tool"}


def page(title: str, transcripts: Sequence[Transcript], numbers: Mapping[str, str]) -> Iterator[str]:
    """Yield the page piece by piece.

    Args:
        transcripts: the conversations.
        numbers: what to show above them, name -> number.
    """
    yield head(title, STYLE)
    yield '<dl id="top">'
    yield from (f"<div><dt>{line(name)}</dt><dd>{line(number)}</dd></div>" for name, number in numbers.items())
    yield '</dl>\n<nav aria-label="Conversations"><h2>Conversations</h2><ol>\n'
    yield from (_entry(number, transcript) for number, transcript in enumerate(transcripts, start=1))
    yield "</ol></nav>\n"
    for number, transcript in enumerate(transcripts, start=1):
        yield from _conversation(number, transcript)
    yield END


def _entry(number: int, transcript: Transcript) -> str:
    """Return an entry of the list."""
    return (
        f'<li><a href="#c{number}">{number}. {line(transcript.id)}</a> {_marks(transcript)}'
        f'<div class="about">{line(transcript.query, 120)}</div></li>\n'
    )


def _marks(transcript: Transcript) -> str:
    """Return marks of a conversation's outcome: success, end, counts of errors."""
    success = transcript.outcome.get("success")
    marks = [] if success is None else [_mark("good", "success") if success else _mark("bad", "no success")]
    if transcript.ended != "finish":
        marks.append(_mark("bad", transcript.ended))
    elif not transcript.valid:
        marks.append(_mark("bad", "no valid answer"))
    documentation_errors = sum(call.de for call in transcript.calls)
    call_errors = sum(call.ce for call in transcript.calls)
    for count, kind in ((documentation_errors, "DE"), (call_errors, "CE")):
        if count:
            marks.append(_mark("bad", f"{count} {kind}"))
    return " ".join(marks)


def _conversation(number: int, transcript: Transcript) -> Iterator[str]:
    scenario = transcript.meta.get("scenario")
    about = [
        f"{len(transcript.calls)} calls",
        f"ended: {transcript.ended}",
        *([f"scenario: {scenario}"] if scenario else []),
    ]
    yield f'<section id="c{number}"><h2>{number}. {line(transcript.id)}</h2>\n'
    yield f'<p class="about">{line(" · ".join(about))} {_marks(transcript)} <a href="#top">to the top</a></p>\n'
    yield _tools(transcript.tools, transcript.instructions)
    for position, message in enumerate(transcript.messages):
        yield _message(message, [call for call in transcript.calls if call.message == position])
    unfold = " open" if transcript.outcome.get("success") is False or "error" in transcript.outcome else ""
    yield (
        f"<details{unfold}><summary>The checker's verdict</summary>"
        f"{block(json.dumps(transcript.outcome, ensure_ascii=False, indent=1))}</details></section>\n"
    )


def _tools(tools: Sequence[Tool], instructions: str) -> str:
    items = [
        f"<li><code>{line(_signature(tool), 300)}</code> {line(tool.description, 300)}</li>"
        for tool in tools[:MOST_TOOLS]
    ]
    if len(tools) > MOST_TOOLS:
        items.append(f'<li class="quiet">and {len(tools) - MOST_TOOLS} more</li>')
    said = block(instructions) if instructions else ""
    return f"<details><summary>{len(tools)} tools on offer</summary>{said}<ul>{''.join(items)}</ul></details>\n"


def _signature(tool: Tool) -> str:
    names = [name if name in tool.required else f"{name}?" for name in tool.properties]
    return f"{tool.name}({', '.join(names)})"


def _message(message: TranscriptMessage, judged: Sequence[TranscriptCall]) -> str:
    role = message.role if message.role in WHO else "other"
    thought = f'<div class="thought">{block(message.thought)}</div>' if message.thought else ""
    texts = [call.text for call in judged]
    if not judged:
        texts = [
            f"{call.get('name')} {json.dumps(call.get('arguments'), ensure_ascii=False)}" for call in message.calls
        ]
    if message.content and (message.calls or not judged) and message.content not in texts:
        texts.insert(0, message.content)
    notes = [""] * (len(texts) - len(judged)) + [_what_is_wrong(call) for call in judged]
    marks = "".join(f" {_mark('bad', kind)}" for kind, wrong in _KINDS.items() if any(map(wrong, judged)))
    said = "".join(block(text) + note for text, note in zip(texts or [""], notes or [""], strict=True))
    wrong = " wrong" if marks else ""
    return f'<div class="message {role}{wrong}"><h3>{WHO.get(role, "?")}{marks}</h3>{thought}{said}</div>\n'


_KINDS = {"DE": attrgetter("de"), "CE": attrgetter("ce")}


def _what_is_wrong(call: TranscriptCall) -> str:
    """Return the reasons why a call counts as DE or CE; empty if it does not."""
    why = f'<p class="why">{line(call.reason, 400)}</p>' if call.de else ""
    if call.ce:
        why += f'<p class="why">the tool answered with an error: {line((call.error or "").replace("_", " "))}</p>'
    return why


def _mark(style: str, words: str) -> str:
    return f'<span class="mark {style}">{line(words)}</span>'
