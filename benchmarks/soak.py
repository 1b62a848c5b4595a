"""A TorchServe under mixed good, bad and hostile requests for minutes: wrong answers, lost workers, memory (Linux).

    python -m benchmarks.soak ARCHIVE.mar... [--minutes 10] [--clients 32] [--seed 1]

Every client sends one request at a time. Good ones are compared with the answer to the same request alone, before the
soak. Bad ones are at fault, and have to get a 4xx. Hostile ones misuse the connection: they leave in the middle of a
request or of a stream, send slowly, or have no token. The exit code is 1 if an answer was wrong, a bad request got a
5xx, or a worker was lost.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import socket
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mar_pipeline.answers.compare import differences
from mar_pipeline.serving.server import Server
from mar_pipeline.serving.smoke import tolerance_of

from . import growth
from .load import percentile
from .memory import memory, workers
from .serve import serving

_GOOD = 24
"""Different good requests of an archive."""
_SHARES = {"good": 0.7, "bad": 0.2, "hostile": 0.1}
_BUSY = 503
_JSON = "application/json"
_FIELDS = {
    "seq_classification": ("text",),
    "token_classification": ("text",),
    "question_answering": ("question", "context"),
    "text_generation": ("prompt",),
}
_WRONG: tuple[Any, ...] = (None, True, 0, 10**40, "", " \n", [], {}, [None], "a" * 200_001, "\ud800")
_BROKEN: tuple[tuple[str | None, bytes], ...] = (
    (_JSON, b'{"text": '),
    (_JSON, b"null"),
    (_JSON, b"[" * 50_000),
    (_JSON, b'{"a":' * 5_000),
    (_JSON, b'"\xff\xfe"'),
    (_JSON, b'{"instances": [{"nothing": 1}]}'),
    (_JSON, b'{"inputs": [{"name": "text", "shape": [9], "datatype": "BYTES", "data": ["a"]}]}'),
    (_JSON, gzip.compress(b"a" * 1_000_000)),
    (_JSON, b"[" + b'"a",' * 299 + b'"a"]'),
    (None, b"\xff\xfe\x00"),
    (None, b""),
    ("text/plain", b"\xc3\x28"),
    ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'),
)


@dataclass
class Found:
    """What a soak saw: HTTP statuses by kind of request (0: none, the connection was closed), `faults` in words, the
    seconds of good answers, and MB of each process after each part of the time."""

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: {kind: Counter() for kind in _SHARES})
    faults: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    sizes: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Model:
    name: str
    task: str
    tolerance: float
    good: list[Any]
    expected: list[Any]


class Soak:
    """A soak of the archives that `server` has."""

    def __init__(self, server: Server, archives: Sequence[Path], seed: int) -> None:
        self.server, self.found, self.seed = server, Found(), seed
        self._lock = threading.Lock()
        self._models = [self._model(archive) for archive in archives]
        self._pids = self._workers()
        self._deaths = {model.name: server.logs.deaths(model.name) for model in self._models}
        self._hostile: tuple[Callable[[random.Random, _Model], int], ...] = (
            self._cut, self._slow, self._left, self._without_token, self._unknown, self._header,
        )  # fmt: skip

    def _model(self, archive: Path) -> _Model:
        with zipfile.ZipFile(archive) as opened:
            handler = json.loads(opened.read("MAR-INF/MANIFEST.json"))["model"]["handler"]
        task, draw = handler.split(".")[0].split(":")[0], random.Random(self.seed)
        good = [growth.body(draw, task, "mixed") for _ in range(_GOOD)]
        replies = [self.server.client.predict(archive.stem, one) for one in good]
        if bad := {reply.status_code for reply in replies} - {200}:
            raise RuntimeError(f"{archive.stem} answers {bad} to good requests alone")
        return _Model(archive.stem, task, tolerance_of(archive), good, [reply.json() for reply in replies])

    def run(self, seconds: float, clients: int) -> Found:
        """Send requests for so long, from so many clients at once."""
        began = time.monotonic()
        end = began + seconds
        with ThreadPoolExecutor(clients) as pool:
            for number in range(clients):
                pool.submit(self._client, random.Random(f"{self.seed} {number}"), end)
            for part in (0.05, 0.25, 0.5, 0.75, 1.0):
                time.sleep(max(0.0, began + part * seconds - time.monotonic()))
                self._measure()
        for name, before in self._pids.items():
            if lost := set(before) - set(self._workers()[name]):
                self.found.faults.append(f"{name} lost workers: {sorted(lost)}")
            if deaths := self.server.logs.deaths(name) - self._deaths[name]:
                self.found.faults.append(f"workers of {name} died {deaths} times")
        return self.found

    def _workers(self) -> dict[str, list[int]]:
        return {model.name: workers(self.server, model.name) for model in self._models}

    def _measure(self) -> None:
        pids = {"Java": self.server.pid, **{name: found[0] for name, found in self._pids.items()}}
        for name, pid in pids.items():
            with suppress(OSError):  # a lost worker
                self.found.sizes.setdefault(name, []).append(memory(int(pid or 0)).rss)

    def _client(self, draw: random.Random, end: float) -> None:
        while time.monotonic() < end:
            model = draw.choice(self._models)
            (kind,) = draw.choices(list(_SHARES), list(_SHARES.values()))
            try:
                status = getattr(self, f"_send_{kind}")(draw, model)
            except Exception as error:
                status = 0
                self._fault(f"{kind} request to {model.name}: {type(error).__name__}: {error}"[:200])
            with self._lock:
                self.found.statuses[kind][status] += 1

    def _fault(self, text: str) -> None:
        with self._lock:
            self.found.faults.append(text)

    def _send_good(self, draw: random.Random, model: _Model) -> int:
        number, began = draw.randrange(len(model.good)), time.monotonic()
        reply = self.server.client.predict(model.name, model.good[number])
        with self._lock:
            self.found.seconds.append(time.monotonic() - began)
        # A batch that has no time for a request says so: that is an answer.
        if reply.status_code != _BUSY:
            wrong = differences(model.name, model.expected[number], reply.json(), model.tolerance)
            if reply.status_code != 200 or wrong:
                self._fault(f"{model.name}, good request {number}: {reply.status_code} {wrong[:1] or reply.text[:100]}")
        return reply.status_code

    def _send_bad(self, draw: random.Random, model: _Model) -> int:
        kind, body = draw.choice(_BROKEN)
        if draw.random() < 0.5:
            one = {**model.good[0], draw.choice(_FIELDS[model.task]): draw.choice(_WRONG)}
            kind, body = _JSON, json.dumps(one).encode()
        reply = self.server.client.predict(model.name, body, kind)
        if not 400 <= reply.status_code < 500 and reply.status_code != _BUSY:
            self._fault(f"{model.name}, bad request {body[:60]!r} ({kind}): {reply.status_code} {reply.text[:100]}")
        return reply.status_code

    def _send_hostile(self, draw: random.Random, model: _Model) -> int:
        return draw.choice(self._hostile)(draw, model)

    # Hostile requests; each returns the status, 0 if it did not wait for one

    def _head(self, model: _Model, length: int, *more: str) -> bytes:
        token = self.server.client.keys["inference"]
        lines = [
            f"POST /predictions/{model.name} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}",
            f"Content-Type: {_JSON}", f"Content-Length: {length}", *more,
        ]  # fmt: skip
        return "\r\n".join([*lines, "", ""]).encode()

    def _connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.ports.inference), timeout=60)

    def _cut(self, draw: random.Random, model: _Model) -> int:
        """Leave in the middle of a request, or as soon as it is sent."""
        data = self._head(model, 100) + json.dumps(model.good[0]).encode().ljust(100)[:100]
        with self._connected() as connection:
            connection.sendall(data[: draw.randint(1, len(data))])
        return 0

    def _slow(self, draw: random.Random, model: _Model) -> int:
        """Send a request byte by byte, for a second, and leave or wait for the answer."""
        body = json.dumps(model.good[0]).encode()
        data = self._head(model, len(body)) + body
        with self._connected() as connection:
            for at in range(0, len(data), len(data) // 20 + 1):
                connection.sendall(data[at : at + len(data) // 20 + 1])
                time.sleep(0.05)
            return 0 if draw.random() < 0.5 else self._status(connection)

    def _left(self, _: random.Random, model: _Model) -> int:
        """Ask for a stream, and leave after its first part."""
        if model.task != "text_generation":
            return self._cut(random.Random(), model)
        body = json.dumps({"prompt": "the soup", "stream": True, "parameters": {"max_new_tokens": 40}}).encode()
        with self._connected() as connection:
            connection.sendall(self._head(model, len(body)) + body)
            return self._status(connection)

    def _without_token(self, draw: random.Random, model: _Model) -> int:
        """Call the inference or the management port without the right token."""
        ports = self.server.ports
        url = f"http://127.0.0.1:{draw.choice((ports.inference, ports.management))}/predictions/{model.name}"
        return self._refused(self.server.client.http.post(url, headers={"Authorization": "Bearer x"}, json={}))

    def _unknown(self, draw: random.Random, _: _Model) -> int:
        """Ask a model that does not exist, or one with a path in its name."""
        name = draw.choice(("nobody", "..%2f..%2fetc%2fpasswd", "%00", "x" * 3000))
        return self._refused(self.server.client.predict(name, {"text": "a"}))

    def _header(self, draw: random.Random, model: _Model) -> int:
        """Send too many headers, or a length that is none."""
        more = draw.choice((["X-Long: " + "x" * 20_000], [f"X-{number}: a" for number in range(2000)]))
        with self._connected() as connection, suppress(OSError):  # refused before it was sent
            connection.sendall(self._head(model, 2, *more) + b"{}")
            return int((connection.recv(4096).split() or [b"", b"0"])[1])
        return 0

    def _status(self, connection: socket.socket) -> int:
        """The status of the answer; 0 if the server closes the connection, as it may for these requests."""
        with suppress(OSError):
            words = connection.recv(4096).split()
            status = int(words[1]) if words else 0
            if status >= 500 and status != _BUSY:
                self._fault(f"hostile request: {status}")
            return status
        return 0

    def _refused(self, reply: Any) -> int:
        if not 400 <= reply.status_code < 500:
            self._fault(f"hostile request to {reply.request.url}: {reply.status_code}")
        return int(reply.status_code)


def show(found: Found) -> None:
    """Print what a soak saw."""
    for kind, statuses in found.statuses.items():
        listed = ", ".join(f"{count} x {status or 'none'}" for status, count in sorted(statuses.items()))
        print(f"{kind}: {sum(statuses.values())} requests; statuses: {listed or '-'}")
    times = [1000 * percentile(found.seconds, part) for part in (0.5, 0.99)] if found.seconds else [0.0, 0.0]
    print(f"good answers: median {times[0]:.0f} ms, 99 % within {times[1]:.0f} ms")
    for name, sizes in found.sizes.items():
        middle = sizes[len(sizes) // 2]
        listed = " ".join(f"{size:.0f}" for size in sizes)
        added = sizes[-1] / middle - 1
        flat = "flat" if added < growth.FLAT else "GROWS"
        print(f"{name}: MB {listed} from start to end; the second half adds {added:+.1%}: {flat}")
    print(f"faults: {len(found.faults)}")
    for text, count in Counter(found.faults).most_common(20):
        print(f"  {count} x {text}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the soak (%(default)s)")
    parser.add_argument("--clients", type=int, default=32, help="at once (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what is sent (%(default)s)")
    asked = parser.parse_args()
    with serving(asked.archives) as server:
        found = Soak(server, asked.archives, asked.seed).run(60 * asked.minutes, asked.clients)
    show(found)
    return int(bool(found.faults))


if __name__ == "__main__":
    sys.exit(main())
