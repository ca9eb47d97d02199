"""The error formats of services. Real services differ, and a rule that detects errors must handle all of them."""

from __future__ import annotations

import json


def json_error(message: str) -> str:
    """Format as `{"error": "..."}`, the most common form."""
    return json.dumps({"error": message}, ensure_ascii=False)


def json_status(message: str) -> str:
    """Format as `{"status": 404, "message": "..."}`, without the word error."""
    return json.dumps({"status": 404, "message": message}, ensure_ascii=False)


def json_success_false(message: str) -> str:
    """Format as `{"success": false, "reason": "..."}`."""
    return json.dumps({"success": False, "reason": message}, ensure_ascii=False)


def prefixed(message: str) -> str:
    """Format as `Error: ...`."""
    return f"Error: {message}"


def invalid_call(message: str) -> str:
    """Format as `Invalid API call: ...`."""
    return f"Invalid API call: {message}"


def value_error(message: str) -> str:
    """Format as the last line of a Python exception, `ValueError: ...`."""
    return f"ValueError: {message}"


def traceback(message: str) -> str:
    """Format as the first and the last line of a Python traceback."""
    return f"Traceback (most recent call last):\nLookupError: {message}"


def bare_exception(error: Exception) -> str:
    """Return the message alone, such as `f() got an unexpected keyword argument 'x'`."""
    return str(error)


def named_exception(error: Exception) -> str:
    """Return the exception's name and message: `TypeError: ...`."""
    return f"{type(error).__name__}: {error}"


def prefixed_exception(error: Exception) -> str:
    """Return the message after `Error: `."""
    return prefixed(str(error))


def json_exception(error: Exception) -> str:
    """Return the message as `{"error": "..."}`."""
    return json_error(str(error))


def traceback_exception(error: Exception) -> str:
    """Return the first and the last line of the exception's traceback."""
    return f"Traceback (most recent call last):\n{named_exception(error)}"


HOSTS = (bare_exception, named_exception, prefixed_exception, json_exception, traceback_exception)
"""The ways in which the program that runs the tools reports an exception; each conversation uses one of them."""
