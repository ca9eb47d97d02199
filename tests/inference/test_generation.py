"""Why generated answers ended."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.support.greedy_answers import model_of
from tltrain.formats.tl import TL
from tltrain.inference import generation
from tltrain.tokens.encoder import Encoder

END, TOO_LONG = 1, [3] * 600
PIECES = {END: "", 2: "", 3: "look(", 4: "q='lo", 5: "')", 6: "\nUser: "}


class PieceEncoder(Encoder):
    """Reads tokens as `PIECES` says."""

    def __init__(self) -> None:
        self.eos_id, self.format, self.tokenizer = END, TL, SimpleNamespace(pad_token_id=2)

    def decode(self, ids):
        return "".join(PIECES[token] for token in ids)


ENCODER = PieceEncoder()
ENDED = {
    "by the end token": ([3, 5, END], "stop"),
    "by the end token at the limit": ([3, 4, 5, END], "stop"),
    "by what follows a call": ([3, 4, 5, 6], "stop"),
    "by the limit": ([3, 4, 4, 4], "length"),
    "in a batch, padded": ([3, 5, END, 2], "stop"),
}


@pytest.mark.parametrize("together", [True, False])
def test_an_answer_that_the_limit_cuts_is_named(monkeypatch, together):
    answers = [tokens for tokens, _ in ENDED.values()]
    monkeypatch.setattr(generation.continuous_batching, "answers", lambda *_, **__: iter([*enumerate(answers)][::-1]))
    settings = generation.GenerationSettings(4, 2, together=together)
    prompts = [[3, number + 3] for number in range(len(answers))]
    found = generation.answers(model_of("llama"), ENCODER, [*prompts, TOO_LONG], settings)
    assert [answer.finish_reason for answer in found] == [*(reason for _, reason in ENDED.values()), ""]
    assert found[3].text == "look(q='loq='loq='lo" and found[5] == generation.Answer()
    assert generation.generate(model_of("llama"), ENCODER, prompts, settings) == [each.text for each in found[:5]]
