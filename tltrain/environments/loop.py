"""The conversation loop: the source answers and tools run, until `finish` or a limit.

`converse` holds many conversations at once. In each round the source gets all of them in one call, so that a model
generates for the whole batch; then each answer is read and its tool run. The course of a conversation depends only on
its own answers, never on the others in its batch.

Answers are untrusted. Calls are read from them (`environments.answers`), their names are looked up only among the tools
on offer, and their arguments are literals. The environment gets a copy of the calls, and nothing else from the model.

In the TL format an answer makes one call. In a native format it may make several: they are run in order, and each is
answered by its own message, as if it had been a separate answer. `finish`, or the limit of a turn, ends the turn at
once; calls after it are not run.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, SupportsFloat, TypeVar

from tltrain.environments import Environment
from tltrain.environments.answers import ReadCall, cut, final_answer, no_such_tool, plain, read_native, read_text
from tltrain.errors import TltrainError
from tltrain.formats import tool_errors
from tltrain.formats.calls import has_trailing_text
from tltrain.formats.native import Answer
from tltrain.grades import Outcome
from tltrain.trajectory import FINISH, Call, Message, Sample, Task, Tool, Turn

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_OUTPUT = 4000
"""Default number of characters of a tool's answer that enter the history."""

_JUDGED = 100_000  # characters of a tool's answer that are examined to tell whether it is an error

Ended = Literal["finish", "turn limit", "too long", "environment error"]


@dataclass(frozen=True, slots=True)
class JudgedCall:
    """One call of the model, or an answer treated as one, and what is wrong with it.

    Attributes:
        message: position of the assistant message in the conversation's `messages`; several calls may share it.
        turn: which of the user's turns it belongs to, from 1.
        text: what the model said (cut like a tool's answer); of several calls, this call's part. call: the call read
            from it, None if it could not be read.
        outcome: where it first departs from the documentation: `FORMAT_ERROR`, `WORDS_BEFORE_CALL`,
            `TOOL_HALLUCINATION`, `PARAMETERS`, or `CORRECT` if nowhere. reason: the same in words.
        ran: whether a tool got the call; False if no call could be read or no tool found, and for `finish`.
        error: the kind of error that the tool answered with, by a rule of `tltrain.mae` or, if the environment knows
            whether the call failed, by its verdict; None if there was no error.
    """

    message: int
    turn: int
    text: str
    call: Call | None
    outcome: Outcome
    reason: str
    ran: bool = False
    error: str | None = None

    @property
    def de(self) -> bool:
        """Documentation error: unparseable, unknown tool, unknown parameter, or missing required parameter."""
        return self.outcome is not Outcome.CORRECT

    @property
    def ce(self) -> bool:
        """Call error: a tool ran and answered with an error."""
        return self.error is not None

    @property
    def has_trailing_text(self) -> bool:
        """Whether text follows the call, which neither the tool nor the history gets; never in a native format."""
        return self.call is not None and has_trailing_text(self.text)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation that has ended.

    Attributes:
        messages: everything that was said, including the user's first words. tools, instructions: their last state.
        ended: `finish`, the task's last user turn was answered; `turn limit`, a user's turn took too many calls;
            `too long`, the history no longer fitted the model; `environment error`, the environment raised.
        answer: the last answer to the user, None if there was none.
        outcome: the environment's verdict (`success`: True, False, or None if nobody can tell); after an environment
            error `success` is None and `error` names it.
    """

    task: Task
    tools: tuple[Tool, ...]
    messages: tuple[Message, ...]
    calls: tuple[JudgedCall, ...]
    ended: Ended
    answer: str | None
    outcome: Mapping[str, Any]
    instructions: str = ""


@dataclass(frozen=True)
class ConversationSettings:
    """Settings shared by all conversations.

    Attributes:
        max_turns: maximum number of calls in one turn of the user; calls of one message count separately.
        max_output: maximum number of characters of a tool's answer that enter the history; a note says if it was cut.
        rule: decides which answers of tools are errors; without a rule none is.
        ignore_words: in the TL format, read the call after a thought, a sentence or a code fence, which otherwise is
            not a call.
    """

    max_turns: int
    max_output: int = MAX_OUTPUT
    rule: tool_errors.Rule | None = None
    ignore_words: bool = False


def converse(
    tasks: Iterable[Task],
    make: Callable[[], Environment],
    answer: Callable[[Sequence[Sample]], Sequence[str | Answer | None]],
    settings: ConversationSettings,
    *,
    parallel: int,
    on_end: Callable[[Conversation], None] = lambda conversation: None,
) -> list[Conversation]:
    """Hold a conversation about each task, and return the conversations in the order of the tasks.

    Args:
        make: makes a new environment for each conversation when it begins; it is closed when the conversation ends.
        answer: returns the next answer in each of several conversations: text in the TL format, or an `Answer` read
            from a native format; None if the prompt no longer fits the model (the conversation then ends), while "" is
            an answer that cannot be read.
        parallel: maximum number of conversations at a time; as one ends, the next task's begins.
        on_end: called with each conversation as it ends.

    Whatever a model says or an environment raises ends at most its own conversation; only an exception from `answer`
    ends them all. An answer that is not a call, or calls a tool that is not on offer, gets an error message in place of
    the tool's answer, and the conversation continues. An environment may have two attributes beyond those of
    `Environment`. If `words_end_turn` is true, an answer in words without a call is not an error but an answer to the
    user, and ends the user's turn (`follow_up(None)`), as in BFCL. If `failed` is true or false after a call, it says
    whether that call was answered with an error, and no rule is applied.
    """
    waiting = iter(enumerate(tasks))
    sessions: dict[int, _Session] = {}
    ended: dict[int, Conversation] = {}
    try:
        while True:
            while len(sessions) < parallel and (following := next(waiting, None)):
                number, task = following
                sessions[number] = session = _Session(task, settings)
                session.begin(make)
                _remove_ended(sessions, ended, on_end)
            if not sessions:
                return [ended[number] for number in sorted(ended)]
            asked = list(sessions.values())
            for session, said in zip(asked, answer([session.sample() for session in asked]), strict=True):
                session.receive(said)
            _remove_ended(sessions, ended, on_end)
    finally:
        for session in sessions.values():
            session.close()


def _remove_ended(
    sessions: dict[int, _Session], ended: dict[int, Conversation], on_end: Callable[[Conversation], None]
) -> None:
    """Remove the sessions that have ended and report their conversations."""
    for number in [number for number, session in sessions.items() if session.ended]:
        session = sessions.pop(number)
        session.close()
        ended[number] = session.conversation()
        on_end(ended[number])


class _Broken(Exception):
    """An environment raised an exception; the message describes it."""


@dataclass
class _Session:
    """A conversation in progress."""

    task: Task
    settings: ConversationSettings
    environment: Environment | None = None
    tools: tuple[Tool, ...] = ()
    messages: list[Message] = field(default_factory=list)
    instructions: str = ""
    calls: list[JudgedCall] = field(default_factory=list)
    turn: int = 0
    answer: str | None = None
    ended: Ended | None = None
    outcome: Mapping[str, Any] = field(default_factory=dict)

    def begin(self, make: Callable[[], Environment]) -> None:
        """Make the environment and take the user's first message."""
        try:
            self.environment = _guarded(make)
            _guarded(self._take, _guarded(self.environment.reset, self.task))
        except _Broken as error:
            self._break(error)

    def sample(self) -> Sample:
        """Return the question to be answered next."""
        return Sample(
            id=f"{self.task.id}#{len(self.calls) + 1}",
            tools=self.tools,
            messages=tuple(self.messages),
            goldens=(),
            instructions=self.instructions,
            meta={**self.task.meta, "turn": self.turn},
        )

    def receive(self, said: str | Answer | None) -> None:
        """Continue with an answer."""
        try:
            if said is None:
                self._end("too long")
            else:
                self._read(said)
        except _Broken as error:
            self._break(error)

    def conversation(self) -> Conversation:
        """Return the conversation, which has ended."""
        assert self.ended
        return Conversation(
            task=self.task,
            tools=self.tools,
            messages=tuple(self.messages),
            calls=tuple(self.calls),
            ended=self.ended,
            answer=self.answer,
            outcome=self.outcome,
            instructions=self.instructions,
        )

    def close(self) -> None:
        """Close the environment; an error in closing is only logged."""
        environment, self.environment = self.environment, None
        if environment is not None:
            try:
                _guarded(environment.close)
            except _Broken as error:
                log.warning("%s: closing the environment: %s", self.task.id, error)

    def _playing(self) -> Environment:
        """Return the environment, which exists from `begin` to `close`."""
        assert self.environment is not None
        return self.environment

    def _read(self, said: str | Answer) -> None:
        if isinstance(said, str):
            read = read_text(said, self.tools, self.settings.ignore_words, self.settings.max_output)
        else:
            read = read_native(said, self.tools, len(self.messages))
        if read.words is not None and self._words_end_turn():
            self.messages.append(read.words)
            self.answer = read.words.text
            self._answered(None)
            return
        at, unread = len(self.messages), []
        for made in read.calls:
            judged, call = made.judged, made.judged.prediction
            if call is None:
                self._note(made, at, read.message)
                unread.append(made.unread)
            elif judged.outcome is Outcome.TOOL_HALLUCINATION:
                self._note(made, at, read.message, no_such_tool(judged.reason, read.names))
            elif call.name == FINISH:
                self._note(made, at, read.message)
                self.answer = final_answer(call, self.tools)
                self._answered(self.answer)
                return
            else:
                self._note(made, at, read.message, self._run(call), ran=True)
            if sum(call.turn == self.turn for call in self.calls) >= self.settings.max_turns:
                self._answer_calls(unread)
                self._end("turn limit")
                return
        self._answer_calls(unread)

    def _run(self, call: Call) -> str:
        own = Call(call.name, copy.deepcopy(dict(call.arguments)))
        return _guarded(lambda: str(self._playing().call(own)))

    def _note(self, made: ReadCall, at: int, message: Message, output: str | None = None, ran: bool = False) -> None:
        """Record a call, and add the tools' side's answer to the history; the call's message is at `at`."""
        error = self._error(plain(output[:_JUDGED])) if ran and output is not None else None
        if len(self.messages) == at:
            self.messages.append(message)
        self.calls.append(
            JudgedCall(
                message=at,
                turn=self.turn,
                text=cut(plain(made.text), self.settings.max_output),
                call=made.judged.prediction,
                outcome=made.judged.outcome,
                reason=plain(made.judged.reason),
                ran=ran,
                error=error,
            )
        )
        if output is not None:
            self._answer_calls([output], made.id)

    def _answer_calls(self, outputs: Iterable[str], identity: str = "") -> None:
        """Add the tools' side's answers to the history; one that answers no call comes last and has no id."""
        self.messages += [
            Message("tool", cut(plain(output), self.settings.max_output), answers=identity) for output in outputs
        ]

    def _error(self, output: str) -> str | None:
        """Return the kind of error in the last call's answer, or None; the environment may know whether it failed."""
        failed, rule = _guarded(getattr, self.environment, "failed", None), self.settings.rule
        if failed is False:
            return None
        kind = tool_errors.error_kind(output, rule) if rule is not None else None
        return kind or (tool_errors.FLAGGED if failed is True else None)

    def _words_end_turn(self) -> bool:
        return _guarded(getattr, self.environment, "words_end_turn", False) is True

    def _answered(self, answer: str | None) -> None:
        """End the user's turn, and receive what they say next."""
        following = _guarded(self._playing().follow_up, answer)
        if following is None:
            self._end("finish")
        else:
            _guarded(self._take, following)  # anything but a Turn is the environment's mistake too

    def _take(self, said: Turn) -> None:
        self.tools, self.turn = tuple(said.tools), self.turn + 1
        self.instructions = said.instructions or self.instructions
        self.messages += [replace(message, text=plain(message.text)) for message in said.messages]

    def _end(self, ended: Ended) -> None:
        self.outcome = _guarded(lambda: _verdict(self._playing().outcome()))
        self.ended = ended

    def _break(self, error: _Broken) -> None:
        log.warning("%s: the environment failed: %s", self.task.id, error)
        self.ended, self.outcome = "environment error", {"success": None, "error": str(error)}


def _verdict(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return an environment's outcome, with `success` as True, False or None. Raises TltrainError for another value."""
    success = outcome.get("success")
    if success is not None and not (isinstance(success, SupportsFloat) and success in (False, True)):
        raise TltrainError(f"outcome: success: expected True, False or None, found {success!r}")
    return {**outcome, "success": None if success is None else bool(success)}


def _guarded(step: Callable[..., T], *arguments: Any) -> T:
    """Run a step of an environment, or raise `_Broken`; a tool's `exit()` must not end the evaluation either."""
    try:
        return step(*arguments)
    except (Exception, SystemExit) as error:
        raise _Broken(_described(error)) from error


def _described(error: BaseException) -> str:
    try:
        said = " ".join(str(error).split())
    except Exception:  # it is the environment's own class
        said = ""
    kind = "" if isinstance(error, TltrainError) else f"{type(error).__name__}: "
    return plain(f"{kind}{said}".rstrip(": "))[:300]
