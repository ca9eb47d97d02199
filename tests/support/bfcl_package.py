"""A package with bfcl-eval's layout and two simulators, shared by the tests of its environment."""

from __future__ import annotations

import json
from types import SimpleNamespace

from tltrain.environments.bfcl_worker import MODULES

NOTES = """
import os, subprocess, sys, time

SHARED = {"count": 0}


class GorillaFileSystem:
    def _load_scenario(self, scenario, long_context=False):
        self.notes, self.table = scenario["notes"], SHARED if long_context else {"count": 0}
        self._private = time.time()

    def write(self, text, where="end"):
        if where not in ("end", "start"):
            raise ValueError(f"where is {where}")
        self.notes.insert(len(self.notes) if where == "end" else 0, text)
        return {"notes": self.notes}

    def read(self):
        return ", ".join(self.notes)

    def clear(self):
        self.notes.clear()

    def count(self):
        self.table["count"] += 1
        return self.table["count"]

    def nest(self):
        self.notes.append(self.notes)
        return "nested"

    def odd(self, kind):
        if kind == "object":
            return {"it": object}
        if kind == "unspeakable":
            return type("Unspeakable", (), {"__str__": lambda self: 1 / 0})()
        raise type("Odd", (BaseException if kind == "base" else Exception,), {})(kind)

    def misbehave(self, how):
        if how == "hang":
            time.sleep(1000)
        if how == "exit":
            os._exit(0)
        if how == "fork":
            while os.fork():
                time.sleep(1000)
            time.sleep(1000)
        if how == "spawn":
            return str(subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL).pid)
        if how == "memory":
            return len(bytearray(8 << 30))
        if how == "print":
            print("x" * 5_000_000)
            os.write(1, b"{}\\n")
            return "printed"
        if how == "environment":
            return sorted(os.environ)
        return "x" * 5_000_000

    def _hidden(self):
        return "hidden"
"""
MATHS = "class MathAPI:\n    def power(self, base, exponent):\n        return {'result': base**exponent}\n"
CHECKER = """
def state_checker(made, golden):
    wrong = {n: {"model": made[n].notes, "ground_truth": golden[n].notes} for n in golden if n == "GorillaFileSystem"
             and made[n].notes != golden[n].notes}
    return {"valid": not wrong, "error_type": "multi_turn:instance_state_mismatch", "details": {"differences": wrong}}

def response_checker(answers, golden, turn):
    missing = [answer for answer in golden if answer not in answers]
    return {"valid": not missing, "error_type": "multi_turn:execution_response_mismatch",
            "details": {"missing_items": missing}}
"""


def tool(name, required=(), **properties):
    schema = {key: {"type": kind, "description": key} for key, kind in properties.items()}
    parameters = {"type": "dict", "properties": schema, "required": list(required)}
    return {"name": name, "description": name, "parameters": parameters}


DOCUMENTED = [
    tool("write", ["text"], text="string", where="string"),
    *map(tool, ("read", "clear", "count", "nest")),
    tool("odd", ["kind"], kind="string"),
    tool("misbehave", ["how"], how="string"),
]
SAYS = [[{"role": "user", "content": f"Turn {number}."}] for number in range(4)]


def entry(identity, turns=2, **more):
    classes = ["MathAPI", "GorillaFileSystem"]
    config = {"GorillaFileSystem": {"notes": ["old"]}}
    return {
        "id": identity,
        "question": SAYS[:turns],
        "involved_classes": classes,
        "initial_config": config,
    } | more


ENTRIES = {
    "multi_turn_base": [
        (entry("multi_turn_base_0"), [["write('new')", "read()"], ["power(base=2, exponent=3)"]]),
        (entry("multi_turn_base_1", involved_classes=["MathAPI"]), [["power(2, 2)"], ["power(2, 2)"]]),
    ],
    "multi_turn_miss_func": [
        (
            entry("multi_turn_miss_func_0", question=[SAYS[0], [], SAYS[2]], missed_function={"1": ["write"]}),
            [[], ["write(text='new')"], ["read()"]],
        )
    ],
    "multi_turn_long_context": [(entry("multi_turn_long_context_0", 1), [["count()"]])],
}


def put(folder, category, pairs):
    """Write a category's two files."""
    answers = [{"id": record["id"], "ground_truth": golden} for record, golden in pairs]
    for path, lines in (
        (folder / "data", [record for record, _ in pairs]),
        (folder / "data" / "possible_answer", answers),
    ):
        (path / f"BFCL_v4_{category}.json").write_text("\n".join(map(json.dumps, lines)))


def make_package(folder):
    """Make a package with the layout of bfcl-eval and two simulators; the others are empty."""
    code = folder / "eval_checker" / "multi_turn_eval" / "func_source_code"
    documentation = folder / "data" / "multi_turn_func_doc"
    for path in (code, documentation, folder / "data" / "possible_answer", folder / "constants"):
        path.mkdir(parents=True)
    for name in MODULES.values():
        (code / f"{name}.py").write_text({"gorilla_file_system": NOTES, "math_api": MATHS}.get(name, ""))
    (code.parent / "multi_turn_checker.py").write_text(CHECKER)
    (folder / "constants" / "default_prompts.py").write_text(
        "raise SystemExit('imported')\nDEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC = 'There is more now.'\n"
    )
    power = tool("power", ["base", "exponent"], base="float", exponent="float")
    for name, tools in (("gorilla_file_system", DOCUMENTED), ("math_api", [power])):
        (documentation / f"{name}.json").write_text("\n".join(map(json.dumps, tools)))
    for category, pairs in ENTRIES.items():
        put(folder, category, pairs)
    return folder


def benchmark(path, *categories):
    return SimpleNamespace(path=path, categories=list(categories) or ["multi_turn_base"])


def hold(environment, turns):
    """Make the calls of all turns and return the answers."""
    answers = []
    for calls in turns:
        answers += map(environment.call, calls)
        environment.follow_up("done")
    return answers
