"""Write files for other trainers (`stage.write=trl`, ...), with MAE's verdict in the field that each of them reads.

These trainers learn whole messages: none can learn one call of a message and skip the next. So a message with a call
that is not learned is left out as a whole (`tltrain.mae.whole_messages`, applied before this module).

    trl             one sample per learned message: `prompt` and `completion`, since `SFTTrainer` has no other way to
                    leave an assistant message out (`assistant_only_loss` learns all of them)
    ms_swift        `loss` of a message
    axolotl         `train` of a message, by `message_field_training: train`
    llama_factory   one sample per learned message, which is its last, for `mask_history: true`; ShareGPT's names
    verl            `loss_mask` of a message, which the data set class beside the file applies
    openai          `weight` of a message, 0 or 1

Each was read with that package's own reader (`tests/trainer_files`); `docs/stages/mae.md` lists the versions. Tools and
arguments are JSON text wherever the reader accepts it, as Arrow may fill objects with nulls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tltrain.data import native
from tltrain.formats.native import messages_of, tools_of
from tltrain.runtime import runs
from tltrain.trajectory import Message, Trajectory

Said = dict[str, Any]
"""A message as `formats.native.messages_of` writes it."""


@dataclass
class Written:
    """Counts of the trajectories written and left out, for `metrics.json`.

    Attributes:
        samples: records written.
        messages_learned, messages_not_learned: assistant messages, by what the trainer does with them. A message in the
            history of several samples counts once.
        nothing_learned: trajectories left out because none of their messages is learned.
        messages_cut: messages left out after the last learned one, which no learned message can see.
        left_out: messages that are not learned because the format cannot represent them, by the reason.
    """

    samples: int = 0
    messages_learned: int = 0
    messages_not_learned: int = 0
    nothing_learned: int = 0
    messages_cut: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, why: str) -> None:
        """Count as not learned a message that the format cannot represent."""
        self.messages_learned -= 1
        self.left_out[why] = self.left_out.get(why, 0) + 1


@dataclass(frozen=True)
class Conversation:
    """A trajectory as messages for a trainer, up to the last learned one, and whether each is learned."""

    messages: tuple[Said, ...]
    learned: tuple[bool, ...]
    tools: tuple[dict[str, Any], ...]

    @property
    def turns(self) -> Iterator[int]:
        """Return the positions of the learned messages."""
        return (at for at, learned in enumerate(self.learned) if learned)


Records = Callable[[Conversation, Written], Iterable[dict[str, Any]]]


@dataclass(frozen=True)
class TrainerFile:
    """A trainer's file.

    Attributes:
        file: its name. records: returns the samples of a conversation.
        settings: the trainer's required settings, in one line.
        beside: further files, name -> text.
    """

    file: str
    records: Records
    settings: str
    beside: Mapping[str, str] = field(default_factory=dict)

    def write(self, path: Path, items: Iterable[Trajectory]) -> Written:
        """Write the file and those beside it, and return the counts; only one conversation is held at a time."""
        written = Written()
        records = self._all_records(items, written)
        if path.suffix == ".parquet":
            _write_parquet(path, (record for record, _ in records))
        else:
            runs.write_lines(path, (line for _, line in records), data=True)
        for name, text in self.beside.items():
            runs.write_lines(path.with_name(name), [text.rstrip("\n")])
        return written

    def _all_records(self, items: Iterable[Trajectory], written: Written) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield the samples of all trajectories, each also as a line of JSON."""
        for item in items:
            found = conversation(item, written)
            if found is None:
                continue
            for record in self.records(found, written):
                written.samples += 1
                yield record, native.json_line(record, item.id)


def conversation(item: Trajectory, written: Written) -> Conversation | None:
    """Return the trajectory as a trainer's messages; None if none of them is learned, which is counted."""
    messages, owners = messages_of(item.messages, item.instructions, item.tools)
    learned = [owner is not None and _is_learned(item.messages[owner]) for owner in owners]
    end = max((at for at, each in enumerate(learned) if each), default=-1) + 1
    assistants = sum(message["role"] == "assistant" for message in messages)
    written.messages_learned += sum(learned)
    written.messages_not_learned += assistants - sum(learned)
    if not end:
        written.nothing_learned += 1
        return None
    written.messages_cut += len(messages) - end
    return Conversation(tuple(messages[:end]), tuple(learned[:end]), tuple(tools_of(item)))


def _is_learned(message: Message) -> bool:
    if message.role != "assistant":
        return False
    return all(made.learn for made in message.calls) if message.calls else message.learn


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _arguments_as_text(message: Said) -> Said:
    if "tool_calls" not in message:
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": _json(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _trl(found: Conversation, written: Written) -> Iterator[dict[str, Any]]:
    """TRL passes `arguments` unchanged to the chat template, which needs objects; `datasets` 5 keeps them so."""
    for at in found.turns:
        prompt, completion = list(found.messages[:at]), [found.messages[at]]
        if not prompt:
            written.leave_out("a message of the assistant that begins its conversation has no prompt")
            continue
        yield {"prompt": prompt, "completion": completion, "tools": _json(found.tools)}


THOUGHT: Final = "<think>\n{}\n</think>\n\n"
"""How trainers without a field for thoughts find a thought in the text."""


def _ms_swift(found: Conversation, written: Written) -> Iterator[dict[str, Any]]:
    """Each call is a separate `tool_call` message; the trainer merges consecutive ones into one assistant message."""
    messages: list[Said] = []
    for message, learned in zip(found.messages, found.learned, strict=True):
        if message["role"] == "tool":
            messages.append({"role": "tool_response", "content": message["content"]})
        elif message["role"] != "assistant":
            messages.append({"role": message["role"], "content": message["content"]})
        else:
            words = _with_thought(message)
            calls = [_json(call["function"]) for call in message.get("tool_calls", ())]
            if words or not calls:
                messages.append({"role": "assistant", "content": words, "loss": learned})
            messages += [{"role": "tool_call", "content": call, "loss": learned} for call in calls]
    yield {"messages": messages, "tools": _json(found.tools)}


def _with_thought(message: Said) -> str:
    thought = message.get("reasoning_content")
    return (THOUGHT.format(thought) if thought else "") + message["content"]


def _axolotl(found: Conversation, written: Written) -> Iterator[dict[str, Any]]:
    messages = [
        {**_arguments_as_text(message), "train": learned} if message["role"] == "assistant" else message
        for message, learned in zip(found.messages, found.learned, strict=True)
    ]
    yield {"messages": messages, "tools": _json(found.tools)}


def _llama_factory(found: Conversation, written: Written) -> Iterator[dict[str, Any]]:
    """Samples in ShareGPT's names, in which the user's and the assistant's side alternate strictly.

    Answers to the calls of one message are joined as in LLaMA-Factory's own converter from OpenAI's names.
    """
    system = next((message["content"] for message in found.messages if message["role"] == "system"), "")
    for at in found.turns:
        entries: list[dict[str, str]] = []
        for message in found.messages[: at + 1]:
            if message["role"] == "system":
                continue
            entry = _sharegpt(message)
            if entries and entries[-1]["from"] == entry["from"] and entry["from"] in BETWEEN:
                entries[-1]["value"] += BETWEEN[entry["from"]] + entry["value"]
            else:
                entries.append(entry)
        sides = [entry["from"] in BETWEEN for entry in entries]
        if sides != [k % 2 == 0 for k in range(len(sides))]:
            written.leave_out("user or tools and the assistant do not take turns")
            continue
        yield {"conversations": entries, "system": system, "tools": _json(found.tools)}


BETWEEN: Final = {"human": "\n\n", "observation": "\n</tool_response>\n<tool_response>\n"}
"""The text between consecutive messages of one side; only the user's side can have several."""


def _sharegpt(message: Said) -> dict[str, str]:
    if message["role"] == "user":
        return {"from": "human", "value": message["content"]}
    if message["role"] == "tool":
        return {"from": "observation", "value": message["content"]}
    words = _with_thought(message)
    calls = [call["function"] for call in message.get("tool_calls", ())]
    if not calls:
        return {"from": "gpt", "value": words}
    value = _json(calls[0] if len(calls) == 1 else calls)
    return {"from": "function_call", "value": f"{words}<tool_call>{value}</tool_call>" if words else value}


def _verl(found: Conversation, written: Written) -> Iterator[dict[str, Any]]:
    messages = [
        {**_arguments_as_text(message), "loss_mask": int(learned)}
        for message, learned in zip(found.messages, found.learned, strict=True)
    ]
    yield {"messages": messages, "tools": _json(found.tools)}


def _openai(found: Conversation, written: Written) -> Iterator[dict[str, Any]]:
    """The API has no field for thoughts and requires an answer to every call: a missing one is written as empty."""
    messages: list[Said] = []
    open_calls: list[str] = []
    for message, learned in zip(found.messages, found.learned, strict=True):
        if message["role"] == "tool":
            open_calls.remove(message["tool_call_id"])
            messages.append({key: value for key, value in message.items() if key != "name"})
            continue
        messages += [{"role": "tool", "tool_call_id": call, "content": ""} for call in open_calls]
        open_calls = [call["id"] for call in message.get("tool_calls", ())]
        if message["role"] != "assistant":
            messages.append(message)
            continue
        content = "\n".join(filter(None, (message.get("reasoning_content"), message["content"])))
        said = {key: value for key, value in _arguments_as_text(message).items() if key != "reasoning_content"}
        messages.append({**said, "content": content or None, "weight": int(learned)})
    record: dict[str, Any] = {"messages": messages}
    yield record | ({"tools": list(found.tools)} if found.tools else {})


def _write_parquet(path: Path, records: Iterable[dict[str, Any]], group: int = 1000) -> None:
    """Write verl's records in row groups, completely or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    call = pa.struct([("id", text), ("type", text), ("function", pa.struct([("name", text), ("arguments", text)]))])
    message = [("role", text), ("content", text), ("reasoning_content", text), ("tool_calls", pa.list_(call))]
    message += [("name", text), ("tool_call_id", text), ("loss_mask", pa.int8())]
    schema = pa.schema([("messages", pa.list_(pa.struct(message))), ("tools", text)])
    with runs.writing_bytes(path) as file, pq.ParquetWriter(file, schema) as writer:
        waiting: list[dict[str, Any]] = []
        for record in records:
            waiting.append(record)
            if len(waiting) == group:
                writer.write_table(pa.Table.from_pylist(waiting, schema))
                waiting = []
        writer.write_table(pa.Table.from_pylist(waiting, schema))


VERL_DATASET: Final = '''"""verl's data set of conversations; a message with `loss_mask` 0 is not learned."""

import json

from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset


class MaeDataset(MultiTurnSFTDataset):
    def _read_files_and_process(self):
        super()._read_files_and_process()
        self.tools = [json.loads(tools) for tools in self.tools]

    def _build_messages(self, example):
        messages = []
        for message in super()._build_messages(example):
            message = {key: value for key, value in message.items() if value is not None}
            for call in message.get("tool_calls", ()):
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
            messages.append(message)
        return messages

    def _process_single_message(self, index, message, *args, **kwargs):
        said = {key: value for key, value in message.items() if key != "loss_mask"}
        ids, loss_mask, *rest = super()._process_single_message(index, said, *args, **kwargs)
        return ids, loss_mask * message["loss_mask"], *rest
'''

DATASET_INFO: Final = {
    "mae": {
        "file_name": "train.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "system": "system", "tools": "tools"},
    }
}

TRAINERS: Final[Mapping[str, TrainerFile]] = {
    "trl": TrainerFile("train.jsonl", _trl, "SFTTrainer: leave completion_only_loss and assistant_only_loss unset"),
    "ms_swift": TrainerFile("train.jsonl", _ms_swift, "swift sft --dataset train.jsonl --agent_template hermes"),
    "axolotl": TrainerFile(
        "train.jsonl", _axolotl, "datasets: [{path: train.jsonl, type: chat_template, message_field_training: train}]"
    ),
    "llama_factory": TrainerFile(
        "train.jsonl",
        _llama_factory,
        "dataset_dir: the run's folder, dataset: mae, mask_history: true (without it, failed calls are learned)",
        {"dataset_info.json": json.dumps(DATASET_INFO, indent=2)},
    ),
    "verl": TrainerFile(
        "train.parquet",
        _verl,
        "data.custom_cls.path=verl_dataset.py data.custom_cls.name=MaeDataset (verl's own class knows no such field)",
        {"verl_dataset.py": VERL_DATASET},
    ),
    "openai": TrainerFile(
        "train.jsonl", _openai, "upload with purpose fine-tune; messages of weight 0 are not learned"
    ),
}
"""Trainer files by the value of `stage.write`."""
