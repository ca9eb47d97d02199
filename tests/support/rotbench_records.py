"""Records in the format of RoTBench's release."""

from __future__ import annotations

import json


def tool(name):
    return {
        "name": name,
        "description": f"Is {name}.",
        "parameters": {
            "type": "object",
            "properties": {"q": {"type": "string", "description": "Q."}},
            "required": ["q"],
        },
    }


def step(name, thought="", **arguments):
    return f"Thought:{thought}\nAction: {name}\nAction Input: {json.dumps(arguments)}"


def message(role, value):
    return {"from": role, "value": value}


SYSTEM = message(
    "system",
    "You are an expert.\nYou have access of the following tools:\n"
    + json.dumps([tool("find"), tool("ask"), tool("end")])
    + "\n\nLet's Begin!",
)
FIRST = {
    "id": "Turn 1: a",
    "scenario": "PL",
    "conversations": [
        SYSTEM,
        message("user", "Find x.\nBegin!\n"),
        message("assistant", [step("find", q="x", limit="None"), step("end", q="None of it")]),
    ],
}
THIRD = {
    "id": "Turn 3: a",
    "scenario": "PL",
    "conversations": [
        SYSTEM,
        message("user", "Find x.\nBegin!\n"),
        message("assistant", step("ask", " Which?", q="Which\nx?")),
        message("user", "That one.\n"),
        message("assistant", step("find", q="None")),
        message("function", "error"),
        message("assistant", [step("find", q="None"), step("find", q="it"), step("end", q="it")]),
    ],
}
