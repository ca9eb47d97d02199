"""Conversations as token ids: what is fed in, what is to be predicted where, and how much each prediction counts.

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
from tltrain.tokens import prefix_tree
from tltrain.tokens.layout import Layout, Run, Target, flatten
from tltrain.tokens.prefix_tree import Limits
from tltrain.trajectory import Call, Message, Sample, Tool, Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Packing = Literal["turn", "trajectory", "prefix_tree", "auto"]
Truncation = Literal["drop_oldest_turns", "error", "skip"]


class Encoded(NamedTuple):
    """Token ids of a piece of text and, for each, the range of characters it stands for."""

    ids: list[int]
    spans: list[tuple[int, int]]


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
    """What became of the trajectories: counts for `metrics.json`.

    What `prefix_tree` and `auto` measured: `trajectories` that are learned from, `tokens_apart` in samples of one
    trajectory each, `tokens_in_trees`.
    """

    packing: str = ""
    samples: int = 0
    turns: int = 0
    tokens: int = 0
    trajectories: int = 0
    tokens_apart: int = 0
    tokens_in_trees: int = 0
    nothing_to_learn: int = 0
    truncated: int = 0
    turns_truncated: int = 0
    too_long: int = 0


AUTO = 0.7
"""`packing=auto` lays trees out where they leave less than this share of the tokens."""


def pack(
    trajectories: Iterable[Trajectory],
    encoder: Encoder,
    *,
    packing: Packing,
    w_max: float | None,
    max_length: int,
    truncation: Truncation,
    report: PackingReport,
    limits: Limits | None = None,
) -> Iterator[Layout]:
    """Training samples of the trajectories, counted in `report`.

    Args:
        packing: `trajectory`, one sample with all its turns; `turn`, one sample a turn, as released; `prefix_tree`, one
            sample for trajectories that begin alike; `auto`, `prefix_tree` or `trajectory` by the tokens they make.
        max_length: longest sample in tokens.
        truncation: what to do with a longer one: drop its oldest turns (tools and query stay), stop, or skip it.
        limits: of a tree; None lets it hold 16 trajectories.

    Raises:
        TltrainError: a trajectory is too long and `truncation` is `error`.
    """
    chains = _chains(trajectories, encoder, packing, w_max, max_length, truncation, report)
    report.packing = packing
    if packing in ("prefix_tree", "auto"):
        samples = _trees(list(chains), packing, limits or Limits(16, max_length), report)
    else:
        samples = chains
    for runs in samples:
        layout = flatten(runs)
        report.samples += 1
        report.turns += len(_turns(runs))
        report.tokens += len(layout.input_ids)
        yield layout


def _chains(
    trajectories: Iterable[Trajectory],
    encoder: Encoder,
    packing: Packing,
    w_max: float | None,
    max_length: int,
    truncation: Truncation,
    report: PackingReport,
) -> Iterator[list[Run]]:
    """A chain a turn or a trajectory, each within `max_length`."""
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
            yield fitted


def _trees(chains: list[list[Run]], packing: Packing, limits: Limits, report: PackingReport) -> list[list[Run]]:
    """The chains in trees, or by themselves where `packing` is `auto` and the trees would share too little."""
    trees = [prefix_tree.tree([chains[at] for at in group]) for group in prefix_tree.groups(chains, limits)]
    report.trajectories = len(chains)
    report.tokens_apart, report.tokens_in_trees = sum(map(_length, chains)), sum(map(_length, trees))
    if packing == "auto":
        shared = report.tokens_in_trees < AUTO * report.tokens_apart
        report.packing = "prefix_tree" if shared else "trajectory"
        return trees if shared else chains
    return trees


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
