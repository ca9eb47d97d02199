"""stage=chat: talk to a model that has tools, in the terminal.

    python -m tltrain stage=chat stage.tools=my_tools.py model.path=outputs/pkt/TIME/model
    python -m tltrain stage=chat stage.tools=tools.json source=endpoint source.mode=chat source.url=URL source.model=M

The functions of a Python file run in the sandbox (`tltrain.environments.sandbox`); for tools of a JSON file you type
the answers. Each call is shown with its verdict by the documentation, and thoughts are dimmed. Ctrl-D or Ctrl-C ends
the chat. Piped lines are messages, and answers of tools that nothing runs.

Writes `chat.jsonl` after every answer, the conversation as chat-completions with its failed calls: `data=openai` reads
it, MAE judges it, and `stage.history` continues from it. `metrics.json` counts messages, calls, those that contradict
the documentation (`de`) and those that a tool answered with an error (`ce`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from tltrain import sources
from tltrain.data import native, nearby, openai, questions
from tltrain.data.reading import records
from tltrain.data.rules import named_rule
from tltrain.environments.answers import read_native, read_text
from tltrain.environments.chat import ChatWorld, tools_of_json
from tltrain.environments.loop import Conversation, ConversationSettings, converse
from tltrain.environments.sandbox import Limits, Sandbox, isolation
from tltrain.errors import FieldError, TltrainError
from tltrain.formats.calls import UNREADABLE
from tltrain.formats.native import Answer
from tltrain.runtime import runs
from tltrain.sources import Source
from tltrain.stages.evaluations import words
from tltrain.stages.evaluations.conversations import read_answers
from tltrain.trajectory import Message, Sample, Task, Tool
from tltrain.views.chat_screen import Screen
from tltrain.views.inspect_page import plural

log = logging.getLogger(__name__)

FILE = "chat.jsonl"


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    beginning = history(cfg.stage.history)
    tools = tools_on_offer(cfg, beginning)
    cfg = with_chat(cfg)
    sources.check(cfg)
    rule = named_rule(cfg, cfg.stage.rule.name)
    screen = Screen(rule)
    with ExitStack() as stack:
        session = None if is_json(cfg.stage.tools) else stack.enter_context(sandbox(cfg, tools))
        source = stack.enter_context(sources.open_source(cfg))
        said = cfg.stage.instructions or beginning.instructions
        world = ChatWorld(screen, tools, beginning.messages, said, session, screen.answer)
        talk = Talk(cfg, folder, source, world, screen, shown=len(beginning.messages))
        settings = ConversationSettings(cfg.stage.max_turns, cfg.stage.max_output, rule, words.ignored(cfg))
        screen.note(f"{plural(len(tools), 'tool')}.{' Ctrl-D ends the chat.' if screen.interactive else ''}")
        parts: list[Conversation] = []
        while not world.left and not talk.too_long and world.asks():
            (part,) = converse([Task("chat")], lambda: world, talk.answer, settings, parallel=1)
            parts.append(part)
            talk.end(part)
            if part.ended == "environment error":
                raise TltrainError(f"the chat ended: {part.outcome.get('error')}; it is saved in {folder / FILE}")
        name = source.name
    metrics = summary(name, tools, parts)
    runs.finish(folder, cfg, metrics)
    screen.summary(metrics, folder / FILE if parts else None)
    return metrics


def with_chat(cfg: DictConfig) -> DictConfig:
    """Return the configuration with which a source keeps a conversation's prefix cache and reuses no saved answers."""
    own = cfg.copy()
    with open_dict(own):
        own.benchmark.name, own.benchmark.multi = "the chat", True
        if own.source.name == "endpoint":
            own.source.cache = False
    return own


@dataclass
class Talk:
    """A chat in progress: asks the model, shows what is new and saves it.

    Attributes:
        shown: number of messages of the history that were shown.
        too_long: whether the history no longer fits the model.
    """

    cfg: DictConfig
    folder: Path
    source: Source
    world: ChatWorld
    screen: Screen
    shown: int
    too_long: bool = False
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = [tool.name for tool in self.world.tools]

    def answer(self, samples: Sequence[Sample]) -> Sequence[str | Answer | None]:
        """Return the model's answer to the chat so far; None once it is over."""
        (sample,) = samples
        self._catch_up(sample.messages)
        if self.world.left:
            return [None]
        try:
            (said,) = read_answers(self.source, samples)
        except KeyboardInterrupt:
            self.screen.note("(interrupted)")
            self.world.left = True
            return [None]
        if said is None:
            self.too_long = True
            return [None]
        self._show(said, sample)
        return [said]

    def end(self, part: Conversation) -> None:
        """Show and save the rest of a part of the chat, from which the next part continues."""
        self._catch_up(part.messages)
        self.world.beginning = part.messages
        if part.ended == "turn limit":
            self.screen.note(f"(no answer after {self.cfg.stage.max_turns} calls, stage.max_turns)")
        elif self.too_long:
            self.screen.note("(the chat no longer fits the model's context)")

    def _show(self, said: str | Answer, sample: Sample) -> None:
        if isinstance(said, str):
            read = read_text(said, sample.tools, words.ignored(self.cfg), self.cfg.stage.max_output)
            text = said
        else:
            read, text = read_native(said, sample.tools, len(sample.messages)), ""
        failed = tried_to_call(said, self.names)
        self.world.words_end_turn = not failed
        self.screen.said(read, text, self.names, failed)
        self.shown += 1

    def _catch_up(self, messages: Sequence[Message]) -> None:
        self.screen.tools_answered(messages[self.shown :])
        self.shown = len(messages)
        record = questions.conversation("chat", self.world.tools, messages, self.world.instructions)
        runs.write_lines(self.folder / FILE, [native.json_line(record, "chat")], data=True)


def tried_to_call(said: str | Answer, names: Sequence[str]) -> bool:
    """Return whether an answer without a readable call is a call that failed, rather than words to the user."""
    if isinstance(said, Answer):
        return bool(said.attempts or said.problem)
    text = said.lstrip()
    return not text or text.startswith((UNREADABLE, *(f"{name}(" for name in names)))


# --- what the chat begins with ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beginning:
    """A conversation to continue."""

    tools: tuple[Tool, ...] = ()
    messages: tuple[Message, ...] = ()
    instructions: str = ""


def history(path: str | None) -> Beginning:
    """Read the conversation in `stage.history`: the first record of a file of chat-completions.

    Raises:
        TltrainError: the file cannot be read, or has no conversation.
    """
    if path is None:
        return Beginning()
    first = next(iter(records(path)), None)
    if first is None:
        raise TltrainError(f"stage.history={path}: expected a conversation, found an empty file")
    try:
        tools, messages, instructions = openai.conversation(first[1], Counter())
    except FieldError as error:
        raise TltrainError(f"stage.history={path}: {error}") from None
    return Beginning(tools, messages, instructions)


def is_json(path: str | None) -> bool:
    """Return whether a file describes tools that nothing runs, rather than being a Python file."""
    return path is None or Path(path).suffix != ".py"


def tools_on_offer(cfg: DictConfig, beginning: Beginning) -> tuple[Tool, ...]:
    """Return the tools of `stage.tools`, else those of the history.

    Raises:
        TltrainError: there are none, or the file cannot be read.
    """
    path = cfg.stage.tools
    if path is None:
        if not beginning.tools:
            raise TltrainError("stage=chat offers tools: give stage.tools=FILE, a Python file or a JSON file of tools")
        return beginning.tools
    if not Path(path).is_file():
        raise TltrainError(f"stage.tools={path}: there is no such file{nearby.file_hint(path)}")
    if is_json(path):
        return tools_of_json(Path(path))
    from tltrain.environments.python_module import documented_tools

    return documented_tools(Path(path))


def sandbox(cfg: DictConfig, tools: Sequence[Tool]) -> Sandbox:
    """Return the process for the functions of `stage.tools`, which has loaded them.

    Raises:
        TltrainError: this machine isolates it less than `stage.isolation` requires, or the file cannot be loaded there.
    """
    stage, file = cfg.stage, Path(cfg.stage.tools).resolve()
    try:
        level = isolation(str(stage.isolation), stage.network).level
    except TltrainError as error:
        raise TltrainError(str(error).replace("benchmark.isolation", "stage.isolation")) from error
    limits = Limits(seconds=stage.time_limit, memory=stage.memory_limit, output=stage.max_output)
    session = Sandbox(file.parent, file.stem, {tool.name for tool in tools}, limits, stage.network, level)
    if (problem := session.loaded()) is not None:
        session.close()
        raise TltrainError(
            f"stage.tools={stage.tools}: cannot be loaded where tools run, without network and other files: "
            f"{problem.removeprefix('Error: ')}"
        )
    return session


def summary(name: str, tools: Sequence[Tool], parts: Sequence[Conversation]) -> dict[str, Any]:
    """Return the counts for `metrics.json`."""
    calls = [call for part in parts for call in part.calls if call.call is not None]
    unread = [call for part in parts for call in part.calls if call.call is None]
    last = parts[-1].messages if parts else ()
    return {
        "model": name,
        "tools": len(tools),
        "messages": sum(message.role == "user" for message in last),
        "calls": len(calls),
        "unreadable": len(unread),
        "de": sum(call.de for call in [*calls, *unread]),
        "ce": sum(call.ce for call in calls),
    }
