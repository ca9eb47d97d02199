"""Measure how fast a benchmark is answered, compared with other common ways.

    python experiments/bench/eval.py [--quick]

The same prompts (also as token ids), model, end of answer and number of new tokens go through
  one         `model.generate`, one prompt at a time
  pipeline    transformers' text-generation pipeline, `batch_size` prompts at a time, in the benchmark's order
  tltrain     stage=eval: shared prefixes are prefilled once, and finished answers make room for others
  llama_cpp   llama.cpp's server with its prefix cache, one prompt at a time, if --gguf names the same model in a file
              of the same precision (stage=export stage.gguf=bf16) and the package xllamacpp is installed
greedily, on RoTBench's clean level (105 samples) and ToolAlpaca's real APIs (114), whose instructions share 11 sets of
tools. Every round runs all contenders in a different order, in one process with one model; results are medians over the
rounds. Answers are compared with those of `one`: in bfloat16, almost equally likely tokens may change places between
batches; with --dtype float32 every answer must be the same.

The checkpoint comes from a short `stage=sft`, trained once, so that answers end; --model chooses another. --tiny tests
the script itself in half a minute. The data is in $TLTRAIN_SHARED/data (default ../shared) or in --data.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import transformers
from irm import checkpoint, in_turn
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, TextGenerationPipeline

from tltrain import config
from tltrain.entry import choices
from tltrain.evaluation import benchmarks
from tltrain.formats import joined
from tltrain.formats.tl import TL
from tltrain.inference import generation, kv_cache
from tltrain.inference.continuous_batching import Decoding, Prefill
from tltrain.models import devices
from tltrain.runtime import terminal
from tltrain.serving import llama_cpp, server
from tltrain.tokens.encoder import Encoder
from tltrain.trajectory import Sample

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("TLTRAIN_SHARED", ROOT.parent / "shared")) / "data"
SETS = {"rotbench_clean": "rotbench", "toolalpaca_real": "toolalpaca", "toolworld": "toolworld"}
CONTENDERS = ("one", "pipeline", "tltrain", "llama_cpp")
HOUR = 3600.0
WANTED = {  # targets for tltrain's speed relative to the others
    "rotbench_clean": {"one": 1.7, "pipeline": 1.1},
    "toolalpaca_real": {"one": 4.0, "pipeline": 2.5},
}


# --- contenders ------------------------------------------------------------------------------------------------------


class Pipeline(TextGenerationPipeline):
    """The library's pipeline, with answers that end as in tltrain."""

    def __init__(self, ended: Callable[[list[int]], bool], **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.ended = ended

    def _forward(self, model_inputs: dict, **kwargs: object) -> dict:
        ends = generation.AnswerEnds(self.ended, model_inputs["input_ids"].shape[1])
        return super()._forward(model_inputs, stopping_criteria=[ends], **kwargs)


@dataclass(frozen=True)
class Work:
    """One set of a benchmark for one model. `texts` and `prompts`: the same prompts as text and as token ids."""

    model: PreTrainedModel
    encoder: Encoder
    texts: list[str]
    prompts: list[list[int]]
    max_new_tokens: int
    batch_size: int
    server: llama_cpp.Client | None = None

    def ended(self, tokens: list[int]) -> bool:
        """Return whether an answer is complete."""
        return self.encoder.format.answer_length(self.encoder.decode(tokens)) is not None

    def one(self, prefill: Prefill) -> list[str]:
        """Return answers by `generate`, one prompt at a time."""
        greedy = Decoding(self.max_new_tokens, self.encoder.eos_id, self.encoder.tokenizer.pad_token_id, self.ended)
        with torch.inference_mode(), generation.ignore_generation_config(self.model):
            found = dict(generation.in_batches(self.model, self.prompts, greedy, 1, prefill))
        return [self.trimmed(self.encoder.decode(found[i])) for i in range(len(self.prompts))]

    def pipeline(self, prefill: Prefill) -> list[str]:
        """Return answers by the library's pipeline."""
        for start in range(0, len(self.prompts), self.batch_size):
            batch = self.prompts[start : start + self.batch_size]
            prefill.add(batch, len(batch) * max(map(len, batch)))
        with torch.inference_mode(), generation.ignore_generation_config(self.model):
            out = Pipeline(self.ended, model=self.model, tokenizer=self.encoder.tokenizer)(
                self.texts,
                batch_size=self.batch_size,
                do_sample=False,
                max_new_tokens=self.max_new_tokens,
                eos_token_id=self.encoder.eos_id,
                pad_token_id=self.encoder.tokenizer.pad_token_id,
                return_full_text=False,
                add_special_tokens=False,
            )
        return [self.trimmed(one[0]["generated_text"]) for one in out]

    def tltrain(self, prefill: Prefill) -> list[str]:
        """Return answers as stage=eval gets them."""
        found = generation.answers(
            self.model,
            self.encoder,
            self.prompts,
            generation.GenerationSettings(self.max_new_tokens, self.batch_size),
            prefill=prefill,
        )
        return [answer.text for answer in found]

    def llama_cpp(self, prefill: Prefill) -> list[str]:
        """Return llama.cpp's answers to the same ids; each prompt computes only what differs from the previous one."""
        assert self.server is not None
        found, before = [], []
        for prompt in self.prompts:
            same = next((k for k, (a, b) in enumerate(zip(prompt, before, strict=False)) if a != b), len(before))
            prefill.add([prompt], len(prompt) - min(same, len(prompt) - 1))
            found.append(self.server.answer(prompt, self.max_new_tokens, self.encoder.format.stop))
            before = prompt
        return [self.trimmed(self.encoder.decode(ids)) for ids in found]

    @staticmethod
    def trimmed(text: str) -> str:
        """Return the part of an answer that counts."""
        return TL.answer(text)


# --- the measurement -------------------------------------------------------------------------------------------------


def bench(name: str, work: Work, contenders: Sequence[str], rounds: int) -> dict:
    """Measure the contenders on one set, for one table."""
    seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
    answers: dict[str, list[str]] = {}
    prefills: dict[str, Prefill] = {}
    for turn in terminal.track(range(rounds), name):
        for contender in in_turn(contenders, turn):
            prefills[contender] = Prefill()
            start = time.perf_counter()
            answers[contender] = getattr(work, contender)(prefills[contender])
            seconds[contender].append(time.perf_counter() - start)
    count, first = len(work.prompts), answers[contenders[0]]
    results = {
        contender: {
            "seconds": statistics.median(seconds[contender]),
            "all_seconds": [round(one, 2) for one in seconds[contender]],
            "samples_per_second": count / statistics.median(seconds[contender]),
            "same_answers": sum(one == other for one, other in zip(answers[contender], first, strict=True)),
            **prefills[contender].per_sample(),
        }
        for contender in contenders
    }
    tokens = [len(found.ids) for found in work.encoder.encode([" " + answer for answer in first])]
    least = floor(work, sum(tokens))
    terminal.table(
        f"{name}: {count} samples, answers of {statistics.mean(tokens):.1f} tokens, {rounds} rounds",
        ["contender", "s (median)", "samples/s", "prompt tokens", "tokens prefilled", f"as {contenders[0]}"],
        [
            [
                contender,
                f"{one['seconds']:.2f}",
                f"{one['samples_per_second']:.2f}",
                f"{one['prompt_tokens_per_sample']:.0f}",
                f"{one['tokens_prefilled_per_sample']:.0f}",
                f"{one['same_answers']} of {count}",
            ]
            for contender, one in results.items()
        ],
    )
    return {
        "set": name,
        "samples": count,
        "answer_tokens_per_sample": statistics.mean(tokens),
        "contenders": results,
        **comparison(name, results, least),
        "floor": least,
    }


def floor(work: Work, answer_tokens: int) -> dict:
    """Measure how long it would take to prefill every distinct token once and to decode all answers in full batches.

    Prompts form a tree whose tokens are each processed once, at the rate of a forward pass over a long prompt. Answers
    are decoded at the rate of steps with `batch_size` rows after a prompt of mean length.

    Returns:
        `distinct_tokens`, `answer_tokens`; `forward_tokens_per_second`, `decoded_tokens_per_second`; `seconds`.
    """
    ordered = sorted(work.prompts)
    distinct = len(ordered[0]) + sum(
        len(one) - next((k for k, (a, b) in enumerate(zip(one, before, strict=False)) if a != b), len(before))
        for before, one in pairwise(ordered)
    )
    length = round(statistics.mean(map(len, ordered)))
    vocabulary = work.model.config.vocab_size
    ids = torch.randint(vocabulary, (1, length))
    step = torch.randint(vocabulary, (work.batch_size, 1))
    with torch.inference_mode():
        cache = kv_cache.empty(work.model)
        work.model(ids, past_key_values=cache, logits_to_keep=1)
        cache = kv_cache.expand_row(cache, work.batch_size)
        forward = median_seconds(lambda: work.model(ids, use_cache=True, logits_to_keep=1))
        decode = median_seconds(lambda: work.model(step, past_key_values=cache, logits_to_keep=1))
    rates = length / forward, work.batch_size / decode
    return {
        "distinct_tokens": distinct,
        "answer_tokens": answer_tokens,
        "forward_tokens_per_second": rates[0],
        "decoded_tokens_per_second": rates[1],
        "seconds": distinct / rates[0] + answer_tokens / rates[1],
    }


def median_seconds(call: Callable[[], object], times: int = 5) -> float:
    found = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def comparison(name: str, results: dict[str, dict], least: dict) -> dict:
    """Compute and print the relevant ratios of the contenders that ran."""
    found: dict[str, float] = {}
    if "tltrain" not in results:
        return found
    ours = results["tltrain"]["seconds"]
    for other in [other for other in results if other != "tltrain"]:
        ratio = found[f"speedup_over_{other}"] = results[other]["seconds"] / ours
        wanted = WANTED.get(name, {}).get(other)
        print(f"tltrain is {ratio:.2f} x as fast as {other}" + (f" (wanted: {wanted})" if wanted else ""))
    found["share_of_floor"] = least["seconds"] / ours
    print(
        f"floor: {least['distinct_tokens']} distinct prompt tokens at {least['forward_tokens_per_second']:.0f}/s and "
        f"{least['answer_tokens']} answer tokens at {least['decoded_tokens_per_second']:.0f}/s: "
        f"{least['seconds']:.2f} s; tltrain is at {found['share_of_floor']:.0%} of that speed\n"
    )
    return found


def samples_of(name: str, data: Path, limit: int | None) -> list[Sample]:
    """Return the set's samples; with a limit, the first ones, among which tools repeat."""
    own: dict[str, dict[str, object]] = {
        "toolworld": {"size": 24},
        "rotbench": {"levels": ["clean"], "turns": ["first"], "path": str(data / "rotbench")},
        "toolalpaca": {"path": str(data / "toolalpaca")},
    }
    node = config.merged({"name": SETS[name], "limit": limit}, own[SETS[name]])
    benchmark = choices.bound("benchmark", node)
    return benchmarks.load(benchmark, 0)[name]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half the rounds, and half of each set")
    parser.add_argument("--tiny", action="store_true", help="a small model on toolworld, to try the script")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="default: bfloat16 if the CPU computes in it")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="the model that answers")
    parser.add_argument("--data", type=Path, metavar="FOLDER", default=DATA, help="with rotbench/ and toolalpaca/")
    parser.add_argument("--sets", nargs="+", choices=SETS, help="run only these")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, help="run only these")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="the model for llama.cpp, of the same precision")
    parser.add_argument("--limit", type=int, metavar="N", help="number of samples of each set")
    parser.add_argument("--batch-size", type=int, default=16, help="of pipeline and tltrain (default: %(default)s)")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


@contextmanager
def llama_cpp_of(options: argparse.Namespace, dtype: str) -> Iterator[llama_cpp.Client | None]:
    """Serve the file of --gguf with as many threads as torch; None without a file."""
    if options.gguf is None:
        yield None
        return
    if llama_cpp.missing():
        raise SystemExit(f"--gguf needs the package {llama_cpp.PACKAGE}: {llama_cpp.INSTALL}")
    precision = {"bfloat16": "bf16", "float32": "f32"}[dtype]
    if not options.gguf.stem.endswith(precision):
        raise SystemExit(f"--gguf={options.gguf}: expected a file of the same precision, *-{precision}.gguf")
    threads = torch.get_num_threads()
    given = llama_cpp.options(8192, threads)
    with server.serving(options.gguf, given, threads, HOUR, llama_cpp.PROGRAM) as running:
        yield llama_cpp.Client(running, time.monotonic() + 8 * HOUR)


def main() -> None:
    options = arguments()
    rounds = max(options.rounds // 2, 1) if options.quick else options.rounds
    bf16 = devices.device_and_dtype(OmegaConf.structured(config.Hardware(device=config.Device.cpu)))[1]
    dtype = options.dtype or ("bfloat16" if bf16 else "float32")
    path = (options.model or checkpoint(options.tiny)).resolve()
    if not (path / "config.json").is_file():
        raise SystemExit(f"--model: {path} has no config.json, expected the folder of a model")
    encoder = Encoder(AutoTokenizer.from_pretrained(path))
    model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval()
    results = []
    only = options.only or [name for name in CONTENDERS if name != "llama_cpp" or options.gguf]
    if "llama_cpp" in only and options.gguf is None:
        raise SystemExit("--only llama_cpp needs --gguf FILE")
    with llama_cpp_of(options, dtype) as client:
        for name in options.sets or (["toolworld"] if options.tiny else [name for name in SETS if name != "toolworld"]):
            samples = samples_of(name, options.data, options.limit)
            samples = samples[: max(len(samples) // 2, 1)] if options.quick else samples
            texts = [joined(TL.prompt_segments(sample)) for sample in samples]
            prompts = [encoder.prompt(sample) for sample in samples]
            kept = [
                i for i, prompt in enumerate(prompts) if generation.fits(model, len(prompt), options.max_new_tokens)
            ]
            work = Work(
                model,
                encoder,
                [texts[i] for i in kept],
                [prompts[i] for i in kept],
                options.max_new_tokens,
                options.batch_size,
                client,
            )
            results.append(bench(name, work, only, rounds))
    print(
        json.dumps(
            {
                "bench": "eval",
                "model": path.parent.name if path.name == "model" else path.name,
                "dtype": dtype,
                "batch_size": options.batch_size,
                "max_new_tokens": options.max_new_tokens,
                "rounds": rounds,
                "results": results,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "threads": torch.get_num_threads(),
                "llama_cpp": llama_cpp.version() if "llama_cpp" in only else None,
            }
        )
    )


if __name__ == "__main__":
    main()
