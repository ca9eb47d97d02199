"""Token weightings: what each gives to the tokens of a turn, and what it may not give."""

from __future__ import annotations

import re

import pytest
import torch

from tests.support.composition import composed
from tests.support.trajectories import TRAJECTORY, conversation
from tltrain.errors import TltrainError
from tltrain.formats.calls import render_call
from tltrain.tokens import weighting
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.weighting import Pattern, Turn
from tltrain.trajectory import Call

NUMBERS = conversation(
    Call("getPaperDetails", {"id": "12345678"}), Call("finish", {"answer": "ä 漢 42"}), query="What is 12345678?"
)


@pytest.fixture(params=["byte_level", "sentencepiece"])
def encoder(request) -> Encoder:
    return Encoder(request.getfixturevalue(request.param))


def chosen(*words: str) -> weighting.Weighting:
    cfg = composed("stage=sft", "model=tiny", *words)
    return weighting.configured(cfg.weighting, cfg.stage.w_max, cfg.stage.key_tokens.name)


def seen(encoder: Encoder, trajectory=NUMBERS) -> list[Turn]:
    """Return the turns that a weighting is asked about."""
    turns: list[Turn] = []

    def weigh(turn: Turn) -> list[float]:
        turns.append(turn)
        return [1.0] * len(turn.tokens)

    encoder.runs(trajectory, None, weigh=weigh)
    return turns


def test_a_turn_says_where_each_token_stands_and_what_is_called(encoder):
    for turn, call in zip(seen(encoder), (Call("getPaperDetails", {"id": "12345678"}), None), strict=False):
        assert turn.tokens[-1] == encoder.eos_id and turn.spans[-1] == (len(turn.text), len(turn.text))
        assert len(turn.spans) == len(turn.tokens)
        assert {at for begin, end in turn.spans for at in range(begin, end)} >= set(range(1, len(turn.text)))
        assert call is None or (turn.calls, turn.text) == ((call,), f" {render_call(call)}")


def test_a_pattern_weighs_the_tokens_with_any_character_of_a_match(encoder):
    weigh = chosen("weighting=pattern", "weighting.pattern='\\d+'", "weighting.weight=4").weigh
    targets = [target for run in encoder.runs(NUMBERS, None, weigh=weigh) for target in run.targets]
    turns = seen(encoder)
    texts = [turn.text[begin:end] for turn in turns for begin, end in turn.spans]
    expected = [4.0 if re.search(r"\d", text) else 1.0 for text in texts]
    assert [target.weight for target in targets] == expected and 4.0 in expected


def test_pkt_is_the_weighting_that_w_max_configures(encoder):
    for w_max in (None, 9):
        given = ["stage.w_max=9"] if w_max else []
        weigh = chosen(*given, "weighting=pkt").weigh
        assert encoder.runs(TRAJECTORY, None, weigh=weigh) == encoder.runs(TRAJECTORY, w_max)


def test_dft_multiplies_by_the_models_own_probability_without_a_gradient():
    found = chosen("weighting=dft")
    assert found.weigh is None
    log_probs = torch.tensor([0.5, 0.25, 1.0]).log()
    assert torch.allclose(found.factors(log_probs), torch.tensor([0.5, 0.25, 1.0]))
    logits = torch.tensor([[1.0, -1.0, 0.0]], requires_grad=True)
    nll = -logits.log_softmax(-1)[:, 0]
    (nll * found.factors(-nll.detach())).sum().backward()
    probs = logits.detach().softmax(-1)[0]
    by_hand = probs[0] * (probs - torch.tensor([1.0, 0.0, 0.0]))  # p (softmax - one-hot): the gradient of -p
    assert torch.allclose(logits.grad[0], by_hand)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (lambda turn: [1.0], "expected a weight for each of 3 tokens of the turn (the end token too), found 1"),
        (lambda turn: [1, 2, -1], "expected weights of 0 or more, found -1.0"),
        (lambda turn: [1, 2, float("nan")], "expected weights of 0 or more, found nan"),
        (lambda turn: [0, 0, 0], "expected a weight above 0 in each turn, found none in turn 0/a/0"),
        (lambda turn: None, "expected a weight for each of 3 tokens of the turn (the end token too), found None: does"),
    ],
)
def test_weights_of_another_shape_are_refused(weights, said):
    turn = Turn([1, 2, 3], (), (), frozenset(), (), "0/a/0", lambda: ("", []))
    with pytest.raises(TltrainError) as raised:
        weighting._weights(lambda turn, **provided: weights(turn), "mine", None, "paper", turn)
    assert said in str(raised.value)


def test_an_expression_that_is_none_is_refused():
    with pytest.raises(TltrainError, match=r"^weighting\.pattern=\(: expected a regular expression"):
        Pattern("(")
