"""Have each package's own reader read the file that `stage=mae stage.write=NAME` wrote, and record what it learns.

    tltrain stage=mae data=openai data.path=tests/trainer_files/conversations.jsonl stage.rule=strict stage.write=NAME
    PYTHONPATH=PACKAGES python tests/trainer_files/read.py NAME FOLDER    # FOLDER: of that run

PACKAGES is a folder made by `pip install --no-deps --target`, of the package, of the version of transformers that it
asks for, and of what its reader imports.

Not run by the tests: the packages do not fit beside each other. It writes `NAME.read.json` beside this file: for each
sample the stretches of text with a loss, as that package's reader makes them, with the version that read them. The
tests compare the record with the file that is written now.

All render with one template of Qwen 3 (TRL's, without thoughts) and a tokenizer whose tokens are bytes and its marks.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
Learned = list[list[str]]


def tokenizer(template: str = "qwen3") -> PreTrainedTokenizerFast:
    """A tokenizer of bytes and marks with Qwen's chat template."""
    templates = Path(str(find_spec("trl").origin)).parent / "chat_templates"  # found, not loaded
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(mark, special=True) for mark in MARKS])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = (templates / f"{template}.jinja").read_text()
    return fast


def stretches(ids: Sequence[int], learned: Iterable[bool], tokens: PreTrainedTokenizerFast) -> list[str]:
    """The stretches of tokens with a loss, as text."""
    pairs = zip(ids, map(bool, learned), strict=True)
    return [
        tokens.decode([i for i, _ in group]) for has_loss, group in groupby(pairs, lambda each: each[1]) if has_loss
    ]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The records that were read."""
    if (folder / "train.parquet").exists():
        import pyarrow.parquet as pq

        return pq.read_table(folder / "train.parquet").to_pylist()
    return [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]


def digest(rows: list[dict[str, Any]]) -> str:
    """Tells whether the file is still the one that was read."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def trl(folder: Path) -> tuple[str, str, Learned]:
    from datasets import load_dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    tokens = tokenizer()
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokens), **shape))
    data = load_dataset("json", data_files=str(folder / "train.jsonl"), split="train")
    with tempfile.TemporaryDirectory() as place:
        arguments = SFTConfig(place, max_length=None, bf16=False, report_to="none", use_cpu=True)
        trainer = SFTTrainer(model, arguments, train_dataset=data, processing_class=tokens)
        rows = [trainer.data_collator([row]) for row in trainer.train_dataset]
    learned = [
        stretches(row["input_ids"][0].tolist(), (each != -100 for each in row["labels"][0].tolist()), tokens)
        for row in rows
    ]
    return "trl", "trl.SFTTrainer", learned


def axolotl(folder: Path) -> tuple[str, str, Learned]:
    from axolotl.prompt_strategies.chat_template import load
    from axolotl.utils.dict import DictDefault
    from datasets import load_dataset

    tokens = tokenizer()
    settings = DictDefault({"sequence_len": 100_000, "train_on_inputs": False, "chat_template": "tokenizer_default"})
    of_data = DictDefault({"type": "chat_template", "message_field_training": "train"})
    strategy = load(tokens, settings, of_data)
    rows = load_dataset("json", data_files=str(folder / "train.jsonl"), split="train")
    read = [strategy.tokenize_prompt(dict(row)) for row in rows]
    learned = [stretches(each["input_ids"], (label != -100 for label in each["labels"]), tokens) for each in read]
    return "axolotl", "axolotl.prompt_strategies.chat_template", learned


def llama_factory(folder: Path) -> tuple[str, str, Learned]:
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.data.loader import get_dataset
    from llamafactory.hparams import DataArguments, ModelArguments
    from transformers import Seq2SeqTrainingArguments

    tokens = tokenizer()
    with tempfile.TemporaryDirectory() as place:
        tokens.save_pretrained(place)
        settings = DataArguments(
            dataset_dir=str(folder), dataset="mae", template="qwen", cutoff_len=100_000, mask_history=True
        )
        template = get_template_and_fix_tokenizer(tokens, settings)
        training = Seq2SeqTrainingArguments(place, report_to="none", use_cpu=True)
        found = get_dataset(template, ModelArguments(model_name_or_path=place), settings, training, "sft", tokens)
    rows = found["train_dataset"]
    learned = [stretches(row["input_ids"], (each != -100 for each in row["labels"]), tokens) for row in rows]
    return "llamafactory", "llamafactory.data.loader.get_dataset, template qwen, mask_history", learned


def ms_swift(folder: Path) -> tuple[str, str, Learned]:
    from swift.dataset import load_dataset
    from swift.model import get_processor
    from swift.template import get_template
    from transformers import LlamaConfig

    tokens = tokenizer()
    with tempfile.TemporaryDirectory() as place:
        tokens.save_pretrained(place)
        LlamaConfig(vocab_size=len(tokens), architectures=["LlamaForCausalLM"]).save_pretrained(place)
        processor = get_processor(place, model_type="llama")
        template = get_template(processor, template_type="chatml", agent_template="hermes", max_length=100_000)
        template.set_mode("train")
        rows, _ = load_dataset(str(folder / "train.jsonl"), load_from_cache_file=False)
        read = [template.encode(row) for row in rows]
    learned = [stretches(each["input_ids"], (label != -100 for label in each["labels"]), tokens) for each in read]
    return "ms_swift", "swift.dataset.load_dataset and swift.template.get_template, chatml, hermes", learned


def verl(folder: Path) -> tuple[str, str, Learned]:
    sys.path.insert(0, str(folder))
    from omegaconf import OmegaConf
    from verl_dataset import MaeDataset

    tokens = tokenizer()
    settings = OmegaConf.create({"max_length": 100_000, "pad_mode": "no_padding", "ignore_input_ids_mismatch": True})
    rows = MaeDataset([str(folder / "train.parquet")], tokens, settings)
    learned = [stretches(row["input_ids"].tolist(), row["loss_mask"].tolist(), tokens) for row in rows]
    return "verl", "verl.utils.dataset.multiturn_sft_dataset.MultiTurnSFTDataset, by verl_dataset.MaeDataset", learned


READERS: dict[str, Callable[[Path], tuple[str, str, Learned]]] = {
    each.__name__: each for each in (trl, axolotl, llama_factory, ms_swift, verl)
}


def main(name: str, folder: str) -> None:
    package, reader, learned = READERS[name](Path(folder).resolve())
    record: dict[str, Any] = {
        "package": package,
        "version": version(package),
        "transformers": version("transformers"),
        "reader": reader,
        "records": digest(rows_of(Path(folder))),
        "learned": learned,
    }
    text = json.dumps(record, ensure_ascii=False, indent=1) + "\n"
    (HERE / f"{name}.read.json").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
