"""Conversations in a model's own format: what a server would give the model, and what it is to say next.

`NativeFormat` is all that is asked of the library which knows the formats; `chat_templates` implements it with the
model's own chat template. Each learned turn is rendered as it will be asked for: the messages before it with the words
that prompt the assistant, exactly as a server builds them, and then the turn as the template writes it. Turns of one
trajectory form a chain as long as the prompt of each begins with all tokens before it. Many templates drop earlier
thoughts or write a last message otherwise than an earlier one; then a new chain begins, and no turn is trained in a
context that it will not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from tltrain import pkt
from tltrain.config import KeyTokens
from tltrain.errors import TltrainError
from tltrain.formats import Format
from tltrain.formats.chat_completions import api_names
from tltrain.formats.native import Answer, as_text, messages_of, tools_of
from tltrain.tokens.encoder import AskedTurn, Encoder
from tltrain.tokens.layout import Run, Target
from tltrain.tokens.weighting import Turn as WeighedTurn
from tltrain.tokens.weighting import Weigh, pkt_weights
from tltrain.trajectory import Action, Message, Sample, Tool, Trajectory, abstains, actions, sequential

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Json = Mapping[str, Any]


class Prompt(NamedTuple):
    """The ids that a server gives a model; from `opening` on stand the words after which the assistant speaks."""

    ids: list[int]
    opening: int


class CallHead(NamedTuple):
    """What a format writes around the name of each call.

    Attributes:
        mark: the text without which no call is read. before: what stands between it and the name.
        behind: the texts of which one ends a name.
    """

    mark: str
    before: str
    behind: tuple[str, ...]


@dataclass(frozen=True)
class SaidCall:
    """Where a call stands in an answer.

    Attributes:
        name_at, name_end: position of the token in which the tool's name begins, and behind the one in which it ends.
        renamed: returns the answer's ids for each of several other names of the tool.
        arguments: returns which tokens have a character of a parameter's name or of its value, as position ->
            `parameter` or `value`.
    """

    name_at: int
    name_end: int
    renamed: Callable[[Sequence[str]], list[list[int]]]
    arguments: Callable[[], dict[int, str]]


@dataclass(frozen=True)
class Said:
    """What the model says in a turn.

    Attributes:
        ids: its tokens, the end token last. calls: its calls in order.
        spans: returns for each call the range of its tokens, with the marks around it.
    """

    ids: list[int]
    calls: tuple[SaidCall, ...]
    spans: Callable[[], list[tuple[int, int]]]


class LearnedTurn(NamedTuple):
    """A turn to learn: the number of its first action, what it is asked with, what it says, and its targets."""

    number: int
    prompt: Prompt
    said: Said
    targets: list[Target]


class NativeFormat(Protocol):
    """What a library of formats has to offer. `messages` and `tools` are as an API writes them.

    Attributes:
        name: of the format, for messages.
        several_calls: whether a message may make several calls. thoughts: whether it may have a thought.
        text_beside_calls: whether a message may have words and calls.
        stop_ids: tokens that end an answer.
        call_head: what stands around the name of each call; None where that is not the same for all.
        template: the chat template that is saved with the model.
        date: what the template takes for today; None: it writes no date.
    """

    name: str
    several_calls: bool
    thoughts: bool
    text_beside_calls: bool
    stop_ids: frozenset[int]
    call_head: CallHead | None
    template: str
    date: str | None

    def prompt(self, messages: Sequence[Json], tools: Sequence[Json]) -> Prompt:
        """What the model is given to answer these messages. Raises TltrainError."""
        ...

    def said(self, messages: Sequence[Json], tools: Sequence[Json]) -> Said:
        """What the last message, the assistant's, says behind the prompt of those before. Raises TltrainError."""
        ...

    def read(self, ids: Sequence[int], prompt: Sequence[int], tools: Sequence[Tool]) -> Answer:
        """What a model answered to a prompt. Never raises for what a model says."""
        ...

    def thought(self, ids: Sequence[int], prompt: Sequence[int]) -> range:
        """The positions of an answer's thought, with its marks; empty if it has none."""
        ...


class NativeEncoder(Encoder):
    """An `Encoder` whose conversations are in the model's own format.

    Special tokens are read in the text of users and tools, as every server does that applies a chat template.
    """

    reads_tokens = True
    splits_special_tokens = False

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, make_format: Callable[[NativeEncoder], NativeFormat]
    ) -> None:
        super().__init__(tokenizer, bos=False)  # templates write the BOS token themselves
        self.native = make_format(self)
        self.several_calls = self.native.several_calls
        self.format = cast(Format, _NoText(self.native.name))
        self.eos_id = (
            tokenizer.eos_token_id if tokenizer.eos_token_id in self.native.stop_ids else min(self.native.stop_ids)
        )

    def prompt(self, conversation: Trajectory | Sample) -> list[int]:
        """Return the ids that a server would build to ask for the next answer."""
        messages, _ = self.messages(conversation)
        return self.native.prompt(messages, tools_of(conversation)).ids

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return self.native.stop_ids

    def asked(self, trajectory: Trajectory, abstaining: bool = False) -> list[AskedTurn]:
        """Return the turns with a call that may be learned, each with exactly the prompt that a server would build.

        With `abstaining` also those that answer the user in words, as `Encoder.asked` has it.

        As long as a prompt begins with the one before, its runs are divided where the turns before it open.
        """
        found: list[AskedTurn] = []
        before: list[int] = []
        openings: list[int] = []
        words: set[int] = set()
        if abstaining and trajectory.tools:
            messages = self.conversation_messages(trajectory)
            done = enumerate(actions(messages))
            words = {number for number, action in done if action.learn and abstains(messages, action)}
        for turn, prompt, said in self._rendered(trajectory, lambda turn: any(turn.calls) or turn.number in words):
            if prompt.ids[: len(before)] != before:
                openings = []
            openings.append(max(prompt.opening, len(before) if openings else 0))
            before = prompt.ids
            runs = [
                Run(prompt.ids[start:end], i - 1, [], opens_turn=i > 0)
                for i, (start, end) in enumerate(pairwise((0, *openings, len(prompt.ids))))
            ]
            found.append(AskedTurn(turn.number, runs, len(said.ids)))
        return found

    def answer_lengths(self, trajectories: Iterable[Trajectory], abstaining: bool = False) -> list[int]:
        """Return the number of tokens of what the data has the model say in each turn with a call that is learned."""
        return [turn.length for trajectory in trajectories for turn in self.asked(trajectory, abstaining)]

    def thought(self, ids: Sequence[int], prompt: Sequence[int]) -> range:
        """Return the positions of the thought, with its marks, in what a model generated after a prompt."""
        return self.native.thought(ids, prompt)

    def texts(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each token, special tokens by their names."""
        return [self.tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in ids]

    def reads_apart(self, conversation: Trajectory | Sample) -> bool:
        """Return False: prompts are tokenized as a whole, as servers do."""
        return False

    def ended(self, tokens: Sequence[int]) -> bool:
        """Return whether generated tokens hold a token that ends the answer."""
        return not self.native.stop_ids.isdisjoint(tokens)

    def read(self, ids: Sequence[int], prompt: Sequence[int], tools: Sequence[Tool]) -> Answer:
        """Return what a model answered to a prompt."""
        end = next((at for at, token in enumerate(ids) if token in self.native.stop_ids), len(ids))
        return self.native.read(ids[: end + 1], prompt, tools)

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of generated tokens, special tokens by their names."""
        return self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)

    def answer(self, ids: Sequence[int], prompt: Sequence[int], tools: Sequence[Tool]) -> str:
        """Return the answer as text of the TL format."""
        return as_text(self.read(ids, prompt, tools))

    def runs(
        self,
        trajectory: Trajectory,
        w_max: float | None,
        key_tokens: KeyTokens | str = KeyTokens.paper,
        seed: int = 0,
        weigh: Weigh | None = None,
    ) -> list[Run]:
        """Return the trajectory as one chain.

        Raises:
            TltrainError: its turns have different contexts (`chains`).
        """
        found = self.chains(trajectory, w_max, key_tokens, seed, weigh)
        if len(found) > 1:
            raise TltrainError(
                f"trajectory {trajectory.id}: in format={self.native.name} its turns have {len(found)} different "
                "contexts and cannot be one sequence"
            )
        return found[0] if found else []

    def chains(
        self,
        trajectory: Trajectory,
        w_max: float | None,
        key_tokens: KeyTokens | str = KeyTokens.paper,
        seed: int = 0,
        weigh: Weigh | None = None,
    ) -> list[list[Run]]:
        """Return chains of runs that together hold every learned turn once, each behind exactly its own prompt."""
        found: list[list[Run]] = []
        tokens: list[int] = []  # of the last chain
        for turn in self.turns(trajectory, w_max, key_tokens, seed, weigh):
            prompt, said, targets = turn.prompt, turn.said, turn.targets
            start = len(tokens) if found and prompt.ids[: len(tokens)] == tokens else 0
            if not start:
                found.append([])
            chain = found[-1]
            opening = max(prompt.opening, start)
            chain.append(Run(prompt.ids[start:opening], len(chain) - 1, []))
            chain.append(Run(prompt.ids[opening:], len(chain) - 1, [], opens_turn=True))
            chain.append(Run(said.ids[:-1], len(chain) - 1, targets))
            tokens = prompt.ids + said.ids[:-1]
        return found

    def turns(
        self,
        trajectory: Trajectory,
        w_max: float | None,
        key_tokens: KeyTokens | str = KeyTokens.paper,
        seed: int = 0,
        weigh: Weigh | None = None,
    ) -> Iterator[LearnedTurn]:
        """Yield each learned turn with its own prompt and its targets."""
        weigh = weigh or partial(pkt_weights, w_max=w_max, key_tokens=key_tokens)
        for turn, prompt, said in self._rendered(trajectory, lambda turn: turn.learned):
            draw = f"{seed}/{trajectory.id}/{turn.number}"
            targets = self._turn_targets(turn, said, trajectory.tools, weigh, draw)
            yield LearnedTurn(turn.number, prompt, said, targets)

    def _rendered(
        self, trajectory: Trajectory, wanted: Callable[[_Turn], bool]
    ) -> Iterator[tuple[_Turn, Prompt, Said]]:
        """Yield each turn that is wanted with its own prompt and what it says."""
        messages, owners = self.messages(trajectory)
        tools = tools_of(trajectory)
        said_by = self._actions(trajectory)
        for at, owner in enumerate(owners):
            turn = said_by.get(owner) if owner is not None else None
            if turn is not None and wanted(turn):
                yield turn, self.native.prompt(messages[:at], tools), self.native.said(messages[: at + 1], tools)

    def messages(self, conversation: Trajectory | Sample) -> tuple[list[dict[str, Any]], list[int | None]]:
        """Return the conversation as messages for the chat template; see `messages_of`."""
        return messages_of(self.conversation_messages(conversation), conversation.instructions, conversation.tools)

    def conversation_messages(self, conversation: Trajectory | Sample) -> tuple[Message, ...]:
        """Return the messages as the format can write them; `not_written` says what it leaves out."""
        messages = conversation.messages if self.native.several_calls else sequential(conversation.messages)
        return tuple(map(self._written, messages))

    def _written(self, message: Message) -> Message:
        if message.role != "assistant":
            return message
        text = "" if message.calls and not self.native.text_beside_calls else message.text
        return replace(message, text=text, thought=message.thought if self.native.thoughts else "")

    def not_written(self, conversations: Iterable[Trajectory | Sample]) -> dict[str, int]:
        """Count what the format cannot write as the data has it: what it is -> in how many messages it stands."""
        said = [message for one in conversations for message in one.messages if message.role == "assistant"]
        found = {
            "several calls in a message, which become turns of their own": sum(
                len(message.calls) > 1 for message in said if not self.native.several_calls
            ),
            "a thought, which is left out": sum(bool(message.thought) for message in said if not self.native.thoughts),
            "words beside a call, which are left out": sum(
                bool(message.calls and message.text) for message in said if not self.native.text_beside_calls
            ),
        }
        return {what: count for what, count in found.items() if count}

    def _actions(self, trajectory: Trajectory) -> dict[int | None, _Turn]:
        """Number of an assistant's message -> its turn."""
        messages = self.conversation_messages(trajectory)
        by_message: dict[int, list[tuple[int, Action]]] = {}
        for number, action in enumerate(actions(messages)):
            by_message.setdefault(action.at, []).append((number, action))
        return {
            at: _Turn(done[0][0], messages[at], tuple(action.learn for _, action in done if action.call is not None))
            for at, done in by_message.items()
        }

    def _turn_targets(
        self,
        turn: _Turn,
        said: Said,
        tools: tuple[Tool, ...],
        weigh: Weigh,
        draw: str,
    ) -> list[Target]:
        """The targets of a turn: all its tokens, or those of the calls and words that are learned."""
        included = _included(turn, said)
        keys = {
            position
            for call, made, learn in zip(said.calls, turn.message.calls, turn.calls, strict=True)
            if learn
            for position in self._keys(call, said.ids, made.call.name, tools)
        }
        numbers = {position: number for number, position in enumerate(included)}
        key_numbers = frozenset(numbers[position] for position in keys if position in numbers)
        name = [
            numbers[position]
            for call in said.calls
            for position in range(call.name_at, call.name_end)
            if position in numbers
        ]
        calls = tuple(made.call for made in turn.message.calls)
        located = partial(self._located, said.ids, included)
        ids = [said.ids[position] for position in included]
        weights = weigh(WeighedTurn(ids, calls, tools, key_numbers, name, draw, located))
        return [
            Target(position - 1, said.ids[position], weight, number in key_numbers, turn.number)
            for (number, position), weight in zip(enumerate(included), weights, strict=True)
        ]

    def _located(self, ids: Sequence[int], included: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """Return the text of a turn without its end token, and the characters of each of the `included` tokens."""
        texts = [*self.texts(ids[:-1]), ""]
        ends = list(accumulate(map(len, texts)))
        return "".join(texts), [(ends[position] - len(texts[position]), ends[position]) for position in included]

    def _keys(self, call: SaidCall, ids: Sequence[int], name: str, tools: Iterable[Tool]) -> frozenset[int]:
        """The key tokens of one call; see `pkt.key_positions`.

        An answer with another tool's name in the place of this one differs first where the names do, whatever stands
        around them and however the tokenizer joins them with it. A name that begins with another character shares no
        token, so that it need not be tried.
        """
        names = api_names(tuple(tools))
        called = names.get(name, name)
        similar = [other for other in names.values() if other != called and other[:1] == called[:1]]
        return pkt.key_positions(ids, call.name_at, call.renamed(similar) if similar else [])


class _Turn(NamedTuple):
    """An assistant's message.

    Attributes:
        number: of its first action, which stands for the turn. calls: whether each of its calls is learned.
    """

    number: int
    message: Message
    calls: tuple[bool, ...]

    @property
    def learned(self) -> bool:
        return any(self.calls) or self.message.learn


def _included(turn: _Turn, said: Said) -> list[int]:
    """The positions of an answer that are learned: those of calls and of words by their own flags.

    The end token is learned with whatever is learned before it.
    """
    if turn.message.learn and all(turn.calls):
        return list(range(len(said.ids)))
    flags = [turn.message.learn] * len(said.ids)
    for (start, end), learn in zip(said.spans(), turn.calls, strict=True):
        flags[start:end] = [learn] * (end - start)
    flags[-1] = True
    return [position for position, flag in enumerate(flags) if flag]


class _NoText:
    """In place of a format of text: whatever asks for text of the TL format by mistake ends in one line."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattribute__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            return object.__getattribute__(self, attribute)
        raise TltrainError(f"this works with format=tl alone so far, not with format={self._name}")
