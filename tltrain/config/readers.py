"""The keys of what is read: trajectories, `data.KEY`, and questions and conversations, `benchmark.KEY`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from omegaconf import MISSING

from tltrain.config.choices import IsolationLevel, OnError, Scoring, Split, ToolSet
from tltrain.config.keys import key
from tltrain.config.limits import DAY, GENERATED

# `Optional[...]` because OmegaConf reads the annotations at run time.
# ruff: noqa: UP045

SPLIT = "whose tools, tasks and wordings; no two splits share any; train, validation (for choices), test"
TOOL_SET = (
    "which tools of the split; standard; confusable: tools whose names share a beginning, offered together; all: both"
)
QUESTIONS_SEED = "seed of the questions, separate from seed, so that all runs are asked the same questions"


@dataclass
class Data:
    """The keys of every reader; further keys are in the dataclass that its function names."""

    name: str = key(MISSING, "name of the reader")
    limit: Optional[int] = key(None, "maximum number of trajectories to read; null: all", least=1)
    holdout: float = key(
        0.1, "share of the trajectories held out of training, to measure the loss on", least=0, below=1
    )
    learn_replies: bool = key(
        False, "learn what the assistant says before the conversation goes on, such as questions; false: its last words"
    )


@dataclass
class FileData(Data):
    path: Any = key(None, "file or folder to read, or a list of files", among=(str, list, type(None)))
    on_error: OnError = key(
        OnError.stop, "what to do with an unreadable record; stop: end the run; skip: count it and continue"
    )


@dataclass
class RotbenchData(FileData):
    levels: list[str] = key([], "noise levels; clean, slight, medium, heavy, union")


@dataclass
class ToolworldData(Data):
    size: int = key(0, "number of trajectories", least=0, most=GENERATED)
    error_rate: float = key(0.17, "share of wrong calls", least=0, below=1)
    split: Split = key(Split.train, SPLIT)
    tools: ToolSet = key(ToolSet.standard, TOOL_SET)


@dataclass
class Benchmark:
    """The keys of every benchmark; further keys are in the dataclass that its function names."""

    name: str = key(MISSING, "name of the benchmark's reader")
    limit: Optional[int] = key(None, "maximum number of questions to ask; null: all", least=1)
    multi: bool = key(False, "run whole conversations, whose tools are really called")


@dataclass
class FileBenchmark(Benchmark):
    path: Optional[str] = key(None, "file or folder of the benchmark's data")


@dataclass
class RotbenchBenchmark(FileBenchmark):
    levels: list[str] = key([], "noise levels; clean, slight, medium, heavy, union")
    turns: list[str] = key([], "turns to ask; first, third")
    scoring: Scoring = key(
        Scoring.fixed,
        "the scoring to show first, while both are written; official: the released scorer; fixed: without its mistakes",
    )


@dataclass
class BfclBenchmark(FileBenchmark):
    categories: list[str] = key([], "categories; exec is the paper's 240 questions")


@dataclass
class ToolworldBenchmark(Benchmark):
    size: int = key(0, "number of questions or conversations", least=0, most=GENERATED)
    split: Split = key(Split.test, SPLIT)
    tools: ToolSet = key(ToolSet.standard, TOOL_SET)
    seed: int = key(0, QUESTIONS_SEED, least=0, most=2**32 - 1)


@dataclass
class ToolworldTurns(Benchmark):
    size: int = key(
        0, "number of recorded calls, taken from as many conversations as necessary", least=0, most=GENERATED
    )
    error_rate: float = key(0.17, "share of wrong calls", least=0, below=1)
    split: Split = key(Split.test, SPLIT)
    tools: ToolSet = key(ToolSet.standard, TOOL_SET)
    seed: int = key(0, QUESTIONS_SEED, least=0, most=2**32 - 1)


@dataclass
class GeneralBenchmark(Benchmark):
    tasks: list[str] = key([], "tasks, groups and tags, by their names in lm-eval")
    include_path: Optional[str] = key(None, "folder of your own task definitions, which override lm-eval's")
    fewshot: Optional[int] = key(None, "examples before each question; null: as each task says", least=0, most=1000)
    unsafe_code: bool = key(False, "run tasks that execute code written by the model")


@dataclass
class Conversations(Benchmark):
    """The keys of every benchmark of whole conversations (`multi: true`)."""

    multi: bool = key(True, "run whole conversations, whose tools are really called")
    max_turns: int = key(10, "maximum number of calls for one turn of the user", least=1, most=10_000)
    parallel: int = key(
        16, "number of conversations at the same time; stage.batch_size of them share a batch", least=1, most=10_000
    )
    max_output: int = key(4000, "maximum number of characters of a tool's answer in the history", least=1)


@dataclass
class ToolworldConversations(Conversations, ToolworldBenchmark):
    pass


@dataclass
class BfclConversations(Conversations, BfclBenchmark):
    pass


@dataclass
class SandboxedConversations(Conversations):
    """What every benchmark has whose tools run in a sandbox."""

    network: bool = key(False, "let the tools reach the network")
    isolation: IsolationLevel = key(
        IsolationLevel.auto,
        "minimum isolation of the tools; a weaker one is never used; auto: landlock; process: none",
    )
    time_limit: float = key(10.0, "time limit of a tool in seconds", least=0.1, most=DAY)
    memory_limit: int = key(
        2048, "memory limit in MB, for each process of a tool and for all together", least=64, most=2**24
    )


@dataclass
class ToolEyesConversations(SandboxedConversations, FileBenchmark):
    user: str = key("rule", "who answers ask_to_user; rule, terminal, or a file of answers")


@dataclass
class PythonToolsConversations(SandboxedConversations, FileBenchmark):
    module: Optional[str] = key(None, "Python file whose documented functions are the tools")
