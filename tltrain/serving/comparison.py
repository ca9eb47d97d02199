"""The certificate: a server's handling of prompts and answers, compared with that of training.

Pure functions: recorded ids and parsed answers in, counts and reasons out. A certificate fails if the served model was
given tokens other than those of training, or if the server read a call differently from this package. The quality of
the model's answers does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tltrain.formats.chat_completions import api_names
from tltrain.formats.native import Answer
from tltrain.trajectory import Call, Tool

FILE = "certificate.json"
"""The name of the certificate's file in a model's folder."""
AROUND = 3
"""Tokens shown on each side of a difference."""


@dataclass(frozen=True)
class Reply:
    """What the server answered.

    Attributes:
        text: its words. calls: those that it parsed. error: why there is no answer; empty if there is one.
    """

    text: str = ""
    calls: tuple[Call, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Compared:
    """One prompt's result.

    Attributes:
        prompt: how the prompts differ; empty if they do not.
        calls: how the two readings of the answer differ; empty if they do not.
        parsed: whether the server parsed a call. readable: whether this package can read the whole answer.
    """

    id: str
    prompt: str = ""
    calls: str = ""
    parsed: bool = False
    readable: bool = True


@dataclass(frozen=True)
class Certificate:
    """The content of `certificate.json`.

    Attributes:
        asked, prompts_equal, tool_calls, same_grades: numbers of prompts: asked; given to the served model in the
            tokens of its training; answered with calls that the server parsed; read alike by both parsers.
        unreadable: answers that are malformed in the format, which a server may read in any way.
        from_training: prompts whose tokens agree with a record of the training itself.
        not_sent: prompts left out because this server cannot take them: it drops words and thoughts beside earlier
            calls, and takes the TL format only as text, which some tokenizers split differently from training.
        chat_prompts_equal: for the TL format, prompts that are also equal when sent as messages and tools.
        mode: `chat`, native messages and tools; `text`, the TL format's text.
        metrics: TS, PI and CF of the served answers, in percent with intervals.
        problems: the first differences.
    """

    asked: int
    prompts_equal: int
    tool_calls: int
    same_grades: int
    unreadable: int = 0
    from_training: int = 0
    not_sent: int = 0
    chat_prompts_equal: int | None = None
    format: str = "tl"
    mode: str = "text"
    server: str = ""
    seconds: float = 0.0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Return whether all prompts are equal and all answers were read alike."""
        return self.prompts_equal == self.asked == self.same_grades

    def to_json(self) -> dict[str, Any]:
        """Return the certificate as plain values."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return {"passed": self.passed, **values, "problems": list(self.problems)}

    def line(self) -> str:
        """Return the result in one line."""
        said = f"{self.prompts_equal} of {self.asked} prompts equal"
        if self.mode == "chat":
            said += f", {self.tool_calls} answers with parsed calls"
        return f"{said}, {self.same_grades} of {self.asked} answers read alike ({self.mode}, {self.server})"

    def failure(self) -> str:
        """Return in one line why it fails; empty if it passes."""
        return "" if self.passed else f"{self.line()}; {self.problems[0] if self.problems else 'no reason is known'}"


def certificate(compared: Sequence[Compared], **more: Any) -> Certificate:
    """Count the results; `more` are the other attributes of the certificate."""
    problems = [
        f"prompt {one.id}: {why}" for kind in ("prompt", "calls") for one in compared if (why := getattr(one, kind))
    ]
    return Certificate(
        asked=len(compared),
        prompts_equal=sum(not one.prompt for one in compared),
        tool_calls=sum(one.parsed for one in compared),
        same_grades=sum(not one.calls for one in compared),
        unreadable=sum(not one.readable for one in compared),
        problems=tuple(problems[:5]),
        **more,
    )


def prompt_difference(trained: Sequence[int], served: Sequence[int], texts: Sequence[str], other: Sequence[str]) -> str:
    """Return where a served prompt first differs from training; empty if it does not.

    Args:
        texts, other: the text of each token of `trained` and of `served`.
    """
    if list(trained) == list(served):
        return ""
    pairs = enumerate(zip(trained, served, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(trained), len(served)))
    around = slice(max(0, at - AROUND), at + AROUND + 1)
    return (
        f"token {at + 1} of {len(trained)} differs: training has {_shown(texts[around])}, the served model was given "
        f"{_shown(other[around])}"
    )


def call_difference(reply: Reply, ours: Answer, tools: Sequence[Tool]) -> str:
    """Return how a server's reading of an answer differs from ours; empty if it does not.

    If the answer is malformed, the server may refuse it, or read anything in place of the unreadable parts; the calls
    that we can read must be among its own, in order.
    """
    originals = {api: name for name, api in api_names(tools).items()}
    served = [_plain(Call(originals.get(call.name, call.name), call.arguments)) for call in reply.calls]
    read = [_plain(call) for call in ours.calls]
    if ours.problems:
        rest = iter(served)
        if reply.error or all(call in rest for call in read):
            return ""
    elif reply.error:
        return f"the server cannot answer ({reply.error}), and its answer is read here as {_list(read)}"
    elif served == read:
        return ""
    return f"the server reads {_list(served)}, tltrain reads {_list(read)} in the same tokens"


def _plain(call: Call) -> str:
    """Return a call as text that distinguishes 1, 1.0 and true."""
    return f"{call.name}({json.dumps(dict(call.arguments), ensure_ascii=False, sort_keys=True, default=str)})"


def _list(calls: Sequence[str]) -> str:
    return ", ".join(call[:120] for call in calls) or "no call"


def _shown(texts: Sequence[str]) -> str:
    return repr("".join(texts)[:80]) if texts else "nothing"
