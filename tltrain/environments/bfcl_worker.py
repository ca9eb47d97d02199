"""The process in which BFCL's simulators run: `python bfcl_worker.py FOLDER`, the folder that `bfcl_eval` lies in.

A simulator is plain Python without limits of its own: `power(base=9, exponent=999999999)` does not end within a day. So
they run here, with little memory, and the evaluation outlives them.

Lines of JSON over standard input and output. First this process says {"ready": true}, or what is wrong, {"error": ...}.
Then a request is a conversation so far,

    {"classes": [name, ...], "config": {class: ...}, "long_context": bool, "turns": [[CALL, ...], ...]}

where CALL is [name, arguments], or null for one that is not to be made again. It is answered by {"answer": what its
last call returns}; or, with "golden" (turns as well), by what BFCL's checker says of it, {"success": ..., "turn": ...,
"error": ..., "reason": ...}. Before that comes an empty line for each call that was run. Every request makes its world
anew from the scenario, so that no two conversations can share anything.

The file imports nothing of tltrain, and what it runs are methods that are looked up by name, never text.
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
"""The simulators' classes -> their modules, which is also what the files of their documentation are called."""

STATELESS = {"MathAPI"}
"""Classes that take no scenario."""

BACKEND = "bfcl_eval.eval_checker.multi_turn_eval"
MEMORY = 2**30  # bytes of address space
ORPHANED = 60  # seconds for one call, after which the process ends by itself, whether or not anybody still waits
LONGEST = 1_000_000  # characters of an answer that is handed back
SHOWN = 200  # characters of a reason

Call = tuple[str, dict[str, Any]] | None
"""Name and arguments; None for a call that took the process with it when it was made, and is not made again."""


def make_world(request: dict[str, Any]) -> dict[str, Any]:
    """The simulators of a conversation as its scenario begins, by class.

    They are copied once loaded: with a long context the package puts its own tables into them, and a flight booked in
    one conversation would be paid from a card of the next.
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
    """What a call answers, in BFCL's words also where it fails."""
    if call is None:
        return "Error during execution: no answer"
    name, arguments = call
    signal.alarm(ORPHANED)
    try:
        methods = _methods(world)
        if name not in methods:
            raise NameError(f"name {name!r} is not defined")
        return _text(methods[name](**arguments))
    except Exception as error:  # a model's call can go wrong in any way, and that is its answer
        return f"Error during execution: {error}"


def _methods(world: dict[str, Any]) -> dict[str, Any]:
    """The public methods of all simulators; where two have the same name the later one counts, as for BFCL."""
    found = [pair for one in world.values() for pair in inspect.getmembers(one, inspect.ismethod)]
    return {name: method for name, method in found if not name.startswith("_")}


def _text(result: Any) -> str:
    """What a method returns as BFCL writes it."""
    if isinstance(result, dict):
        try:
            return json.dumps(result)
        except Exception:  # some hold objects, as of decimal and mpmath
            return str(result)
    return str(result)


def check(request: dict[str, Any], out: TextIO) -> dict[str, Any]:
    """BFCL's verdict on the turns of a conversation that were ended; one that broke off has failed in the next.

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
        except Exception as error:  # a directory that lies in itself cannot be compared
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
    """A verdict; `turn` counts from 0 here, and from 1 in what is said."""
    return {"success": False, "turn": turn + 1, "error": error.removeprefix("multi_turn:"), "reason": reason}


def _reason(verdict: dict[str, Any]) -> str:
    """What BFCL's checker found, in one line: where the states differ, or which answers are missing."""
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
    """The reply to one request."""
    if "golden" in request:
        return check(request, out)
    world = make_world(request)
    answers = [answer for calls in request["turns"] for answer in _run_all(world, calls, out)]
    return {"answer": answers[-1][:LONGEST]}


def main(folder: str) -> None:
    """Serve until standard input ends."""
    with contextlib.suppress(ValueError, OSError):  # macOS knows no limit of memory
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what a simulator prints is no answer
    sys.path.insert(0, folder)
    try:
        for module in ("multi_turn_checker", *(f"func_source_code.{name}" for name in MODULES.values())):
            importlib.import_module(f"{BACKEND}.{module}")
        ready: dict[str, Any] = {"ready": True}
    except Exception as error:  # another release may be made otherwise, or mpmath not be there
        ready = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(ready), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(respond(json.loads(line), out)), file=out, flush=True)
        signal.alarm(0)


if __name__ == "__main__":
    main(sys.argv[1])
