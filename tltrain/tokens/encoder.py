"""Tokenize conversations piece by piece, and turn trajectories into runs of tokens with weighted targets.

Text from tools and users is tokenized as plain text: the name of a special token in it is not read as that token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from tltrain import pkt
from tltrain.config import KeyTokens
from tltrain.errors import TltrainError
from tltrain.formats import Format, Segment, joined
from tltrain.formats.families import TL_NAME
from tltrain.formats.tl import TL
from tltrain.tokens.layout import Run, Target
from tltrain.tokens.weighting import Turn, Weigh, pkt_weights
from tltrain.trajectory import Call, Sample, Tool, Trajectory, abstains, actions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Encoded(NamedTuple):
    """Token ids of a piece of text, and the character range of each token."""

    ids: list[int]
    spans: list[tuple[int, int]]


class AskedTurn(NamedTuple):
    """A turn with a learnable call, or with words that answer the user, and its prompt.

    Attributes:
        number: number of the turn's first action, see `trajectory.actions`.
        prompt: the runs of its prompt, without targets; a run that opens an earlier turn is marked.
        length: number of tokens of the turn in the data, end token included.
    """

    number: int
    prompt: list[Run]
    length: int


class Encoder:
    """Tokenize conversations piece by piece, as a format segments them, with a fast tokenizer.

    A SentencePiece-like tokenizer puts a space before a text and a byte-level one does not; both may merge the end of
    one piece with the beginning of the next. Each piece is therefore tokenized after a character that no tokenizer
    merges with it, and that character's tokens are removed. The piece thus gets the tokens that it has within a longer
    text. The first piece is tokenized as the beginning of a text, after whatever the tokenizer puts before every text.

    Args:
        bos: whether a conversation begins with the BOS token (`opening_ids`); None follows the tokenizer. Ignored for a
            format that writes its own BOS token.
        format_name: name of the format that is stored in a trained model's folder.

    Raises:
        TltrainError: the tokenizer has no fast version or no end token.
    """

    reads_tokens = False
    """Whether reading an answer needs its tokens and the prompt rather than its text alone."""
    splits_special_tokens = True
    """Whether the name of a special token in a text is read as text; servers with a chat template read the token."""
    several_calls = False
    """Whether a message may make several calls; if not, each call becomes a separate turn."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        format: Format = TL,
        bos: bool | None = None,
        format_name: str = TL_NAME,
    ) -> None:
        if not tokenizer.is_fast:
            raise TltrainError(
                f"the tokenizer {tokenizer.name_or_path} has no fast version, which is needed "
                "for the characters of each token: choose a model with a tokenizer.json"
            )
        if tokenizer.eos_token_id is None:
            raise TltrainError(
                f"the tokenizer {tokenizer.name_or_path} has no end token (eos_token): name one in its "
                "tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.format, self.format_name = format, format_name
        self.eos_id: int = tokenizer.eos_token_id
        self.opening: list[int] = [] if format.writes_bos else opening_ids(tokenizer, bos)
        self._call_heads: dict[str, list[int]] = {}

    def conversation(self, segments: Sequence[Segment]) -> list[Encoded]:
        """Return ids and character spans of each segment of a conversation; the first begins with the opening's ids."""
        first, *others = self.encode([segment.text for segment in segments], begins=True)
        opening = Encoded(self.opening + first.ids, [(0, 0)] * len(self.opening) + first.spans)
        return [opening, *others]

    def encode(self, texts: Sequence[str], begins: bool = False) -> list[Encoded]:
        """Return ids and character spans of each text, tokenized as it is within a longer text.

        Args:
            begins: whether the first text is the beginning of a conversation.
        """
        leads = [":" if text.startswith(" ") else "a" if text.startswith("\n") else "\n" for text in texts]
        if begins:
            leads[0] = ""
        batch = self._batch([lead + text for lead, text in zip(leads, texts, strict=True)])
        encoded = []
        for text, lead, ids, spans in zip(texts, leads, batch["input_ids"], batch["offset_mapping"], strict=True):
            if not lead:
                encoded.append(Encoded(ids, [tuple(span) for span in spans]))
                continue
            cut = next((i for i, (_, end) in enumerate(spans) if end > 1), len(spans))
            if cut < len(spans) and spans[cut][0] < 1:  # merged nevertheless: tokenize the piece alone
                alone = self._batch([text])
                encoded.append(Encoded(alone["input_ids"][0], [tuple(s) for s in alone["offset_mapping"][0]]))
            else:
                encoded.append(Encoded(ids[cut:], [(start - 1, end - 1) for start, end in spans[cut:]]))
        return encoded

    def _batch(self, texts: list[str]) -> dict:
        return self.tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=self.splits_special_tokens,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids, without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def name_positions(self, call: Call, encoded: Encoded) -> range:
        """Return the positions of the tokens with any character of the called name; `encoded` as in `key_positions`."""
        start = self.format.name_at(call)
        first = next(i for i, (_, end) in enumerate(encoded.spans) if end > start)
        behind = (i for i, (begin, _) in enumerate(encoded.spans) if begin >= start + len(call.name) and i > first)
        return range(first, next(behind, len(encoded.ids)))

    def key_positions(self, call: Call, encoded: Encoded, tools: Iterable[Tool]) -> frozenset[int]:
        """Return the key tokens of a call whose `Format.call_text` is `encoded`; see `pkt.key_positions`."""
        first = self.name_positions(call, encoded).start
        names = {tool.name for tool in tools} - {call.name}
        missing = [name for name in names if name not in self._call_heads]
        heads = self.encode([self.format.call_head(name) for name in missing]) if missing else []
        for name, head in zip(missing, heads, strict=True):
            self._call_heads[name] = head.ids
        return pkt.key_positions([*encoded.ids, self.eos_id], first, (self._call_heads[name] for name in names))

    def chains(
        self,
        trajectory: Trajectory,
        w_max: float | None,
        key_tokens: KeyTokens | str = KeyTokens.paper,
        seed: int = 0,
        weigh: Weigh | None = None,
    ) -> list[list[Run]]:
        """Return the trajectory as chains of runs, one per context of its turns; in the TL format there is only one."""
        return [self.runs(trajectory, w_max, key_tokens, seed, weigh)]

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return frozenset({self.eos_id})

    def asked(self, trajectory: Trajectory, abstaining: bool = False) -> list[AskedTurn]:
        """Return the turns with a learnable call, in order, with their prompts.

        Args:
            abstaining: also return those that answer the user in words (`trajectory.abstains`), if tools are on offer.
        """
        pieces, done = self.format.segments(trajectory), actions(trajectory.messages)
        words = abstaining and bool(trajectory.tools)
        runs = [
            Run(encoded.ids, i - 1, [], piece.opens_turn)
            for i, (piece, encoded) in enumerate(zip(pieces, self.conversation(pieces), strict=True))
        ]
        return [
            AskedTurn(piece.turn, runs[:i], len(runs[i].ids) + 1)
            for i, piece in enumerate(pieces)
            if piece.turn is not None
            and done[piece.turn].learn
            and (done[piece.turn].call is not None or (words and abstains(trajectory.messages, done[piece.turn])))
        ]

    def answer_lengths(self, trajectories: Iterable[Trajectory], abstaining: bool = False) -> list[int]:
        """Return the number of tokens of each learnable call of the trajectories, end token included.

        Args:
            abstaining: as in `asked`.
        """
        said = [
            f" {trajectory.messages[action.at].text}" if action.call is None else self.format.call_text(action.call)
            for trajectory in trajectories
            for action in actions(trajectory.messages)
            if action.learn
            and (action.call is not None or (abstaining and trajectory.tools and abstains(trajectory.messages, action)))
        ]
        return [len(one.ids) + 1 for one in self.encode(said)] if said else []

    def answer(self, ids: Sequence[int], prompt: Sequence[int], tools: Sequence[Tool]) -> str:
        """Return a generated answer as TL-format text, which is what grading reads."""
        return self.decode(ids)

    def thought(self, ids: Sequence[int], prompt: Sequence[int]) -> range:
        """Return the positions of the thought, with its marks, in the tokens generated after a prompt."""
        return range(0)

    def ended(self, tokens: Sequence[int]) -> bool:
        """Return whether an answer is complete even without the end token."""
        return self.format.answer_length(self.decode(list(tokens))) is not None

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of the answer in generated tokens."""
        return self.format.answer(self.decode(ids))

    def prompt(self, conversation: Trajectory | Sample) -> list[int]:
        """Return the ids of a conversation's history and of the words that ask for a call, segmented as in training."""
        pieces = self.format.prompt_segments(conversation)
        return [token for encoded in self.conversation(pieces) for token in encoded.ids]

    def reads_apart(self, conversation: Trajectory | Sample) -> bool:
        """Return whether `prompt` differs from the tokens of the prompt's whole text.

        Some tokenizers (Qwen3, Llama 3, DeepSeek) merge the end of one piece with the beginning of the next. A server
        that receives the text then computes different tokens from those the model was trained on.
        """
        whole = self._batch([joined(self.format.prompt_segments(conversation))])["input_ids"][0]
        return self.opening + whole != self.prompt(conversation)

    def runs(
        self,
        trajectory: Trajectory,
        w_max: float | None,
        key_tokens: KeyTokens | str = KeyTokens.paper,
        seed: int = 0,
        weigh: Weigh | None = None,
    ) -> list[Run]:
        """Return the trajectory as a chain of runs, with targets on every turn whose `learn` flag is set.

        Args:
            w_max: largest weight of a key token (PKT); None gives every target weight 1 (standard SFT).
            key_tokens: the tokens that get this weight (see `pkt`). The paper's key tokens are marked in any case, so
                that their loss can be logged and compared.
            seed: of the random tokens of `shuffled`, which also depend on the trajectory's id and the turn.
            weigh: another weighting than PKT, used instead of `w_max` and `key_tokens`.
        """
        weigh = weigh or partial(pkt_weights, w_max=w_max, key_tokens=key_tokens)
        pieces = self.format.segments(trajectory)
        done = actions(trajectory.messages)
        runs = []
        for number, (piece, encoded) in enumerate(zip(pieces, self.conversation(pieces), strict=True)):
            targets: list[Target] = []
            if piece.turn is not None and done[piece.turn].learn:
                call, tokens = done[piece.turn].call, [*encoded.ids, self.eos_id]
                keys = self.key_positions(call, encoded, trajectory.tools) if call is not None else frozenset()
                name = self.name_positions(call, encoded) if call is not None else ()
                spans = [*encoded.spans, (len(piece.text), len(piece.text))]
                draw = f"{seed}/{trajectory.id}/{piece.turn}"
                calls = () if call is None else (call,)
                located = partial(_given, (piece.text, spans))
                weights = weigh(Turn(tokens, calls, trajectory.tools, keys, name, draw, located))
                targets = [
                    Target(position - 1, token, weight, position in keys, piece.turn)
                    for position, (token, weight) in enumerate(zip(tokens, weights, strict=True))
                ]
            runs.append(Run(encoded.ids, number - 1, targets, piece.opens_turn))
        return runs


def _given(value: tuple[str, list[tuple[int, int]]]) -> tuple[str, list[tuple[int, int]]]:
    return value


def opening_ids(tokenizer: PreTrainedTokenizerBase, bos: bool | None) -> list[int]:
    """Return the special tokens before a conversation.

    Args:
        bos: None for the tokens that the tokenizer itself adds (LLaMA and Gemma: the BOS token; Qwen: none); False for
            none; True for the tokens that the tokenizer adds or, if it adds none, its BOS token.

    Raises:
        TltrainError: `bos` is True and the tokenizer has no BOS token.
    """
    if bos is False:
        return []
    text = "a"
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole = tokenizer(text)["input_ids"]
    at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
    if at or bos is None:
        return whole[:at]
    if tokenizer.bos_token_id is None:
        raise TltrainError(f"model.bos=true: the tokenizer {tokenizer.name_or_path} has no BOS token; model.bos=auto")
    return [tokenizer.bos_token_id]
