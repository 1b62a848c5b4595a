"""A stand-in for MLflow's tracking server, which the client alone does not bring: what its REST API tells of one
registered model, over a folder, on loopback."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

USER, PASSWORD = "builder", "a-password-of-the-tests"
_API, _ARTIFACTS = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts/artifacts"


class Server:
    """`versions` are where the versions of the model `tiny` lie, by number, and `aliases` their numbers. Artifacts are
    those of `folder`; `ranges` is whether it goes on with what broke off, `elsewhere` an address that it sends those to
    who ask for a file, and `asked` the Authorization of every request that came, with its path."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ranges = folder, True
        self.versions: dict[str, str] = {}
        self.aliases: dict[str, str] = {}
        self.address = self.elsewhere = ""
        self.asked: list[tuple[str, str | None]] = []

    def answer(self, path: str, query: dict[str, str]) -> dict[str, Any] | Path | None:
        if path == f"{_API}/registered-models/get":
            return {"registered_model": {"name": "tiny"}} if query["name"] == "tiny" else None
        if path == f"{_API}/registered-models/alias":
            version = self.aliases.get(query["alias"])
            return {"model_version": {"name": "tiny", "version": version}} if version else None
        if path == f"{_API}/model-versions/get-download-uri":
            place = self.versions.get(query["version"]) if query["name"] == "tiny" else None
            return {"artifact_uri": place} if place else None
        if path == _ARTIFACTS:
            home = self.folder / query.get("path", "")
            files = sorted(home.iterdir())
            told = [{"path": one.name, "is_dir": one.is_dir(), "file_size": one.stat().st_size} for one in files]
            return {"files": told}
        if path.startswith(f"{_ARTIFACTS}/"):
            return self.folder / path.removeprefix(f"{_ARTIFACTS}/")
        return None


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    server = Server(folder)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(address.query).items()}
            server.asked.append((address.path, self.headers.get("Authorization")))
            expected = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
            if self.headers.get("Authorization") != expected:
                self._send(401, b"You are not authenticated.")
                return
            found = server.answer(unquote(address.path), query)
            if isinstance(found, Path) and server.elsewhere:
                self.send_response(302)
                self.send_header("Location", server.elsewhere)
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif isinstance(found, Path):
                self._file(found.read_bytes())
            elif found is None:
                told = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"not found: {self.path}"}
                self._send(404, json.dumps(told).encode())
            else:
                self._send(200, json.dumps(found).encode())

        def _file(self, data: bytes) -> None:
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            if wanted and server.ranges:
                start = int(wanted[1])
                self._send(206, data[start:], f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self._send(200, data)

        def _send(self, code: int, data: bytes, part: str | None = None) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            if part:
                self.send_header("Content-Range", part)
            self.end_headers()
            self.wfile.write(data)

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.address = f"http://127.0.0.1:{listener.server_address[1]}"
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
