"""The serving benchmark: it runs, and what it counts with is right. What it measures is no test's business."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks import load
from benchmarks.cells import Cell
from benchmarks.load import LoadError, Response, ResponseReader, Sample, percentile
from benchmarks.targets import Target, targets
from benchmarks.workloads import LONG, MIXED, PROMPTS, SHORT, prompts, workloads
from mar_pipeline.model.address import STARTERS
from tests.support import ROOT
from tests.support.mar import Mar

STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-request-id: 1\r\n\r\nhello"
    b"HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{\r\n\r\n2;a=b\r\n{}\r\n0\r\n\r\n"
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\r\n"
)
RESPONSES = [Response(200, b"hello"), Response(200, b"{\r\n{}"), Response(503, b""), Response(200, b"\r\n")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, len(STREAM)])
def test_answers_are_read_however_the_stream_is_cut(size: int) -> None:
    reader = ResponseReader()
    found = [each for at in range(0, len(STREAM), size) for each in reader.feed(STREAM[at : at + size])]
    assert found == RESPONSES


def test_what_is_no_http_is_an_error() -> None:
    with pytest.raises(LoadError, match="no HTTP status line"):
        ResponseReader().feed(b"SSH-2.0\r\n\r\n")


@pytest.mark.parametrize(
    ("part", "expected"), [(0.0, 1), (0.5, 5), (0.51, 6), (0.9, 9), (0.99, 10), (1.0, 10)], ids=str
)
def test_percentiles_are_values_that_were_measured(part: float, expected: float) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], part) == expected
    assert percentile([7.0], part) == 7.0


def test_texts_have_the_lengths_that_the_table_says_and_are_the_same_every_time() -> None:
    tokenizer = STARTERS / "seq_classification" / "tokenizer.json"
    found = workloads(tokenizer, 120)
    assert all(SHORT[0] <= len(text.split()) <= SHORT[1] for text in found["short"].texts)
    for name, (low, high) in {"mixed": MIXED, "long": LONG}.items():
        lengths = found[name].lengths
        # A word of several tokens may be the one too many.
        assert low - 5 <= min(lengths) <= max(lengths) <= high
        assert len(set(found[name].texts)) == 120
    middle = sorted(found["mixed"].lengths)[60]
    assert MIXED[0] * 2 < middle < MIXED[1] / 2  # skewed: half are shorter than the geometric mean, about 39
    assert workloads(tokenizer, 120) == found
    asked = prompts(STARTERS / "text_generation" / "tokenizer.json", 50)
    assert max(asked.lengths) <= PROMPTS[1]


@contextmanager
def answering(status: int) -> Iterator[int]:
    """The port of a server that answers everything with `status`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # the load hangs up in the middle, as it may

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def test_load_counts_whole_turns_of_its_connections() -> None:
    with answering(200) as port:
        asked = [load.request("/predictions/a", {"text": "a"}, port=port, key="k")]
        sample = load.run(port, asked, concurrency=4, seconds=0.05, least=10, count=lambda body: float(len(body)))
    assert len(sample.latencies) >= 12
    assert len(sample.latencies) % 4 == 0
    assert sample.units == 2 * len(sample.latencies)
    assert sample.seconds >= 0.05


def test_any_answer_but_200_ends_the_benchmark() -> None:
    with answering(503) as port:
        asked = [load.request("/predictions/a", {"text": "a"}, port=port, key="k")]
        with pytest.raises(LoadError, match="HTTP 503"):
            load.run(port, asked, concurrency=4, seconds=0.05, least=10)


def test_a_cell_is_the_median_of_its_rounds_and_has_all_their_latencies() -> None:
    rounds = [
        Sample(seconds=1.0, units=units, latencies=[0.001] * 49 + [late]) for units, late in ((8, 1), (9, 2), (1, 3))
    ]
    cell = Cell(section="served", contender="a", workload="short", concurrency=1, batch_size=1, rounds=rounds)
    assert (cell.rate, cell.spread, cell.answers) == (8, 1.0, 150)
    assert (cell.latency(0.5), cell.latency(0.99)) == (1.0, 2000.0)


@pytest.mark.parametrize(
    ("measured", "least", "reached"),
    [(6.0, True, True), (5.9, True, False), (6.1, False, False), (None, True, None)],
    ids=str,
)
def test_a_target_says_no_when_it_is_not_reached(measured: float | None, least: bool, reached: bool | None) -> None:
    assert Target(name="a", goal=6, measured=measured, least=least).reached is reached


def test_what_was_not_measured_is_not_reached() -> None:
    assert {target.reached for target in targets([], [])} == {None}


@pytest.mark.slow
@pytest.mark.long
def test_a_quick_run_has_every_section(mar: Mar, bert: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.serving", "--quick", "--checkpoint", bert, "--out", tmp_path]
    done = subprocess.run(
        [*map(str, command), "--seconds", "0.1"],
        cwd=ROOT,
        env={**os.environ, **mar.env},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "serving.json").read_text(encoding="utf-8"))
    assert done.stdout.strip() == (tmp_path / "serving.md").read_text(encoding="utf-8").strip()
    assert found["machine"]["torchserve"].startswith("0.12")
    cells = [cell for section in ("cells", "generation", "threads", "busy") for cell in found[section]]
    assert {cell["section"] for cell in cells} == {"alone", "served", "generation", "threads", "busy"}
    assert {cell["contender"] for cell in found["cells"]} == {
        *("alone", "empty", "default", "split", "torchscript", "padding")
    }
    for cell in cells:
        assert cell["rate"] > 0
        assert 0 < cell["p50"] <= cell["p99"]
    for start in found["starts"]:
        assert 0 < start["seconds"] < start["server_seconds"] + 1
        assert 0 < start["memory_mb"]["private"] <= start["memory_mb"]["rss"] <= start["memory_mb"]["peak"]
    assert [target["name"] for target in found["reached"]] == [target.name for target in targets([], [])]
    measured = [target for target in found["reached"] if target["measured"] is not None]
    assert len(measured) >= 10
    assert all(isinstance(target["reached"], bool) for target in measured)
