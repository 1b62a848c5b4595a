"""Handlers of other tools: their errors are expected, and what they return is read as TorchServe sends it."""

from __future__ import annotations

import json
import struct
import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .handler import BUILT_IN, NotOneClass, Unusable, load
from .protocol import Refused, message_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .context import LocalContext


class Asked:
    """A loaded handler, asked as TorchServe's worker asks it."""

    def __init__(self, folder: Path, *, explain: bool) -> None:
        self.folder, self.explain = folder, explain
        with _loading(folder):
            self.handler, self._handle, self.context = load(folder)
        self.context.explain = explain
        self.context.cl_socket = self._parts = Parts()
        self.notes: list[str] = []
        self.hints: list[str] = []

    def __call__(self, requests: list[Any], name: str) -> list[Any]:
        """The replies to a batch: of JSON, or of bytes if the handler cannot read JSON that is parsed."""
        texts = [bytearray(one if isinstance(one, str) else json.dumps(one), "utf-8") for one in requests]
        bodies = [text if isinstance(one, str) else one for one, text in zip(requests, texts)]
        try:
            return self._replies(bodies, name)
        except Unusable:
            if bodies == texts:
                raise
            try:
                replies = self._replies(texts, name)
            except Unusable:
                replies = None
            if replies is None:
                raise
        self.hints = ["the handler reads no JSON, but bytes: send requests without Content-Type: application/json"]
        return replies

    def _replies(self, bodies: list[Any], name: str) -> list[Any]:
        self.context.begin(len(bodies), name, parsed=not isinstance(bodies[0], bytearray))
        self._parts.sent = {}
        with _answering(self.folder, self.handler, explain=self.explain):
            replies = self._handle([{"body": body} for body in bodies], self.context)
        _check(replies, self.context)
        ids = [self.context.get_request_id(index) for index in range(len(replies))]
        return [_received(self._parts.with_last(str(id_), reply)) for id_, reply in zip(ids, replies)]


class Parts:
    """The worker's socket, to which handlers send the parts of a streamed answer."""

    def __init__(self) -> None:
        self.sent: dict[str, bytes] = {}
        """The parts by the request's id."""

    def sendall(self, message: bytes) -> None:
        """Take a message as ts/protocol/otf_message_handler.py encodes it."""
        at = 0

        def number() -> int:
            nonlocal at
            at += 4
            return int(struct.unpack_from("!i", message, at - 4)[0])

        def text() -> bytes:
            nonlocal at
            length = number()
            at += length
            return bytes(message[at - length : at])

        number()  # the code and the phrase of the whole batch
        text()
        while number() != -1:
            at -= 4
            id_ = text().decode()
            text()  # the content type, then the request's own code and phrase
            number()
            text()
            for _ in range(2 * number()):
                text()
            self.sent[id_] = self.sent.get(id_, b"") + text()

    def with_last(self, id_: str, reply: Any) -> Any:
        """The parts of a request's answer and its last one; the reply alone if nothing was sent before it."""
        if id_ not in self.sent:
            return reply
        last = reply.encode() if isinstance(reply, str) else reply
        return self.sent[id_] + (last if isinstance(last, (bytes, bytearray)) else json.dumps(last, indent=2).encode())


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Within it, an error is the archive's handler's, which does not load."""
    try:
        yield
    except (Refused, NotOneClass):
        raise
    except (Exception, SystemExit) as error:
        lacks = isinstance(error, ModuleNotFoundError)
        required = (folder / "requirements.txt").exists()
        raise Unusable(
            f"{_named(folder)} does not load: {_said(error, folder)}.",
            "It needs a package that is not installed here." if lacks else "In TorchServe, its workers would die.",
            ("Install the archive's requirements.txt" if required else "Install what the handler needs")
            + f" into {sys.executable}."
            if lacks
            else "Mend the handler, or run the archive where its packages, files and devices are.",
        ) from None


@contextmanager
def _answering(folder: Path, handler: Any, *, explain: bool) -> Iterator[None]:
    """Within it, an error is the archive's handler's, which fails on a request."""
    try:
        yield
    except Refused:
        raise
    except (Exception, SystemExit) as error:
        code = getattr(error, "error_code", None)
        if code is not None:  # TorchServe's PredictionException
            said = getattr(error, "message", error)
            raise Unusable(f"{_named(folder)} refused the request ({code}): {said}.") from None
        if explain and isinstance(error, AttributeError) and not hasattr(handler, "get_insights"):
            raise Unusable(
                f"{_named(folder)} does not explain its answers: it has no get_insights.",
                "TorchServe's BaseHandler calls that method for /explanations, and leaves it to each handler.",
                "Ask it for its answer: mar run.",
            ) from None
        raise Unusable(
            f"{_named(folder)} failed on the request: {_said(error, folder)}.",
            f"TorchServe would answer {507 if isinstance(error, MemoryError) else 503}, to all requests of the batch.",
            "Give a request in the form that the handler reads: it is not described in the archive.",
        ) from None


def _named(folder: Path) -> str:
    """The archive's handler, as a message names it."""
    manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8"))
    name = ascii(manifest["model"].get("handler"))[1:-1]
    return f"TorchServe's own handler {name}" if name in BUILT_IN else f"The archive's handler {name}"


def _said(error: BaseException, folder: Path) -> str:
    """An error's type and message, with the last place in the archive's own code that it came through."""
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(folder))]
    at = f" ({places[-1].filename[len(str(folder)) + 1 :]}:{places[-1].lineno})" if places else ""
    return f"{type(error).__name__}: {message_of(error)}{at}"


def _check(replies: Any, context: LocalContext) -> None:
    """Raise Unusable for replies to a batch that TorchServe does not send (ts/service.py)."""
    count = len(context.request_processor or ())
    if not isinstance(replies, list):
        raise Unusable(*_unsent(f"a {type(replies).__name__}, and not a list with one reply for each request"))
    if len(replies) != count:
        raise Unusable(*_unsent(f"{len(replies)} replies to {count} request{'s' if count > 1 else ''}"))
    for index in range(count):
        for name, value in context.get_response_headers(index).items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise Unusable(*_unsent(f"a response header {name!r} of {value!r}, which is not a text"))


def _received(reply: Any) -> Any:
    """A reply as clients receive it: a JSON value, or a text. Raises Unusable if it cannot be sent."""
    if isinstance(reply, (bytes, bytearray, str)):
        text = reply if isinstance(reply, str) else bytes(reply).decode("utf-8", "backslashreplace")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    if type(reply).__module__ == "torch" and hasattr(reply, "tolist"):
        return reply.tolist()
    try:
        return json.loads(json.dumps(reply))
    except (TypeError, ValueError) as error:
        raise Unusable(*_unsent(f"a reply that is not JSON: {message_of(error)}")) from None


def _unsent(what: str) -> tuple[str, str, str]:
    return (
        f"The archive's handler returned {what}.",
        "TorchServe would answer 503.",
        "Mend the handler's postprocess or handle, which shall return a list of JSON values, texts or bytes.",
    )
