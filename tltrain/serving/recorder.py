"""`transformers serve` in a separate process, with a record of the token ids of every answer.

`server` starts it as `python -m tltrain.serving.recorder` and writes its settings to standard input. The process
listens only on the loopback interface, answers only requests with the secret, and ends when standard input does: when
the process that started it ends, for any reason.
"""

from __future__ import annotations

import hmac
import json
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from tltrain.runtime.place import LOOPBACK

PORT, ANSWERS = "port", "answers.jsonl"
"""Files of the process: its port, written once the model is loaded, and one line per answer."""


def main() -> None:
    """Serve the model given by the settings on standard input, until standard input ends."""
    settings = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_starter, daemon=True).start()
    place = Path(settings["place"])
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(64)
        record(place / ANSWERS)
        listen_only_at(listener, settings["secret"], place / PORT)
        from transformers.cli.transformers import app

        app(["serve", settings["folder"], *settings["options"]])


def end_with_starter() -> None:
    """End this process when standard input ends."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(0)


def record(file: Path) -> None:
    """Make the server write the ids of every prompt and its answer to `file`, before the answer is parsed.

    Raises:
        AttributeError: this version of transformers generates with another method.
    """
    from transformers.cli.serving.utils import GenerateManager

    generate = GenerateManager.generate_non_streaming

    async def recorded(
        manager: Any, model: Any, processor: Any, inputs: Any, gen_config: Any, request_id: str
    ) -> tuple[str, int, Any]:
        today = date.today().isoformat()  # the template has just been rendered
        text, length, ids = await generate(manager, model, processor, inputs, gen_config, request_id)
        found = {
            "request": request_id,
            "prompt": inputs["input_ids"][0].tolist(),
            "answer": ids.tolist(),
            "date": today,
        }
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(found) + "\n")
        return text, length, ids

    GenerateManager.generate_non_streaming = recorded


def listen_only_at(listener: socket.socket, secret: str, file: Path) -> None:
    """Make uvicorn serve on a socket that is already listening, and only requests with the secret.

    The port is written to `file` when the server is about to accept connections; by then the model is loaded.
    """
    import uvicorn

    run = uvicorn.Server.run

    def at_listener(server: Any, sockets: Any = None) -> None:
        server.config.app = guarded(server.config.app, secret)
        part = file.with_suffix(".part")
        part.write_text(str(listener.getsockname()[1]), encoding="ascii")
        part.rename(file)
        run(server, sockets=[listener])

    uvicorn.Server.run = at_listener  # type: ignore[method-assign, assignment]


def guarded(app: Any, secret: str) -> Callable[..., Awaitable[None]]:
    """Return an ASGI application that answers 401 to requests without the secret."""
    wanted = f"Bearer {secret}".encode()

    async def guard(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not hmac.compare_digest(
            dict(scope["headers"]).get(b"authorization", b""), wanted
        ):
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"no such key"})
            return
        await app(scope, receive, send)

    return guard


if __name__ == "__main__":
    main()
