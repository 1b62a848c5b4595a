"""A real TorchServe: what it answers, what it refuses, what it says of archives that do not load, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from mar_pipeline.errors import InputError, StageError
from mar_pipeline.host import environment
from mar_pipeline.host.process import group_members
from mar_pipeline.serving.logs import WorkerDied
from mar_pipeline.serving.server import Server
from tests.support import ROOT

from .conftest import ECHO, pack

pytestmark = pytest.mark.slow
FORMATS = ("echo-zip-store", "echo-default", "echo-tgz", "echo-no-archive")
OURS = ("echo-ours-zip-store", "echo-ours-default", "echo-ours-tgz", "echo-ours-zip64")


@pytest.mark.parametrize("name", [*FORMATS, *OURS])
def test_every_archive_format_answers(server: Server, name: str) -> None:
    reply = server.client.predict(name, {"text": "hello"})
    assert reply.status_code == 200
    assert reply.json() == {"you": {"text": "hello"}, "half": 0.5}


@pytest.mark.parametrize(("content_type", "kind"), [("application/json", "dict"), (None, "bytearray")])
def test_json_arrives_parsed_with_its_header_and_as_bytes_without(
    server: Server, content_type: str | None, kind: str
) -> None:
    reply = server.client.predict(FORMATS[0], b'{"want": "kind"}', content_type)
    assert reply.json()["kind"] == kind


def test_requests_at_once_make_a_batch(server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: server.client.predict(FORMATS[0], {"want": "kind"}).json(), range(16)))
    assert max(reply["batch"] for reply in replies) > 1


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer guessed"}], ids=["none", "wrong"])
def test_a_call_without_the_right_token_is_refused(server: Server, headers: dict[str, str]) -> None:
    management = f"http://127.0.0.1:{server.ports.management}/models"
    for reply in (
        httpx.post(
            f"{server.client.address}/predictions/{FORMATS[0]}", content=b"{}", headers=headers, trust_env=False
        ),
        httpx.get(management, headers=headers, trust_env=False),
    ):
        assert reply.status_code == 400
        assert "Token" in reply.text


def test_no_call_but_those_that_config_properties_names_is_answered_without_a_token(server: Server) -> None:
    ports, open_calls = server.ports, set()
    for port in (ports.inference, ports.management, ports.metrics):
        for method, path in (
            ("GET", "/ping"), ("GET", "/metrics"), ("GET", "/api-description"), ("OPTIONS", "/"), ("GET", "/"),
            ("GET", "/models"), ("OPTIONS", "/models"), ("POST", f"/predictions/{FORMATS[0]}"),
            ("GET", f"/models/{FORMATS[0]}"), ("PUT", f"/models/{FORMATS[0]}"), ("POST", f"/explanations/{FORMATS[0]}"),
        ):  # fmt: skip
            reply = server.client.http.request(method, f"http://127.0.0.1:{port}{path}")
            if reply.status_code < 400:
                open_calls.add((port, method, path))
    described = {(port, method, path) for port in (ports.inference, ports.management, ports.metrics)
                 for method, path in (("OPTIONS", "/"), ("GET", "/api-description"))}  # fmt: skip
    assert open_calls == {(ports.metrics, "GET", "/metrics"), *described}


def test_models_cannot_be_added_or_removed_by_calls(server: Server) -> None:
    assert server.client.manage("POST", f"/models?url={FORMATS[0]}.mar").status_code == 405
    assert server.client.manage("DELETE", f"/models/{FORMATS[1]}").status_code == 405
    assert server.client.predict(FORMATS[1], {}).status_code == 200


def test_only_loopback_is_listened_on(server: Server) -> None:
    ports = sorted(vars(server.ports).values())
    deadline = time.monotonic() + 30
    # The gRPC servers come up after the HTTP ones, which answered already.
    while len(listening := _listening(server)) < len(ports) and time.monotonic() < deadline:
        time.sleep(0.1)
    # 127.0.0.1, or the same mapped into IPv6; little-endian words, in hexadecimal.
    assert {address for address, _ in listening} <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert sorted(int(port, 16) for _, port in listening) == ports


def _listening(server: Server) -> list[tuple[str, str]]:
    """Address and port, in hexadecimal, of the TCP sockets that TorchServe and its workers listen on (Linux)."""
    assert server.pid is not None
    sockets = set()
    for pid in group_members(server.pid):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since it was listed; a listening socket stays
                if match := re.match(r"socket:\[(\d+)\]", link.readlink().as_posix()):
                    sockets.add(match[1])
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state, inode = (line.split()[column] for column in (1, 3, 9))
            if state == "0A" and inode in sockets:
                address, _, port = local.partition(":")
                listening.append((address, port))
    return listening


def test_workers_see_no_variable_that_is_not_on_the_list_and_no_module_of_ours(server: Server) -> None:
    found = server.client.predict(FORMATS[0], {"want": "environment"}).json()
    assert "hf_secret" not in str(found)
    assert "SOMEBODYS_SETTING" not in found
    allowed = re.compile(environment.allowed(), re.DOTALL)
    # CUDA_VISIBLE_DEVICES and the like are TorchServe's own; LC_CTYPE is Python's.
    assert [name for name in found if not allowed.fullmatch(name)] == []
    assert found["HF_HUB_OFFLINE"] == "1"
    assert str(ROOT) not in found["PYTHONPATH"].split(os.pathsep)


def test_workers_keep_few_kernels_of_onednn(server: Server) -> None:
    found = server.client.predict(FORMATS[0], {"want": "environment"}).json()
    assert found["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "64"


def test_the_server_reads_the_settings_as_they_were_meant(server: Server) -> None:
    log = (server.logs.folder / "ts_log.log").read_text()
    for line in (
        f"Inference address: http://127.0.0.1:{server.ports.inference}",
        f"Management address: http://127.0.0.1:{server.ports.management}",
        "Blacklist Regex: (?s)(?!(?:PATH|HOME|",
        "Custom python dependency for model allowed: false",
        "Model API enabled: false",
    ):
        assert line in log
    assert re.search(r"Allowed Urls: \[file:///.*model-store/.*echo-tgz\[.\]tar\[.\]gz", log)
    assert "Started restoring models from snapshot" not in log


@pytest.mark.parametrize(
    ("name", "line", "cause"),
    [
        ("raises", "ValueError: the weights have the wrong shape", "while it loaded"),
        ("imports", "ModuleNotFoundError: No module named 'surely_not_installed'", "imports surely_not_installed"),
        ("twoclass", "Expected only one class", "the only class of a handler file"),
        ("memory", "MemoryError: too big", "too little free memory"),
    ],
)
def test_a_dead_worker_shows_its_own_traceback_and_the_cause(server: Server, name: str, line: str, cause: str) -> None:
    with pytest.raises(WorkerDied) as caught:
        server.wait_ready([name], timeout=60)
    error = caught.value
    assert line in error.what
    assert cause in error.why
    assert len(str(error).splitlines()) == 3
    assert error.details.startswith("Traceback (most recent call last)")
    assert name in error.details
    assert line in error.log.read_text()


def test_a_worker_that_dies_without_a_word_is_not_waited_for(server: Server) -> None:
    with pytest.raises(WorkerDied, match="no traceback"):
        server.wait_ready(["killed"], timeout=60)


def test_a_handler_that_hangs_is_told_from_one_that_dies(server: Server) -> None:
    with pytest.raises(WorkerDied, match=r"start-up time-out[\s\S]*startupTimeout"):
        server.wait_ready(["hangs"], timeout=60)


def test_waiting_ends_with_the_time_given(server: Server) -> None:
    with pytest.raises(StageError, match="sleeps had no READY worker after 1 s"):
        server.wait_ready(["sleeps"], timeout=1)


def test_a_worker_that_dies_at_a_request_is_noticed(server: Server) -> None:
    before = server.logs.deaths(FORMATS[2])
    assert server.client.predict(FORMATS[2], {"want": "death"}).status_code >= 500
    limit = time.monotonic() + 10
    while server.logs.deaths(FORMATS[2]) == before and time.monotonic() < limit:
        time.sleep(0.1)
    assert server.logs.deaths(FORMATS[2]) == before + 1


@pytest.fixture(scope="module")
def spare(echoes: list[Path], light: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A second server: with the model API on, and an archive with other bytes than its checksum tells: who unpacks it
    notices."""
    folder = tmp_path_factory.mktemp("spare")
    path = pack(folder, "cut", ECHO)
    path.write_bytes(path.read_bytes().replace(b"class Echo", b"class Ecco"))
    with Server([*echoes[:1], path], env=light, settings={"enable_model_api": "true"}, keep=folder / "kept") as made:
        yield made


def test_a_damaged_archive_is_refused_with_the_reason(spare: Server) -> None:
    with pytest.raises(WorkerDied) as caught:
        spare.wait_ready(["cut"], timeout=60)
    assert "refused cut" in caught.value.what
    assert "build it again" in caught.value.fix
    assert "Failed to load model: cut" in caught.value.log.read_text()


def test_urls_and_files_outside_the_store_cannot_be_loaded_even_by_the_model_api(
    spare: Server, broken: list[Path]
) -> None:
    spare.wait_ready(FORMATS[:1], timeout=60)
    for url in ("http://127.0.0.1:9/other.mar", f"file://{broken[0]}", f"file:///model-store/{broken[0].name}"):
        reply = spare.client.manage("POST", f"/models?url={url}")
        assert reply.status_code == 404
        assert "does not match any allowed URL" in reply.text


def test_nothing_is_left_after_the_end(spare: Server) -> None:
    spare.wait_ready(FORMATS[:1], timeout=60)
    group = spare.pid
    assert group is not None
    assert len(group_members(group)) >= 2  # Java and a worker
    spare.stop()
    assert group_members(group) == []
    assert not spare.folder.exists()
    assert not spare.running


@pytest.mark.parametrize(
    ("number", "code"),
    # A process that is ended by a signal has its negative as exit code; SIGTERM is answered with an orderly exit.
    [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_nothing_is_left_when_we_are_ended_ourselves(echoes: list[Path], number: signal.Signals, code: int) -> None:
    script = (
        "import sys, time; from pathlib import Path; from mar_pipeline.serving.server import Server\n"
        "with Server([Path(sys.argv[1])]) as s:\n"
        "    print(s.pid, s.folder, flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(echoes[0])], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    with process, process.stdout:
        group, folder = process.stdout.readline().decode().split()
        assert group_members(int(group))
        process.send_signal(number)
        assert process.wait(20) == code
    limit = time.monotonic() + 10
    while (group_members(int(group)) or Path(folder).exists()) and time.monotonic() < limit:
        time.sleep(0.05)
    assert group_members(int(group)) == []
    assert not Path(folder).exists()


def test_a_file_that_is_no_archive_is_refused_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "model.mar"
    path.write_text("no archive at all")
    with pytest.raises(InputError, match="not an archive"):
        Server([path])
