"""How the next token of an answer is chosen: among tools on offer (`stage.names`), the likeliest or sampled.

A sampled token depends on the seed, the sample's id, the number of the token and the model's probabilities alone. The
same question therefore gets the same answer, whatever it is asked beside, on how many processes, and in which order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

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
    """

    def __init__(
        self, samples: Sequence[Sample], offered: Offered | None = None, temperature: float = 0.0, seed: int = 0
    ) -> None:
        self.samples, self.offered, self.temperature, self.seed = samples, offered, temperature, seed
        self._complete: set[int] = set()  # prompts whose answer has its tool's name

    def __call__(self, numbers: Sequence[int], answers: Sequence[Sequence[int]], scores: torch.Tensor) -> torch.Tensor:
        """Return scores of -inf for tokens that are not allowed, and if sampling for all but the sampled one."""
        scores = self.on_offer(numbers, answers, scores)
        if not self.temperature:
            return scores
        cumulated = torch.softmax(scores.double() / self.temperature, dim=-1).cumsum(dim=-1)
        draws = [self._draw(number, len(answer)) for number, answer in zip(numbers, answers, strict=True)]
        at = torch.tensor(draws, dtype=torch.double, device=scores.device)[:, None] * cumulated[:, -1:]
        sampled = torch.searchsorted(cumulated, at, right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, sampled, 0.0)

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
        text = f"{self.seed}/{self.samples[number].id}/{token}"
        digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
        return (int.from_bytes(digest) >> 11) / 2**53


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
