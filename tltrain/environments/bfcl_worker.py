"""The process in which BFCL's simulators run: `python bfcl_worker.py FOLDER`; the folder contains `bfcl_eval`.

A simulator is plain Python without limits of its own: `power(base=9, exponent=999999999)` does not end within a day. So
the simulators run here, with little memory, and the evaluation outlives them.

The protocol is lines of JSON over standard input and output. First this process says {"ready": true}, or {"error": ...}
with what is wrong. Each request is then a conversation so far,

    {"classes": [name, ...], "config": {class: ...}, "long_context": bool, "turns": [[CALL, ...], ...]}

where CALL is [name, arguments], or null for a call that must not be repeated. The reply is {"answer": the result of the
last call} or, for a request with "golden" (also turns), the verdict of BFCL's checker, {"success": ..., "turn": ...,
"error": ..., "reason": ...}. It is preceded by an empty line for each call that was run. Every request rebuilds its
world from the scenario, so no two conversations can share anything.

This file imports nothing from tltrain. It runs only methods that it looks up by name, never text.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import json
import os
import resource
import signal
import sys
from typing import Any, TextIO

MODULES = {
    "GorillaFileSystem": "gorilla_file_system",
    "VehicleControlAPI": "vehicle_control",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "MessageAPI": "message_api",
    "TwitterAPI": "posting_api",
    "TicketAPI": "ticket_api",
    "MathAPI": "math_api",
}
"""The simulators' classes -> their modules; the files of their documentation have the same names."""

STATELESS = {"MathAPI"}
"""Classes that take no scenario."""

BACKEND = "bfcl_eval.eval_checker.multi_turn_eval"
MEMORY = 2**30  # bytes of address space
ORPHANED = 60  # seconds for one call, after which the process ends by itself, even if nobody waits for it any more
LONGEST = 1_000_000  # characters of an answer that are returned
SHOWN = 200  # characters of a reason

Call = tuple[str, dict[str, Any]] | None
"""Name and arguments; None for a call that ended the process when it was made and is not repeated."""


def make_world(request: dict[str, Any]) -> dict[str, Any]:
    """Return the simulators at the start of a conversation's scenario, by class.

    They are copied after loading: with a long context the package shares its own tables among them, and a flight booked
    in one conversation would be paid from a card of the next.
    """
    world = {}
    for name in request["classes"]:
        simulator = getattr(importlib.import_module(f"{BACKEND}.func_source_code.{MODULES[name]}"), name)()
        if name not in STATELESS:
            config = copy.deepcopy(request["config"].get(name, {}))
            simulator._load_scenario(config, long_context=request["long_context"])
        world[name] = copy.deepcopy(simulator)
    return world


def run(world: dict[str, Any], call: Call) -> str:
    """Return a call's answer; a failure is reported in BFCL's words."""
    if call is None:
        return "Error during execution: no answer"
    name, arguments = call
    signal.alarm(ORPHANED)
    try:
        methods = _methods(world)
        if name not in methods:
            raise NameError(f"name {name!r} is not defined")
        return _text(methods[name](**arguments))
    except Exception as error:  # a model's call can fail in any way, and the failure is its answer
        return f"Error during execution: {error}"


def _methods(world: dict[str, Any]) -> dict[str, Any]:
    """Return the public methods of all simulators; if two have the same name the later one counts, as in BFCL."""
    found = [pair for one in world.values() for pair in inspect.getmembers(one, inspect.ismethod)]
    return {name: method for name, method in found if not name.startswith("_")}


def _text(result: Any) -> str:
    """Return a method's result as text, as BFCL writes it."""
    if isinstance(result, dict):
        try:
            return json.dumps(result)
        except Exception:  # some contain objects, such as those of decimal and mpmath
            return str(result)
    return str(result)


def check(request: dict[str, Any], out: TextIO) -> dict[str, Any]:
    """Return BFCL's verdict on a conversation's completed turns; one that broke off has failed in the next turn.

    After each turn that has golden calls something must have been called, all simulators must be in the state that the
    golden calls bring about, and the answers so far must include those of the turn's golden calls, in any order.
    """
    checker = importlib.import_module(f"{BACKEND}.multi_turn_checker")
    world, golden_world = make_world(request), make_world(request)
    answers: list[str] = []
    for turn, (made, golden) in enumerate(zip(request["turns"], request["golden"], strict=False)):
        answers += _run_all(world, made, out)
        expected = _run_all(golden_world, golden, out)
        if not golden:
            continue
        if not made:
            return _failure(turn, "empty_turn_model_response", "nothing was called")
        try:
            verdict = checker.state_checker(world, golden_world)
            if verdict["valid"]:
                verdict = checker.response_checker(answers, expected, turn)
            if not verdict["valid"]:
                return _failure(turn, verdict["error_type"], _reason(verdict))
        except Exception as error:  # a directory that contains itself cannot be compared
            return _failure(turn, "not_comparable", f"{type(error).__name__}: {error}")
    if len(request["turns"]) < len(request["golden"]):
        return _failure(len(request["turns"]), "force_terminated", "the conversation broke off in this turn")
    return {"success": True, "turn": None, "error": None, "reason": None}


def _run_all(world: dict[str, Any], calls: list[Call], out: TextIO) -> list[str]:
    answers = []
    for call in calls:
        answers.append(run(world, call))
        print(file=out, flush=True)
    return answers


def _failure(turn: int, error: str, reason: str) -> dict[str, Any]:
    """Return a verdict of failure; the argument `turn` counts from 0, the verdict's from 1."""
    return {"success": False, "turn": turn + 1, "error": error.removeprefix("multi_turn:"), "reason": reason}


def _reason(verdict: dict[str, Any]) -> str:
    """Return what BFCL's checker found, in one line: where the states differ, or which answers are missing."""
    details = verdict.get("details", {})
    differences = "; ".join(
        f"{name} is {_short(sides['model'])}, not {_short(sides['ground_truth'])}"
        for name, sides in details.get("differences", {}).items()
    )
    missing = " and ".join(map(_short, details.get("missing_items", ())))
    return differences or (f"not among the answers: {missing}" if missing else str(verdict.get("error_message")))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def respond(request: dict[str, Any], out: TextIO) -> dict[str, Any]:
    """Return the reply to one request."""
    if "golden" in request:
        return check(request, out)
    world = make_world(request)
    answers = [answer for calls in request["turns"] for answer in _run_all(world, calls, out)]
    return {"answer": answers[-1][:LONGEST]}


def main(folder: str) -> None:
    """Serve until standard input ends."""
    with contextlib.suppress(ValueError, OSError):  # macOS has no memory limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a simulator's prints are not answers
    sys.path.insert(0, folder)
    try:
        for module in ("multi_turn_checker", *(f"func_source_code.{name}" for name in MODULES.values())):
            importlib.import_module(f"{BACKEND}.{module}")
        ready: dict[str, Any] = {"ready": True}
    except Exception as error:  # another release may be structured differently, or mpmath may be missing
        ready = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(ready), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(respond(json.loads(line), out)), file=out, flush=True)
        signal.alarm(0)


if __name__ == "__main__":
    main(sys.argv[1])
