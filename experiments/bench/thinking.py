"""Measure how fast thinking conversations are trained in the contexts that their turns have at inference.

    python experiments/bench/thinking.py [--quick] [--fp32] [--model smollm2_135m] [--layers N]

Qwen3's chat template drops the thoughts before the last user message, so a single rendering of a conversation gives
most of its turns a different context from a server's. The same conversations, with every assistant turn a target, as
  turn        one turn per sample, each after its own prompt (tltrain, stage.packing=turn)
  trl_turn    the same samples through TRL's SFTTrainer
  trl         TRL's SFTTrainer on whole conversations with assistant_only_loss, one per row
  trl_packed  the same with packing=True, rows of up to 4096 tokens
  tltrain     a tree of the contexts of each conversation (stage.packing=trajectory)
each for one epoch and one optimizer step (learning rate 0), alternating in random order; results are medians over the
rounds. Turns whose context differs from the prompt that a server builds are counted, and losses of single turns are
compared in float32 with those of `turn`. `share` is the time that the model's operations would need at the rate of
matrix products (2048 x 2048) that the machine reached between the rounds, divided by the measured time.

The conversations are toolworld's: several are joined into one with several user turns, with a thought before each turn.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

import machine
import torch
import torch.nn.functional as F
from datasets import Dataset
from machine import MatmulRate, operations
from omegaconf import OmegaConf
from sft import arguments, plain_turns, quiet, timed, turn_losses
from sft import load as load_model
from trl import SFTTrainer

from tltrain import config, toolworld
from tltrain.formats.native import messages_of, tools_of
from tltrain.models import devices
from tltrain.models.encoders import native_encoder
from tltrain.models.loading import template_of
from tltrain.runtime import terminal
from tltrain.tokens.layout import Layout
from tltrain.tokens.native import NativeEncoder
from tltrain.tokens.packing import PackingReport, PackingSettings, pack
from tltrain.training import sft
from tltrain.trajectory import Message, Trajectory

FORMAT = OmegaConf.create({"name": "qwen3"})
CONTENDERS = ("turn", "trl_turn", "trl", "trl_packed", "tltrain")
PACKED_LENGTH = 4096


class Contender(NamedTuple):
    """A way to train the conversations.

    Attributes:
        trainer: makes one optimizer step over everything. layers: the model's. tokens, operations: per epoch.
        wrong: turns whose context differs from inference. differences: of turns' losses from those of `turn` (float32).
    """

    trainer: Any
    layers: int
    tokens: int
    operations: float
    wrong: int
    differences: list[float]


def conversations(count: int, user_turns: int) -> list[Trajectory]:
    """Return conversations of `user_turns` toolworld queries each, with a thought before each turn."""
    single = list(toolworld.generate(count * user_turns, seed=0))
    return [joined(single[start : start + user_turns]) for start in range(0, len(single), user_turns)]


def joined(items: Sequence[Trajectory]) -> Trajectory:
    """Join the conversations into one with all their tools; `finish` becomes words to the user."""
    tools = {tool.name: tool for item in items for tool in item.tools if tool.name != "finish"}
    messages: list[Message] = []
    for message in (message for item in items for message in item.messages):
        if message.role != "assistant" or not message.calls:
            messages.append(message)
            continue
        call = message.calls[0].call
        if call.name == "finish":
            answer = str(call.arguments.get("answer", "Done."))
            thought = f"The tool has answered what was asked for. I tell the user: {answer} Nothing else was asked."
            messages.append(Message("assistant", answer, thought=thought))
        else:
            values = ", ".join(f"{key} is {value!r}" for key, value in call.arguments.items())
            thought = (
                "Let me see what the user wants, and which of the tools can do it. Some of them have similar names. "
                f"The one that fits is {call.name}: {tools[call.name].description if call.name in tools else ''} "
                f"From the conversation so far, {values or 'it needs nothing'}. I call it now and look at its answer."
            )
            messages.append(replace(message, thought=thought))
    return Trajectory(items[0].id, tuple(tools.values()), tuple(messages), meta={})


def layouts(items: Sequence[Trajectory], encoder: NativeEncoder, packing: str) -> list[Layout]:
    """Return tltrain's training samples."""
    settings = PackingSettings(packing, None, truncation="error", branches=True)
    return list(pack(items, encoder, settings, PackingReport()))


def whole(items: Sequence[Trajectory], encoder: NativeEncoder) -> Dataset:
    """Return the conversations as TRL takes them: messages and tools.

    Arguments are text, which Qwen3's template writes unchanged: a dataset would give every object the keys of all.
    """
    rows = []
    for item in items:
        messages, _ = messages_of(encoder.conversation_messages(item), item.instructions, item.tools)
        for call in (call for message in messages for call in message.get("tool_calls", ())):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        rows.append({"messages": messages, "tools": json.dumps(tools_of(item))})
    return Dataset.from_list(rows)


def said_runs(labels: Sequence[int]) -> list[tuple[int, int]]:
    """Return where each run of labelled tokens begins and ends."""
    found, at = [], 0
    for learned, run in groupby(labels, lambda label: label != sft.IGNORED):
        length = len(list(run))
        if learned:
            found.append((at, at + length))
        at += length
    return found


def compare_whole(rows: Dataset, items: Sequence[Trajectory], encoder: NativeEncoder, model: Any) -> list[float | None]:
    """Return for each turn how far its loss in TRL's row is from that after its prompt; None if its context is right.

    The loss is the mean over the tokens that the turn has both in the row and after its own prompt.
    """
    found: list[float | None] = []
    for row, item in zip(rows, items, strict=True):
        ids = list(row["input_ids"])
        turns = list(encoder.turns(item, None))
        spans = said_runs(row["labels"])
        if len(spans) != len(turns):
            raise SystemExit(f"TRL learns {len(spans)} turns of {item.id}, which has {len(turns)}")
        logs = log_probs(model, ids)
        for (start, end), turn in zip(spans, turns, strict=True):
            if ids[:start] == turn.prompt.ids and ids[start:end][: len(turn.said.ids)] == turn.said.ids:
                found.append(None)
                continue
            own = log_probs(model, [*turn.prompt.ids, *turn.said.ids])
            tail = common_tail(ids[start:end], turn.said.ids)
            behind = len(turn.prompt.ids) + len(turn.said.ids)
            in_row = sum(float(logs[end - 1 - k]) for k in tail) / len(tail)
            alone = sum(float(own[behind - 1 - (k - tail[0])]) for k in tail) / len(tail)
            found.append(abs(in_row - alone))
    return found


def log_probs(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """Return the log-probability of each token, [T], with 0 for the first."""
    tokens = torch.tensor([list(ids)])
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
    return F.pad(-F.cross_entropy(logits, tokens[0, 1:], reduction="none"), (1, 0))


def common_tail(one: Sequence[int], other: Sequence[int]) -> range:
    """Return the positions, counted from the end of `one`, of the tokens that `other` ends with.

    TRL's template adds a line break after the end token, which no answer contains.
    """
    extra = next((k for k in range(3) if one[-1 - k] == other[-1]), 0)
    length = 0
    while length < min(len(one) - extra, len(other)) and one[-1 - extra - length] == other[-1 - length]:
        length += 1
    return range(extra, extra + max(length, 1))


def contender(
    name: str, items: Sequence[Trajectory], encoder: NativeEncoder, model: Any, bf16: bool, folder: str
) -> Contender:
    """Make a contender and compare its training contexts with inference; no `differences` for tltrain's own."""
    turns = layouts(items, encoder, "turn")
    targets, layers = sum(len(layout.targets) for layout in turns), model.config.num_hidden_layers
    if name in ("turn", "tltrain"):
        own = turns if name == "turn" else layouts(items, encoder, "trajectory")
        rows = sft.dataset(own)
        trainer = sft.TurnTrainer(
            model,
            arguments(len(rows), bf16, folder),
            sft.Collator(encoder.tokenizer.pad_token_id),
            rows,
            processing_class=encoder.tokenizer,
        )
        seen = sum(position + 1 for layout in own for position in layout.position_ids)
        lengths = [len(layout.input_ids) for layout in own]
        needed = operations(model.config, lengths, targets, seen)
        return Contender(quiet(trainer), layers, sum(lengths), needed, 0, turn_losses(name, trainer))
    if name == "trl_turn":
        rows = plain_turns(turns)
        trainer = SFTTrainer(
            model, arguments(len(rows), bf16, folder), train_dataset=rows, processing_class=encoder.tokenizer
        )
        differences = turn_losses(name, trainer)
        lengths = [len(ids) for ids in rows["input_ids"]]
        return Contender(
            quiet(trainer), layers, sum(lengths), operations(model.config, lengths, targets), 0, differences
        )
    packed = {"packing": True, "max_length": PACKED_LENGTH} if name == "trl_packed" else {}
    more = {"assistant_only_loss": True, "dataset_kwargs": None, **packed}
    plain = SFTTrainer(
        model, arguments(len(items), bf16, folder, assistant_only_loss=True, dataset_kwargs=None),
        train_dataset=whole(items, encoder), processing_class=encoder.tokenizer,
    )  # fmt: skip
    differences = compare_whole(plain.train_dataset, items, encoder, model)
    lengths = [len(ids) for ids in plain.train_dataset["input_ids"]]
    trainer = plain
    if packed:
        trainer = SFTTrainer(
            model, arguments(1, bf16, folder, **more), train_dataset=whole(items, encoder),
            processing_class=encoder.tokenizer,
        )  # fmt: skip
        trainer.args.gradient_accumulation_steps = len(trainer.train_dataset)
    learned = sum(label != sft.IGNORED for labels in plain.train_dataset["labels"] for label in labels)
    needed = operations(model.config, lengths, learned)
    wrong = [difference for difference in differences if difference is not None]
    return Contender(quiet(trainer), layers, sum(lengths), needed, len(wrong), wrong)


def with_layers(model: Any, layers: int | None) -> Any:
    """Return the model with only its first layers."""
    if layers is not None:
        model.model.layers = model.model.layers[:layers]
        model.config.num_hidden_layers = len(model.model.layers)
    return model


def bench(options: argparse.Namespace, bf16: bool) -> dict[str, Any]:
    """Measure the contenders for one table."""
    share, model_name = 2 if options.quick else 1, options.model
    count, user_turns, rounds = (
        max(number // share, 1) for number in (options.conversations, options.user_turns, options.rounds)
    )
    items = conversations(count, user_turns)
    rate, precision = MatmulRate(), "bf16" if bf16 else "fp32"
    contenders: dict[str, Contender] = {}
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        for name in CONTENDERS:
            model, tokenizer, _ = load_model(model_name, items, format=FORMAT)  # TRL patches a model's forward
            tokenizer.chat_template = template_of(FORMAT.name)
            encoder = native_encoder(tokenizer, FORMAT.name, {})
            contenders[name] = contender(name, items, encoder, with_layers(model, options.layers), bf16, folder)
        for turn in terminal.track(range(rounds + 1), f"{model_name}, {count} conversations"):
            rate.measure()
            for name in random.Random(turn).sample(CONTENDERS, len(CONTENDERS)):  # none always follows the same
                elapsed = timed(contenders[name].trainer)
                if turn:  # the first round is a warm-up
                    seconds[name].append(elapsed)
    return summary(model_name, items, contenders, seconds, rate, precision)


def summary(
    model_name: str,
    items: Sequence[Trajectory],
    contenders: dict[str, Contender],
    seconds: dict[str, list[float]],
    rate: MatmulRate,
    precision: str,
) -> dict[str, Any]:
    """Print the table and return its numbers."""
    turns = len(contenders["turn"].differences)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    exact = contenders["turn"].differences
    largest = {
        name: max(abs(a - b) for a, b in zip(exact, contenders[name].differences, strict=True))
        for name in ("trl_turn", "tltrain")
    }
    largest |= {name: max(contenders[name].differences, default=0.0) for name in ("trl", "trl_packed")}
    largest["turn"] = 0.0
    shares = {name: one.operations / median[name] / rate(precision) for name, one in contenders.items()}
    user_turns = sum(message.role == "user" for item in items for message in item.messages)
    terminal.table(
        f"{model_name} ({contenders['turn'].layers} layers, {precision}), format={FORMAT.name}: "
        f"{len(items)} conversations, {user_turns} user turns, "
        f"{turns} turns of the assistant, {len(seconds['turn'])} rounds",
        ["contender", "tokens", "wrong context", "s (median)", "turns/s", "share", "largest loss difference"],
        [
            [name, one.tokens, f"{one.wrong} of {turns}", f"{median[name]:.2f}", f"{turns / median[name]:.2f}",
             f"{shares[name]:.0%}", f"{largest[name]:.1e}"]
            for name, one in contenders.items()
        ],
    )  # fmt: skip
    best = min(("trl", "trl_packed"), key=lambda name: median[name])
    print(
        f"tltrain is {median['turn'] / median['tltrain']:.2f} x turn, {median['trl_turn'] / median['tltrain']:.2f} x "
        f"trl_turn, {median[best] / median['tltrain']:.2f} x {best}; the machine multiplies matrices at "
        f"{rate('bf16') / 1e9:.0f} (bf16) and {rate('fp32') / 1e9:.0f} (fp32) billion operations per second\n"
    )
    return {
        "model": model_name,
        "layers": contenders["turn"].layers,
        "precision": precision,
        "conversations": len(items),
        "user_turns": user_turns,
        "turns": turns,
        "rounds": len(seconds["turn"]),
        "tokens": {name: one.tokens for name, one in contenders.items()},
        "wrong_context": {name: one.wrong for name, one in contenders.items()},
        "seconds": seconds,
        "median_seconds": median,
        "speedup": {name: median[name] / median["tltrain"] for name in CONTENDERS},
        "largest_loss_difference": largest,
        "share_of_matmul_rate": shares,
        "matmul_rate": rate.to_json(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half the rounds, conversations and user turns")
    parser.add_argument("--fp32", action="store_true", help="train in float32 (default: bfloat16 if the CPU has it)")
    parser.add_argument("--model", default="smollm2_135m", help="a choice of conf/model/")
    parser.add_argument("--processor-time", action="store_true", help="count CPU seconds (with OMP_NUM_THREADS=1)")
    parser.add_argument("--layers", type=int, help="use only this many first layers of the model")
    parser.add_argument("--conversations", type=int, default=2)
    parser.add_argument("--user-turns", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.processor_time:
        machine.use_processor_time()
    bf16 = not options.fp32 and devices.device_and_dtype(OmegaConf.structured(config.Hardware))[1]
    found = bench(options, bf16)
    threads, clock = torch.get_num_threads(), "processor" if options.processor_time else "wall"
    record = {"bench": "thinking", "torch": torch.__version__, "threads": threads, "clock": clock, "results": [found]}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
