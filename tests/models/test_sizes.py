"""Model sizes that no library refuses in time: out of range, inconsistent, or those of another model."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
from transformers import PreTrainedTokenizerFast

from tests.support.composition import mistake
from tltrain.entry import checks
from tltrain.errors import TltrainError
from tltrain.models import encoders, loading, sizes

SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 7}, "x.hidden_size=7: expected a multiple of x.num_attention_heads=4, such as 8"),
        ({"hidden_size": 0}, "x.hidden_size: expected a number from 1 to 1000000, found 0"),
        ({"hidden_size": 12}, "x.hidden_size=12: 4 heads of 3 elements; rotary positions need an even number"),
        ({"vocab_size": 1}, "x.vocab_size: expected 258 or more (256 bytes, the end and the padding), found 1"),
        ({"vocab_size": 257}, "x.vocab_size: expected 258 or more"),
        ({"num_hidden_layers": -1}, "x.num_hidden_layers: expected a number from 1 to 1000, found -1"),
        ({"num_hidden_layers": 0}, "x.num_hidden_layers: expected a number from 1 to 1000, found 0"),
        ({"num_hidden_layers": 10**9}, "x.num_hidden_layers: expected a number from 1 to 1000, found 1000000000"),
        ({"num_key_value_heads": 3}, "x.num_key_value_heads=3: expected a number that divides x.num_attention_heads=4"),
        ({"num_attention_heads": 0}, "x.num_attention_heads: expected a number from 1 to 100000, found 0"),
        ({"intermediate_size": -5}, "x.intermediate_size: expected a number from 1 to 1000000, found -5"),
        ({"max_position_embeddings": 0}, "x.max_position_embeddings: expected a number from 1 to 100000000, found 0"),
    ],
)
def test_sizes_of_random_weights_are_checked(change, said):
    sizes.check_random(SMALL, "x.")
    with pytest.raises(TltrainError) as error:
        sizes.check_random(SMALL | change, "x.")
    assert str(error.value).startswith(said)


def test_the_weights_of_a_llama_are_counted_by_hand():
    # embeddings 300·32; a block: queries and output 32·32 each, keys and values 32·16 each, three of 32·64
    assert sizes.of_llama(SMALL) == 9600 + 2 * (2 * 1024 + 2 * 512 + 3 * 2048)
    assert sizes.at_least(SMALL) == 9600 + 2 * (2 * 2048)
    assert sizes.at_least({"text_config": SMALL}) == sizes.at_least(SMALL)
    assert sizes.at_least({"hidden_size": 32}) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.random.hidden_size=7"], "model.random.hidden_size=7: expected a multiple of"),
        (["stage=plan", "model.random.num_hidden_layers=1000000000"], "model.random.num_hidden_layers: expected a num"),
        (["stage=plan", "model.random.hidden_size=0"], "model.random.hidden_size: expected a number from 1 to 1000000"),
        (
            ["stage=sft", "model.random.hidden_size=1000000", "model.random.intermediate_size=1000000"],
            "model.random: 2.4e+13 weights in float32 take 8",
        ),
    ],
)
def test_they_are_checked_before_a_stage_begins(words, said):
    assert mistake("model=tiny", *words).startswith(said)


def test_so_are_those_that_a_plan_reads_in_place_of_the_hub():
    words = ["stage=plan", "model=codellama_7b", "model.sizes.num_hidden_layers=1000000000"]
    assert mistake(*words) == "model.sizes.num_hidden_layers: expected a number from 1 to 1000, found 1000000000"


def test_a_plan_of_a_model_that_this_machine_has_no_room_for_is_made():
    assert (
        mistake("stage=plan", "model=tiny", "model.random.hidden_size=8192", "model.random.num_hidden_layers=100") == ""
    )


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"num_hidden_layers": 10**9},
            ", config.json: num_hidden_layers: expected a number from 1 to 1000, found 10000",
        ),
        ({"hidden_size": 0}, ", config.json: hidden_size: expected a number from 1 to 1000000, found 0"),
        ({"n_layer": -1}, ", config.json: n_layer: expected a number from 1 to 1000, found -1"),
        ({"hidden_size": "wide"}, ", config.json: hidden_size: expected a number from 1 to 1000000, found wide"),
        ({"text_config": {"vocab_size": 0}}, ", config.json: text_config.vocab_size: expected a number from 1"),
        (
            SMALL | {"num_hidden_layers": 900},
            ": its config.json describes 3.7e+06 weights or more, its safetensors hold",
        ),
    ],
)
def test_so_are_those_of_a_model_s_folder(config, said, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 1000)
    with pytest.raises(TltrainError) as error:
        checks.check_model_path(str(tmp_path))
    assert str(error.value).startswith(f"model.path={tmp_path}{said}")


def test_a_folder_s_sizes_are_checked_before_a_stage_begins(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 10**9}))
    assert "num_hidden_layers: expected a number from 1 to 1000" in mistake("stage=plan", f"model.path='{tmp_path}'")


@pytest.mark.parametrize(("text", "said"), [("{", "cannot be read: Exp"), ("[]", "expected a JSON object, found list")])
def test_a_config_that_is_no_json_is_said_before_anything_loads(tmp_path, text, said):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(TltrainError, match=said):
        checks.check_model_path(str(tmp_path))


def test_sizes_that_are_right_or_not_known_are_no_mistake(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SMALL | {"n_inner": None, "num_key_value_heads": [2, 4]}))
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 10_000)
    checks.check_model_path(str(tmp_path))


@pytest.mark.parametrize("hub", [False, True])
def test_a_tokenizer_with_tokens_that_the_embeddings_lack_is_said_when_it_is_loaded(
    byte_level, tmp_path, monkeypatch, hub
):
    """Both for a folder and for a hub id in the hub's cache while the hub cannot be reached."""
    from tests.support.composition import composed

    folder, path = tmp_path, str(tmp_path)
    if hub:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(loading, "_hub_answers", lambda: False)
        repository, path = tmp_path / "models--somebody--something", "somebody/something"
        folder = repository / "snapshots" / "0123456789abcdef"
        folder.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(folder.name)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level._tokenizer, eos_token="</s>", pad_token="<pad>")
    tokenizer.save_pretrained(folder)
    model, config = composed("stage=mae").model, folder / "config.json"
    assert loading.sizes_at(path) == {}  # a tokenizer alone
    config.write_text(json.dumps({"model_type": "llama", "vocab_size": len(tokenizer)}))
    assert encoders.load_encoder(path, model).tokenizer.eos_token == "</s>"
    config.write_text(json.dumps({"model_type": "llama", "vocab_size": len(tokenizer) - 2}))
    with pytest.raises(TltrainError) as error:
        encoders.load_encoder(path, model)
    count = len(tokenizer)
    assert str(error.value).startswith(f"{path}: its tokenizer has {count} tokens and its embeddings {count - 2} rows")


@pytest.mark.parametrize("sizes_", ["7B", None, [7]])
def test_sizes_are_a_mapping(sizes_):
    with pytest.raises(TltrainError, match=r"^model\.sizes: expected a mapping, found "):
        sizes.check(sizes_, "model.sizes.")
