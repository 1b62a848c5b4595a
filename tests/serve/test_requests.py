"""Our handlers in a real TorchServe: forms, content types, and the requests of its own example for transformers."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from mar_pipeline.serving.server import Server
from mar_pipeline.tasks import TASKS
from tests.support import tiny
from tests.support.unpacked import lay_out

pytestmark = pytest.mark.slow

BODIES: dict[str, dict[str, Any]] = {
    "seq_classification": {"text": "the room was good", "text_pair": "1", "top_k": 2},
    "text_generation": {
        "prompt": "once upon a",
        "parameters": {"max_new_tokens": 4, "do_sample": True, "seed": 5, "temperature": 0.5, "stop": ["zz"]},
    },
}
EXPLAINED = {
    "seq_classification": {"text": "the room was good", "target": "positive", "steps": 3},
    "text_generation": {"prompt": "once upon a", "target": " the", "steps": 3},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("archives")
    archives = []
    for task in BODIES:
        family = "gpt2" if task == "text_generation" else "bert"
        folder = lay_out(root / task, tiny.save(root / f"{task}-model", family, task), task, "pretrained")
        archives.append(with_handlers(folder, task))
    with Server(archives) as started:
        started.wait_ready(timeout=200)
        yield started


def with_handlers(folder: Path, task: str) -> Path:
    """An unpacked archive that TorchServe can load: with its own handlers, for batches of four."""
    from mar_pipeline.builder.stages.handler import _sources

    for path, text in _sources(task).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    config = folder / "model-config.yaml"
    config.write_text(config.read_text() + "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 4\nmaxBatchDelay: 200\n")
    manifest = folder / "MAR-INF" / "MANIFEST.json"
    model = json.loads(manifest.read_text())["model"]
    model = {**model, "modelName": task, "modelVersion": "1.0", "serializedFile": "model.safetensors"}
    manifest.write_text(json.dumps({"runtime": "python", "archiverVersion": "0.12.0", "model": model}))
    return folder


def form(server: Server, name: str, fields: dict[str, Any], path: str = "predictions", **more: Any) -> httpx.Response:
    """What `curl -F name=value ...` sends."""
    texts = {key: (None, value if isinstance(value, str) else json.dumps(value)) for key, value in fields.items()}
    url = f"{server.client.address}/{path}/{name}"
    headers = server.client.authorization("inference")
    return httpx.post(url, files={**texts, **more}, headers=headers, trust_env=False, timeout=60)


@pytest.mark.parametrize("task", BODIES)
def test_a_form_is_answered_as_the_same_json(server: Server, task: str) -> None:
    for bodies, path in ((BODIES, "predictions"), (EXPLAINED, "explanations")):
        wanted = server.client.predict(task, bodies[task], path=path)
        got = form(server, task, bodies[task], path)
        assert (wanted.status_code, got.status_code) == (200, 200), got.text
        assert got.json() == wanted.json()
    parameters = {f"parameters.{name}": value for name, value in BODIES[task].get("parameters", {}).items()}
    if parameters:
        assert (
            form(server, task, {"prompt": "once upon a", **parameters}).json()
            == server.client.predict(task, BODIES[task]).json()
        )


def kind(reply: httpx.Response) -> list[str]:
    return [value for name, value in reply.headers.multi_items() if name.lower() == "content-type"]


@pytest.mark.parametrize("task", BODIES)
def test_every_answer_is_called_json_errors_and_batches_too(server: Server, task: str) -> None:
    bodies = [BODIES[task], {**BODIES[task], "nonsense": 1}, [BODIES[task]], {"instances": [BODIES[task]]}, b"\xff"]
    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(lambda body: server.client.predict(task, body), bodies * 2))
    assert {reply.status_code for reply in replies} == {200, 400}
    replies += [server.client.predict(task, EXPLAINED[task], path="explanations")]
    replies += [server.client.predict(task, b"", path="explanations")]
    for reply in replies:
        assert kind(reply) == ["application/json"], reply.text
        assert reply.json()


def test_a_stream_is_called_what_it_is_and_its_neighbours_json(server: Server) -> None:
    body = BODIES["text_generation"]
    bodies = [{**body, "stream": True}, body, {**body, "stream": "yes"}, {"prompt": ""}] * 2
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda body: server.client.predict("text_generation", body), bodies))
    for sent, reply in zip(bodies, replies, strict=True):
        streamed = sent.get("stream") is True
        assert kind(reply) == ["application/x-ndjson" if streamed else "application/json"]
        lines = reply.text.splitlines() if streamed else [reply.text]
        assert all(json.loads(line) for line in lines)


def test_clients_that_leave_a_stream_hurt_no_other_request(server: Server) -> None:
    body = json.dumps({"prompt": "once upon a", "stream": True, "parameters": {"max_new_tokens": 40}}).encode()
    head = [
        "POST /predictions/text_generation HTTP/1.1",
        "Host: 127.0.0.1",
        *(f"{name}: {value}" for name, value in server.client.authorization("inference").items()),
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    wanted = server.client.predict("text_generation", BODIES["text_generation"]).json()
    for _ in range(6):
        with socket.create_connection(("127.0.0.1", server.ports.inference), timeout=60) as client:
            client.sendall("\r\n".join([*head, "", ""]).encode() + body)
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert server.client.predict("text_generation", BODIES["text_generation"]).json() == wanted
    assert server.logs.deaths("text_generation") == 0


@pytest.mark.parametrize("task", BODIES)
def test_the_examples_requests_are_answered_and_explained(server: Server, task: str) -> None:
    text = "Bloomberg has decided to publish a new report on the global economy."
    plain = {TASKS[task].fields[-1]: text}
    file = json.dumps({"text": text, "target": 1})
    for content_type in (None, "application/json"):
        got = server.client.predict(task, file.encode(), content_type)
        assert got.json() == server.client.predict(task, plain).json()
        explained = server.client.predict(task, file.encode(), content_type, path="explanations")
        assert explained.status_code == 200, explained.text
    # As TorchServe's own handlers take it: a file, and the target beside it.
    if task == "seq_classification":
        beside = form(server, task, {"target": "1"}, "explanations", data=("text.txt", text, "text/plain"))
        assert beside.json() == explained.json()
