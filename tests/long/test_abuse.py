"""A real TorchServe under a storm of good, bad and extreme requests, in batches of eight."""

from __future__ import annotations

import json
import random
import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.soak import Soak
from mar_pipeline.answers.compare import differences
from mar_pipeline.serving.server import Server
from tests.support.mar import KINDS

pytestmark = pytest.mark.slow

REQUESTS = 1200
TEXTS = (
    "The soup was cold, but Maria from Lisbon smiled.",
    "😀👩‍👩‍👧 ¿Qué? \u200f\u202eשלום עולם مرحبا\u202c",
    "   x   ",
    "a\u0000b\u0001 \ufeff ￿",
    "long " * 900,
    "Ünïcödé — “quotes”, ﬁ, Å, 東京 и Москва.",
    ".",
)
GOOD: dict[str, list[Any]] = {
    "seq_classification": [
        *TEXTS,
        {"text": TEXTS[0], "text_pair": TEXTS[1], "top_k": 2},
        [{"text": text} for text in TEXTS],
        {"instances": list(TEXTS[:2])},
    ],
    "token_classification": [
        *TEXTS,
        *({"text": TEXTS[4] + TEXTS[0], "aggregation_strategy": strategy} for strategy in ("none", "first", "max")),
    ],
    "question_answering": [
        *({"question": "Who smiled?", "context": text} for text in TEXTS),
        {"question": TEXTS[1], "context": TEXTS[0] * 40, "top_k": 3, "max_answer_length": 4},
    ],
    "text_generation": [
        *({"prompt": text, "parameters": {"max_new_tokens": 5}} for text in (*TEXTS[:4], *TEXTS[5:])),
        {"prompt": "Once", "parameters": {"max_new_tokens": 9, "do_sample": True, "seed": 3, "stop": ["e", "zz"]}},
        {"prompt": "Once", "parameters": {"max_new_tokens": 1, "repetition_penalty": 2.0, "return_full_text": True}},
    ],
}
JSON = "application/json"
BROKEN: list[tuple[str | None, bytes]] = [
    (JSON, b'{"text": '),
    (JSON, b'{"text": "a"} {'),
    (JSON, b'"\xff\xfe"'),
    (JSON, b"null"),
    (JSON, b"[" * 50_000),
    (JSON, b'{"a":' * 5_000),
    (JSON, b'{"text": "\\ud800", "question": "\\ud800", "context": "a", "prompt": "\\ud800"}'),
    (JSON, b'{"text": NaN, "prompt": Infinity}'),
    (JSON, b'{"text": ' + b"9" * 5_000 + b"}"),
    (None, b"\xff\xfe\x00"),
    (None, b"{not json"),
    (None, b"[]"),
    (None, b"   "),
    ("text/plain", b"\xc3\x28"),
    ("application/octet-stream", b'{"inputs": [{"name": "text"}]}'),
    (JSON, b'{"inputs": [{"name": "text", "shape": [9], "datatype": "BYTES", "data": ["a"]}]}'),
    (JSON, b'{"instances": [{"nothing": 1}]}'),
    (JSON, b'{"text": "a", "prompt": "a", "question": "a", "context": "a"}'),
]
VALUES: list[Any] = [None, True, 0, -1, 1.5, 10**40, "", " \n", [], {}, [None], {"x": 1}, "a" * 200_001]


MARK = "Quxzanzibar"
"""A word of a user's, to look for where no text of a user is to be."""

FIELDS = ("text", "text_pair", "question", "context", "prompt", "messages", "parameters", "top_k", "stream")


@pytest.fixture(scope="module")
def failing(built: dict[tuple[str, str], dict[str, Any]], mar: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive whose tokenizer breaks on every text, and quotes it."""
    folder = tmp_path_factory.mktemp("broken") / "failing"
    with zipfile.ZipFile(mar.folder / built["seq_classification", "pretrained"]["path"]) as archive:
        archive.extractall(folder)
    with (folder / "handlers" / "text" / "tokenization.py").open("a", encoding="utf-8") as code:
        code.write("\n\ndef _broken(self, texts, *_, **__):\n    raise RuntimeError(f'cannot take {texts}')\n")
        code.write("\n\nTokenizer.encode = _broken\n")
    return folder


@pytest.fixture(scope="module")
def server(built: dict[tuple[str, str], dict[str, Any]], mar: Any, failing: Path) -> Iterator[Server]:
    with Server([*(mar.folder / archive["path"] for archive in built.values()), failing]) as found:
        found.wait_ready(timeout=400)
        yield found


def bad(random_: random.Random, task: str) -> tuple[str | None, bytes]:
    """A request at fault: a broken body, or a good one with one value of a wrong kind or a field too many."""
    if random_.random() < 0.4:
        return random_.choice(BROKEN)
    body = random_.choice([body for body in GOOD[task] if isinstance(body, dict) and "instances" not in body] or [{}])
    value = random_.choice(VALUES)
    names = [name for name in body if name != "parameters"] or ["text"]
    if random_.random() < 0.3:
        return JSON, json.dumps({**body, "surely_unknown": value}).encode()
    return JSON, json.dumps({**body, random_.choice(["text", "prompt", "context", *names]): value}).encode()


def test_good_bad_and_hostile_requests_at_once_lose_no_answer_and_no_worker(
    server: Server, built: dict[tuple[str, str], dict[str, Any]], mar: Any
) -> None:
    archives = [mar.folder / archive["path"] for (_, mode), archive in built.items() if mode == "pretrained"]
    found = Soak(server, archives, 1).run(15, 32)
    assert found.faults == []
    assert all(sum(statuses.values()) > 20 for statuses in found.statuses.values())


def test_a_thousand_bad_requests_hurt_no_good_one(server: Server) -> None:
    expected = {
        (task, mode, number): server.client.predict(f"{task}-{mode}", body).json()
        for task, mode in KINDS
        for number, body in enumerate(GOOD[task])
    }
    for (task, _, number), answer in expected.items():
        assert "error" not in answer, (task, number, answer)
    random_ = random.Random(11)
    storm: list[tuple[str, str, int | None, tuple[str | None, bytes]]] = []
    for _ in range(REQUESTS):
        task, mode = random_.choice(KINDS)
        number = random_.randrange(len(GOOD[task]))
        if random_.random() < 0.35:
            storm.append((task, mode, number, (JSON, json.dumps(GOOD[task][number]).encode())))
        else:
            storm.append((task, mode, None, bad(random_, task)))

    def ask(one: tuple[str, str, int | None, tuple[str | None, bytes]]) -> str:
        task, mode, number, (kind, content) = one
        reply = server.client.predict(f"{task}-{mode}", content, kind)
        if number is None:
            refused = 400 <= reply.status_code < 500 and reply.json().keys() == {"error"}
            return (
                ""
                if refused or _harmless(task, content)
                else f"{reply.status_code} {content[:80]!r} {reply.text[:200]}"
            )
        different = differences("", expected[task, mode, number], reply.json(), 1e-4)
        return f"{task} {mode} {number}: {different[0]}" if different or reply.status_code != 200 else ""

    with ThreadPoolExecutor(24) as pool:
        faults = [fault for fault in pool.map(ask, storm) if fault]
    assert faults == []
    assert sum(number is None for *_, number, _ in storm) > 700
    assert [name for name in server.names if server.logs.deaths(name)] == []


def _harmless(task: str, content: bytes) -> bool:
    """Whether what was meant to be bad is a valid request of this task after all."""
    from handlers.protocol.problem import Problem
    from handlers.protocol.requests import parse

    try:
        parse({"body": content}, task)
    except Problem:
        return False
    return True


def marked(value: Any) -> Any:
    """A request with a user's word in every text of it."""
    if isinstance(value, dict):
        return {name: marked(item) for name, item in value.items()}
    if isinstance(value, list):
        return [marked(item) for item in value]
    return f"{value} {MARK}" if isinstance(value, str) and value not in ("none", "first", "max") else value


def test_nothing_but_a_summary_is_logged_and_no_text_of_a_user(server: Server) -> None:
    word = MARK.encode()
    statuses: list[int] = []

    def send(name: str, body: Any, kind: str | None = JSON, path: str = "predictions") -> None:
        statuses.append(server.client.predict(name, body, kind, path=path).status_code)

    for task, mode in KINDS:
        name = f"{task}-{mode}"
        fields = next(body for body in GOOD[task] if isinstance(body, dict))
        for body in GOOD[task]:
            send(name, marked(body))
        for field in FIELDS:
            send(name, {**fields, field: MARK})
            send(name, {**fields, field: [{"role": MARK, "content": MARK}]})
        for field in ("stop", "seed", "temperature", MARK):
            send(name, {**fields, "parameters": {field: [MARK, 5]}})
        send(name, {**fields, MARK: MARK})
        send(name, {**fields, "aggregation_strategy": MARK})
        send(name, {"instances": [MARK, fields, {MARK: 1}]})
        send(name, {"inputs": [{"name": MARK, "shape": [1], "datatype": MARK, "data": [MARK]}]})
        send(name, {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [MARK]}], "id": MARK})
        send(name, marked(fields) | {"stream": True})
        send(name, marked(fields), path="explanations")
        send(name, {**marked(fields), "target": MARK}, path="explanations")
        for start in (b'{"text": "', b'{"text": "\xff', b"\xc3( ", b"[" * 9000, b"a" * 200_000):
            for kind in (JSON, None, "text/plain", "application/octet-stream", MARK):
                send(name, start + word, kind)
        form = server.client.http.post(
            f"{server.client.address}/predictions/{name}",
            data={"text": MARK, MARK: MARK},
            headers=server.client.authorization("inference"),
        )
        statuses.append(form.status_code)
    assert {200, 400, 501} <= set(statuses) <= {200, 400, 413, 501}
    send("seq_classification-pretrained", word * 700_000)  # more than the server takes
    for path, body in (
        ("predictions", {"text": MARK}),
        ("predictions", [MARK, MARK]),
        ("explanations", {"text": MARK}),
    ):
        send("failing", body, path=path)
        assert statuses[-1] == 500
    logs = {
        file.name: file.read_bytes().lower() for file in (*server.logs.folder.iterdir(), server.folder / "output.txt")
    }
    assert [name for name, log in logs.items() if word.lower() in log] == []
    assert b"an input failed: runtimeerror at" in logs["model_log.log"]
    assert b"/predictions/failing" in logs["access_log.log"]
    seen = len(logs["model_log.log"])
    for task, mode in KINDS:
        for body in GOOD[task]:
            send(f"{task}-{mode}", body)
    told = (server.logs.folder / "model_log.log").read_bytes()[seen:].decode()
    lines = [line.partition("MODEL_LOG - ")[2] for line in told.splitlines()]
    theirs = re.compile(r"Backend received inference at: \d+")
    summary = re.compile(r"requests=1 refused=0 inputs=\d+ ms=[\d.]+")
    assert [line for line in lines if not theirs.fullmatch(line) and not summary.fullmatch(line)] == []
    assert (
        len([line for line in lines if summary.fullmatch(line)]) > sum(2 * len(bodies) for bodies in GOOD.values()) - 9
    )


@pytest.mark.parametrize("mode", ["pretrained", "torchscript"])
def test_a_text_is_streamed_while_its_neighbours_get_whole_answers(server: Server, mode: str) -> None:
    name = f"text_generation-{mode}"
    body = {"prompt": "Once upon a time", "parameters": {"max_new_tokens": 24}}
    whole = server.client.predict(name, body).json()

    def stream() -> list[dict[str, Any]]:
        headers = {**server.client.authorization("inference"), "Content-Type": JSON}
        url = f"{server.client.address}/predictions/{name}"
        with httpx.stream("POST", url, json={**body, "stream": True}, headers=headers, timeout=60) as reply:
            assert reply.headers["content-type"].startswith("application/x-ndjson")
            return [json.loads(line) for line in reply.iter_lines()]

    with ThreadPoolExecutor(12) as pool:
        streams = [pool.submit(stream) for _ in range(4)]
        others = [pool.submit(server.client.predict, name, body) for _ in range(4)]
        refused = [pool.submit(server.client.predict, name, {"prompt": ""}) for _ in range(4)]
    for future in streams:
        *parts, last = future.result()
        assert last == whole
        assert "".join(part["text"] for part in parts) == whole["generated_text"]
        assert len(parts) > 5
    assert [future.result().json() for future in others] == [whole] * 4
    assert [future.result().status_code for future in refused] == [400] * 4
    many = server.client.predict(name, [{**body, "stream": True}, "b"])
    assert (many.status_code, many.json()["error"]["field"]) == (400, "stream")


@pytest.mark.parametrize(
    "task", ["seq_classification", "token_classification", "question_answering", "text_generation"]
)
def test_explanations_are_those_of_mar_explain(server: Server, mar: Any, built: Any, task: str, tmp_path: Any) -> None:
    body = {
        "question_answering": {"question": "Who smiled?", "context": TEXTS[0]},
        "text_generation": {"prompt": "Once upon a"},
    }.get(task, {"text": TEXTS[0]})
    reply = server.client.predict(f"{task}-pretrained", body, path="explanations")
    assert reply.status_code == 200, reply.text
    page = tmp_path / "page.html"
    path = built[task, "pretrained"]["path"]
    done = mar("explain", path, "--input", json.dumps(body), "--json", "--html", page)
    assert done.returncode == 0, done.stderr
    assert not differences("", json.loads(done.stdout), reply.json(), 1e-4)
    assert reply.json()["words"][0]["text"] in page.read_text(encoding="utf-8")
    traced = server.client.predict(f"{task}-torchscript", body, path="explanations")
    assert (traced.status_code, "save_mode: pretrained" in traced.text) == (501, True)
