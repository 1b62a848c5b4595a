"""Run by its path: unpacked archives, asked by TorchServe's own worker code or by the emulator.

The first argument is "service" (TorchServe's), "emulator", or "alone" (the emulator without torchserve). Standard input
has [{"folder", "body", "explain"}]; the body is sent as JSON, or as bytes if it is a text. Standard output gets for
each {"status", "type": the content type, "reply": what a client receives}, or {"error": ...} where the worker dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any


def service(job: dict[str, Any]) -> dict[str, Any]:
    import ts
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
    from ts.model_loader import ModelLoaderFactory

    folder = Path(job["folder"])
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())["model"]
    metrics = MetricsCacheYamlImpl(config_file_path=str(Path(ts.__file__).parent / "configs" / "metrics.yaml"))
    metrics.initialize_cache()
    metrics.model_name = manifest["modelName"]
    loader = ModelLoaderFactory.get_model_loader()
    loaded = loader.load(
        manifest["modelName"], str(folder), manifest["handler"], None, 1, None, True, metrics_cache=metrics
    )
    sent = Sent()
    loaded.set_cl_socket(sent)
    raw = isinstance(job["body"], str)
    body = bytearray(job["body"], "utf-8") if raw else job["body"]
    kind = "" if raw else "application/json"
    headers = [{"name": b"Content-Type", "value": kind.encode()}] if kind else []
    if job.get("explain"):
        headers.append({"name": b"explain", "value": b"True"})
    request = {
        "requestId": b"local-0-0",
        "headers": headers,
        "parameters": [{"name": "body", "contentType": kind, "value": body}],
    }
    return sent.received(loaded.predict([request]))


class Sent:
    """The front end's side of the socket."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def sendall(self, message: bytes) -> None:
        self.messages.append(bytes(message))

    def received(self, last: bytes) -> dict[str, Any]:
        answers = [fields(message) for message in [*self.messages, bytes(last)]]
        status, kind, _ = answers[-1]
        text = b"".join(value for _, _, value in answers).decode()
        try:
            reply = json.loads(text)
        except ValueError:
            reply = text
        return {"status": status, "type": kind, "reply": reply}


def fields(message: bytes) -> tuple[int, str, bytes]:
    """Status, content type and body of the only response in a message."""
    at = 0

    def number() -> int:
        nonlocal at
        at += 4
        return int(struct.unpack("!i", message[at - 4 : at])[0])

    def text() -> bytes:
        nonlocal at
        size = number()
        at += size
        return message[at - size : at]

    number(), text(), text()
    kind, status, _ = text().decode(), number(), text()
    for _ in range(number()):
        text(), text()
    return status, kind, text()


def alone(job: dict[str, Any]) -> dict[str, Any]:
    """The emulator where torchserve is not installed."""
    sys.modules["ts"] = None  # type: ignore[assignment]
    return emulator(job)


def emulator(job: dict[str, Any]) -> dict[str, Any]:
    from mar_pipeline.portable import foreign

    asked = foreign.Asked(Path(job["folder"]), explain=bool(job.get("explain")))
    (reply,) = asked([job["body"]], "local-0")
    context = asked.context
    return {"status": context.status(0), "type": context.get_response_content_type(0) or "", "reply": reply}


def main() -> None:
    ask, results = {"service": service, "emulator": emulator, "alone": alone}[sys.argv[1]], []
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        for job in json.load(sys.stdin):
            try:
                results.append(ask(job))
            except Exception as error:
                results.append({"error": str(error)})
    json.dump(results, out)


if __name__ == "__main__":
    main()
