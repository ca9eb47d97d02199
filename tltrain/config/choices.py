"""The words among which configuration keys choose. A member is a string, equal to its name."""

from __future__ import annotations

from enum import StrEnum


class OnError(StrEnum):
    stop = "stop"
    skip = "skip"


class Rule(StrEnum):
    paper = "paper"
    strict = "strict"


class MaeRule(StrEnum):
    paper = "paper"
    strict = "strict"
    failed = "failed"
    errors = "errors"
    random = "random"


class Level(StrEnum):
    ts = "ts"
    pi = "pi"
    cf = "cf"


class Split(StrEnum):
    train = "train"
    validation = "validation"
    test = "test"


class ToolSet(StrEnum):
    standard = "standard"
    confusable = "confusable"
    all = "all"


class Write(StrEnum):
    trajectories = "trajectories"
    turns = "turns"
    raw = "raw"
    trl = "trl"
    ms_swift = "ms_swift"
    axolotl = "axolotl"
    llama_factory = "llama_factory"
    verl = "verl"
    openai = "openai"


class Packing(StrEnum):
    trajectory = "trajectory"
    turn = "turn"


class SupervisedPacking(StrEnum):
    trajectory = "trajectory"
    turn = "turn"
    prefix_tree = "prefix_tree"
    auto = "auto"


class KeyTokens(StrEnum):
    paper = "paper"
    name = "name"
    shuffled = "shuffled"


class Truncation(StrEnum):
    drop_oldest_turns = "drop_oldest_turns"
    error = "error"
    skip = "skip"


class PromptTruncation(StrEnum):
    drop_oldest_turns = "drop_oldest_turns"
    left = "left"
    error = "error"
    skip = "skip"


class TooLongAnswer(StrEnum):
    skip = "skip"
    error = "error"
    keep = "keep"


class Mask(StrEnum):
    call = "call"
    message = "message"


class LossMean(StrEnum):
    tokens = "tokens"
    responses = "responses"


class OpenText(StrEnum):
    exact = "exact"
    ignored = "ignored"
    similarity = "similarity"


class Matching(StrEnum):
    strict = "strict"
    lenient = "lenient"


class WordsBeforeCall(StrEnum):
    error = "error"
    ignore = "ignore"


class Names(StrEnum):
    free = "free"
    offered = "offered"


class Scoring(StrEnum):
    official = "official"
    fixed = "fixed"


class Algorithm(StrEnum):
    ppo = "ppo"
    rloo = "rloo"
    grpo = "grpo"
    rejection = "rejection"


class Rollout(StrEnum):
    call = "call"
    conversation = "conversation"


class CriticInit(StrEnum):
    sft = "sft"
    random = "random"


class OnKlLimit(StrEnum):
    stop = "stop"
    adapt = "adapt"


class Planned(StrEnum):
    sft = "sft"
    pkt = "pkt"
    irm = "irm"
    eval = "eval"


class Strategy(StrEnum):
    none = "none"
    zero2 = "zero2"
    zero3 = "zero3"
    zero3_offload = "zero3_offload"
    fsdp = "fsdp"


class Prune(StrEnum):
    none = "none"
    unfinished = "unfinished"
    old = "old"
    all = "all"


class Gguf(StrEnum):
    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    q8_0 = "q8_0"


class ExportDtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class IsolationLevel(StrEnum):
    auto = "auto"
    namespaces = "namespaces"
    landlock = "landlock"
    process = "process"


class Mode(StrEnum):
    text = "text"
    chat = "chat"


class LimitField(StrEnum):
    max_tokens = "max_tokens"
    max_completion_tokens = "max_completion_tokens"


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class TrackingMode(StrEnum):
    offline = "offline"
    online = "online"
    disabled = "disabled"


# By a call, since a name in a class body cannot begin with a digit.
Quantization = StrEnum("Quantization", {"4bit": "4bit", "8bit": "8bit"})
