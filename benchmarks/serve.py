"""TorchServe as everything is measured with it: the same settings for all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mar_pipeline.serving.server import Server

from . import load
from .memory import workers as ready
from .plan import LEAST

_JVM = ()
"""No options: a server that is to last starts Java as Java is, with its second compiler."""


@contextmanager
def serving(archives: Sequence[Path], *, workers: int = 1, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server of `archives` with all `workers` of each READY."""
    with Server(archives, jvm=_JVM, env=env) as server:
        server.wait_ready(timeout=300)
        deadline = time.monotonic() + 120
        for name in server.names:
            while len(ready(server, name)) < workers:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{name} has {len(ready(server, name))} of {workers} workers after two minutes")
                time.sleep(0.2)
        yield server


def requests(server: Server, name: str, bodies: Sequence[Any]) -> list[bytes]:
    """Requests for the archive `name`."""
    key, port = server.client.keys["inference"], server.ports.inference
    return [load.request(f"/predictions/{name}", body, port=port, key=key) for body in bodies]


def burst(server: Server, name: str, texts: Sequence[str], *, concurrency: int, seconds: float) -> Callable[[], Any]:
    """What sends `texts` to the archive `name` for `seconds`, so many at once; done once, for Java and the model to
    warm up."""
    bodies = requests(server, name, [{"text": text} for text in texts])
    port = server.ports.inference
    again = partial(load.run, port, bodies, concurrency=concurrency, seconds=seconds, least=LEAST)
    again()
    return again


def disagreements(server: Server, reference: str, other: str, texts: Sequence[str], margin: float = 0.005) -> list[str]:
    """The texts to which `other` gives another label than the archive `reference`, whose answers have scores. Left out
    are those on whose label the reference itself is undecided: two runs may differ there in the last digits."""
    found = []
    for text in texts:
        expected = server.client.predict(reference, {"text": text}).json()
        answer = server.client.predict(other, {"text": text}).text
        try:
            got = json.loads(answer)["label"]
        except (ValueError, TypeError):
            got = answer
        if got != expected["label"] and expected["score"] > 0.5 + margin:
            found.append(text)
    return found
