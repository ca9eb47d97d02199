"""Conversations in a model's own format: the prompts that a server would build, and the answers to learn.

A `NativeFormat` knows the format. Each learned turn is rendered as at inference: first the messages before it and the
generation prompt, exactly as a server builds them, then the turn as the template writes it. The turns of a trajectory
form a chain as long as each prompt begins with all tokens before it. Many templates drop earlier thoughts, or write the
last message differently from earlier ones; then a new chain begins, so that no turn is trained in a context that it
will not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from tltrain import pkt
from tltrain.config import KeyTokens
from tltrain.errors import TltrainError
from tltrain.formats import Format
from tltrain.formats.chat_completions import api_names
from tltrain.formats.native import Answer, as_text, messages_of, tools_of
from tltrain.tokens.encoder import AskedTurn, Encoder
from tltrain.tokens.layout import Run, Target
from tltrain.tokens.native_format import NativeFormat, Prompt, Said, SaidCall
from tltrain.tokens.weighting import Turn as WeighedTurn
from tltrain.tokens.weighting import Weigh, pkt_weights
from tltrain.trajectory import Action, Message, Sample, Tool, Trajectory, abstains, actions, sequential

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LearnedTurn(NamedTuple):
    """A turn to learn: the number of its first action, its prompt, the model's answer, and its targets."""

    number: int
    prompt: Prompt
    said: Said
    targets: list[Target]


class NativeEncoder(Encoder):
    """An `Encoder` whose conversations are in the model's own format.

    The names of special tokens in the text of users and tools are read as tokens, as servers with a chat template do.
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
        """Return the turns with a learnable call, each with exactly the prompt that a server would build.

        With `abstaining`, also return those that answer the user in words (see `Encoder.asked`). If a prompt begins
        with the previous one, its runs are divided where the earlier turns open.
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
        """Return the number of tokens of each turn with a learnable call, as the data has it."""
        return [turn.length for trajectory in trajectories for turn in self.asked(trajectory, abstaining)]

    def thought(self, ids: Sequence[int], prompt: Sequence[int]) -> range:
        """Return the positions of the thought, with its marks, in the tokens generated after a prompt."""
        return self.native.thought(ids, prompt)

    def texts(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each token; special tokens give their names."""
        return [self.tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in ids]

    def reads_apart(self, conversation: Trajectory | Sample) -> bool:
        """Return False: prompts are tokenized as a whole, as servers do."""
        return False

    def ended(self, tokens: Sequence[int]) -> bool:
        """Return whether the generated tokens contain one that ends the answer."""
        return not self.native.stop_ids.isdisjoint(tokens)

    def read(self, ids: Sequence[int], prompt: Sequence[int], tools: Sequence[Tool]) -> Answer:
        """Return the answer that a model gave to a prompt."""
        end = next((at for at, token in enumerate(ids) if token in self.native.stop_ids), len(ids))
        return self.native.read(ids[: end + 1], prompt, tools)

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of generated tokens; special tokens give their names."""
        return self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)

    def answer(self, ids: Sequence[int], prompt: Sequence[int], tools: Sequence[Tool]) -> str:
        """Return the answer as TL-format text."""
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
        """Return chains of runs that together contain every learned turn once, each after exactly its own prompt."""
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
        """Yield each wanted turn with its own prompt and the model's answer."""
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
        """Return the messages as the format can write them; `not_written` counts what it leaves out."""
        messages = conversation.messages if self.native.several_calls else sequential(conversation.messages)
        return tuple(map(self._written, messages))

    def _written(self, message: Message) -> Message:
        if message.role != "assistant":
            return message
        text = "" if message.calls and not self.native.text_beside_calls else message.text
        return replace(message, text=text, thought=message.thought if self.native.thoughts else "")

    def not_written(self, conversations: Iterable[Trajectory | Sample]) -> dict[str, int]:
        """Count what the format cannot write as in the data: description -> number of messages that contain it."""
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
        """Map the number of each assistant message to its turn."""
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
        """Return the targets of a turn: all its tokens, or those of the calls and words that are learned."""
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
        """Return the key tokens of one call; see `pkt.key_positions`.

        If another tool's name replaces this one, the answers first differ where the names do, whatever the text around
        them and however the tokenizer merges it with them. A name that begins with another character shares no token,
        so it need not be tried.
        """
        names = api_names(tuple(tools))
        called = names.get(name, name)
        similar = [other for other in names.values() if other != called and other[:1] == called[:1]]
        return pkt.key_positions(ids, call.name_at, call.renamed(similar) if similar else [])


class _Turn(NamedTuple):
    """An assistant's message.

    Attributes:
        number: number of its first action, which identifies the turn.
        calls: whether each of its calls is learned.
    """

    number: int
    message: Message
    calls: tuple[bool, ...]

    @property
    def learned(self) -> bool:
        return any(self.calls) or self.message.learn


def _included(turn: _Turn, said: Said) -> list[int]:
    """Return the positions of an answer that are learned: calls and words by their own flags.

    The end token is learned if anything before it is.
    """
    if turn.message.learn and all(turn.calls):
        return list(range(len(said.ids)))
    flags = [turn.message.learn] * len(said.ids)
    for (start, end), learn in zip(said.spans(), turn.calls, strict=True):
        flags[start:end] = [learn] * (end - start)
    flags[-1] = True
    return [position for position, flag in enumerate(flags) if flag]


class _NoText:
    """Stands in for a text format: any use of the TL format by mistake raises a one-line error."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattribute__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            return object.__getattribute__(self, attribute)
        raise TltrainError(f"this works only with format=tl so far, not with format={self._name}")
