"""One conversation as written in each conversation format, by the name of its `data` choice."""

from __future__ import annotations

import json
from typing import Any

from tests.support.reader_samples import FINISH, SEARCH, call

TOOLS = [SEARCH, FINISH]
"""The tools of every sample."""
FUNCTIONS = [{"type": "function", "function": tool} for tool in TOOLS]
ARGUMENTS = {"query": "love", "limit": 2}
SEARCHING = {"name": "search", "arguments": ARGUMENTS}
QUERY, ANSWER, LAST = "Advice on love?", '["Listen."]', "Listen to each other."
ACTION = f"Thought: I look.\nAction: search\nAction Input: {json.dumps(ARGUMENTS)}"

SAMPLES: dict[str, dict[str, Any]] = {
    "openai": {
        "messages": [
            {"role": "user", "content": QUERY},
            {"role": "assistant", "content": None, "tool_calls": [call("1", "search", json.dumps(ARGUMENTS))]},
            {"role": "tool", "tool_call_id": "1", "content": ANSWER},
            {"role": "assistant", "content": LAST},
        ],
        "tools": FUNCTIONS,
    },
    "sharegpt": {
        "conversations": [
            {"from": "human", "value": QUERY},
            {"from": "function_call", "value": json.dumps(SEARCHING)},
            {"from": "observation", "value": ANSWER},
            {"from": "gpt", "value": LAST},
        ],
        "tools": json.dumps(TOOLS),
    },
    "xlam": {
        "query": QUERY,
        "tools": json.dumps([{**tool, "parameters": tool["parameters"]["properties"]} for tool in TOOLS]),
        "answers": json.dumps([SEARCHING]),
    },
    "toolace": {
        "system": "You are an expert. Here is a list of functions in JSON format that you can invoke:\n"
        + json.dumps(TOOLS)
        + ". Put it in the format of [func1(params_name=params_value, ...), func2(params)]",
        "conversations": [
            {"from": "user", "value": QUERY},
            {"from": "assistant", "value": '[search(query="love", limit=2)]'},
            {"from": "tool", "value": json.dumps([{"name": "search", "results": ["Listen."]}])},
            {"from": "assistant", "value": LAST},
        ],
    },
    "glaive": {
        "system": "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n"
        + "\n\n".join(json.dumps(tool, indent=4) for tool in TOOLS),
        "chat": f"USER: {QUERY}\n\n\nASSISTANT: <functioncall> "
        + '{"name": "search", "arguments": '
        + f"'{json.dumps(ARGUMENTS)}'}} <|endoftext|>\n\n\n"
        + f"FUNCTION RESPONSE: {ANSWER}\n\n\nASSISTANT: {LAST} <|endoftext|>\n",
    },
    "toolbench": {
        "id": "Step 2: love",
        "conversations": [
            {
                "from": "system",
                "value": "You are AutoGPT, you can use many tools.\nTask description: You should use functions. "
                f"Specifically, you have access to the following APIs: {TOOLS!r}",
            },
            {"from": "user", "value": f"\n{QUERY}\nBegin!\n"},
            {"from": "assistant", "value": f"\n{ACTION}"},
            {"from": "function", "value": ANSWER},
            {"from": "assistant", "value": LAST},
        ],
    },
    "anthropic": {
        "messages": [
            {"role": "user", "content": QUERY},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "search", "input": ARGUMENTS}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": ANSWER}]},
            {"role": "assistant", "content": [{"type": "text", "text": LAST}]},
        ],
        "tools": [
            {"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]}
            for tool in TOOLS
        ],
    },
    "responses": {
        "input": [
            {"role": "user", "content": QUERY},
            {"type": "function_call", "call_id": "1", "name": "search", "arguments": json.dumps(ARGUMENTS)},
            {"type": "function_call_output", "call_id": "1", "output": ANSWER},
        ],
        "output": [
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": LAST, "annotations": []}],
            }
        ],
        "tools": [{"type": "function", **tool, "strict": False} for tool in TOOLS],
    },
    "adp": {
        "id": "love",
        "content": [
            {"class_": "text_observation", "content": QUERY, "source": "user"},
            {"class_": "api_action", "function": "search", "kwargs": ARGUMENTS, "description": ""},
            {"class_": "text_observation", "content": ANSWER, "source": "environment"},
            {"class_": "message_action", "content": LAST},
        ],
        "available_apis": FUNCTIONS,
        "details": {},
    },
    "prompt_completion": {
        "prompt": [{"role": "user", "content": QUERY}],
        "completion": [
            {"role": "assistant", "content": None, "tool_calls": [call("1", "search", json.dumps(ARGUMENTS))]},
            {"role": "tool", "tool_call_id": "1", "content": ANSWER},
            {"role": "assistant", "content": LAST},
        ],
        "tools": FUNCTIONS,
    },
    "gemini": {
        "contents": [
            {"role": "user", "parts": [{"text": QUERY}]},
            {"role": "model", "parts": [{"functionCall": {"name": "search", "args": ARGUMENTS}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "search", "response": {"output": ANSWER}}}]},
            {"role": "model", "parts": [{"text": LAST}]},
        ],
        "tools": [{"functionDeclarations": TOOLS}],
    },
    "langchain": {
        "messages": [
            {"type": "human", "content": QUERY},
            {"type": "ai", "content": "", "tool_calls": [{"name": "search", "args": ARGUMENTS, "id": "1"}]},
            {"type": "tool", "content": ANSWER, "tool_call_id": "1", "name": "search", "status": "success"},
            {"type": "ai", "content": LAST, "tool_calls": [], "response_metadata": {"model": "x"}},
        ],
        "tools": FUNCTIONS,
    },
    "preference": {
        "prompt": [{"role": "user", "content": QUERY}],
        "chosen": [
            {"role": "assistant", "content": None, "tool_calls": [call("1", "search", json.dumps(ARGUMENTS))]},
            {"role": "tool", "tool_call_id": "1", "content": ANSWER},
            {"role": "assistant", "content": LAST},
        ],
        "rejected": [{"role": "assistant", "content": "No."}],
        "tools": FUNCTIONS,
    },
    "api_log": {
        "request": {
            "model": "x",
            "messages": [{"role": "user", "content": QUERY}],
            "tools": FUNCTIONS,
        },
        "response": {
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [call("1", "search", json.dumps(ARGUMENTS))],
                    },
                }
            ]
        },
    },
}
