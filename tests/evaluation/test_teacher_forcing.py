"""A model's scores on recorded calls, compared with one forward pass per call and with known numbers."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from transformers import LlamaConfig, LlamaForCausalLM, set_seed  # noqa: E402

from tests.support.native_formats import NAMES, PARALLEL, second_left_out  # noqa: E402
from tests.support.native_formats import encoder as native  # noqa: E402
from tests.support.trajectories import TOOLS, TRAJECTORY  # noqa: E402
from tltrain.evaluation import teacher_forcing  # noqa: E402
from tltrain.formats.tl import TL  # noqa: E402
from tltrain.tokens.encoder import Encoder  # noqa: E402
from tltrain.tokens.packing import PackingReport  # noqa: E402
from tltrain.trajectory import Message, Trajectory  # noqa: E402


@pytest.fixture(params=["byte_level", "sentencepiece"])
def encoder(request) -> Encoder:
    return Encoder(request.getfixturevalue(request.param))


def model_of(encoder: Encoder, context: int = 4096) -> LlamaForCausalLM:
    set_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=len(encoder.tokenizer), max_position_embeddings=context, **sizes)
    ).eval()


def test_one_forward_per_trajectory_equals_one_per_call(encoder):
    model = model_of(encoder)
    scores = list(teacher_forcing.score(model, encoder, [TRAJECTORY, TRAJECTORY], PackingReport()))
    assert [score.trajectory for score in scores] == [0, 0, 0, 1, 1, 1]
    pieces = TL.segments(TRAJECTORY)
    for score in scores[:3]:
        at = next(i for i, piece in enumerate(pieces) if piece.turn == scores.index(score))
        ids = [encoded.ids for encoded in encoder.conversation(pieces[: at + 1])]
        prompt, call = [token for part in ids[:-1] for token in part], ids[-1]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + call])).logits[0, len(prompt) - 1 :]
        targets = torch.tensor([*call, encoder.eos_id])
        wanted = -logits.log_softmax(-1)[range(len(targets)), targets]
        assert score.nll == pytest.approx(wanted.tolist(), abs=1e-4)
        assert list(score.right) == (logits.argmax(-1) == targets).tolist()
        assert score.parts[-1] == "end" and score.parts.count("first") == 1


def test_a_model_that_knows_nothing_is_uniform_everywhere(encoder):
    model = model_of(encoder)
    torch.nn.init.zeros_(model.lm_head.weight)
    (score, *_) = teacher_forcing.score(model, encoder, [TRAJECTORY], PackingReport())
    assert score.nll == pytest.approx([math.log(len(encoder.tokenizer))] * len(score.parts), rel=1e-5)


def test_a_name_is_told_from_another_after_their_common_tokens(encoder):
    score = next(iter(teacher_forcing.score(model_of(encoder), encoder, [TRAJECTORY], PackingReport())))
    kinds = [part for part in score.parts if part in ("first", "name", "distinguishing")]
    assert kinds[0] == "first" and kinds.count("distinguishing") <= 1  # getPaper|s..., against getPaper|Details
    assert {"parameter", "value"} <= set(score.parts)


def test_what_is_not_learned_and_plain_text_have_no_score(encoder):
    messages = list(TRAJECTORY.messages)
    messages[1] = messages[1].with_learn(False)
    messages[3] = Message("assistant", "I would rather talk.")
    scores = list(
        teacher_forcing.score(model_of(encoder), encoder, [Trajectory("t", TOOLS, tuple(messages))], PackingReport())
    )
    assert len(scores) == 1


def test_what_is_too_long_loses_its_oldest_calls(encoder):
    report = PackingReport()
    (whole,) = (list(teacher_forcing.score(model_of(encoder), encoder, [TRAJECTORY], PackingReport())),)
    length = sum(len(run.ids) for run in encoder.runs(TRAJECTORY, None))
    kept = list(teacher_forcing.score(model_of(encoder, length - 5), encoder, [TRAJECTORY], report))
    assert [len(score.parts) for score in kept] == [len(score.parts) for score in whole[1:]]
    assert (report.truncated, report.too_long) == (1, 0)


def test_without_a_context_in_the_model_s_configuration_no_turn_is_left_out(encoder, monkeypatch):
    model, report = model_of(encoder), PackingReport()
    monkeypatch.setattr(teacher_forcing.generation, "context", lambda model: None)
    assert len(list(teacher_forcing.score(model, encoder, [TRAJECTORY], report))) == 3
    assert report.truncated == 0


@pytest.mark.parametrize("name", NAMES)
def test_in_a_native_format_each_call_of_a_message_is_scored_behind_its_own_prompt(name):
    own = native(name)
    set_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(own.tokenizer), max_position_embeddings=8192, **sizes)).eval()
    found = list(teacher_forcing.score(model, own, [PARALLEL], PackingReport()))
    assert [score.turn for score in found] == [0, 1, 2]
    for score in found:
        assert score.parts.count("first") == 1 and {"first", "value", "punctuation"} <= set(score.parts)
    ends = [score.parts.count("end") for score in found]
    assert ends == ([0, 1, 1] if own.native.several_calls else [1, 1, 1])
    turn = next(own.turns(PARALLEL, None))
    with torch.no_grad():
        logits = model(torch.tensor([turn.prompt.ids + turn.said.ids])).logits[0, len(turn.prompt.ids) - 1 : -1]
    nll = -logits.log_softmax(-1)[range(len(turn.said.ids)), torch.tensor(turn.said.ids)]
    start, end = turn.said.spans()[0]
    end = len(turn.said.ids) if ends[0] else end
    assert found[0].nll == pytest.approx(nll[start:end].tolist(), abs=1e-4)


def test_in_a_native_format_only_learned_calls_have_a_score():
    own, model = native("qwen3"), model_of(native("qwen3"))
    found = list(teacher_forcing.score(model, own, [second_left_out()], PackingReport()))
    assert [score.turn for score in found] == [0, 2]
