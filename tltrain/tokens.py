"""Conversations as token ids: what is fed in, what is to be predicted where, and how much each prediction counts.

Everything that is trained is one layout: a tree of token *runs* with *targets* hung on their positions. One turn a
sample is a chain with targets at its end. A whole trajectory is a chain with targets along the way: attention is
causal, so one forward gives every turn's loss, if the last target of a turn is the end token although the input goes on
with the tool's answer. A target therefore says itself which token is expected; it is not the input shifted by one.

Text that comes from tools and users is tokenized as text: the name of a special token in it stays a string of
characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from tltrain import pkt
from tltrain.errors import TltrainError
from tltrain.formats import tl
from tltrain.trajectory import Call, Message, Sample, Tool, Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Packing = Literal["turn", "trajectory"]
Truncation = Literal["drop_oldest_turns", "error", "skip"]


class Encoded(NamedTuple):
    """Token ids of a piece of text and, for each, the range of characters it stands for."""

    ids: list[int]
    spans: list[tuple[int, int]]


class Target(NamedTuple):
    """A token to predict; `offset` is the position in its run whose hidden state predicts it, -1 the parent's last."""

    offset: int
    token: int
    weight: float
    key: bool
    turn: int


class Run(NamedTuple):
    """Consecutive input tokens that go on where the run numbered `parent` ends (-1: the beginning).

    `opens_turn` marks `"\\nAssistant:"`, where an assistant message begins.
    """

    ids: list[int]
    parent: int
    targets: list[Target]
    opens_turn: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """A tree of runs, flattened into one sequence of T tokens with N targets.

    Attributes:
        input_ids: [T] token ids.
        position_ids: [T] distance of each token from the root along its own branch.
        positions: [N] indices into the sequence whose hidden states predict the targets, ascending in a chain.
        targets: [N] token ids to predict. weights: [N]. keys: [N], 1 where the token is a key token.
        turns: [N] the assistant message each target belongs to.
    """

    input_ids: list[int]
    position_ids: list[int]
    positions: list[int]
    targets: list[int]
    weights: list[float]
    keys: list[int]
    turns: list[int]


def flatten(runs: Sequence[Run]) -> Layout:
    """Lay a tree of runs (parents before children) out as one sequence."""
    starts, ends, depths = [], [], []
    layout = Layout([], [], [], [], [], [], [])
    for run in runs:
        depth = depths[run.parent] + len(runs[run.parent].ids) if run.parent >= 0 else 0
        starts.append(len(layout.input_ids))
        depths.append(depth)
        layout.input_ids.extend(run.ids)
        layout.position_ids.extend(range(depth, depth + len(run.ids)))
        ends.append(len(layout.input_ids))
        for target in run.targets:
            layout.positions.append(starts[-1] + target.offset if target.offset >= 0 else ends[run.parent] - 1)
            layout.targets.append(target.token)
            layout.weights.append(target.weight)
            layout.keys.append(int(target.key))
            layout.turns.append(target.turn)
    return layout


def lineage(runs: Sequence[Run]) -> tuple[list[int], list[list[bool]]]:
    """What each token of `flatten(runs)` may attend to, where it stands before it in the sequence.

    Returns:
        [T] the run of each token, and [len(runs)][len(runs)] whether run j is run i itself or one of its ancestors.
    """
    seen: list[list[bool]] = []
    for number, run in enumerate(runs):
        seen.append(list(seen[run.parent]) if run.parent >= 0 else [False] * len(runs))
        seen[-1][number] = True
    return [number for number, run in enumerate(runs) for _ in run.ids], seen


class Encoder:
    """A fast tokenizer that reads text piece by piece.

    A SentencePiece-like tokenizer puts a space before a text, a byte-level one does not; and either may join the end of
    one piece with the beginning of the next. Each piece is therefore read behind a character that no tokenizer joins
    with it, and the tokens of that character are cut off: the piece gets the tokens it would have in running text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise TltrainError(
                f"the tokenizer {tokenizer.name_or_path} has no fast version, which gives the "
                "characters each token stands for: choose a model with a tokenizer.json"
            )
        if tokenizer.eos_token_id is None:
            raise TltrainError(
                f"the tokenizer {tokenizer.name_or_path} has no end token (eos_token): name one in its "
                "tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.eos_id: int = tokenizer.eos_token_id
        self._call_heads: dict[str, list[int]] = {}

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Ids and character spans of each text; a text begins with `System`, a space or a line feed (TL format)."""
        leads = [":" if text.startswith(" ") else "a" if text.startswith("\n") else "\n" for text in texts]
        batch = self._batch([lead + text for lead, text in zip(leads, texts, strict=True)])
        encoded = []
        for text, ids, spans in zip(texts, batch["input_ids"], batch["offset_mapping"], strict=True):
            cut = next((i for i, (_, end) in enumerate(spans) if end > 1), len(spans))
            if cut < len(spans) and spans[cut][0] < 1:  # this tokenizer joins even these: read the piece by itself
                alone = self._batch([text])
                encoded.append(Encoded(alone["input_ids"][0], [tuple(s) for s in alone["offset_mapping"][0]]))
            else:
                encoded.append(Encoded(ids[cut:], [(start - 1, end - 1) for start, end in spans[cut:]]))
        return encoded

    def _batch(self, texts: list[str]) -> dict:
        return self.tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def key_positions(self, call: Call, encoded: Encoded, tools: Iterable[Tool]) -> frozenset[int]:
        """Key tokens of a call encoded as ` name(...)`; see `pkt.key_positions`."""
        first = next(i for i, (_, end) in enumerate(encoded.spans) if end > 1)
        names = {tool.name for tool in tools} - {call.name}
        missing = [name for name in names if name not in self._call_heads]
        for name, head in zip(missing, self.encode([f" {name}(" for name in missing]) if missing else [], strict=True):
            self._call_heads[name] = head.ids
        return pkt.key_positions([*encoded.ids, self.eos_id], first, (self._call_heads[name] for name in names))

    def prompt(self, conversation: Trajectory | Sample) -> list[int]:
        """Ids of a conversation's history and `Assistant:`, cut into pieces as in training."""
        return [
            token for piece in self.encode([s.text for s in tl.prompt_segments(conversation)]) for token in piece.ids
        ]

    def runs(self, trajectory: Trajectory, w_max: float | None) -> list[Run]:
        """The trajectory as a chain of runs, targets on every turn that may be learned.

        Args:
            w_max: the largest weight of a key token (PKT); None weights every target 1 (standard SFT). Key tokens are
                marked either way, so that their loss can be watched.
        """
        pieces = tl.segments(trajectory)
        assistants = [message for message in trajectory.messages if message.role == "assistant"]
        runs = []
        for number, (piece, encoded) in enumerate(zip(pieces, self.encode([p.text for p in pieces]), strict=True)):
            learn = piece.turn is not None and assistants[piece.turn].learn
            targets = (
                self._targets(assistants[piece.turn], piece.turn, encoded, trajectory.tools, w_max) if learn else []
            )
            runs.append(Run(encoded.ids, number - 1, targets, piece.text == tl.GENERATION_PROMPT))
        return runs

    def _targets(
        self, message: Message, turn: int, encoded: Encoded, tools: tuple[Tool, ...], w_max: float | None
    ) -> list[Target]:
        keys = self.key_positions(message.call, encoded, tools) if message.call is not None else frozenset()
        tokens = [*encoded.ids, self.eos_id]
        weights = [1.0] * len(tokens) if w_max is None else pkt.token_weights(len(tokens), keys, w_max)
        return [
            Target(position - 1, token, weight, position in keys, turn)
            for position, (token, weight) in enumerate(zip(tokens, weights, strict=True))
        ]


@dataclass
class PackingReport:
    """What became of the trajectories: counts for `metrics.json`."""

    samples: int = 0
    turns: int = 0
    tokens: int = 0
    nothing_to_learn: int = 0
    truncated: int = 0
    turns_truncated: int = 0
    too_long: int = 0


def pack(
    trajectories: Iterable[Trajectory],
    encoder: Encoder,
    *,
    packing: Packing,
    w_max: float | None,
    max_length: int,
    truncation: Truncation,
    report: PackingReport,
) -> Iterator[Layout]:
    """Training samples of the trajectories, counted in `report`.

    Args:
        packing: `trajectory`, one sample with all its turns; `turn`, one sample a turn, as released.
        max_length: longest sample in tokens.
        truncation: what to do with a longer one: drop its oldest turns (tools and query stay), stop, or skip it.

    Raises:
        TltrainError: a trajectory is too long and `truncation` is `error`.
    """
    for trajectory in trajectories:
        runs = encoder.runs(trajectory, w_max)
        chains = _turn_chains(runs) if packing == "turn" else [_without_tail(runs)]
        if not any(chains):
            report.nothing_to_learn += 1
        for chain in filter(None, chains):
            fitted = fit(chain, max_length)
            if fitted is not chain:
                if truncation == "error":
                    raise TltrainError(
                        f"trajectory {trajectory.id} has {_length(chain)} tokens, more than {max_length}: "
                        "raise stage.args.max_length, or choose stage.truncation=drop_oldest_turns or skip"
                    )
                if truncation == "skip" or fitted is None:
                    report.too_long += 1
                    continue
                report.truncated += 1
                report.turns_truncated += len(_turns(chain) - _turns(fitted))
            layout = flatten(fitted)
            report.samples += 1
            report.turns += len(_turns(fitted))
            report.tokens += len(layout.input_ids)
            yield layout


def _turns(runs: Iterable[Run]) -> set[int]:
    return {target.turn for run in runs for target in run.targets}


def _length(runs: Iterable[Run]) -> int:
    return sum(len(run.ids) for run in runs)


def _without_tail(runs: list[Run]) -> list[Run]:
    """The chain up to its last run with targets; what follows teaches nothing."""
    last = max((i for i, run in enumerate(runs) if run.targets), default=-1)
    return runs[: last + 1]


def _turn_chains(runs: list[Run]) -> list[list[Run]]:
    """One chain a learnable turn: everything before it as history, targets on it alone."""
    return [[*(run._replace(targets=[]) for run in runs[:i]), run] for i, run in enumerate(runs) if run.targets]


def fit(chain: list[Run], max_length: int) -> list[Run] | None:
    """The chain if it is short enough; else what stands before its first turn (tools, query) and as many of its newest
    turns as fit; None where not even the last one does. It is cut where a turn begins: no answer without its call.
    """
    if _length(chain) <= max_length:
        return chain
    starts = [i for i, run in enumerate(chain) if run.opens_turn]
    opening = chain[: starts[0]]
    for start in starts[1:]:
        kept = [*opening, *chain[start:]]
        if _length(kept) <= max_length:
            return [run._replace(parent=i - 1) for i, run in enumerate(kept)]
    return None
