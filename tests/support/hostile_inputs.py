"""Hostile texts and files made from good ones, and a monitor of the code that reads them."""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, wraps
from multiprocessing.connection import Connection
from typing import Any

LIMIT = 1.0
"""Maximum time of one reading, in seconds."""
LONGEST = 500_000
"""Maximum characters of a generated file; the time limit above is for files of about this size."""
CANARY = "tltrain_canary"
PIECES = (
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        '"',
        "'",
        '"""',
        ",",
        ":",
        "=",
        "\\",
        "\n",
        "\r\n",
        "\r",
        "\t",
        "\0",
        "\x1b[2J",
        "#",
    ),
    *("\ud800", "\udfff", "\\ud800", "\\u12", "\\N{nope}", "\\777", "\\x", "\ufeff", "\u202e", "\u2028", "é", "𝒳", "🌧"),
    *("None", "null", "true", "NaN", "Infinity", "-0", "1e999", "1e-999", "0x", "1__0", "007", "9" * 400, "9" * 5000),
    *("<any>", "</s>", "User:", "\nAssistant: ", "Output:", "System: ", "Function:\ndef f():", "finish(", "Thought:\n"),
    f"__import__('os').system('touch {CANARY}')",
    f"lambda: open('{CANARY}', 'w')",
    f"{{{{ cycler.__init__.__globals__.os.popen('touch {CANARY}') }}}}",
    f"!!python/object/apply:os.system ['touch {CANARY}']",
    f"cposix\nsystem\n(S'touch {CANARY}'\ntR.",
    "${oc.env:HOME}",
)


def mutated(text: str, rng: random.Random) -> str:
    """Return `text` after one to four random changes that cut, damage or inflate it."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(text))
        end = min(len(text), at + rng.choice((1, 1, 2, 5, 20, 200)))
        match rng.randrange(10):
            case 0:
                text = text[:at]
            case 1:
                text = text[at:]
            case 2:
                text = text[:at] + text[end:]
            case 3 | 4 | 5:
                text = text[:at] + rng.choice(PIECES) + text[at:]
            case 6:
                text = text[:at] + text[at:end] * rng.choice((2, 3, 50)) + text[end:]
            case 7:
                text = text[:at] + rng.choice("([{(\"'\\,= \n") * rng.choice((3, 99, 101, 3000)) + text[at:]
            case 8:
                text = text[:at] + chr(rng.choice((rng.randrange(256), rng.randrange(0x110000)))) + text[end:]
            case _:
                text = text[:at] + text[at:end].swapcase()[::-1] + text[end:]
    return text


def swapped(value: Any, rng: random.Random) -> Any:
    """Return a JSON value in which one random element has another type or is removed, duplicated or deeply nested."""
    places = list(_places(value))
    if not places:
        return value
    parent, key = rng.choice(places)
    match rng.randrange(6):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[rng.choice(("", "id", "name", "\0", "role", "x" * 3000))] = parent.pop(key)
        case 1 | 2 if isinstance(parent, list):
            parent[key:key] = [parent[key]] * rng.choice((1, 2, 300))
        case 3:
            for _ in range(rng.choice((1, 5, 99, 150, 2000))):
                parent[key] = [parent[key]]
        case 4 if isinstance(parent[key], str):
            parent[key] = mutated(parent[key], rng)
        case _:
            parent[key] = rng.choice((None, True, -1, 1e300, 10**400, "", "\0", "\ud800", [], {}, [[]], {"": {}}))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (parent, key) of everything in a value except the value itself."""
    pending = [value]
    while pending:
        parent = pending.pop()
        if isinstance(parent, dict | list):
            yield from ((parent, key) for key in (parent if isinstance(parent, dict) else range(len(parent))))
            pending.extend(parent.values() if isinstance(parent, dict) else parent)


def file_of(records: list[Any], rng: random.Random) -> bytes:
    """Return the bytes of a file with damaged records, as a JSON list or lines, possibly broken as a file too."""
    copies = [json.loads(json.dumps(record)) for record in records for _ in range(rng.choice((1, 1, 3)))]
    if rng.random() < 0.8:
        at = rng.randrange(len(copies))
        for _ in range(rng.choice((1, 1, 1, 3))):
            copies[at] = swapped(copies[at], rng)
    escaped = rng.random() < 0.6
    try:
        texts = [json.dumps(copy, ensure_ascii=escaped) for copy in copies]
    except RecursionError:
        texts = ["[" * 3000]
    if rng.random() < 0.5:
        text = rng.choice(("\n", "\r\n", "\r", "\n\n \n", "\n\r")).join(texts)
    else:
        text = "[" + rng.choice((",", ",\n", " ,\t", ",,", " ")).join(texts) + rng.choice(("]", "]", "]", "", "] x"))
    if rng.random() < 0.5:
        text = mutated(text, rng)
    text = text[:LONGEST]
    coding = rng.choice(("utf-8",) * 8 + ("utf-16", "latin-1"))
    data = text.encode(coding, errors="replace" if coding == "latin-1" else "surrogatepass")
    match rng.randrange(8):
        case 0:
            data = b"\xef\xbb\xbf" + data
        case 1:
            at = rng.randint(0, len(data))
            data = data[:at] + bytes(rng.randrange(256) for _ in range(rng.choice((1, 2, 50)))) + data[at:]
    return data


# --- the monitor ----------------------------------------------------------------------------------------------------

FORBIDDEN = (
    *("exec", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen"),
    *("pickle.find_class", "ctypes"),
)
"""Audit events that reading a text must not raise (`exec` is raised by `exec`, `eval` and imports)."""

ANNOTATIONS = ("typing", "inspect")
"""Modules that evaluate annotations of our own functions and dataclasses."""

_watching: list[Watch] = []


@dataclass
class Watch:
    """Records the time of readings and their forbidden actions."""

    count: int = 0
    slowest: float = 0.0
    slowest_case: str = ""
    forbidden: list[str] = field(default_factory=list)
    grown: int = 0

    @contextmanager
    def reading(self, case: object, imports: bool = False) -> Iterator[None]:
        """Monitor one reading; `case` is shown if it fails. `imports`: modules may be imported, which executes code."""
        start = time.process_time()
        _watching.append(Watch() if imports else self)
        try:
            yield
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}\nat {_shown(case)}") from error
        finally:
            _watching.pop()
            seconds = time.process_time() - start
            self.count += 1
            if seconds > self.slowest:
                self.slowest, self.slowest_case = seconds, _shown(case)

    def check(self, grown: int = 500) -> None:
        """Check that nothing was forbidden or slow, and that the peak memory has grown by at most `grown` MiB."""
        assert not self.forbidden, self.forbidden[:3]
        assert self.slowest < LIMIT, f"{self.slowest:.2f} s: {self.slowest_case}"
        assert self.grown < grown, f"memory grew by {self.grown} MiB"


def _shown(case: object) -> str:
    text = repr(case)
    return text if len(text) < 2000 else f"{text[:1000]} … {text[-900:]}"


@contextmanager
def watch() -> Iterator[Watch]:
    """Monitor many readings."""
    _hooked()
    before, found = _peak(), Watch()
    try:
        yield found
    finally:
        found.grown = _peak() - before


@cache
def _hooked() -> None:
    """Install the audit hook. Hooks cannot be removed; this one does nothing outside `Watch.reading` (`in_a_fork`)."""
    sys.addaudithook(_hook)


def in_a_fork(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test that watches in a fork of this process, so that the audit hook ends with the test.

    The hook would cost all later tests in this process some 3 % of their time: Python calls it even for each `id(...)`,
    and copying a configuration calls `id` thousands of times.
    """

    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_report, args=(sender, test, arguments, named))
        process.start()
        sender.close()
        try:
            failure = receiver.recv()
        except EOFError:
            failure = "it ended without a report"
        process.join()
        assert not failure and process.exitcode == 0, f"{failure} (exit status {process.exitcode})"

    return run


def _report(sender: Connection, test: Callable[..., None], arguments: tuple, named: dict[str, Any]) -> None:
    failure = ""
    try:
        test(*arguments, **named)
    except BaseException:
        failure = traceback.format_exc()
    sender.send(failure)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event.startswith(FORBIDDEN) and not (event == "exec" and _by(ANNOTATIONS)):
        _watching[-1].forbidden.append(f"{event} {str(arguments)[:200]}")


def _by(modules: tuple[str, ...]) -> bool:
    """Return whether a function in these modules caused the event."""
    return sys._getframe(2).f_globals.get("__name__") in modules


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
