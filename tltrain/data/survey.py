"""Survey a data set: counts, and what a user should know about it before training, with examples.

It makes one pass over the trajectories and keeps only digests, lengths and the examples.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final

from tltrain.data.judged import Judge, MaeReport, judge_by, judged_trajectories
from tltrain.data.reading import ReadReport
from tltrain.errors import shorten
from tltrain.formats.calls import render_call
from tltrain.formats.tl import TL, message_text
from tltrain.formats.tool_errors import Rule, error_kind
from tltrain.trajectory import Action, Message, Trajectory, actions

EXCERPT: Final = 300
"""Maximum number of characters of a text in an example."""
MOST_TOOLS: Final = 30
"""Maximum number of tools listed, those with the most calls first."""


@dataclass(frozen=True)
class Example:
    """One place where something was found: the trajectory or record, its text there, and a description."""

    where: str
    text: str = ""
    note: str = ""


@dataclass
class Finding:
    """Something that a user should know about the data.

    Attributes:
        title: what was found. advice: what it means for training, or what to do.
        count: how often it was found. of: out of how many. unit: what is counted, in the plural.
    """

    title: str
    advice: str
    unit: str
    count: int = 0
    of: int = 0
    examples: list[Example] = field(default_factory=list)


KINDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "unreadable": (
        "records that cannot be read",
        "They are not trained on: other stages stop at the first, or leave them out with data.on_error=skip.",
        "records",
    ),
    "failed": (
        "calls that the tool answered with an error (stage.rule=strict)",
        "MAE leaves them out of the loss and keeps them in the history.",
        "calls",
    ),
    "strict_only": (
        "answers that are an error by stage.rule=strict only",
        "The paper's rule, the default, looks only for its own words, so these calls would be learned.",
        "answers",
    ),
    "paper_only": (
        "answers that are an error by stage.rule=paper only",
        "The paper's rule would leave these calls out. Read a few: are they errors?",
        "answers",
    ),
    "no_answer": (
        "calls that no answer follows, although the conversation goes on",
        "They are not learned, with MAE and without. If the logs leave answers out, put them in.",
        "calls",
    ),
    "replies": (
        "words of the assistant after which the conversation goes on",
        "They are not learned; data.learn_replies=true learns them.",
        "messages",
    ),
    "marked": ("calls and words that the data marks as history", "They are not learned, as the data says.", "calls"),
    "nothing_learned": (
        "conversations of which nothing is learned (stage.rule=strict)",
        "They are read and not trained on.",
        "conversations",
    ),
    "same_conversation": (
        "conversations that occur earlier in the data, word for word",
        "Each copy counts in training. Leave the copies out.",
        "conversations",
    ),
    "same_question": (
        "other conversations whose question, their first user message, occurs earlier in the data",
        "data.holdout keeps conversations with one question together. A benchmark's questions must not be among them.",
        "conversations",
    ),
    "no_tools": ("conversations in which no tool is called", "Words are learned, with equal weights.", "conversations"),
}
"""Findings in the order of the page: title, advice and unit."""


@dataclass
class Survey:
    """Counts a data set's trajectories as they pass (`add`) and reports the findings (`metrics`).

    Args:
        paper, strict: MAE's rules. learn_replies: the value of `data.learn_replies`.
        most: maximum number of examples per finding. count_tokens: returns the number of tokens of a text; None if
            there is no tokenizer.
    """

    paper: Rule
    strict: Rule
    learn_replies: bool = False
    most: int = 10
    count_tokens: Callable[[str], int] | None = None
    learned: dict[str, MaeReport] = field(default_factory=lambda: {"paper": MaeReport(), "strict": MaeReport()})
    counts: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    longest: list[tuple[int, str]] = field(default_factory=list)
    called: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    offered: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Finding] = field(default_factory=dict)
    _conversations: dict[bytes, str] = field(default_factory=dict)
    _questions: dict[bytes, str] = field(default_factory=dict)
    _judges: dict[str, Judge] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.findings = {name: Finding(*words) for name, words in KINDS.items()}
        for name, rule in (("paper", self.paper), ("strict", self.strict)):
            self._judges[name] = judge_by(rule, self.learn_replies)

    def add(self, item: Trajectory) -> None:
        """Count one trajectory."""
        done = actions(item.messages)
        self.counts["conversations"] += 1
        self.counts["calls"] += sum(action.call is not None for action in done)
        self.counts["replies"] += sum(action.call is None for action in done)
        self.offered.update({tool.name for tool in item.tools})
        for action in done:
            self._add_action(item, action)
        for name, judge in self._judges.items():
            marked = next(judged_trajectories([item], judge, self.learned[name]))
        if not any(action.learn for action in actions(marked.messages)):  # the last judge is the strict rule's
            self._found("nothing_learned", item.id, item.query)
        if not any(action.call is not None for action in done):
            self._found("no_tools", item.id, item.query)
        self._compare(item)
        self._measure(item, len(done))

    def _add_action(self, item: Trajectory, action: Action) -> None:
        said = message_text(item.messages[action.at]) if action.call is None else render_call(action.call)
        show = partial(self._found, where=item.id, text=said)
        if action.call is not None:
            self.called[action.call.name] += 1
        if not action.learn:
            show("marked")
        if action.answer is None:
            last = max(at for at, message in enumerate(item.messages) if message.role != "tool")
            if action.at < last and action.learn and not (action.call is None and self.learn_replies):
                show("replies" if action.call is None else "no_answer")
            return
        answer = item.messages[action.answer]
        self.counts["answers"] += 1
        paper, strict = (error_kind(answer.text, rule, answer.is_error) for rule in (self.paper, self.strict))
        self.counts["paper"] += paper is not None
        self.counts["strict"] += strict is not None
        if strict is not None:
            self.kinds[strict] += 1
            self.failed[action.call.name if action.call else ""] += 1
            show("failed", note=f"{_words(strict)}: {shorten(answer.text, EXCERPT)}")
        if (paper is None) != (strict is None):
            kind = _words(strict or paper or "")
            show("paper_only" if strict is None else "strict_only", note=f"{kind}: {shorten(answer.text, EXCERPT)}")

    def _compare(self, item: Trajectory) -> None:
        """Look for the same conversation, and for the same question, among earlier ones."""
        tools = repr([(tool.name, tool.description, tool.parameters) for tool in item.tools])
        whole = hashlib.blake2b(tools.encode("utf-8", "surrogatepass"), digest_size=16)
        whole.update(repr([item.instructions, *map(_content, item.messages)]).encode("utf-8", "surrogatepass"))
        question = _digest(" ".join(item.query.split()))
        before = self._conversations.setdefault(whole.digest(), item.id)
        asked = self._questions.setdefault(question, item.id)
        if before is not item.id:
            self._found("same_conversation", item.id, item.query, f"as {before}")
        elif asked is not item.id and item.query:
            self._found("same_question", item.id, item.query, f"as {asked}")

    def _measure(self, item: Trajectory, turns: int) -> None:
        text = "".join(segment.text for segment in TL.segments(item))
        sizes = {
            "turns of the assistant": turns,
            "calls": sum(len(message.calls) for message in item.messages),
            "tools on offer": len(item.tools),
            "characters": len(text),
        }
        if self.count_tokens is not None:
            sizes["tokens"] = self.count_tokens(text)
        for name, size in sizes.items():
            self.lengths.setdefault(name, []).append(size)
        self.longest.append((sizes.get("tokens", sizes["characters"]), item.id))
        if len(self.longest) > 1000:
            self.longest = sorted(self.longest, key=lambda each: -each[0])[: self.most]

    def _found(self, kind: str, where: str, text: str = "", note: str = "") -> None:
        finding = self.findings[kind]
        finding.count += 1
        if len(finding.examples) < self.most:
            finding.examples.append(Example(where, shorten(text, EXCERPT), note))

    def metrics(self, read: ReadReport) -> dict[str, Any]:
        """Return all counts and findings for `metrics.json`."""
        tools = [
            {"name": name, "calls": calls, "failed": self.failed[name], "offered": self.offered[name]}
            for name, calls in self.called.most_common(MOST_TOOLS)
        ]
        return {
            **{name: self.counts[name] for name in ("conversations", "calls", "replies", "answers")},
            "learned": {name: asdict(report) for name, report in self.learned.items()},
            "error_calls": {name: self.counts[name] for name in self.learned},
            "tools": {
                "on_offer": len(self.offered),
                "called": len(self.called),
                "never_called": len(set(self.offered) - set(self.called)),
                "most_called": tools,
            },
            "duplicates": {
                "conversations": self.findings["same_conversation"].count,
                "questions": self.findings["same_question"].count,
            },
            "lengths": {name: distribution(sizes) for name, sizes in self.lengths.items()},
            "longest": [
                {"conversation": name, "tokens" if self.count_tokens else "characters": size}
                for size, name in sorted(self.longest, key=lambda each: -each[0])[: self.most]
            ],
            "error_kinds": dict(self.kinds.most_common()),
            "findings": [asdict(each) for each in self._all_findings(read)],
        }

    def _all_findings(self, read: ReadReport) -> list[Finding]:
        """Return all findings, including what the reader left out and changed."""
        of = {
            "records": read.read + len(read.skipped),
            "conversations": self.counts["conversations"],
            "calls": self.counts["calls"],
            "answers": self.counts["answers"],
            "messages": self.counts["replies"],
        }
        of_marked = self.counts["calls"] + self.counts["replies"]
        unreadable = self.findings["unreadable"]
        unreadable.count = len(read.skipped)
        unreadable.examples = [
            Example(f"{count:,} times", kind, first) for kind, count, first in alike(read.skipped)[: self.most]
        ]
        for name, finding in self.findings.items():
            finding.of = of_marked if name == "marked" else of[finding.unit]
        notes = [
            Finding(
                f"reading: {note}",
                "Left out, changed or merely counted while reading, as the line says; the rest of the record is used.",
                "times",
                count,
                0,
                [Example(place) for place in read.places.get(note, [])[: self.most]],
            )
            for note, count in read.notes.most_common()
        ]
        found = [finding for finding in self.findings.values() if finding.count]
        return found[: unreadable.count > 0] + notes + found[unreadable.count > 0 :]


def alike(lines: Iterable[str]) -> list[tuple[str, int, str]]:
    """Group record errors by what is wrong: `(problem, count, first line)`, the most frequent first."""
    groups: dict[str, list[Any]] = {}
    for line in lines:
        what = re.sub(r"\[\d+\]", "[…]", _RECORD.sub("", line, count=1)).partition(", found ")[0]
        groups.setdefault(what, [0, line])[0] += 1
    return sorted(((what, count, first) for what, (count, first) in groups.items()), key=lambda each: -each[1])


_RECORD = re.compile(r"^.*?, record \d+: ")


def distribution(sizes: Sequence[int]) -> dict[str, int]:
    """Return the minimum, median, 90th percentile and maximum of some sizes (nearest rank), and their sum."""
    ordered = sorted(sizes)
    ranks = {"least": 0, "median": (len(ordered) - 1) // 2, "p90": -(-len(ordered) * 9 // 10) - 1, "most": -1}
    return {name: ordered[rank] for name, rank in ranks.items()} | {"sum": sum(ordered)}


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _content(message: Message) -> tuple[Any, ...]:
    """Return a message's content without call ids and `learn` marks."""
    return (
        message.role,
        message.text,
        message.thought,
        [(each.call.name, each.call.arguments) for each in message.calls],
    )


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
