"""What the stand-in for the Hub does wrong when a test asks for it, and how a file gets to a client, right or wrong."""

from __future__ import annotations

import fcntl
import os
import re
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Literal

CHUNK = 1 << 18
_OTHER = bytes(255 - byte for byte in range(256))

Kind = Literal["status", "redirect", "move", "hang", "drop", "short", "truncate", "swap", "trickle", "no-range", "gzip"]


@dataclass(frozen=True)
class Mischief:
    """One thing to go wrong, for the next `times` requests whose file name or path has `match` (a regular expression).

    Instead of an answer, or before one, of HEAD and GET:
    - status: `code`, with Retry-After if `retry_after` is given
    - redirect: 302 to `location`
    - move: calls `action`, then answers as usual
    - hang: nothing for `seconds`, then as usual

    In the body of a file, so of GET alone (`at` and `keep` count from where this body begins):
    - drop: the connection ends after `at` bytes, by a reset or by a plain close
    - short: the same by a plain close, after `keep` bytes
    - truncate: after `keep` bytes too, and Content-Length says so: it ends well
    - swap: the size is right, the byte `at` of the whole file is not; none is if `at` is None
    - trickle: the `first` bytes come at `rate` a second, the others as usual; all are slow if `first` is None
    - hang with `at`: nothing for `seconds` after so many bytes, then the others
    - no-range: the whole file, whatever part was asked for
    - gzip: compressed, in chunks, whole, and without a length, as the real one serves small texts to those who take it
    """

    kind: Kind
    match: str = ""
    times: int = 1
    _: KW_ONLY
    host: Literal["hub", "cdn"] | None = None
    method: Literal["HEAD", "GET"] | None = None
    code: int = 503
    retry_after: int | None = None
    location: str = ""
    action: Callable[[], object] = lambda: None
    seconds: float = 0
    at: int | None = None
    reset: bool = False
    keep: int = 0
    rate: float = 1e6
    first: int | None = None

    @property
    def of_the_body(self) -> bool:
        """Whether it needs a body to happen in."""
        return self.kind not in ("status", "redirect", "move") and (self.kind != "hang" or self.at is not None)

    def meets(self, host: str, method: str, *names: str) -> bool:
        """Whether it is for a request."""
        right = self.host in (None, host) and self.method in (None, method)
        return right and any(re.search(self.match, name) for name in names)


class Pace:
    """Bytes a second, which all that wait for it share."""

    def __init__(self, rate: float, stopped: threading.Event) -> None:
        self.rate, self.chunk = rate, max(1, min(CHUNK, int(rate / 20)))
        self._stopped, self._lock, self._free = stopped, threading.Lock(), 0.0

    def wait(self, count: int) -> None:
        """Until so many more bytes may have passed."""
        with self._lock:
            now = time.monotonic()
            self._free = max(now, self._free) + count / self.rate
            seconds = self._free - now
        self._stopped.wait(seconds)


@dataclass(frozen=True)
class Body:
    """A file on its way to a client. `count` is told of bytes that are sent, and of fewer if some were not."""

    connection: socket.socket
    content: int
    count: Callable[[int], None]
    stopped: threading.Event
    pace: Pace | None

    def send(self, start: int, stop: int, rule: Mischief | None) -> bool:
        """Send a part of it, with what goes wrong; whether the connection is of use after that."""
        match rule:
            case Mischief("drop" | "short"):
                self._send(start, min(stop, start + (rule.keep if rule.kind == "short" else rule.at or 0)))
                if rule.reset and rule.kind == "drop":
                    self._reset()
                return False
            case Mischief("hang"):
                until = min(stop, start + (rule.at or 0))
                self._send(start, until)
                if gone_after(self.connection, rule.seconds, self.stopped):
                    return False
                self._send(until, stop)
            case Mischief("trickle"):
                until = stop if rule.first is None else min(stop, start + rule.first)
                self._send(start, until, Pace(rule.rate, self.stopped))
                self._send(until, stop)
            case _:
                self._send(start, stop, None, rule if rule and rule.kind == "swap" else None)
        return True

    def _send(self, start: int, stop: int, pace: Pace | None = None, swap: Mischief | None = None) -> None:
        pace = pace or self.pace
        while start < stop:
            size, done = min(stop - start, pace.chunk if pace else CHUNK), 0
            if pace:
                pace.wait(size)
            # Counted before: a client that has all of it looks at the count at once.
            self.count(size)
            try:
                if swap is None:
                    done = os.sendfile(self.connection.fileno(), self.content, start, size)
                else:
                    done = self.connection.send(_swapped(os.pread(self.content, size, start), start, swap.at))
            finally:
                self.count(done - size)
            start += done

    def _reset(self) -> None:
        # It takes back what has not arrived yet, so that comes first.
        until = time.monotonic() + 5
        while any(fcntl.ioctl(self.connection, termios.TIOCOUTQ, bytes(4))) and time.monotonic() < until:
            time.sleep(0.001)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


def gone_after(connection: socket.socket, seconds: float, stopped: threading.Event) -> bool:
    """Wait; whether the client has gone by then. What is sent to one that has would be counted."""
    stopped.wait(seconds)
    readable = select.select([connection], [], [], 0)[0]
    return bool(readable) and not connection.recv(1, socket.MSG_PEEK)


def _swapped(data: bytes, start: int, at: int | None) -> bytes:
    if at is None:
        return data.translate(_OTHER)
    place = at - start
    if not 0 <= place < len(data):
        return data
    return data[:place] + data[place : place + 1].translate(_OTHER) + data[place + 1 :]
