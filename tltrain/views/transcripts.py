"""`transcripts.html`: conversations to read, on one page that needs neither network nor script.

Conversations are folded, failing ones first, and can be filtered by outcome, kind of error and scenario. All text from
a model, user or tool is escaped, isolated in its writing direction, and cut if it is long (`transcripts.jsonl` has it
in full). The page's own security policy forbids it to load or run anything.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter

from tltrain.evaluation.metrics import METRICS
from tltrain.evaluation.transcripts import Transcript, TranscriptCall, TranscriptMessage
from tltrain.trajectory import Tool
from tltrain.views import filters
from tltrain.views.filters import Filter
from tltrain.views.html_page import END, block, head, line
from tltrain.views.inspect_page import plural

MOST_TOOLS = 60
"""Maximum number of tools that the page documents per conversation."""
MOST = 500
"""Maximum number of conversations on the page."""
BUDGET = 8_000_000
"""Maximum characters of all conversations on the page; the first is shown whatever its size."""

STYLE = """
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .5rem; margin: 1rem 0; }
dl div { background: var(--box); border-radius: .4rem; padding: .5rem .7rem; }
dt { color: var(--quiet); font-size: .85rem; } dd { margin: 0; font-weight: 600; }
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
        transcripts: the conversations; each keeps its number in this order, which is its line of `transcripts.jsonl`.
        numbers: name -> number, shown above the conversations.
    """
    shown, offered = _shown(transcripts)
    yield head(title, STYLE + filters.STYLE + filters.rules(offered))
    yield '<dl id="top">'
    yield from (f"<div><dt>{line(name)}</dt><dd>{line(number)}</dd></div>" for name, number in numbers.items())
    yield f"</dl>\n{_meanings(numbers)}{_about(transcripts, shown)}{filters.form(offered, len(shown))}"
    yield '<main class="items">\n'
    unfold = " open" if len(shown) <= filters.OPEN else ""
    for item, (number, text) in enumerate(shown.items()):
        yield f'<details class="{filters.classes(offered, item)}"{unfold}>{_summary(number, transcripts[number])}{text}'
    yield f"{filters.count(len(shown), 'conversations')}</main>\n{END}"


def failed(transcript: Transcript) -> bool:
    """Return whether the checker rejects the outcome or, if it cannot tell, whether there is no valid answer."""
    return not transcript.valid if transcript.success is None else not transcript.success


def kinds(transcript: Transcript) -> list[str]:
    """Return what went wrong in a conversation: how it ended, and the distinct kinds of error of its calls."""
    found = []
    if transcript.ended != "finish":
        found.append(f"end: {transcript.ended}")
    elif not transcript.valid:
        found.append("no valid answer")
    elif transcript.success is False:
        found.append("wrong outcome")
    for call in transcript.calls:
        if call.de:
            found.append(f"DE: {call.kind.replace('_', ' ') or 'unknown'}")
        if call.ce:
            found.append(f"CE: {(call.error or 'unknown').replace('_', ' ')}")
    return list(dict.fromkeys(found))


def _shown(transcripts: Sequence[Transcript]) -> tuple[dict[int, str], list[Filter]]:
    """Return the conversations on the page (position -> HTML, failing ones first) and the filters useful for them.

    If there are too many, conversations are taken in turn from every kind of error; one with several kinds counts
    under the rarest.
    """
    occurrences = Counter(kind for transcript in transcripts for kind in kinds(transcript))
    groups: dict[str, list[int]] = {}
    for number, transcript in enumerate(transcripts):
        if failed(transcript):
            rarest = min(kinds(transcript), key=occurrences.__getitem__)
            groups.setdefault(rarest, []).append(number)
    others = [number for number, transcript in enumerate(transcripts) if not failed(transcript)]
    texts: dict[int, str] = {}
    size = 0
    for number in [*filters.in_turn(groups.values()), *others]:
        text = "".join(_conversation(number, transcripts[number]))
        size += len(text)
        if texts and (len(texts) >= MOST or size > BUDGET):
            break
        texts[number] = text
    order = sorted(texts, key=lambda number: (not failed(transcripts[number]), number))
    on_page = [transcripts[number] for number in order]
    outcomes = [["failed" if failed(one) else "succeeded"] for one in on_page]
    scenarios = [[str(one.meta["scenario"])] if one.meta.get("scenario") else [] for one in on_page]
    offered = [
        Filter("Outcome", "all", outcomes, ["failed", "succeeded"]),
        filters.by_count("What went wrong", "anything", list(map(kinds, on_page))),
        filters.by_count("Scenario", "any", scenarios),
    ]
    return {number: texts[number] for number in order}, filters.useful(offered)


def _meanings(numbers: Mapping[str, str]) -> str:
    """Return what the abbreviated metrics among the numbers mean (`DE, % of calls` is that of `DE`)."""
    names = {name.partition(",")[0] for name in numbers}
    found = [f"{one.name}: {one.meaning}." for one in METRICS.values() if one.name in names and one.name.isupper()]
    return f'<p class="about">{line(" ".join(found), 1000)}</p>\n' if found else ""


def _about(transcripts: Sequence[Transcript], shown: Mapping[int, str]) -> str:
    """Return how many conversations failed, how they are ordered, and how many are not on the page."""
    bad = sum(map(failed, transcripts))
    said = f"{bad:,} of {len(transcripts):,} conversations failed."
    if 0 < bad < len(transcripts):
        said += " Failing ones come first."
    if left_out := len(transcripts) - len(shown):
        bad_left_out = bad - sum(failed(transcripts[number]) for number in shown)
        said += f" To keep this page usable, {left_out:,} conversations are not on it ({bad_left_out:,} of them failed)"
        said += "; those on it are taken in turn from every kind of error" if bad_left_out else ""
        said += "; transcripts.jsonl has all."
    if len(shown) > filters.OPEN:
        said += " Your browser’s search finds text in folded conversations too."
    return f'<p class="about">{said} The number of a conversation is its line in transcripts.jsonl.</p>\n'


def _summary(number: int, transcript: Transcript) -> str:
    """Return the line of a folded conversation."""
    return (
        f"<summary><h2>{number + 1}. {line(transcript.id)}</h2> {_marks(transcript)}"
        f'<div class="about">{line(transcript.query, 120)}</div></summary>\n'
    )


def _marks(transcript: Transcript) -> str:
    """Return the marks of a conversation's outcome: success, end, error counts."""
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
    """Yield the folded content of a conversation; a link to it unfolds it, since its target is inside."""
    scenario = transcript.meta.get("scenario")
    about = [
        plural(len(transcript.calls), "call"),
        f"ended: {transcript.ended}",
        *([f"scenario: {scenario}"] if scenario else []),
    ]
    place = f"c{number + 1}"
    yield f'<div class="body" id="{place}"><p class="about">{line(" · ".join(about))} · '
    yield f'<a href="#{place}">link</a> · <a href="#top">to the top</a></p>\n'
    yield _tools(transcript.tools, transcript.instructions)
    for position, message in enumerate(transcript.messages):
        yield _message(message, [call for call in transcript.calls if call.message == position])
    unfold = " open" if transcript.outcome.get("success") is False or "error" in transcript.outcome else ""
    yield (
        f"<details{unfold}><summary>The checker's verdict</summary>"
        f"{block(json.dumps(transcript.outcome, ensure_ascii=False, indent=1))}</details></div></details>\n"
    )


def _tools(tools: Sequence[Tool], instructions: str) -> str:
    items = [
        f"<li><code>{line(_signature(tool), 300)}</code> {line(tool.description, 300)}</li>"
        for tool in tools[:MOST_TOOLS]
    ]
    if len(tools) > MOST_TOOLS:
        items.append(f'<li class="quiet">and {len(tools) - MOST_TOOLS} more</li>')
    said = block(instructions) if instructions else ""
    offer = f"<summary>{plural(len(tools), 'tool')} on offer</summary>"
    return f"<details>{offer}{said}<ul>{''.join(items)}</ul></details>\n"


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
