"""llama.cpp's own server, from the package `xllamacpp`, in a separate process, and its client.

`server.serving` starts it as `python -m tltrain.serving.llama_cpp`. The process listens only on the loopback interface,
answers only requests with the secret, and ends when its standard input does. It does not import torch.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tltrain.errors import TltrainError, shorten
from tltrain.runtime.place import LOOPBACK
from tltrain.serving.recorder import PORT, end_with_starter
from tltrain.serving.server import Program, Server

PACKAGE = "xllamacpp"
INSTALL = "pip install 'tltrain[gguf]'"
WHY_MISSING = f"the package {PACKAGE}, which ships llama.cpp, is not installed: {INSTALL}"
PROGRAM = Program("llama.cpp", "tltrain.serving.llama_cpp")


def missing() -> bool:
    """Return whether the package that ships llama.cpp is missing."""
    return find_spec(PACKAGE) is None


def version() -> str:
    """Return the name and version of the package that ships llama.cpp."""
    return f"{PACKAGE} {metadata.version(PACKAGE)}"


def options(context: int, threads: int | None = None) -> list[str]:
    """Return the options of the served process, for `server.serving`.

    Args:
        context: maximum number of tokens of a prompt and its answer. threads: CPU threads; None: llama.cpp decides.
    """
    return [str(context), str(threads or 0)]


def main() -> None:
    """Serve the model given by the settings on standard input, until standard input ends."""
    settings = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_starter, daemon=True).start()
    import xllamacpp

    context, threads = map(int, settings["options"])
    given = xllamacpp.CommonParams()
    given.model.path = settings["folder"]
    given.hostnames, given.port, given.api_keys = [LOOPBACK], 0, [settings["secret"]]
    given.n_ctx, given.n_parallel, given.use_jinja = context, 1, True
    if threads:
        given.cpuparams.n_threads = given.cpuparams_batch.n_threads = threads
    place = Path(settings["place"])
    try:
        running = xllamacpp.Server(given)
    except RuntimeError as error:  # which does not say why
        raise SystemExit(first_error((place / "log").read_text(encoding="utf-8", errors="replace")) or error) from error
    file = place / PORT
    part = file.with_suffix(".part")
    part.write_text(running.listening_address.rpartition(":")[2], encoding="ascii")
    part.rename(file)
    threading.Event().wait()


def first_error(log: str) -> str | None:
    """Return the first error in a log of llama.cpp, whose lines are `time level text` with E for an error."""
    found = re.search(r"^[\d.]+ E (.+)$", log, re.MULTILINE)
    return found and " ".join(found[1].split())


class Client:
    """Requests to llama.cpp's server.

    Args:
        deadline: on the monotonic clock, for all requests.
    """

    def __init__(self, server: Server, deadline: float) -> None:
        self.url, self.secret, self.deadline = server.url.removesuffix("/v1"), server.secret, deadline
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # ignores proxies in the environment

    def tokens(self, text: str) -> list[int]:
        """Return the server's ids for a prompt: special tokens are recognised, and the file decides about BOS."""
        found = self._asked("/tokenize", {"content": text, "add_special": True, "parse_special": True})
        return list(found["tokens"])

    def rendered(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], options: Mapping[str, Any]) -> str:
        """Return the prompt's text, rendered by the file's chat template; `options` are the template's variables."""
        from tltrain.serving.asking import api_messages  # not at the top: the served process needs none of its imports

        body: dict[str, Any] = {"messages": api_messages(messages)}
        body |= {"tools": list(tools)} if tools else {}
        body |= {"chat_template_kwargs": dict(options)} if options else {}
        return str(self._asked("/apply-template", body)["prompt"])

    def answer(self, prompt: Sequence[int], limit: int, stop: Sequence[str] = ()) -> list[int]:
        """Return the greedy answer to a prompt's ids, at most `limit` tokens, without the end token.

        Args:
            stop: texts that also end the answer.
        """
        body: dict[str, Any] = {"prompt": list(prompt), "n_predict": limit, "stop": list(stop)}
        body |= {"temperature": 0.0, "samplers": ["temperature"]}
        return list(self._asked("/completion", {**body, "return_tokens": True, "cache_prompt": True})["tokens"])

    def _asked(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if (rest := self.deadline - time.monotonic()) <= 0:
            raise TimeoutError
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.secret}"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        try:
            with self.opener.open(request, timeout=rest) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace")
            raise TltrainError(f"llama.cpp, {path}: HTTP {error.code}: {shorten(said, 300)}") from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise TimeoutError from error
            raise TltrainError(f"llama.cpp, {path}: the connection was lost: {error.reason}") from error


if __name__ == "__main__":
    main()
