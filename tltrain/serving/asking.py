"""Ask a served model through the OpenAI client."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tltrain.runtime import json_files
from tltrain.serving.comparison import Reply
from tltrain.serving.prompts import Asked
from tltrain.serving.server import Server
from tltrain.trajectory import Call

if TYPE_CHECKING:
    from openai import OpenAI

LONGEST_ERROR = 300


class OutOfTimeError(Exception):
    """The time for all questions has run out."""


class Client:
    """The client of one server and model.

    Args:
        folder: the model's folder, which is its name on the server.
        deadline: on the monotonic clock, for all requests.
    """

    def __init__(self, client: OpenAI, folder: Path, deadline: float) -> None:
        self.client, self.model, self.deadline = client, str(folder.resolve()), deadline

    def chat(self, id: str, one: Asked, limit: int, options: Mapping[str, Any]) -> Reply:
        """Ask with messages and tools; `options` are variables of the chat template."""
        more: dict[str, Any] = {"chat_template_kwargs": dict(options)} if options else {}
        with_tools: dict[str, Any] = {"tools": list(one.tools)} if one.tools else {}
        return self._asked(
            lambda timeout: _of_chat(
                self.client.chat.completions.create(
                    model=self.model,
                    messages=api_messages(one.messages),
                    max_completion_tokens=limit,
                    temperature=0.0,
                    timeout=timeout,
                    extra_headers={"x-request-id": id},
                    extra_body=more or None,
                    **with_tools,
                )
            )
        )

    def text(self, id: str, prompt: str, limit: int, stop: Sequence[str]) -> Reply:
        """Ask with the prompt's text."""
        return self._asked(
            lambda timeout: Reply(
                self.client.completions.create(
                    model=self.model,
                    prompt=prompt,
                    max_tokens=limit,
                    temperature=0.0,
                    stop=list(stop),
                    timeout=timeout,
                    extra_headers={"x-request-id": id},
                )
                .choices[0]
                .text
            )
        )

    def _asked(self, ask: Any) -> Reply:
        import openai

        if (rest := self.deadline - time.monotonic()) <= 0:
            raise OutOfTimeError
        try:
            return ask(rest)
        except openai.APITimeoutError:
            raise OutOfTimeError from None
        except openai.APIStatusError as error:  # including that of a parser that fails on an answer
            said = " ".join(error.response.text.split())[:LONGEST_ERROR]
            return Reply(error=f"HTTP {error.status_code}: {said}")
        except openai.APIConnectionError as error:
            return Reply(error=f"the connection was lost: {error.__cause__ or error}"[:LONGEST_ERROR])


@contextmanager
def client_of(server: Server, folder: Path, deadline: float) -> Iterator[Client]:
    """Return the client of a server on this machine, which ignores proxies in the environment."""
    import openai

    for library in ("httpx", "httpx2"):  # they log a line for each request
        logging.getLogger(library).setLevel(logging.WARNING)
    with (
        openai.DefaultHttpxClient(trust_env=False) as http,
        openai.OpenAI(base_url=server.url, api_key=server.secret, max_retries=0, http_client=http) as client,
    ):
        yield Client(client, folder, deadline)


def api_messages(messages: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Convert a chat template's messages for an API: arguments as JSON text, no name beside a tool's answer."""
    written = []
    for message in messages:
        one = copy.deepcopy({name: value for name, value in message.items() if name != "name"})
        for made in one.get("tool_calls", ()):
            made["function"]["arguments"] = json.dumps(made["function"]["arguments"], ensure_ascii=False)
        written.append(one)
    return written


def as_served(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages that `transformers serve` gives a chat template: without thoughts and words beside calls."""
    from transformers.cli.serving.utils import BaseHandler, Modality

    return BaseHandler.get_processor_inputs_from_messages(api_messages(messages), Modality.LLM)


def _of_chat(completion: Any) -> Reply:
    message = completion.choices[0].message
    calls = []
    for made in message.tool_calls or ():
        try:
            arguments = json_files.parse(made.function.arguments or "{}")
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            return Reply(error=f"the arguments of {made.function.name} are not a JSON object")
        calls.append(Call(made.function.name, arguments))
    return Reply(message.content or "", tuple(calls))
