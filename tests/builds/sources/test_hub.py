"""Models from the Hub: the genuine client against a stand-in of the server."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.long.torture import mounts
from tests.support.mar import Mar
from tests.support.proxy import Mischief
from tests.support.stand_ins.hub import STRANGER, TOKEN, Hub, running

pytestmark = pytest.mark.slow

TASK = ("--task", "seq_classification")


@pytest.fixture(scope="module")
def hub(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with running() as found:
        whole = shutil.copytree(bert, tmp_path_factory.mktemp("whole") / "tiny")
        for twin in ("pytorch_model.bin", "tf_model.h5", "model.onnx", "optimizer.pt", "README.md", "runs/1/log"):
            (whole / twin).parent.mkdir(parents=True, exist_ok=True)
            (whole / twin).write_bytes(b"of no use here")
        found.add("org/tiny", whole)
        found.add("org/gated", bert, gated=True)
        found.add("org/private", bert, private=True)
        bare = tmp_path_factory.mktemp("pickled")
        (bare / "config.json").write_text("{}")
        (bare / "pytorch_model.bin").write_bytes(b"pickle")
        found.add("org/pickled", bare)
        foreign = tmp_path_factory.mktemp("foreign")
        (foreign / "config.json").write_text("{}")
        (foreign / "tf_model.h5").write_bytes(b"TensorFlow")
        found.add("org/tensorflow", foreign)
        yield found


@contextmanager
def proxied() -> Iterator[tuple[str, list[str]]]:
    """A proxy on loopback, and the addresses that were asked of it."""
    passed: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            passed.append(self.path)
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.path) as answer:
                data = answer.read()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", passed
        server.shutdown()


@pytest.fixture
def online(hub: Hub, fresh_mar: Mar) -> Mar:
    fresh_mar.env |= {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address}
    return fresh_mar


def test_a_model_of_the_hub_builds_is_pinned_and_builds_again_without_the_network(
    hub: Hub, online: Mar, bert: Path
) -> None:
    (archive,) = online.build(*TASK, "--model", "org/tiny")
    commit = hub.models["org/tiny"]["commit"]
    described = json.loads(online("inspect", archive["path"], "--json").stdout)
    assert described["provenance"]["source"] == {"kind": "hub", "repo": "org/tiny", "commit": commit}
    fetched = {line.rsplit("/", 1)[-1] for line in hub.asked if line.startswith("GET") and "/resolve/" in line}
    assert fetched == {file.name for file in bert.iterdir()}

    before = len(hub.asked)
    (again,) = online.build(*TASK, "--model", "org/tiny", "--offline")
    assert [stage["cached"] for stage in again["stages"]] == [True] * 6
    (pinned,) = online.build(*TASK, "--model", "org/tiny", "--revision", commit)
    assert pinned["sha256"] == archive["sha256"]
    assert len(hub.asked) == before


def test_a_lost_hugging_face_cache_is_fetched_again(online: Mar, tmp_path: Path) -> None:
    online.packed(*TASK, "--model", "org/tiny")
    online.env["HF_HOME"] = str(tmp_path / "another")
    (archive,) = online.packed(*TASK, "--model", "org/tiny")
    assert all(stage["cached"] for stage in archive["stages"])
    (tmp_path / "hf").rename(tmp_path / "gone")
    (archive,) = online.packed(*TASK, "--model", "org/tiny")
    assert [stage["stage"] for stage in archive["stages"] if not stage["cached"]] == ["download"]


@pytest.mark.parametrize(
    ("model", "words", "token", "code", "said"),
    [
        ("org/none", (), "", 2, "does not exist on the Hub"),
        ("org/none", (), TOKEN, 2, "does not exist on the Hub"),
        ("org/private", (), "", 2, "does not exist on the Hub"),
        ("org/private", (), STRANGER, 2, "does not exist on the Hub"),
        ("org/gated", (), "", 2, "HF_TOKEN"),
        ("org/gated", (), STRANGER, 2, "accept terms"),
        ("org/tiny", (), "hf_wrong", 2, "refuses the token"),
        ("org/pickled", (), "", 2, "pickled (pytorch_model.bin)"),
        ("org/tensorflow", (), "", 2, "TensorFlow's (tf_model.h5)"),
        ("org/tiny", ("--revision", "v9"), "", 2, "no revision 'v9'"),
        ("org/tiny", ("--revision", "0" * 40), "", 2, "no revision"),
        ("org/tiny", ("--offline",), "", 2, "without --offline"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_had_is_said_in_three_lines(
    online: Mar, model: str, words: tuple[str, ...], token: str, code: int, said: str
) -> None:
    done = online("build", *TASK, "--model", model, *words, **({"HF_TOKEN": token} if token else {}))
    assert done.returncode == code, done.stderr
    error = done.stderr[done.stderr.index("error:") :]
    assert said in error
    assert len(error.strip().splitlines()) <= 3
    assert not token or token not in done.stderr + done.stdout
    assert not list(online.cache.glob("tmp/*"))
    assert not list(online.folder.rglob("*.incomplete"))


def test_a_hub_that_cannot_be_reached_is_said_with_what_to_set(online: Mar) -> None:
    done = online("build", *TASK, "--model", "org/tiny", HF_ENDPOINT="http://me:secret@127.0.0.1:9")
    assert done.returncode == 3
    told = done.stderr[done.stderr.index("error:") :].strip().splitlines()
    assert len(told) == 3
    assert "HF_ENDPOINT" in told[1]
    assert "--offline" in told[2]
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_a_busy_hub_is_said_after_it_was_asked_again(hub: Hub, online: Mar) -> None:
    hub.mischief.append(Mischief("status", "api/models", times=99, code=503))
    done = online("build", *TASK, "--model", "org/tiny")
    hub.mischief.clear()
    assert done.returncode == 3
    assert "answered 503" in done.stderr
    assert len(done.stderr[done.stderr.index("error:") :].strip().splitlines()) == 2


def test_a_cache_of_the_hubs_client_that_is_full_is_said_and_holds_no_part(online: Mar, tmp_path: Path) -> None:
    if refusal := mounts.refusal():
        pytest.skip(refusal)
    with mounts.Mounted(tmp_path / "small", 40_000) as small:
        done = online("build", *TASK, "--model", "org/tiny", HF_HOME=str(small.folder))
        assert done.returncode == 3, done.stderr
        assert "disk is full" in done.stderr
        assert "HF_HOME" in done.stderr
        assert not list(small.folder.rglob("*.incomplete"))


def test_a_proxy_is_used(hub: Hub, online: Mar) -> None:
    with proxied() as (address, passed):
        done = online("plan", *TASK, "--model", "org/tiny", HTTP_PROXY=address, http_proxy=address, NO_PROXY="")
    assert done.returncode == 0, done.stderr
    assert [line for line in passed if line.startswith(f"{hub.address}/api/models/org/tiny")]


def test_a_token_opens_a_private_model_and_is_written_nowhere(online: Mar) -> None:
    (archive,) = online.build(*TASK, "--model", "org/private", HF_TOKEN=TOKEN)
    everything = [file for file in (*online.cache.rglob("*"), *online.out.rglob("*")) if file.is_file()]
    assert online.folder / archive["path"] in everything
    assert not [file for file in everything if TOKEN.encode() in file.read_bytes()]
