"""How the next token of an answer is chosen: among tools on offer (`stage.names`), the likeliest or sampled.

A sampled token depends only on the seed, the prompt's name, the number of the token and the model's probabilities. The
same question therefore gets the same answer, whatever the other questions, the number of processes and the order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import LogitsProcessor

from tltrain.inference.offered_names import Offered
from tltrain.trajectory import Sample

Choose = Callable[[Sequence[int], Sequence[Sequence[int]], torch.Tensor], torch.Tensor]
"""(numbers of B prompts, their answers so far, scores [B, V]) -> scores [B, V], whose largest is the next token."""


class TokenChoice:
    """Choose the next tokens of answers to `samples` (a `Choose`).

    Args:
        offered: allows only names on offer; None: any.
        temperature: of sampling, from softmax(logits / temperature) over the tokens allowed; 0: the likeliest token.
        seed: of sampling.
        names: the prompts' names, from which the draws are derived; None: the samples' ids. The same prompt under two
            names gets two independent answers.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        offered: Offered | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        names: Sequence[str] | None = None,
    ) -> None:
        self.samples, self.offered, self.temperature, self.seed = samples, offered, temperature, seed
        self.names = [sample.id for sample in samples] if names is None else names
        self._complete: set[int] = set()  # prompts whose answer has its tool's name

    def __call__(self, numbers: Sequence[int], answers: Sequence[Sequence[int]], scores: torch.Tensor) -> torch.Tensor:
        """Return scores of -inf for tokens that are not allowed, and if sampling for all but the sampled one."""
        scores = self.on_offer(numbers, answers, scores)
        if not self.temperature:
            return scores
        sampled = self.sample(numbers, answers, scores.double() / self.temperature)
        return torch.full_like(scores, -torch.inf).scatter_(1, sampled, 0.0)

    def sample(self, numbers: Sequence[int], answers: Sequence[Sequence[int]], logits: torch.Tensor) -> torch.Tensor:
        """Return a token for each row, [B, 1], drawn from softmax(logits), [B, V]."""
        cumulated = torch.softmax(logits, dim=-1).cumsum(dim=-1)
        draws = [self._draw(number, len(answer)) for number, answer in zip(numbers, answers, strict=True)]
        at = torch.tensor(draws, dtype=torch.double, device=logits.device)[:, None] * cumulated[:, -1:]
        return torch.searchsorted(cumulated, at, right=True).clamp(max=logits.shape[1] - 1)

    def on_offer(self, numbers: Sequence[int], answers: Sequence[Sequence[int]], scores: torch.Tensor) -> torch.Tensor:
        """Return scores of -inf for tokens that are not allowed."""
        if self.offered is None:
            return scores
        rows, allowed = [], []
        for row, (number, answer) in enumerate(zip(numbers, answers, strict=True)):
            if number in self._complete:
                continue
            found = self.offered.allowed(self.samples[number].tools, answer)
            if found is None:
                if self.offered.in_the_beginning:
                    self._complete.add(number)
            else:
                rows.append(row)
                allowed.append(torch.from_numpy(found))
        if not rows:
            return scores
        forbidden = torch.zeros(scores.shape, dtype=torch.bool)
        forbidden[rows] = ~pad(torch.stack(allowed), (0, scores.shape[1] - len(allowed[0])))
        return scores.masked_fill(forbidden.to(scores.device), -torch.inf)

    def _draw(self, number: int, token: int) -> float:
        """Return a number from 0 to below 1."""
        text = f"{self.seed}/{self.names[number]}/{token}"
        digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
        return (int.from_bytes(digest) >> 11) / 2**53


class DrawnTokens(TokenChoice):
    """A `TokenChoice` that keeps the log-probability of each token that it chooses, at its temperature.

    With temperature 0 it chooses the likeliest token, whose log-probability is that at temperature 1. Steps are kept as
    they are computed, [B] each on their device, so that recording does not wait for it.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._steps: list[tuple[list[int], list[int], torch.Tensor]] = []

    def __call__(self, numbers: Sequence[int], answers: Sequence[Sequence[int]], scores: torch.Tensor) -> torch.Tensor:
        """Return scores of -inf for all but the chosen token."""
        scores = self.on_offer(numbers, answers, scores)
        logits = scores.double() / (self.temperature or 1.0)
        chosen = self.sample(numbers, answers, logits) if self.temperature else logits.argmax(dim=-1, keepdim=True)
        drawn = logits.gather(1, chosen)[:, 0] - logits.logsumexp(dim=-1)
        self._steps.append((list(numbers), [len(answer) for answer in answers], drawn))
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)

    def logprobs(self) -> list[list[float]]:
        """Return the log-probabilities of the tokens of each prompt's answer.

        Tokens that were decoded after the answer's end are included; the caller cuts them off.
        """
        found: list[dict[int, float]] = [{} for _ in self.names]
        for numbers, places, drawn in self._steps:
            for number, place, logprob in zip(numbers, places, drawn.tolist(), strict=True):
                found[number].setdefault(place, logprob)
        return [[own[place] for place in sorted(own)] for own in found]


class ChosenTokens(LogitsProcessor):
    """Apply a `Choose` within `generate`.

    Args:
        numbers: of the prompts in the batch.
        answers: their tokens before this call of `generate`.
        given: number of tokens that this call begins with, in each row.
    """

    def __init__(self, choose: Choose, numbers: Sequence[int], answers: Sequence[Sequence[int]], given: int) -> None:
        self.choose, self.numbers, self.answers, self.given = choose, numbers, answers, given

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        new = input_ids[:, self.given :].tolist()
        so_far = [[*before, *tokens] for before, tokens in zip(self.answers, new, strict=True)]
        return self.choose(self.numbers, so_far, scores)
