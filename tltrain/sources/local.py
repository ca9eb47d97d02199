"""source=model: the model of the group `model` on this machine, loaded once and asked in batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from tltrain.config import Names
from tltrain.data import trajectories
from tltrain.data.reading import ReadReport
from tltrain.formats.native import Answer, as_text
from tltrain.runtime import distributed, terminal
from tltrain.sources import description
from tltrain.sources.endings import Endings
from tltrain.trajectory import Sample

log = logging.getLogger(__name__)


class LocalModel:
    """A local model's answers (a `tltrain.sources.Source`), greedy unless `stage.temperature` is above 0.

    With several processes each loads the model, and rank 0 shares its samples with the others (`help_out`).
    """

    def __init__(self, cfg: DictConfig) -> None:
        if (team := distributed.team()) is not None and distributed.leads():
            team.post("tltrain.sources.local:help_out", cfg)
        with terminal.status("loading torch and transformers"):
            import torch

            from tltrain.inference.continuous_batching import Prefill
            from tltrain.inference.offered_names import offered_in
            from tltrain.inference.prefix_cache import PrefixCache
            from tltrain.models import devices, encoders, loading
        from tltrain.models.loading import corpus

        self.cfg = cfg
        self.native_answers: list[Answer] = []
        device, bf16 = devices.device_and_dtype(cfg.hardware)
        with distributed.leader_first():
            self.name = loading.resolve(
                cfg.model,
                cfg.cache.dir,
                lambda: corpus(list(trajectories(cfg.data, cfg.seed, ReadReport())), cfg.format),
                cfg.format,
            )
        self.too_long = 0
        self.endings = Endings()
        self.prefill = Prefill()
        self.memory = PrefixCache() if cfg.benchmark.multi else None  # a conversation's history is read once
        self.encoder = encoders.load_encoder(self.name, cfg.model, cfg.format)
        self.several_calls = self.encoder.reads_tokens
        self.offered = offered_in(self.encoder) if cfg.stage.names == Names.offered else None
        self.model = loading.load_model(self.name, cfg.model, torch.bfloat16 if bf16 else torch.float32, device)

    def __call__(self, samples: Sequence[Sample]) -> list[str | None]:
        """Return the answer to each sample; None, with a warning, for prompts longer than the model's context."""
        distributed.share(samples)
        return self.answer(samples)

    def answer(self, samples: Sequence[Sample]) -> list[str | None]:
        """Do the same; every process calls this alike."""
        from tltrain.inference import generation
        from tltrain.inference.continuous_batching import Prefill
        from tltrain.inference.token_choice import TokenChoice
        from tltrain.tokens.native import NativeEncoder

        most = self.cfg.stage.max_new_tokens
        prompts = [self.encoder.prompt(sample) for sample in terminal.track(samples, "tokenizing")]
        temperature = self.cfg.stage.get("temperature", 0.0)  # stage=predict is greedy
        free = self.offered is None and not temperature
        own = Prefill()
        answers = generation.answers(
            self.model,
            self.encoder,
            prompts,
            generation.GenerationSettings(
                most,
                self.cfg.stage.get("batch_size", 1),  # stage=predict asks one question
                description(self.cfg),
                together=True,
            ),
            choose=None if free else TokenChoice(samples, self.offered, temperature, self.cfg.seed),
            prefill=own,
            memory=self.memory,
        )
        for part in distributed.gather(own):
            self.prefill.include(part)
        fits = [generation.fits(self.model, len(prompt), most) for prompt in prompts]
        texts = [answer.text for answer in answers]
        if isinstance(self.encoder, NativeEncoder):
            self.native_answers = [
                self.encoder.read(answer.ids, prompt, sample.tools)
                for answer, prompt, sample in zip(answers, prompts, samples, strict=True)
            ]
            texts = list(map(as_text, self.native_answers))
        too_long = fits.count(False)
        if too_long:
            log.warning(
                "%d of %d prompts are too long for the model's context of %d tokens: they count as not answered",
                too_long,
                len(prompts),
                generation.context(self.model),
            )
        self.too_long += too_long
        self.endings.add([answer.finish_reason for answer in answers])
        return [text if fit else None for text, fit in zip(texts, fits, strict=True)]

    def reading(self) -> dict[str, Any]:
        """Return the tokens per prompt, how many of them were computed (shared ones once), and why answers ended."""
        return self.prefill.per_sample() | self.endings.reading()

    def close(self) -> None:
        """Release the other processes."""
        if distributed.leads():
            distributed.share(None)


def help_out(cfg: DictConfig) -> None:
    """On every rank but 0: answer this rank's share of the samples that rank 0 is asked, until rank 0 closes."""
    model = LocalModel(cfg)
    while (samples := distributed.receive()) is not None:
        model.answer(samples)
