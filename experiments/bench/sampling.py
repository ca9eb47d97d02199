"""Measure the two ways to sample calls: `training.rollout.sample` and continuous batching (`DrawnTokens`).

    python experiments/bench/sampling.py [--model tiny smollm2_135m] [--trajectories 6] [--rounds 3]

Both sample from the same prompts (every call of the first generated trajectories; the calls of one trajectory form a
tree) with the same temperature and limit, in float32 on one thread, and return tokens and their log-probabilities.
Rounds alternate within one process; times are medians over the rounds in CPU seconds, which other programs on the
machine hardly affect. Answers end where the model ends them: `--ends N` makes one token in N an end token, as for short
calls.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence

import torch
from hydra import compose, initialize_config_dir
from transformers import PreTrainedModel

from tltrain import config, toolworld
from tltrain.inference import continuous_batching, decoding_attention, generation
from tltrain.inference.continuous_batching import Decoding, Prefill
from tltrain.inference.token_choice import DrawnTokens
from tltrain.models import encoders, loading
from tltrain.runtime import terminal
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.prompts import PromptReport, PromptTree, prompt_trees
from tltrain.training import rollout
from tltrain.training.rollout import Sampling


def loaded(name: str, count: int) -> tuple[PreTrainedModel, Encoder, list[PromptTree]]:
    """Return a model with random or published weights, its encoder and the prompts."""
    config.register()
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        cfg = compose("config", ["stage=irm", f"model={name}"])
    items = list(toolworld.generate(count))
    base = loading.resolve(cfg.model, cfg.cache.dir, lambda: loading.corpus(items, cfg.format), cfg.format)
    encoder = encoders.load_encoder(base, cfg.model, cfg.format)
    model = loading.load_model(base, cfg.model, torch.float32, torch.device("cpu")).eval()
    trees = prompt_trees(
        items, encoder, packing="trajectory", max_length=4096, truncation="skip", report=PromptReport()
    )
    return model, encoder, list(trees)


def old(model: PreTrainedModel, trees: Sequence[PromptTree], sampling: Sampling) -> list[list[int]]:
    """Sample with `rollout.sample`."""
    drawn: list[list[float]] = []
    return [tokens for own in rollout.sample(model, trees, sampling, drawn) for tokens in own]


@torch.inference_mode()
def continuous(model: PreTrainedModel, trees: Sequence[PromptTree], sampling: Sampling) -> list[list[int]]:
    """Sample by continuous batching."""
    prompts = [tree.ids[:end] for tree in trees for end in tree.ends]
    choice = DrawnTokens([sample for tree in trees for sample in tree.samples], None, sampling.temperature or 0.0, 0)
    decoding = Decoding(
        sampling.max_new_tokens,
        sampling.eos_id,
        sampling.pad_id,
        lambda tokens: False,
        choice,
        sampling.other_ends,
    )
    found: list[list[int]] = [[] for _ in prompts]
    with generation.ignore_generation_config(model), decoding_attention.enabled(model):
        for number, tokens in continuous_batching.answers(model, prompts, decoding, len(prompts), Prefill()):
            found[number] = tokens
    choice.logprobs()
    return found


WAYS = {"rollout.sample": old, "continuous batching": continuous}


def bench(name: str, count: int, rounds: int, tokens: int, ends: int) -> dict:
    """Measure both ways for one model."""
    model, encoder, trees = loaded(name, count)
    often = frozenset(range(0, model.config.vocab_size, ends)) if ends else frozenset()
    sampling = Sampling(tokens, 0.7, encoder.eos_id, encoder.tokenizer.pad_token_id, other_ends=often)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    sampled: dict[str, list[int]] = {way: [] for way in WAYS}
    for number in terminal.track(range(rounds + 1), name):  # the first round is a warm-up
        for way in list(WAYS) if number % 2 else list(WAYS)[::-1]:
            torch.manual_seed(number)
            start = time.process_time()
            found = WAYS[way](model, trees, sampling)
            if number:
                seconds[way].append(time.process_time() - start)
                sampled[way].append(sum(map(len, found)))
    median = {way: statistics.median(numbers) for way, numbers in seconds.items()}
    return {
        "model": name,
        "prompts": sum(len(tree.ends) for tree in trees),
        "prompt_tokens": sum(end for tree in trees for end in tree.ends),
        "ends": ends,
        "sampled_tokens": {way: statistics.median(numbers) for way, numbers in sampled.items()},
        "seconds": seconds,
        "median_seconds": median,
        "ratio": median["continuous batching"] / median["rollout.sample"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["tiny", "smollm2_135m"])
    parser.add_argument("--trajectories", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--ends", type=int, nargs="+", default=[0, 24])
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = [
        bench(name, given.trajectories, given.rounds, given.tokens, ends) for name in given.model for ends in given.ends
    ]
    terminal.table(
        f"Sampling calls, fp32, one thread, {given.rounds} rounds, CPU seconds",
        ["model", "prompts", "end tokens", *WAYS, "continuous / sample"],
        [
            [
                one["model"],
                one["prompts"],
                f"1 in {one['ends']}" if one["ends"] else "its own",
                *(f"{one['median_seconds'][way]:.2f} ({one['sampled_tokens'][way]:.0f} tokens)" for way in WAYS),
                f"{one['ratio']:.2f}",
            ]
            for one in found
        ],
    )
    print(json.dumps({"bench": "sampling", "torch": torch.__version__, "results": found}))


if __name__ == "__main__":
    main()
