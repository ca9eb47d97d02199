"""How services write their errors. Real ones differ, and a rule that finds errors has to cope with all of them."""

from __future__ import annotations

import json


def json_error(message: str) -> str:
    """`{"error": "..."}`: the commonest."""
    return json.dumps({"error": message}, ensure_ascii=False)


def json_status(message: str) -> str:
    """`{"status": 404, "message": "..."}`: an error that never says so."""
    return json.dumps({"status": 404, "message": message}, ensure_ascii=False)


def json_success_false(message: str) -> str:
    """`{"success": false, "reason": "..."}`."""
    return json.dumps({"success": False, "reason": message}, ensure_ascii=False)


def prefixed(message: str) -> str:
    """`Error: ...`."""
    return f"Error: {message}"


def invalid_call(message: str) -> str:
    """`Invalid API call: ...`."""
    return f"Invalid API call: {message}"


def value_error(message: str) -> str:
    """A Python exception as its `repr` would be logged."""
    return f"ValueError: {message}"


def traceback(message: str) -> str:
    """The head and the last line of a Python traceback."""
    return f"Traceback (most recent call last):\nLookupError: {message}"


def bare_exception(error: Exception) -> str:
    """What Python says, alone: `f() got an unexpected keyword argument 'x'`."""
    return str(error)


def named_exception(error: Exception) -> str:
    """What Python says under the exception's name: `TypeError: ...`."""
    return f"{type(error).__name__}: {error}"


def prefixed_exception(error: Exception) -> str:
    """What Python says after `Error: `."""
    return prefixed(str(error))


def json_exception(error: Exception) -> str:
    """What Python says as `{"error": "..."}`."""
    return json_error(str(error))


def traceback_exception(error: Exception) -> str:
    """The head and the last line of the exception's traceback."""
    return f"Traceback (most recent call last):\n{named_exception(error)}"


HOSTS = (bare_exception, named_exception, prefixed_exception, json_exception, traceback_exception)
"""How the program that runs the tools reports an exception; a conversation keeps to one of them."""
