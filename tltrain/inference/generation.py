"""Batched generation with a local model; shared prefixes are computed once (see `continuous_batching`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria

from tltrain.inference import continuous_batching, decoding_attention, kv_cache
from tltrain.inference.continuous_batching import Decoding, Prefill, left_padded
from tltrain.inference.prefix_cache import PrefixCache
from tltrain.inference.token_choice import Choose
from tltrain.runtime import distributed
from tltrain.runtime.terminal import progress
from tltrain.tokens.encoder import Encoder


class AnswerEnds(StoppingCriteria):
    """Stop a sequence once its answer is complete, since later text would be ignored.

    Args:
        ended: returns whether an answer's tokens are complete.
        prompt_length: number of tokens before the answer (prompts are padded to the same length).
    """

    EVERY = 4  # converting all rows to text at every step would cost more than a few surplus tokens

    def __init__(self, ended: Callable[[list[int]], bool], prompt_length: int) -> None:
        self.ended, self.prompt_length = ended, prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: object) -> torch.BoolTensor:
        length = input_ids.shape[1] - self.prompt_length
        if length % self.EVERY:
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        ended = [self.ended(row) for row in input_ids[:, self.prompt_length :].tolist()]
        return torch.tensor(ended, device=input_ids.device)


@dataclass(frozen=True)
class GenerationSettings:
    """Settings for answering prompts.

    Attributes:
        batch_size: number of prompts answered at the same time.
        description: label of the progress bar.
        together: all processes of the run make the same call, and each answers a share of the prompts.
    """

    max_new_tokens: int
    batch_size: int
    description: str = "answering"
    together: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A generated answer.

    Attributes:
        finish_reason: `stop`, or `length` if `max_new_tokens` cut the answer before it was complete; empty for a
            prompt that was not answered.
        ids: its tokens, if the text cannot be read without the prompt (`Encoder.reads_tokens`).
    """

    text: str = ""
    finish_reason: str = ""
    ids: tuple[int, ...] = ()


def generate(
    model: PreTrainedModel,
    encoder: Encoder,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    *,
    choose: Choose | None = None,
) -> list[str]:
    """Return the texts of `answers`."""
    return [answer.text for answer in answers(model, encoder, prompts, settings, choose=choose)]


@torch.inference_mode()
def answers(
    model: PreTrainedModel,
    encoder: Encoder,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    *,
    choose: Choose | None = None,
    prefill: Prefill | None = None,
    memory: PrefixCache | None = None,
) -> list[Answer]:
    """Return the model's answer to each prompt (token ids from `Encoder.prompt`), in prompt order.

    A prompt that does not fit into the model's context (see `fits`) is skipped and gets an empty answer.

    Args:
        choose: how the next token is chosen (`token_choice`), by prompt number; None: the likeliest.
        prefill: the counter to which prompt tokens are added.
        memory: prefix cache of conversations in progress; its tokens are not computed again.
    """
    max_new_tokens = settings.max_new_tokens
    found = [Answer()] * len(prompts)
    asked = [i for i, prompt in enumerate(prompts) if fits(model, len(prompt), max_new_tokens)]
    if settings.together:
        asked = _part(asked, prompts)
    decoding = Decoding(
        max_new_tokens,
        encoder.eos_id,
        encoder.tokenizer.pad_token_id,
        ended=encoder.ended,
        choose=None if choose is None else lambda numbers, *given: choose([asked[n] for n in numbers], *given),
    )
    answering = in_batches if kv_cache.empty(model) is None else partial(continuous_batching.answers, memory=memory)
    prefill = Prefill() if prefill is None else prefill
    model.eval()
    with (
        ignore_generation_config(model),
        decoding_attention.enabled(model),
        progress(settings.description, len(asked)) as advance,
    ):
        for number, tokens in answering(model, [prompts[i] for i in asked], decoding, settings.batch_size, prefill):
            complete = decoding.eos_id in tokens or decoding.ended(tokens)
            ids = tuple(tokens) if encoder.reads_tokens else ()
            found[asked[number]] = Answer(encoder.text(tokens), "stop" if complete else "length", ids)
            advance()
    if not settings.together:
        return found
    shares = zip(*distributed.gather(found), strict=True)  # each prompt was answered by one process at most
    return [next((answer for answer in each if answer.finish_reason), Answer()) for each in shares]


def _part(numbers: list[int], prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return this process's share of the prompts `numbers`: neighbours in token order, which share prefixes."""
    order = sorted(numbers, key=lambda i: tuple(prompts[i]))
    first, end = (len(order) * k // distributed.size() for k in (distributed.rank(), distributed.rank() + 1))
    return order[first:end]


def in_batches(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], decoding: Decoding, batch_size: int, prefill: Prefill
) -> Iterator[tuple[int, list[int]]]:
    """Yield the same as `continuous_batching.answers` from static batches, for models with another kind of cache."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        ids, mask = left_padded([prompts[i] for i in rows], decoding.pad_id, model.device)
        prefill.add([prompts[i] for i in rows], ids.numel())
        out = model.generate(
            ids,
            attention_mask=mask,
            generation_config=decoding.config(decoding.max_new_tokens),
            logits_processor=decoding.processors(rows, [[]] * len(rows), ids.shape[1]),
            stopping_criteria=[AnswerEnds(decoding.ended, ids.shape[1])],
            synced_gpus=False,  # also under ZeRO-3: the weights are gathered, and processes have different batches
        )
        yield from zip(rows, out[:, ids.shape[1] :].tolist(), strict=True)


@contextmanager
def ignore_generation_config(model: PreTrainedModel) -> Iterator[None]:
    """Ignore the model's own generation settings within the block.

    `generate` would read every setting that it is not given (`repetition_penalty`, `min_p`, ...) from them. A greedy
    answer would then not be the model's most likely one, and a sample not from the distribution that is trained.
    """
    base = (
        model.get_base_model() if hasattr(model, "get_base_model") else model
    )  # peft's wrapper passes its own settings to the model
    own = base.generation_config
    model.generation_config = base.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = base.generation_config = own


def fits(model: PreTrainedModel, prompt_length: int, max_new_tokens: int) -> bool:
    """Return whether a prompt and its answer fit into the model's context."""
    return prompt_length + max_new_tokens <= (context(model) or math.inf)


def context(model: PreTrainedModel) -> int | None:
    """Return the model's context length in tokens; None if its configuration does not give it."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)
