"""Continuous batching: answer many prompts, token ids in and out; shared prefixes are prefilled once.

Prompts are grouped into families with a common prefix, such as questions over the same tools. A family's prefix is
prefilled once, and its key-value cache is copied to every member. Tokens that the prefix cache holds are not computed
again. Finished answers leave the batch at the next opportunity, and the next prompts take their place. This module is
independent of text, of how the next token is chosen (the likeliest, or as `token_choice` says) and of the criterion
that ends an answer.

Works for models that keep every key and value (`kv_cache.empty`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch.nn.functional import pad
from transformers import Cache, GenerationConfig, LogitsProcessorList, PreTrainedModel

from tltrain.inference import kv_cache
from tltrain.inference.prefix_cache import CachedPrefix, PrefixCache
from tltrain.inference.token_choice import Choose, ChosenTokens

PHASE = 4
"""Decoding steps between two checks for finished answers."""
WORTH = 64
"""Minimum saving, in tokens, for a separate prefill of a common prefix: about the cost of one more forward call."""
FEW = 0.25
"""Share of idle rows below which a batch is not compacted and no new prompt is prefilled."""
PADDING = 0.1
"""Maximum share of padding when prompts without a common prefix are prefilled together."""


@dataclass(frozen=True)
class Decoding:
    """Settings of decoding, with the criterion that ends an answer.

    Attributes:
        ended: returns whether an answer's tokens are complete, in addition to the end tokens and `max_new_tokens`; it
            is called only every few steps.
        choose: returns scores whose largest is the next token; None: the model's own.
        other_ends: end tokens besides `eos_id`.
    """

    max_new_tokens: int
    eos_id: int
    pad_id: int
    ended: Callable[[list[int]], bool]
    choose: Choose | None = None
    other_ends: frozenset[int] = frozenset()

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return self.other_ends | {self.eos_id}

    def config(self, max_new_tokens: int) -> GenerationConfig:
        """Return the settings for `generate`."""
        return GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(self.ends) if self.other_ends else self.eos_id,
            pad_token_id=self.pad_id,
        )

    def processors(self, numbers: Sequence[int], answers: Sequence[Sequence[int]], given: int) -> LogitsProcessorList:
        """Return the logits processors for `generate`; arguments as in `ChosenTokens`."""
        return LogitsProcessorList([] if self.choose is None else [ChosenTokens(self.choose, numbers, answers, given)])

    def over(self, answer: list[int]) -> bool:
        """Return whether an answer is complete."""
        return answer[-1] in self.ends or len(answer) == self.max_new_tokens or self.ended(answer)

    def until_end(self, tokens: list[int]) -> list[int]:
        """Return the tokens up to the first end token, that one included."""
        end = next((at for at, token in enumerate(tokens) if token in self.ends), len(tokens))
        return tokens[: end + 1]


@dataclass
class Prefill:
    """Count the prompts' tokens and the tokens computed to prefill them (with padding; a shared prefix counts once)."""

    samples: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0

    def add(self, prompts: Sequence[Sequence[int]], computed_tokens: int) -> None:
        """Count the tokens computed to prefill these prompts."""
        self.samples += len(prompts)
        self.prompt_tokens += sum(map(len, prompts))
        self.computed_tokens += computed_tokens

    def include(self, other: Prefill) -> None:
        """Add the counts of another process."""
        self.samples += other.samples
        self.prompt_tokens += other.prompt_tokens
        self.computed_tokens += other.computed_tokens

    def per_sample(self) -> dict[str, float]:
        """Return the entries of `metrics.json`; empty if there was no prompt."""
        if not self.samples:
            return {}
        return {
            "prompt_tokens_per_sample": round(self.prompt_tokens / self.samples, 1),
            "tokens_prefilled_per_sample": round(self.computed_tokens / self.samples, 1),
        }


# --- common prefixes -------------------------------------------------------------------------------------------------


@dataclass
class Family:
    """Prompts whose first `shared` tokens are the same.

    Attributes:
        numbers: indices of the prompts.
        cache: key-value cache of the shared tokens, once they are prefilled.
        read: for prompts without a common prefix, the prefix cache's entry for each.
    """

    numbers: list[int]
    shared: int = 0
    cache: Cache | None = None
    read: Mapping[int, CachedPrefix] | None = None


def families(prompts: Sequence[Sequence[int]], batch_size: int, numbers: Iterable[int] | None = None) -> list[Family]:
    """Group the prompts, or those at the indices `numbers`, into families; families and members from long to short.

    In lexicographic order of tokens, neighbours share the longest prefixes. Families are merged greedily, longest
    common prefix first, as long as this saves tokens: a larger family has a shorter prefix, prefilled once for all its
    members. The remaining single prompts are grouped by length, up to `batch_size`.
    """
    order = sorted(range(len(prompts)) if numbers is None else numbers, key=lambda i: tuple(prompts[i]))
    shared = [0] + [_common(prompts[i], prompts[j]) for i, j in pairwise(order)]
    spans = {at: (at + 1, 0) for at in range(len(order))}  # rank of the first -> rank after the last, tokens shared
    first_of = {at + 1: at for at in range(len(order))}  # rank after the last -> rank of the first
    for at in sorted(range(1, len(order)), key=lambda at: -shared[at]):
        first, (end, right) = first_of[at], spans[at]
        left = spans[first][1]
        saved = (end - first - 1) * shared[at] - (at - first - 1) * left - (end - at - 1) * right
        if saved >= WORTH:
            spans[first], first_of[end] = (end, shared[at]), first
            del spans[at]
    found = [Family(sorted(order[first:end], key=lambda i: -len(prompts[i])), k) for first, (end, k) in spans.items()]
    alone = {one.numbers[0]: len(prompts[one.numbers[0]]) for one in found if not one.shared}
    together = _alike(alone, batch_size)
    return sorted([one for one in found if one.shared] + together, key=lambda one: -len(prompts[one.numbers[0]]))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common prefix of two prompts, excluding the last token of the shorter one."""
    limit = min(len(one), len(other)) - 1
    return next((k for k in range(limit) if one[k] != other[k]), limit)


def _continued(prompts: Sequence[Sequence[int]], read: Mapping[int, CachedPrefix], batch_size: int) -> list[Family]:
    """Group prompts with an entry in the prefix cache by the number of tokens still to prefill."""
    found = _alike({i: len(prompts[i]) - len(one.tokens) for i, one in read.items()}, batch_size)
    return [Family(family.numbers, read=read) for family in found]


def _alike(lengths: Mapping[int, int], batch_size: int) -> list[Family]:
    """Group prompts by length, longest first, with at most `PADDING` padding and `batch_size` prompts per group."""
    found: list[Family] = []
    real = 0
    for i in sorted(lengths, key=lambda i: -lengths[i]):
        real += lengths[i]
        room = found and len(found[-1].numbers) < batch_size
        if room and lengths[found[-1].numbers[0]] * (len(found[-1].numbers) + 1) * (1 - PADDING) <= real:
            found[-1].numbers.append(i)
        else:
            found.append(Family([i]))
            real = lengths[i]
    return found


# --- the running batch -----------------------------------------------------------------------------------------------


@dataclass
class Rows:
    """A batch of B prompts that are being answered.

    Attributes:
        numbers: indices of the prompts.
        answers: the tokens of each answer so far, at least one; the last token is not in the cache yet.
        mask: [B, T + 1], for the cache's T positions and that last token; 0 for padding.
        going: the rows that are still being decoded.
    """

    numbers: list[int]
    answers: list[list[int]]
    mask: torch.Tensor
    cache: Cache
    going: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.going = list(range(len(self.numbers)))

    def ended(self, decoding: Decoding) -> Iterator[tuple[int, int, list[int]]]:
        """Yield row, prompt number and answer of each row that has ended, and remove it from `going`."""
        for at in list(self.going):
            if decoding.over(self.answers[at]):
                self.going.remove(at)
                yield at, self.numbers[at], self.answers[at]


def answers(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    batch_size: int,
    prefill: Prefill,
    memory: PrefixCache | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """Yield number and answer of every prompt, in the order in which the answers end.

    Prompts enter the batch as soon as there is room, but not beside much longer ones (`_dwarfed`).

    Args:
        memory: prefix cache; its tokens are not computed again, and finished conversations are added to it.
    """
    read = {} if memory is None else memory.lookup(prompts)
    new = families(prompts, batch_size, [i for i in range(len(prompts)) if i not in read])
    longest = [(len(prompts[family.numbers[0]]), family) for family in _continued(prompts, read, batch_size) + new]
    waiting = deque(family for _, family in sorted(longest, key=lambda pair: -pair[0]))

    def leaving(rows: Rows) -> Iterator[tuple[int, list[int]]]:
        for at, number, answer in rows.ended(decoding):
            if memory is not None:
                memory.add([*prompts[number], *answer[:-1]], rows.cache, at, rows.mask[at])
            yield number, answer

    parts: list[Rows] = []
    while waiting or parts:
        free = batch_size - sum(len(rows.going) for rows in parts)
        if not parts or free >= FEW * batch_size:  # prefilling several at once is faster
            while waiting and free and not (parts and _dwarfed(prompts, waiting[0], parts[0], decoding)):
                parts.append(_enter(model, prompts, waiting[0], free, decoding, prefill))
                yield from leaving(parts[-1])
                free -= len(parts[-1].going)
                if not waiting[0].numbers:
                    waiting.popleft()
        rows = _together(parts)
        if rows is not None:
            _decode(model, rows, decoding)
            yield from leaving(rows)
        parts = [rows] if rows is not None and rows.going else []


def _dwarfed(prompts: Sequence[Sequence[int]], family: Family, rows: Rows, decoding: Decoding) -> bool:
    """Return whether the family's prompts are shorter than half of these rows, not counting a full-length answer."""
    return 2 * len(prompts[family.numbers[0]]) + decoding.max_new_tokens < rows.mask.shape[1]


def _enter(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    family: Family,
    most: int,
    decoding: Decoding,
    prefill: Prefill,
) -> Rows:
    """Prefill up to `most` prompts of a family and remove them from it."""
    numbers, family.numbers = family.numbers[:most], family.numbers[most:]
    cache, behind = kv_cache.empty(model), [family.shared] * len(numbers)
    if family.read is not None:
        read = [family.read[i] for i in numbers]
        behind = [len(one.tokens) for one in read]
        cache = kv_cache.stack_rows([(one.cache, [0]) for one in read], max(behind))
    elif family.shared:
        if family.cache is None:
            ids = torch.tensor([list(prompts[numbers[0]][: family.shared])], device=model.device)
            _read(model, ids, torch.ones_like(ids), cache, decoding.config(1), LogitsProcessorList())
            prefill.add([], ids.numel())
            family.cache = cache
        cache = kv_cache.expand_row(family.cache, len(numbers))
    ids, mask = left_padded(
        [prompts[i][n:] for i, n in zip(numbers, behind, strict=True)], decoding.pad_id, model.device
    )
    columns = torch.arange(max(behind), device=model.device)
    mask = torch.cat([(columns >= max(behind) - torch.tensor(behind, device=model.device)[:, None]).long(), mask], 1)
    processors = decoding.processors(numbers, [[]] * len(numbers), ids.shape[1])
    first = _read(model, ids, mask, cache, decoding.config(1), processors)
    prefill.add([prompts[i] for i in numbers], ids.numel())
    return Rows(numbers, first, pad(mask, (0, 1), value=1), cache)


def _read(
    model: PreTrainedModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    cache: Cache,
    config: GenerationConfig,
    processors: LogitsProcessorList,
) -> list[list[int]]:
    """Append `ids` [B, N] to the cache of T positions and decode some tokens of each row.

    Afterwards the cache also holds the new tokens, except for the last one.

    Args:
        mask: [B, T + N], 0 for padding.
    """
    out = model.generate(
        ids,
        attention_mask=mask,
        past_key_values=cache,
        generation_config=config,
        logits_processor=processors,
        synced_gpus=False,  # also under ZeRO-3: the weights are gathered, and processes have different prompts
    )
    return out[:, ids.shape[1] :].tolist()


def _decode(model: PreTrainedModel, rows: Rows, decoding: Decoding) -> None:
    """Extend the answers by one phase, or to the end token."""
    most = min(PHASE, decoding.max_new_tokens - max(len(rows.answers[at]) for at in rows.going))
    idle = rows.answers[rows.going[0]][-1]  # input of finished rows; an end token might be mistaken for padding
    last = [[answer[-1] if at in rows.going else idle] for at, answer in enumerate(rows.answers)]
    ids = torch.tensor(last, device=rows.mask.device)
    processors = decoding.processors(rows.numbers, rows.answers, 1)
    new = _read(model, ids, rows.mask, rows.cache, decoding.config(most), processors)
    for at, (answer, tokens) in enumerate(zip(rows.answers, new, strict=True)):
        if at in rows.going:
            answer += decoding.until_end(tokens)
    rows.mask = pad(rows.mask, (0, len(new[0])), value=1)


def _together(parts: Sequence[Rows]) -> Rows | None:
    """Merge the unfinished rows into one batch, padded to the longest row; None if all rows have finished.

    A single batch with few finished rows is returned as it is.
    """
    going = [(part, at) for part in parts for at in part.going]
    if not going:
        return None
    if len(parts) == 1 and len(going) > (1 - FEW) * len(parts[0].numbers):  # not worth a copy
        return parts[0]
    masks = [part.mask[at] for part, at in going]
    masks = [mask[int(mask.argmax()) :] for mask in masks]  # from the first 1 on
    length = max(map(len, masks))
    return Rows(
        [part.numbers[at] for part, at in going],
        [part.answers[at] for part, at in going],
        torch.stack([pad(mask, (length - len(mask), 0)) for mask in masks]),
        kv_cache.stack_rows([(part.cache, part.going) for part in parts if part.going], length - 1),
    )


def left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return left-padded ids and mask, [B, T] each, so that every row ends where its answer begins."""
    length = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (length - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask
