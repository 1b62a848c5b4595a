"""The load: a fixed number of connections, each with one request at a time, as light as Python can make it.

It shares the cores with what it measures, so it does nothing but write bytes that were made before, find where each
answer ends, and note the time.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

_STALL = 120.0  # seconds without an answer; TorchServe's own responseTimeout


class LoadError(Exception):
    """An answer that is none: the measurement means nothing then."""


@dataclass(frozen=True)
class Response:
    """An HTTP answer: its status and its whole body."""

    status: int
    body: bytes


class ResponseReader:
    """Answers out of a stream of bytes, however it is cut up: Content-Length or chunked, nothing else of HTTP/1.1."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: tuple[int, int | None] | None = None  # status; length, None for chunked
        self._body = bytearray()

    def feed(self, data: bytes) -> list[Response]:
        """The answers that `data` completes. Raises LoadError for bytes that are none."""
        self._buffer += data
        return list(self._complete())

    def _complete(self) -> Iterator[Response]:
        while self._head is not None or self._read_head():
            assert self._head is not None
            status, length = self._head
            if length is None:
                if not self._read_chunks():
                    return
                body = bytes(self._body)
            elif len(self._buffer) < length:
                return
            else:
                body = bytes(self._buffer[:length])
                del self._buffer[:length]
            self._head = None
            self._body.clear()
            yield Response(status, body)

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        try:
            status = int(lines[0].split(None, 2)[1])
        except (IndexError, ValueError):
            raise LoadError(f"no HTTP status line: {lines[0][:80]!r}") from None
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])
        }
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            self._head = (status, None)
        else:
            self._head = (status, int(headers.get(b"content-length", b"0")))
        return True

    def _read_chunks(self) -> bool:
        """Move whole chunks into the body; whether that was the last. Trailers are not expected."""
        while (end := self._buffer.find(b"\r\n")) >= 0:
            size = int(bytes(self._buffer[:end]).partition(b";")[0], 16)
            if len(self._buffer) < end + 2 + size + 2:
                return False
            self._body += self._buffer[end + 2 : end + 2 + size]
            del self._buffer[: end + 2 + size + 2]
            if size == 0:
                return True
        return False


@dataclass
class Sample:
    """What one round of a cell saw: `units` are answers, or what `count` made of them; `others` are the cores that
    other processes took meanwhile."""

    seconds: float = 0.0
    units: float = 0.0
    latencies: list[float] = field(default_factory=list)  # seconds
    others: float = 0.0

    @property
    def rate(self) -> float:
        """Units per second."""
        return self.units / self.seconds


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that `part` (0 to 1) of the values do not exceed: nearest rank, so always one of them."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def request(path: str, body: object, *, port: int, key: str) -> bytes:
    """The bytes of a POST with a JSON body to TorchServe's inference port."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def run(
    port: int,
    requests: Sequence[bytes],
    *,
    concurrency: int,
    seconds: float,
    least: int,
    count: Callable[[bytes], float] | None = None,
) -> Sample:
    """Send `requests` in turn, over and over, on `concurrency` connections, for `seconds` and `least` answers.

    Not measured are the first answer on each connection, and what is still under way at the end, for which it waits:
    nobody measured afterwards pays for it. The clock runs from an answer to an answer, a whole number of answers a
    connection apart, since batches come in bursts. `count` gives the units in a body, instead of 1.
    Raises LoadError for any answer but 200, and if there is none for two minutes.
    """
    return asyncio.run(_Load(port, requests, concurrency, seconds, least, count).run())


class _Load:
    def __init__(
        self,
        port: int,
        requests: Sequence[bytes],
        concurrency: int,
        seconds: float,
        least: int,
        count: Callable[[bytes], float] | None,
    ) -> None:
        self.port, self.concurrency, self.seconds, self.least, self.count = port, concurrency, seconds, least, count
        self.requests = itertools.cycle(requests)
        self.sample = Sample()
        self.answers, self.pending, self.start, self.over = 0, 0, 0.0, False

    async def run(self) -> Sample:
        loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = loop.create_future()
        made = [
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.port)
            for _ in range(self.concurrency)
        ]
        try:
            self.pending = self.concurrency
            for _, connection in made:
                connection.send(next(self.requests))
            seen = -1
            while not self.done.done():
                await asyncio.wait([self.done], timeout=_STALL)
                if not self.done.done() and self.answers == seen:
                    raise LoadError(f"no answer for {_STALL:.0f} s")
                seen = self.answers
            self.done.result()
        finally:
            self.over = True
            for transport, _ in made:
                transport.abort()
        return self.sample

    def answered(self, connection: _Connection, response: Response, now: float) -> None:
        if response.status != 200:
            return self.fail(f"HTTP {response.status}: {response.body[:300].decode(errors='replace')}")
        self.answers += 1
        sample = self.sample
        measured = self.answers - self.concurrency
        if measured == 0:
            self.start = now
        elif measured > 0 and not self.over:
            sample.latencies.append(now - connection.sent)
            sample.units += 1 if self.count is None else self.count(response.body)
            sample.seconds = now - self.start
            self.over = measured >= self.least and sample.seconds >= self.seconds and measured % self.concurrency == 0
        if not self.over:
            return connection.send(next(self.requests))
        self.pending -= 1
        if not self.pending and not self.done.done():
            self.done.set_result(None)

    def fail(self, why: str) -> None:
        if not self.done.done():
            self.over = True
            self.done.set_exception(LoadError(why))


class _Connection(asyncio.Protocol):
    def __init__(self, load: _Load) -> None:
        self.load, self.reader, self.sent = load, ResponseReader(), 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, data: bytes) -> None:
        self.sent = time.perf_counter()
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        try:
            for response in self.reader.feed(data):
                self.load.answered(self, response, now)
        except (LoadError, ValueError) as error:
            self.load.fail(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.load.over:
            self.load.fail(f"the server closed a connection: {exc or 'no reason given'}")
