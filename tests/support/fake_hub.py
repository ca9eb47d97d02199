"""The part of a hub's HTTP API that a push needs, on the loopback interface, with a record of what it received."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_thisisthetokenofatest0123456789"


class Hub(ThreadingHTTPServer):
    """A hub with one user `me`, who may write unless `read_only`; then only the writing itself is refused.

    Attributes:
        private: repository -> whether it is private. files: path -> content after the last commit.
        user: what the hub says about the user and the token. removed: paths that the last commit removed.
        asked: method and path of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.private: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.removed: list[str] = []
        self.read_only = False
        self.user: dict[str, Any] = {"name": "me", "type": "user", "auth": {"accessToken": {"role": "write"}}}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self._begin()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._reply({"error": "Invalid credentials"}, 401)
        if path == "/api/whoami-v2":
            return self._reply(self.server.user)
        repo, _, tree = path.removeprefix("/api/models/").partition("/tree/")
        if tree:
            return self._reply([{"type": "file", "path": each, "size": 1, "oid": "0"} for each in self.server.files])
        if repo not in self.server.private:
            return self._reply({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        self._reply({"id": repo, "private": self.server.private[repo], "tags": [], "siblings": self._siblings()})

    def do_POST(self) -> None:
        path = self._begin()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.read_only:
            return self._reply({"error": "You have read access only"}, 403)
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given.get('organization') or 'me'}/{given['name']}"
            if name in self.server.private:
                return self._reply(
                    {"error": "You already created this model repo", "url": f"{self.server.url}/{name}"}, 409
                )
            self.server.private[name] = given.get("private", given.get("visibility") == "private")
            return self._reply({"url": f"{self.server.url}/{name}", "name": name})
        if path == "/api/validate-yaml":  # checks the model card
            return self._reply({"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return self._reply(
                {"files": [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in files]}
            )
        lines = [json.loads(line) for line in body.splitlines()]
        added = [line["value"] for line in lines if line["key"] == "file"]
        self.server.removed = [line["value"]["path"] for line in lines if line["key"] == "deletedFile"]
        for each in self.server.removed:
            del self.server.files[each]
        self.server.files |= {each["path"]: base64.b64decode(each["content"]) for each in added}
        repo = path.removeprefix("/api/models/").partition("/commit/")[0]
        self._reply({"commitUrl": f"{self.server.url}/{repo}/commit/1", "commitOid": "1", "success": True})

    def _siblings(self) -> list[dict[str, str]]:
        return [{"rfilename": each} for each in self.server.files]

    def _begin(self) -> str:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        return path

    def _reply(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def hub() -> Iterator[Hub]:
    """A running hub."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
