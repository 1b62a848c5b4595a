"""A stand-in for the Hugging Face Hub's server, which cannot be reached in tests: the part of its HTTP API that
huggingface_hub uses to read a model, over a folder of files, on loopback.

It enforces what the real one does: a commit for each revision, 404 with X-Error-Code for what is not there, 401 for
private repositories without the right token, 403 for gated ones, ETag, X-Repo-Commit and Range on files.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "hf_a-token-of-the-tests"


class Hub:
    """What the server knows: `models` by id, each with its files' folder, commit and access; and what it was asked."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.address = ""

    def add(self, repo: str, folder: Path, *, private: bool = False, gated: bool = False) -> str:
        """Publish a folder; its commit."""
        commit = hashlib.sha1(repo.encode(), usedforsecurity=False).hexdigest()
        self.models[repo] = {"folder": folder, "commit": commit, "private": private, "gated": gated}
        return commit


@contextmanager
def running() -> Iterator[Hub]:
    """A server on a free loopback port, stopped at the end."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._serve(body=False)

        def do_GET(self) -> None:
            self._serve(body=True)

        def _serve(self, body: bool) -> None:
            path = self.path.split("?")[0]
            hub.asked.append(f"{self.command} {path}")
            if match := re.fullmatch(r"/api/models/(.+?)/revision/([^/]+)", path):
                return self._info(match[1], match[2])
            if match := re.fullmatch(r"/api/models/(.+?)/tree/([^/]+)/?", path):
                return self._tree(match[1], match[2])
            if match := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
                return self._file(match[1], match[2], match[3], body)
            return self._error(404, "EntryNotFound")

        def _model(self, repo: str, revision: str) -> dict[str, Any] | None:
            model = hub.models.get(repo)
            allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            if model is None or (model["private"] and not allowed):
                # The real one does not tell a private repository from none.
                return self._error(401 if not allowed else 404, "RepoNotFound")
            if model["gated"] and not allowed:
                return self._error(403, "GatedRepo")
            if revision not in ("main", model["commit"]):
                return self._error(404, "RevisionNotFound")
            return model

        def _files(self, model: dict[str, Any]) -> list[Path]:
            return sorted(file for file in model["folder"].rglob("*") if file.is_file())

        def _info(self, repo: str, revision: str) -> None:
            if model := self._model(repo, revision):
                names = [
                    {"rfilename": f.relative_to(model["folder"]).as_posix(), "size": f.stat().st_size}
                    for f in self._files(model)
                ]
                self._json({"id": repo, "modelId": repo, "sha": model["commit"], "siblings": names, "tags": []})

        def _tree(self, repo: str, revision: str) -> None:
            if model := self._model(repo, revision):
                self._json(
                    [
                        {
                            "type": "file",
                            "path": f.relative_to(model["folder"]).as_posix(),
                            "size": f.stat().st_size,
                            "oid": hashlib.sha1(f.read_bytes(), usedforsecurity=False).hexdigest(),
                        }
                        for f in self._files(model)
                    ]
                )

        def _file(self, repo: str, revision: str, name: str, body: bool) -> None:
            model = self._model(repo, revision)
            if not model:
                return
            file = model["folder"] / name
            if not file.is_file():
                return self._error(404, "EntryNotFound")
            data = file.read_bytes()
            start = 0
            if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
                start = int(match[1])
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", model["commit"])
            self.send_header("Accept-Ranges", "bytes")
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            if body:
                self.wfile.write(data[start:])

        def _json(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _error(self, code: int, word: str) -> None:
            self.send_response(code)
            self.send_header("X-Error-Code", word)
            self.send_header("X-Error-Message", word)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler
