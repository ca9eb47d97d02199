"""A model whose tokenizer adds a BOS token: training, saving and evaluation treat it alike."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.support.tokenizers import joining_quotes, with_bos
from tltrain import config
from tltrain.models.encoders import TokenizationRecord, bos_of, load_encoder

WORDS = ("stage=pkt", "data.size=6", "stage.args.max_steps=1", "hardware.bf16=false", "stage.args.max_length=4096")


@pytest.fixture
def base(tmp_path):
    """`base(tokenizer)`: make a folder with a small random model and the tokenizer."""

    def make(tokenizer) -> str:
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=8192, **sizes)
        for part in (tokenizer, LlamaForCausalLM(config)):
            part.save_pretrained(tmp_path / "base")
        return str(tmp_path / "base")

    return make


def test_a_trained_model_says_how_it_was_trained_and_is_asked_so(tltrain, base, sentencepiece):
    tokenizer = with_bos(sentencepiece, space_before=True)
    folder = base(tokenizer)
    ran = tltrain(*WORDS, f"model.path={folder}")
    model = ran.folder / "model"
    found = json.loads((model / "tltrain.json").read_text())
    assert found == {"bos": True, "prompts": 5, "prompts_read_apart": 0, "version": 1}
    assert AutoTokenizer.from_pretrained(model).chat_template.startswith('{{ "<s>" }}')

    without = tltrain(*WORDS, f"model.path={folder}", "model.bos=false").folder / "model"
    assert json.loads((without / "tltrain.json").read_text())["bos"] is False
    assert "<s>" not in AutoTokenizer.from_pretrained(without).chat_template
    counts = [len(load_encoder(str(path), model_keys(bos="auto")).opening) for path in (folder, model, without)]
    assert counts == [1, 1, 0]


def test_a_different_bos_setting_in_evaluation_is_reported(tmp_path, monkeypatch):
    TokenizationRecord(bos=False).write(tmp_path)
    said = []
    monkeypatch.setattr("tltrain.models.encoders.log.warning", lambda text, *args: said.append(text % args))
    assert bos_of(str(tmp_path), model_keys(bos="auto")) is False and not said
    assert bos_of(str(tmp_path), model_keys(bos=True)) is True
    assert said == [f"model.bos=true: {tmp_path} was trained with model.bos=false"]


def model_keys(**keys):
    return OmegaConf.merge(OmegaConf.structured(config.Model), keys)


def test_prompts_that_a_server_would_read_in_other_tokens_are_counted(tltrain, base, byte_level):
    ran = tltrain(*WORDS, f"model.path={base(joining_quotes(byte_level))}")
    assert TokenizationRecord.read(ran.folder / "model") == TokenizationRecord(
        bos=False, prompts=5, prompts_read_apart=5
    )
    assert "5 of 5 conversations have other tokens if their text is read as a whole" in ran.out + ran.err


def test_a_record_that_cannot_be_read_is_one_line(tltrain, base, sentencepiece):
    folder = base(sentencepiece)
    with open(f"{folder}/tltrain.json", "w") as file:
        file.write('{"version": 7}')
    ran = tltrain(*WORDS, f"model.path={folder}", status=1)
    assert "tltrain.json cannot be read" in ran.err and "Traceback" not in ran.err


def test_bos_is_auto_true_or_false(tltrain):
    ran = tltrain(*WORDS, "model=tiny", "model.bos=maybe", status=1)
    assert "model.bos: expected one of auto, true, false, found maybe" in ran.err
