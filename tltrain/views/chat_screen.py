"""What stage=chat shows at the terminal: the model's thoughts dimmed, its calls with a verdict, tools' answers.

Text from a model or a tool is untrusted: control characters, which could move the cursor or change colours, are shown
as the replacement character.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from tltrain.environments.answers import ReadAnswer
from tltrain.environments.chat import is_cut, typed_answer
from tltrain.errors import TltrainError
from tltrain.formats.calls import render_call
from tltrain.formats.preamble import thought_end, without_words
from tltrain.formats.tool_errors import Rule, error_kind
from tltrain.grades import Outcome
from tltrain.runtime import terminal
from tltrain.trajectory import Call, Message
from tltrain.views.inspect_page import plural

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    """Replace control characters and direction marks, but keep line breaks and tabs."""
    return _CONTROL.sub("\ufffd", text)


class Screen:
    """The terminal. If standard input is not a terminal, prompts are left out and input is echoed.

    Args:
        rule: decides which tool answers are marked as errors.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.interactive = sys.stdin is not None and sys.stdin.isatty()

    # --- the person (`environments.chat.Person`) --------------------------------------------------------------------

    def message(self) -> str | None:
        """Return the next non-empty line; None at the end (Ctrl-D, Ctrl-C, end of file)."""
        while (line := self._line("you> ")) is not None:
            if line.strip():
                return line
        return None

    def tool_answer(self, call: Call) -> str | None:
        """Return the next line as the answer of a tool that has no implementation; a JSON value may have several lines.

        An empty line ends a value that is not complete, which is then text.
        """
        said = self._line(f"answer of {plain(call.name)}> ")
        while said is not None and is_cut(said):
            if (line := self._line("... ")) is None:
                return None
            if not line.strip():
                break
            said = f"{said}\n{line}"
        return None if said is None else typed_answer(said)

    def _line(self, prompt: str) -> str | None:
        try:
            line = input(prompt if self.interactive else "")
        except (EOFError, KeyboardInterrupt, OSError, RuntimeError):  # the last two: there is no standard input
            if self.interactive:
                terminal.console.print()
            return None
        except UnicodeDecodeError as error:
            raise TltrainError(f"standard input: expected text in UTF-8, found other bytes ({error.reason})") from None
        if not self.interactive:
            self._print(f"{prompt}{plain(line)}")
        return line

    # --- the model ---------------------------------------------------------------------------------------------------

    def said(self, read: ReadAnswer, text: str, names: Sequence[str], failed: bool) -> None:
        """Show an answer: its thought and words, and each call checked against the documentation.

        Args:
            text: the answer as written, in the TL format. names: names of the tools on offer.
            failed: whether the answer attempts a call that cannot be read.
        """
        before = text[: len(text) - len(without_words(text, names))] or text[: thought_end(text) or 0]
        for thought in filter(None, (read.message.thought.strip(), before.strip())):
            self._print(plain(thought), "dim italic")
        if read.message.text.strip() and (read.message.calls or not failed):
            self._print(plain(read.message.text.strip()))
        for made in read.calls:
            if made.judged.prediction is not None:
                self._call(made.judged.prediction, made.judged.outcome, made.judged.reason)
            elif failed:
                self._print(f"  not readable: {plain(made.judged.reason)}", "red")

    def _call(self, call: Call, outcome: Outcome, reason: str) -> None:
        line = Text(f"  {plain(render_call(call))}  ", "bold")
        if outcome is Outcome.CORRECT:
            line.append("as documented", "green")
        else:
            line.append(f"not as documented: {plain(reason)}", "red")
        terminal.console.print(line)

    def answer(self, text: str) -> None:
        """Show what the model says to the user through `finish`."""
        self._print(plain(text))

    def tools_answered(self, messages: Sequence[Message]) -> None:
        """Show the tools' answers and mark errors."""
        for message in messages:
            if message.role == "tool":
                kind = error_kind(message.text, self.rule)
                self._print(f"  -> {plain(message.text)}", "red" if kind else "dim")

    def summary(self, metrics: Mapping[str, Any], file: Path | None) -> None:
        """Show a summary of the chat and where it was saved; None: nothing was said, so there is no file."""
        counts = (plural(metrics["messages"], "message"), plural(metrics["calls"], "call"))
        wrong = f"{metrics['de']} not as documented, {metrics['ce']} answered with an error"
        saved = "Nothing was said, so nothing was saved." if file is None else f"Saved to {file}"
        self.note(f"{', '.join(counts)}, {wrong}. {saved}")

    def note(self, text: str) -> None:
        """Show a line from the program itself."""
        self._print(text, "dim")

    def _print(self, text: str, style: str | None = None) -> None:
        terminal.console.print(Text(text), style=style)
