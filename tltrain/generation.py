"""Answers of a local model: batched greedy generation, longest prompts first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria

from tltrain import distributed
from tltrain.formats.tl import answer_length
from tltrain.terminal import progress
from tltrain.tokens import Encoder


class AnswerEnds(StoppingCriteria):
    """Stops a sequence where nothing that follows would be read: after a whole call, or when the next role speaks.

    Args:
        prompt_length: tokens before the answer (prompts are padded to one length).
    """

    EVERY = 4  # decoding each row at each step would cost more than a few tokens too many

    def __init__(self, encoder: Encoder, prompt_length: int) -> None:
        self.encoder, self.prompt_length = encoder, prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: object) -> torch.BoolTensor:
        length = input_ids.shape[1] - self.prompt_length
        if length % self.EVERY:
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        texts = (self.encoder.decode(row) for row in input_ids[:, self.prompt_length :].tolist())
        return torch.tensor([answer_length(text) is not None for text in texts], device=input_ids.device)


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    encoder: Encoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    description: str = "answering",
    together: bool = False,
) -> list[str]:
    """The model's greedy answer to each prompt (token ids from `Encoder.prompt`), as text, in the prompts' order.

    A prompt that does not fit into the model's context (see `fits`) is not asked; its answer is empty.

    Args:
        together: all processes of the run call this alike and share the batches, which are those of one process.
    """
    answers: list[str] = [""] * len(prompts)
    asked = [i for i, prompt in enumerate(prompts) if fits(model, len(prompt), max_new_tokens)]
    order = sorted(asked, key=lambda i: -len(prompts[i]))
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=encoder.eos_id,
        pad_token_id=encoder.tokenizer.pad_token_id,
    )
    model.eval()
    with own_settings_aside(model), progress(description, len(order)) as advance:
        starts = range(0, len(order), batch_size)
        for start in starts[distributed.rank() :: distributed.size()] if together else starts:
            rows = order[start : start + batch_size]
            ids, mask = _left_padded([prompts[i] for i in rows], encoder.tokenizer.pad_token_id, model.device)
            out = model.generate(
                ids,
                attention_mask=mask,
                generation_config=config,
                stopping_criteria=[AnswerEnds(encoder, ids.shape[1])],
                synced_gpus=False,  # under ZeRO-3 too the weights are whole here, and processes have different batches
            )
            for i, row in zip(rows, out[:, ids.shape[1] :].tolist(), strict=True):
                text = encoder.decode(row)
                answers[i] = text[: answer_length(text)].strip()
            advance(len(rows))
    return list(map("".join, zip(*distributed.gather(answers), strict=True))) if together else answers


@contextmanager
def own_settings_aside(model: PreTrainedModel) -> Iterator[None]:
    """Without the generation settings that came with the model: `generate` takes from them whatever is not said to it
    (`repetition_penalty`, `min_p`, ...), and an answer would not be what the model alone finds likeliest, nor a sample
    be drawn from the distribution that is trained.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # peft's wrapper hands its own down
    own = base.generation_config
    model.generation_config = base.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = base.generation_config = own


def fits(model: PreTrainedModel, prompt_length: int, max_new_tokens: int) -> bool:
    """Whether a prompt and its answer are within the model's context."""
    return prompt_length + max_new_tokens <= (context(model) or math.inf)


def context(model: PreTrainedModel) -> int | None:
    """The most tokens the model was made for, where its configuration says."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, [B, T] each, so that every row ends where its answer begins."""
    length = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (length - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask
