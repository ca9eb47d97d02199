"""A server with OpenAI's API in this process, which misbehaves on request."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tltrain.config import Endpoint


@dataclass
class Reply:
    """The server's response to a request; by default `content`, as JSON or plain text."""

    content: Any = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0  # seconds
    cut: bool = False  # close the connection in the middle of the body
    raw: Iterable[bytes] | None = None  # sent instead of everything else, headers included, until the client is gone


@dataclass
class Asked:
    """A request as received: body, headers, and time of arrival in seconds."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    time: float


def completion(text: str, finish_reason: str | None = "stop") -> Reply:
    """Make a response of /completions."""
    return Reply({"choices": [{"index": 0, "text": text, "finish_reason": finish_reason}]})


def message(**fields: Any) -> Reply:
    """Make a response of /chat/completions."""
    return Reply({"choices": [{"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": "stop"}]})


class Server(ThreadingHTTPServer):
    """Replies with `reply(body, attempt)`; `attempt` counts the earlier requests with this body, from 0."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64  # connections that wait to be accepted

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply: Callable[[dict[str, Any], int], Reply] = lambda body, attempt: completion("")
        self.asked: list[Asked] = []
        self.attempts: Counter[str] = Counter()
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *args: Any) -> None:
        """Ignore clients that disconnect."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.asked.append(
                Asked(self.path, body, {name.lower(): value for name, value in self.headers.items()}, time.monotonic())
            )
            attempt = server.attempts[json.dumps(body)]
            server.attempts[json.dumps(body)] += 1
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        reply = server.reply(body, attempt)
        time.sleep(reply.after)
        with server.lock:
            server.under_way -= 1
        if reply.raw is not None:
            self.close_connection = True
            for chunk in reply.raw:
                self.wfile.write(chunk)
            return
        content = reply.content if isinstance(reply.content, str) else json.dumps(reply.content)
        data = content.encode()
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if reply.cut else data)
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        """Write nothing to the terminal."""


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server on a free port of this machine."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def endpoint_config(url: str, folder: Path, /, **source: Any) -> DictConfig:
    """Return the part of a configuration that `tltrain.sources` reads, for a server."""
    given = {"name": "endpoint", "url": url, "model": "served", "concurrency": 16, "retries": 1} | source
    return OmegaConf.create(
        {
            "format": {"name": "tl"},
            "source": OmegaConf.merge(OmegaConf.structured(Endpoint), given),
            "cache": {"dir": str(folder)},
            "stage": {"name": "eval", "max_new_tokens": 64},
            "benchmark": {"name": "toolworld"},
            "model": {"trust_remote_code": False, "bos": "auto"},
            "seed": 3,
        }
    )
