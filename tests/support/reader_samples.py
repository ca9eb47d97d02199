"""Records and the trajectories that they represent, shared by the readers' tests."""

from __future__ import annotations

import json

from tltrain.trajectory import Call, Message, Tool, Trajectory

SEARCH = {
    "name": "search",
    "description": "Finds advice.",
    "parameters": {
        "type": "object",
        "properties": {
            "limit": {"type": "integer", "description": "How many."},
            "query": {"type": "string", "description": "What."},
        },
        "required": ["query"],
    },
}
FINISH = {
    "name": "finish",
    "description": "Ends.",
    "parameters": {
        "type": "object",
        "properties": {"answer": {"type": "string", "description": "The answer."}},
        "required": ["answer"],
    },
}
TOOLS = (Tool(**SEARCH), Tool(**FINISH))
STUBS = (
    'Function:\ndef search(query: string, limit: integer = None):\n    """\n    Finds advice.\n\n    Args:\n'
    '    query (string): What.\n    limit (integer): How many.\n    """\n\n'
    'Function:\ndef finish(answer: string):\n    """\n    Ends.\n\n    Args:\n    answer (string): The answer.\n    """'
)
RAW = {
    "id": "love",
    "scenario": "PL",
    "conversations": [
        {"role": "system", "content": json.dumps([{"type": "function", "function": SEARCH}, FINISH])},
        {"role": "user", "content": "Advice on love?"},
        {"role": "assistant", "content": 'search\n{"q": "love"}'},
        {"role": "function", "content": "search() got an unexpected keyword argument 'q'"},
        {"role": "assistant", "content": 'search\n{"query": "l\\u00f6ve", "limit": 2, "deep": [null, {"a": true}]}'},
        {"role": "function", "content": "Listen."},
        {"role": "assistant", "content": 'finish\n{"answer": "Listen \\"well\\"."}'},
    ],
}
LOVE = Trajectory(
    "love",
    TOOLS,
    (
        Message("user", "Advice on love?"),
        Message.calling(Call("search", {"q": "love"})),
        Message("tool", "search() got an unexpected keyword argument 'q'"),
        Message.calling(Call("search", {"query": "löve", "limit": 2, "deep": [None, {"a": True}]})),
        Message("tool", "Listen."),
        Message.calling(Call("finish", {"answer": 'Listen "well".'})),
    ),
    meta={"scenario": "PL"},
)


def changed(record, *path, to):
    """Return a deep copy of `record` in which the value at `path` is `to`."""
    copy = json.loads(json.dumps(record))
    place = copy
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return copy


def writer(folder):
    """Return a function that writes text or bytes to a file in `folder` and returns its path."""

    def write(content, name="data.json"):
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def lines(*items):
    return "\n".join(map(json.dumps, items)) + "\n"


def call(call_id, name, arguments):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Advice "}, {"type": "text", "text": "please"}]},
        {
            "role": "assistant",
            "content": "Two at once.",
            "tool_calls": [call("a", "search", '{"query": "love"}'), call("b", "search", {"query": "work"})],
        },
        {"role": "tool", "tool_call_id": "b", "content": "Rest."},
        {"role": "tool", "tool_call_id": "a", "content": "Listen."},
        {"role": "assistant", "content": "Listen, and rest."},
    ],
    "tools": [{"type": "function", "function": SEARCH}],
}
CHAT_READ = (
    Message("user", "Advice please"),
    Message.calling(Call("search", {"query": "love"}), Call("search", {"query": "work"}), text="Two at once."),
    Message("tool", "Listen."),
    Message("tool", "Rest."),
    Message("assistant", "Listen, and rest."),
)

TEXTS = [
    {"role": "system", "content": STUBS},
    {"role": "user", "content": "Advice on love?"},
    {"role": "assistant", "content": 'search(q="love")'},
    {"role": "function", "content": "search() got an unexpected keyword argument 'q'"},
    {"role": "assistant", "content": 'search(query="löve", limit=2, deep=[null, {"a": true}])'},
    {"role": "function", "content": "Listen."},
    {"role": "assistant", "content": 'finish(answer="Listen \\"well\\".")'},
]

SYSTEM = json.dumps([{"type": "function", "function": SEARCH}, {"type": "function", "function": FINISH}])
RAW_LOVE = {**RAW, "conversations": [{"role": "system", "content": SYSTEM}, *RAW["conversations"][1:]]}
RAW_WORK = {
    "id": "work",
    "conversations": [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "Advice on work?"},
        {"role": "assistant", "content": 'search\n{"query": "work"}'},
        {"role": "user", "content": "Wait: on rest."},
        {"role": "assistant", "content": 'search\n{"query": "rest"}'},
        {"role": "function", "content": '{"error": "quota exceeded"}'},
        {"role": "assistant", "content": 'search\n{"query": "sleep"}'},
        {"role": "function", "content": "Sleep is trial and error: rest well."},
        {"role": "assistant", "content": 'finish\n{"answer": "Rest."}'},
    ],
}
"""Four calls: one answered by a user, one with an error, one whose answer only mentions an error, and the last."""
WORK_TEXTS = [
    {"role": "system", "content": STUBS},
    {"role": "user", "content": "Advice on work?"},
    {"role": "assistant", "content": 'search(query="work")'},
    {"role": "user", "content": "Wait: on rest."},
    {"role": "assistant", "content": 'search(query="rest")'},
    {"role": "function", "content": '{"error": "quota exceeded"}'},
    {"role": "assistant", "content": 'search(query="sleep")'},
    {"role": "function", "content": "Sleep is trial and error: rest well."},
    {"role": "assistant", "content": 'finish(answer="Rest.")'},
]
