"""A stand-in for the Hugging Face Hub's server, which cannot be reached in tests: the part of its HTTP API that
huggingface_hub uses to read a model, over copies of folders, on loopback.

python -m tests.support.stand_ins.hub REPO FOLDER  serves one in a process of its own, until its standard input ends.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import secrets
import shutil
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict
from urllib.parse import parse_qsl, unquote, urlencode

from tests.support.proxy import CHUNK, Body, Mischief, Pace, gone_after

TOKEN = "hf_a-token-of-the-tests"
"""It may read everything."""
STRANGER = "hf_a-token-of-somebody-else"
"""It is valid, but may read neither what is private nor what is gated."""

LFS = {".safetensors", ".bin", ".h5", ".msgpack", ".onnx", ".pt", ".model"}
LARGE = 10_000_000

_REPO = r"([^/]+(?:/[^/]+)?)"
_API = re.compile(rf"/api/models/{_REPO}(?:/(revision|tree)/([^/]+)(?:/(.*))?)?")
_RESOLVE = re.compile(rf"/{_REPO}/resolve/([^/]+)/(.+)")


@dataclass(frozen=True)
class File:
    """A file of a commit. `oid` is git's, which is that of the pointer for a file in LFS."""

    name: str
    size: int
    sha256: str
    oid: str
    pointer: int | None
    content: Path

    def told(self, path: str, oid: str, sha256: str) -> dict[str, Any]:
        """What the API tells of it, with the names that one of its answers has for these."""
        told: dict[str, Any] = {path: self.name, "size": self.size, oid: self.oid}
        if self.pointer is not None:
            told["lfs"] = {sha256: self.sha256, "size": self.size, "pointerSize": self.pointer}
        return told


@dataclass(frozen=True)
class Commit:
    sha: str
    files: dict[str, File]
    license: str | None


class Model(TypedDict):
    """A repository. `commit` is the newest of its main branch."""

    commit: str
    private: bool
    gated: bool
    refs: dict[str, str]
    commits: dict[str, Commit]


@dataclass(frozen=True)
class Request:
    """What was asked of the "hub" or of the "cdn", as it came: the path is quoted, and without its query."""

    method: str
    path: str
    authorization: str | None
    range: str | None
    host: str


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, word: str | None, message: str, **headers: str) -> None:
        super().__init__(message)
        named = {"X_Error_Code": word, "X_Error_Message": message, **headers}
        self.code, self.headers = code, {name.replace("_", "-"): value for name, value in named.items() if value}


class Hub:
    """A stand-in for the Hub. What the real one enforces, so does this one:

    - a token that it does not know is refused everywhere; without one, what is not there is 401 and not 404, and a
      private repository is not there; of a gated one everybody can see the list of files, but not the files
    - the errors' X-Error-Code, by which the client tells them apart
    - revisions are branches, tags and whole commits, their slashes quoted; commits stay as they were added
    - large files are on another server, the CDN, which refuses tokens, and addresses that the Hub did not sign
    - X-Repo-Commit, ETag (git's digest; SHA-256 as X-Linked-Etag for large files), and ranges
    - the list of files comes in pages, of `page_size`

    `models` are what it has, by id. `asked` ("GET /path") and `requests` are what it and the CDN were asked. `sent` is
    how many bytes of files they gave to the network, and `sent_by` how many of each. `mischief` is what is to go wrong,
    first to last; what has happened is taken off. `pace` limits all bodies together. `links` are the signatures that
    the CDN takes: clear them, and they are expired.
    """

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.asked: list[str] = []
        self.requests: list[Request] = []
        self.sent = 0
        self.sent_by: Counter[str] = Counter()
        self.mischief: list[Mischief] = []
        self.page_size = 1000
        self.pace: Pace | None = None
        self.links: dict[str, File] = {}
        self.address = self.cdn = ""
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._store = Path(tempfile.mkdtemp(prefix="hub-"))

    def add(
        self,
        repo: str,
        folder: Path,
        *,
        private: bool = False,
        gated: bool = False,
        license: str | None = None,
        branch: str = "main",
        tag: str | None = None,
    ) -> str:
        """Publish a folder as it is now, as the newest of a branch; its commit."""
        found = (path for path in sorted(folder.rglob("*")) if path.is_file())
        files = [self._kept(path.relative_to(folder).as_posix(), path) for path in found]
        sha = _sha1("\n".join([repo, *(f"{file.sha256} {file.name}" for file in files)]).encode())
        model: Model = {"commit": sha, "private": private, "gated": gated, "refs": {}, "commits": {}}
        model = self.models.setdefault(repo, model)
        model["commits"][sha] = Commit(sha, {file.name: file for file in files}, license)
        model["refs"] |= {name: sha for name in (branch, tag) if name}
        model["commit"] = model["refs"].get("main", sha)
        model["private"], model["gated"] = private, gated
        return sha

    def _kept(self, name: str, path: Path) -> File:
        # A copy: a link would change with what is written into the file later.
        size, new = path.stat().st_size, self._store / f"new-{secrets.token_hex(8)}"
        sha256, oid = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        with path.open("rb") as source, new.open("wb") as target:
            while chunk := source.read(CHUNK):
                sha256.update(chunk)
                oid.update(chunk)
                target.write(chunk)
        digest = sha256.hexdigest()
        content = new.replace(self._store / digest)
        if Path(name).suffix not in LFS and size <= LARGE:
            return File(name, size, digest, oid.hexdigest(), None, content)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n".encode()
        return File(name, size, digest, _sha1(b"blob %d\0" % len(pointer) + pointer), len(pointer), content)

    def read(self, repo: str, revision: str, authorization: str | None, *, files: bool) -> tuple[Model, Commit]:
        """What a token may see of a repository at a revision; with `files`, their contents too."""
        if authorization not in (None, f"Bearer {TOKEN}", f"Bearer {STRANGER}"):
            raise Refused(401, None, "Invalid credentials in Authorization header")
        model, trusted = self.models.get(repo), authorization == f"Bearer {TOKEN}"
        if model is None or (model["private"] and not trusted):
            raise Refused(404 if authorization else 401, "RepoNotFound", "Repository not found")
        if files and model["gated"] and not trusted:
            raise Refused(403 if authorization else 401, "GatedRepo", f"Access to model {repo} is restricted.")
        commit = model["commits"].get(model["refs"].get(revision, revision))
        if commit is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return model, commit

    def sign(self, file: File) -> str:
        """The address of a file on the CDN."""
        signature = secrets.token_hex(16)
        self.links[signature] = file
        return f"{self.cdn}/lfs/{file.sha256}?signature={signature}"

    def note(self, request: Request) -> None:
        with self._lock:
            self.asked.append(f"{request.method} {request.path}")
            self.requests.append(request)

    def count(self, name: str, size: int) -> None:
        with self._lock:
            self.sent += size
            self.sent_by[name] += size

    def goes_wrong(self, request: Request, name: str, *, of_the_body: bool) -> Mischief | None:
        """The first rule for a request, which has then happened once more."""
        with self._lock:
            for place, rule in enumerate(self.mischief):
                if rule.of_the_body == of_the_body and rule.meets(request.host, request.method, name, request.path):
                    self.mischief[place : place + 1] = [replace(rule, times=rule.times - 1)] if rule.times > 1 else []
                    return rule
        return None

    def close(self) -> None:
        shutil.rmtree(self._store)


@contextmanager
def running() -> Iterator[Hub]:
    """A Hub and its CDN on free loopback ports, stopped at the end."""
    hub = Hub()
    servers = [_Server(hub, host) for host in ("hub", "cdn")]
    hub.address, hub.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.stopped.set()
        for server in servers:
            server.stop()
        hub.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, hub: Hub, host: str) -> None:
        self.hub, self.host = hub, host
        self.connections: set[Any] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # That a client goes away is what many a test is about.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        self.shutdown()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.hub, (path, _, query) = self.server.hub, self.path.partition("?")
        self.query = dict(parse_qsl(query))
        token, part = self.headers.get("Authorization"), self.headers.get("Range")
        self.request_line = Request(self.command, path, token, part, self.server.host)
        self.hub.note(self.request_line)
        try:
            if not self._went_wrong(path):
                self._cdn(path) if self.server.host == "cdn" else self._hub(path)
        except Refused as refused:
            self._answer(refused.code, {"error": str(refused)}, refused.headers)

    do_HEAD = do_GET

    def _went_wrong(self, path: str) -> bool:
        """What mischief does before an answer; whether it was the answer."""
        resolve, link = _RESOLVE.fullmatch(path), self.hub.links.get(self.query.get("signature", ""))
        name = unquote(resolve[3]) if resolve else link.name if link else ""
        rule = self.hub.goes_wrong(self.request_line, name, of_the_body=False)
        if rule is None:
            return False
        if rule.kind == "status":
            wait = {} if rule.retry_after is None else {"Retry_After": str(rule.retry_after)}
            raise Refused(rule.code, None, "Mischief", **wait)
        if rule.kind == "redirect":
            self._head(302, {"Location": rule.location, "Content-Length": "0"})
            return True
        if rule.kind == "move":
            rule.action()
            return False
        self.close_connection = gone_after(self.connection, rule.seconds, self.hub.stopped)
        return self.close_connection

    def _hub(self, path: str) -> None:
        if match := _RESOLVE.fullmatch(path):
            return self._resolve(match[1], unquote(match[2]), unquote(match[3]))
        if match := _API.fullmatch(path):
            revision = unquote(match[3] or "main")
            model, commit = self.hub.read(match[1], revision, self.request_line.authorization, files=False)
            if match[2] == "tree":
                return self._tree(commit, unquote(match[4] or "").strip("/"))
            if not match[4]:
                return self._info(match[1], model, commit)
        raise Refused(404, None, "Not found")

    def _info(self, repo: str, model: Model, commit: Commit) -> None:
        blobs = self.query.get("blobs", "").lower() == "true"
        license, files = commit.license, commit.files.values()
        siblings = [file.told("rfilename", "blobId", "sha256") if blobs else {"rfilename": file.name} for file in files]
        about = {"id": repo, "modelId": repo, "sha": commit.sha, "private": model["private"], "disabled": False}
        about |= {"gated": "manual" if model["gated"] else False, "tags": [f"license:{license}"] if license else []}
        about |= {"cardData": {"license": license}} if license else {}
        self._answer(200, about | {"siblings": siblings})

    def _tree(self, commit: Commit, folder: str) -> None:
        recursive = self.query.get("recursive", "").lower() == "true"
        entries = _entries(commit)
        if folder and entries.get(folder, {}).get("type") != "directory":
            raise Refused(404, "EntryNotFound", f"{folder} does not exist", X_Repo_Commit=commit.sha)
        prefix = f"{folder}/" if folder else ""
        below = [path for path in sorted(entries) if path.startswith(prefix)]
        below = [path for path in below if recursive or "/" not in path[len(prefix) :]]
        start = int(self.query.get("cursor", "0"))
        stop = start + self.hub.page_size
        more = f"{self.hub.address}{self.request_line.path}?{urlencode(self.query | {'cursor': str(stop)})}"
        headers = {"Link": f'<{more}>; rel="next"'} if stop < len(below) else {}
        self._answer(200, [entries[path] for path in below[start:stop]], headers)

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        _, commit = self.hub.read(repo, revision, self.request_line.authorization, files=True)
        file = commit.files.get(name)
        if file is None:
            raise Refused(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit.sha)
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        if file.pointer is None:
            return self._file(file, headers | {"ETag": f'"{file.oid}"'})
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        self._head(302, headers | {"Location": self.hub.sign(file), "Content-Length": "0"})

    def _cdn(self, path: str) -> None:
        if self.request_line.authorization:
            raise Refused(400, None, "Only one auth mechanism allowed")
        file = self.hub.links.get(self.query.get("signature", ""))
        if file is None or path != f"/lfs/{file.sha256}":
            raise Refused(403, None, "Access Denied")
        self._file(file, {"ETag": f'"{file.sha256}"', "Accept-Ranges": "bytes"})

    def _file(self, file: File, headers: dict[str, str]) -> None:
        read = self.command == "GET"
        rule = self.hub.goes_wrong(self.request_line, file.name, of_the_body=True) if read else None
        kind = rule.kind if rule else ""
        if kind == "gzip" and "gzip" in self.headers.get("Accept-Encoding", ""):
            return self._compressed(file, headers)
        part = None if kind == "no-range" else _part(self.request_line.range, file.size)
        start, stop = part or (0, file.size)
        if rule and kind == "truncate":
            stop = min(stop, start + rule.keep)
        if part:
            headers |= {"Content-Range": f"bytes {start}-{stop - 1}/{file.size}"}
        self._head(206 if part else 200, headers | {"Content-Length": str(stop - start)})
        if read:
            with file.content.open("rb") as content:
                count = partial(self.hub.count, file.name)
                body = Body(self.connection, content.fileno(), count, self.hub.stopped, self.hub.pace)
                self.close_connection |= not body.send(start, stop, rule)

    def _compressed(self, file: File, headers: dict[str, str]) -> None:
        data = gzip.compress(file.content.read_bytes())
        headers = {name: value for name, value in headers.items() if name != "Accept-Ranges"}
        self._head(200, headers | {"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"})
        self.hub.count(file.name, len(data))
        self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))

    def _answer(self, code: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        fixed = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        self._head(code, (headers or {}) | fixed)
        if self.command == "GET":
            self.wfile.write(data)

    def _head(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _entries(commit: Commit) -> dict[str, dict[str, Any]]:
    """A commit's files and folders by path, as the tree's pages tell them."""
    entries: dict[str, dict[str, Any]] = {}
    for file in commit.files.values():
        entries[file.name] = {"type": "file"} | file.told("path", "oid", "oid")
        for folder in map(str, PurePosixPath(file.name).parents[:-1]):
            oid = _sha1(f"{commit.sha} {folder}".encode())
            entries[folder] = {"type": "directory", "path": folder, "size": 0, "oid": oid}
    return entries


def _part(header: str | None, size: int) -> tuple[int, int] | None:
    """Where the asked part of a file begins and ends; None for the whole."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if not match or not any(match.groups()):
        return None
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        raise Refused(416, None, "Range not satisfiable", Content_Range=f"bytes */{size}")
    return start, stop


def main() -> None:
    """Serve one folder until the standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.stand_ins.hub", description=main.__doc__)
    parser.add_argument("repo")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float, help="bytes a second, of all connections together")
    parser.add_argument("--print-sent", action="store_true", help="print how many bytes of files were sent, at the end")
    given = parser.parse_args()
    with running() as hub:
        hub.pace = Pace(given.rate, hub.stopped) if given.rate else None
        print(json.dumps({"address": hub.address, "commit": hub.add(given.repo, given.folder)}), flush=True)
        sys.stdin.buffer.read()
        if given.print_sent:
            print(json.dumps({"sent": hub.sent}), flush=True)


if __name__ == "__main__":
    main()
