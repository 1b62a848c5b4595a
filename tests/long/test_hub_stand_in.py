"""The stand-in for the Hub, by the genuine client: what it serves, what it enforces, and what goes wrong on demand."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi, constants, errors, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.hf_api import RepoFile, RepoFolder

from tests.support.proxy import Mischief
from tests.support.stand_ins.hub import STRANGER, TOKEN, Hub, running

REPO = "org/tiny"
LARGE, SMALL, ODD = "model.safetensors", "config.json", "a b/ü%.txt"
OIDS = {SMALL: "b9695ae70743847e2f1c0e3e0057d8958a9cf4d0", LARGE: "d61c23009f5f7d8b8bee8934e92d7d6242523c3d"}
"""What git itself says of them."""
OLDER = Path(sys.prefix) / "older"

Fetch = Callable[..., bytes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("model")
    for name, data in {
        LARGE: random.Random(0).randbytes(300_000),
        SMALL: b'{"model_type": "bert"}' * 100,
        ODD: b"odd",
        "1_Pooling/config.json": b"{}",
    }.items():
        (found / name).parent.mkdir(exist_ok=True)
        (found / name).write_bytes(data)
    return found


@pytest.fixture
def hub(folder: Path) -> Iterator[Hub]:
    with running() as found:
        found.add(REPO, folder)
        yield found


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client reads its variables when it is imported, which other tests may have done."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def fetch(hub: Hub, tmp_path: Path) -> Fetch:
    """A file's contents, by the client, with an empty cache each time."""

    def fetched(name: str, repo: str = REPO, **words: Any) -> bytes:
        cache = tmp_path / str(len(list(tmp_path.iterdir())))
        words.setdefault("token", False)
        return Path(hf_hub_download(repo, name, endpoint=hub.address, cache_dir=cache, **words)).read_bytes()

    return fetched


def api(hub: Hub, token: str | bool = False) -> HfApi:
    return HfApi(endpoint=hub.address, token=token)


def ask(address: str, method: str = "GET", **headers: str) -> tuple[int, HTTPMessage, bytes]:
    """One request, without following anything or trying again; what came of the body if it broke off."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    try:
        connection.request(method, f"{url.path}?{url.query}", headers=headers)
        response = connection.getresponse()
        try:
            body = response.read()
        except http.client.IncompleteRead as error:
            body = error.partial
        return response.status, response.headers, body
    finally:
        connection.close()


def resolve(hub: Hub, name: str, revision: str = "main") -> str:
    return hf_hub_url(REPO, name, revision=revision, endpoint=hub.address)


def linked(hub: Hub) -> str:
    """An address that the CDN serves the large file at."""
    return str(ask(resolve(hub, LARGE), "HEAD")[1]["Location"])


# What it serves


def test_a_model_is_told_with_its_files_digests_and_licence(hub: Hub, folder: Path) -> None:
    commit = hub.add("org/licensed", folder, license="mit", tag="v1")
    info = api(hub).model_info("org/licensed", files_metadata=True)
    assert info.sha == commit == hub.models["org/licensed"]["commit"]
    assert info.card_data is not None
    assert (info.card_data["license"], info.tags, info.gated, info.private) == ("mit", ["license:mit"], False, False)
    files = {file.rfilename: file for file in info.siblings or ()}
    assert set(files) == {LARGE, SMALL, ODD, "1_Pooling/config.json"}
    assert {name: files[name].blob_id for name in OIDS} == OIDS
    assert files[SMALL].lfs is None
    lfs = files[LARGE].lfs
    assert lfs is not None
    assert (lfs["size"], lfs["sha256"]) == (300_000, hashlib.sha256((folder / LARGE).read_bytes()).hexdigest())
    plain = api(hub).model_info("org/licensed", revision="v1")
    assert plain.sha == commit
    assert {file.size for file in plain.siblings or ()} == {None}


def test_the_tree_comes_in_pages_with_its_folders(hub: Hub, folder: Path) -> None:
    hub.page_size = 2
    tree = list(api(hub).list_repo_tree(REPO, recursive=True))
    folders = [entry.path for entry in tree if isinstance(entry, RepoFolder)]
    files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    assert folders == ["1_Pooling", "a b"]
    assert {path: file.size for path, file in files.items()} == {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }
    assert files[LARGE].lfs is not None
    assert len([line for line in hub.asked if "/tree/" in line]) == 3
    assert [entry.path for entry in api(hub).list_repo_tree(REPO)] == ["1_Pooling", "a b", SMALL, LARGE]
    assert [entry.path for entry in api(hub).list_repo_tree(REPO, "a b")] == [ODD]
    with pytest.raises(errors.EntryNotFoundError):
        list(api(hub).list_repo_tree(REPO, "none"))


@pytest.mark.parametrize("name", [SMALL, LARGE, ODD, "1_Pooling/config.json"])
def test_files_arrive_as_they_are(hub: Hub, folder: Path, fetch: Fetch, name: str) -> None:
    assert fetch(name) == (folder / name).read_bytes()
    assert hub.sent == hub.sent_by[name] == (folder / name).stat().st_size


def test_a_token_goes_to_the_hub_and_never_to_the_cdn(hub: Hub, folder: Path, fetch: Fetch) -> None:
    hub.add("org/private", folder, private=True)
    assert fetch(LARGE, "org/private", token=TOKEN) == (folder / LARGE).read_bytes()
    assert {(request.host, request.authorization) for request in hub.requests} == {
        ("hub", f"Bearer {TOKEN}"),
        ("cdn", None),
    }
    link = linked(hub)
    assert ask(link, Authorization=f"Bearer {TOKEN}")[0] == 400
    assert ask(link[:-1])[0] == ask(link.partition("?")[0])[0] == 403
    hub.links.clear()
    assert ask(link)[0] == 403


def test_commits_stay_when_their_branch_moves_and_their_folder_changes(hub: Hub, tmp_path: Path, fetch: Fetch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / SMALL).write_text("first")
    first = hub.add("org/moving", work)
    (work / SMALL).write_text("second")
    assert fetch(SMALL, "org/moving") == b"first"
    second = hub.add("org/moving", work, branch="refs/pr/1", tag="v2")
    assert first != second
    assert hub.models["org/moving"]["commit"] == first
    revisions = ("main", first, second, "refs/pr/1", "v2")
    found = [fetch(SMALL, "org/moving", revision=revision) for revision in revisions]
    assert found == [b"first", b"first", b"second", b"second", b"second"]
    assert hub.add("org/moving", work) == second == hub.models["org/moving"]["commit"]


def test_ranges_are_served_and_refused_as_http_has_it(hub: Hub, folder: Path) -> None:
    data, address = (folder / LARGE).read_bytes(), linked(hub)
    for asked, expected in {"bytes=10-": data[10:], "bytes=10-19": data[10:20], "bytes=-7": data[-7:]}.items():
        code, headers, body = ask(address, Range=asked)
        assert (code, body) == (206, expected)
        assert str(headers["Content-Range"]).endswith("/300000")
    code, headers, _ = ask(address, Range="bytes=300000-")
    assert (code, headers["Content-Range"]) == (416, "bytes */300000")
    assert hub.requests[-1].range == "bytes=300000-"


def test_etags_are_the_digests_that_the_hub_tells(hub: Hub, folder: Path) -> None:
    small = get_hf_file_metadata(resolve(hub, SMALL), token=False)
    large = get_hf_file_metadata(resolve(hub, LARGE), token=False)
    assert (small.etag, small.commit_hash) == (OIDS[SMALL], hub.models[REPO]["commit"])
    assert (large.etag, large.size) == (hashlib.sha256((folder / LARGE).read_bytes()).hexdigest(), 300_000)
    assert large.location.startswith(f"{hub.cdn}/lfs/{large.etag}?")


# What it refuses


@pytest.mark.parametrize(
    ("repo", "token", "error", "code"),
    [
        ("org/none", False, errors.RepositoryNotFoundError, 401),
        ("org/none", TOKEN, errors.RepositoryNotFoundError, 404),
        ("org/private", False, errors.RepositoryNotFoundError, 401),
        ("org/private", STRANGER, errors.RepositoryNotFoundError, 404),
        ("org/gated", False, errors.GatedRepoError, 401),
        ("org/gated", STRANGER, errors.GatedRepoError, 403),
        (REPO, "hf_wrong", errors.HfHubHTTPError, 401),
    ],
)
def test_who_may_not_read_is_told_so_in_the_clients_own_errors(
    hub: Hub, folder: Path, fetch: Fetch, repo: str, token: str | bool, error: type[errors.HfHubHTTPError], code: int
) -> None:
    hub.add("org/private", folder, private=True)
    hub.add("org/gated", folder, gated=True)
    with pytest.raises(error) as caught:
        fetch(SMALL, repo, token=token)
    assert type(caught.value) is error
    assert caught.value.response.status_code == code
    if repo == "org/gated":
        assert api(hub, token).model_info(repo).gated == "manual"
    else:
        with pytest.raises(error):
            api(hub, token).model_info(repo)


def test_a_revision_or_file_that_is_not_there_is_told_so(hub: Hub, fetch: Fetch) -> None:
    with pytest.raises(errors.RevisionNotFoundError):
        fetch(SMALL, revision="v9")
    with pytest.raises(errors.RevisionNotFoundError):
        api(hub).model_info(REPO, revision="refs/pr/9")
    with pytest.raises(errors.EntryNotFoundError):
        fetch("none.json")


# What goes wrong


def test_what_a_drop_left_is_fetched_with_a_range(hub: Hub, folder: Path, fetch: Fetch) -> None:
    hub.mischief.append(Mischief("drop", r"\.safetensors$", at=100_000))
    assert fetch(LARGE) == (folder / LARGE).read_bytes()
    assert hub.sent == 300_000
    assert [request.range for request in hub.requests if request.host == "cdn"] == [None, "bytes=100000-"]
    assert hub.mischief == []


def test_a_drop_by_a_reset_comes_after_the_bytes_before_it(hub: Hub) -> None:
    hub.mischief.append(Mischief("drop", at=100_000, reset=True))
    url = urlsplit(linked(hub))
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    connection.request("GET", f"{url.path}?{url.query}")
    response = connection.getresponse()
    assert len(response.read(100_000)) == hub.sent == 100_000
    with pytest.raises(ConnectionResetError):
        response.read(1)
    connection.close()


def test_a_server_that_ignores_ranges_sends_the_whole_again(hub: Hub, folder: Path, fetch: Fetch) -> None:
    hub.mischief += [Mischief("drop", at=100_000), Mischief("no-range")]
    assert fetch(LARGE) == (folder / LARGE).read_bytes()
    assert hub.sent == 400_000


def test_a_busy_server_is_asked_again(hub: Hub, folder: Path, fetch: Fetch) -> None:
    hub.mischief += [
        Mischief("status", SMALL, host="hub", method="HEAD", code=500),
        Mischief("status", SMALL, host="hub", method="GET", code=429, retry_after=0),
    ]
    assert fetch(SMALL) == (folder / SMALL).read_bytes()
    assert [request.method for request in hub.requests] == ["HEAD", "HEAD", "GET", "GET"]
    hub.mischief.append(Mischief("status", "/api/", 2, code=503, retry_after=7))
    answers = [ask(f"{hub.address}/api/models/{REPO}") for _ in range(3)]
    assert [(code, headers["Retry-After"]) for code, headers, _ in answers] == [(503, "7"), (503, "7"), (200, None)]


def test_a_body_can_be_cut_short_with_and_without_its_length_telling(hub: Hub, folder: Path, fetch: Fetch) -> None:
    data = (folder / SMALL).read_bytes()
    hub.mischief += [Mischief("short", SMALL, keep=10), Mischief("truncate", SMALL, keep=10)]
    lengths = []
    for _ in range(2):
        _, headers, body = ask(resolve(hub, SMALL))
        assert body == data[:10]
        lengths.append(headers["Content-Length"])
    assert lengths == [str(len(data)), "10"]
    assert hub.sent == 20
    hub.mischief.append(Mischief("truncate", SMALL, keep=10))
    with pytest.raises(OSError, match="Consistency check failed"):
        fetch(SMALL)


def test_bytes_can_be_swapped_and_the_client_does_not_see_it(hub: Hub, folder: Path, fetch: Fetch) -> None:
    data = (folder / LARGE).read_bytes()
    hub.mischief += [Mischief("swap", LARGE, at=299_999), Mischief("swap", LARGE)]
    assert fetch(LARGE) == data[:-1] + bytes([data[-1] ^ 0xFF])
    assert fetch(LARGE) == bytes(byte ^ 0xFF for byte in data)
    assert fetch(LARGE) == data


def test_bytes_can_trickle_at_first(hub: Hub, folder: Path, fetch: Fetch) -> None:
    hub.mischief.append(Mischief("trickle", LARGE, rate=50_000, first=20_000))
    begun = time.monotonic()
    assert fetch(LARGE) == (folder / LARGE).read_bytes()
    assert 0.4 <= time.monotonic() - begun < 5


@pytest.mark.parametrize("at", [None, 100_000])
def test_a_server_that_hangs_is_left_and_asked_again(
    hub: Hub, folder: Path, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, at: int | None
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    hub.mischief.append(Mischief("hang", LARGE, host="cdn", seconds=1, at=at))
    assert fetch(LARGE) == (folder / LARGE).read_bytes()
    assert [request.range for request in hub.requests if request.host == "cdn"] == [None, at and f"bytes={at}-"]
    assert hub.sent == 300_000


def test_a_redirect_leads_where_it_says(hub: Hub, folder: Path, fetch: Fetch) -> None:
    hub.mischief.append(Mischief("redirect", SMALL, location=resolve(hub, "1_Pooling/config.json")))
    assert fetch(SMALL) == (folder / "1_Pooling/config.json").read_bytes()


def test_a_branch_can_move_between_two_requests(hub: Hub, tmp_path: Path, fetch: Fetch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / SMALL).write_text("newer")
    before = hub.models[REPO]["commit"]
    hub.mischief.append(Mischief("move", SMALL, method="GET", action=lambda: hub.add(REPO, work)))
    with pytest.raises(OSError, match="Consistency check failed"):
        fetch(SMALL)
    assert hub.models[REPO]["commit"] != before
    assert fetch(SMALL) == b"newer"


def test_small_texts_can_come_compressed_and_without_a_length(hub: Hub, folder: Path, fetch: Fetch) -> None:
    hub.mischief.append(Mischief("gzip", SMALL))
    assert fetch(SMALL) == (folder / SMALL).read_bytes()
    assert 0 < hub.sent < (folder / SMALL).stat().st_size


def test_one_thing_goes_wrong_for_each_request_that_it_is_for(hub: Hub) -> None:
    hub.mischief += [
        Mischief("status", "none", code=500),
        Mischief("status", SMALL, host="cdn", code=501),
        Mischief("drop", SMALL, at=1),
        Mischief("status", SMALL, code=502),
    ]
    assert ask(resolve(hub, SMALL), "HEAD")[0] == 502
    assert ask(resolve(hub, SMALL), "HEAD")[0] == 200
    assert len(ask(resolve(hub, SMALL))[2]) == 1
    assert [rule.code for rule in hub.mischief] == [500, 501]


# How it runs


def test_it_ends_though_clients_still_read_and_hang(folder: Path) -> None:
    with running() as hub:
        hub.add(REPO, folder)
        hub.mischief += [Mischief("trickle", SMALL, rate=1), Mischief("hang", LARGE, seconds=60)]
        reading = [http.client.HTTPConnection(urlsplit(hub.address).netloc) for _ in range(3)]
        for connection, path in zip(reading, (SMALL, LARGE, ODD), strict=True):
            connection.request("GET", urlsplit(resolve(hub, path)).path)
        begun = time.monotonic()
    assert time.monotonic() - begun < 20
    for connection in reading:
        connection.close()


def test_a_process_of_its_own_serves_until_its_input_ends(folder: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "tests.support.stand_ins.hub",
        REPO,
        str(folder),
        "--rate",
        "1000000",
        "--print-sent",
    ]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        link = ask(f"{told['address']}/{REPO}/resolve/{told['commit']}/{LARGE}")[1]["Location"]
        begun = time.monotonic()
        assert ask(str(link))[2] == (folder / LARGE).read_bytes()
        assert time.monotonic() - begun >= 0.25
        rest, _ = process.communicate()
    assert json.loads(rest) == {"sent": 300_000}
    assert process.returncode == 0


@pytest.mark.skipif(not OLDER.exists(), reason="make test installs the older client")
def test_the_older_client_reads_it_too(hub: Hub, folder: Path, tmp_path: Path) -> None:
    hub.add("org/private", folder, private=True)
    code = (
        "import json, sys; from huggingface_hub import HfApi, __version__, hf_hub_download;"
        "repo, *names = sys.argv[1:];"
        "found = {entry.path for entry in HfApi().list_repo_tree(repo, recursive=True)}; assert set(names) < found;"
        "print(json.dumps([__version__, *(hf_hub_download(repo, name) for name in names)]))"
    )
    env = {"PYTHONPATH": str(OLDER), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN}
    words = [sys.executable, "-c", code, "org/private", LARGE, SMALL, ODD]
    env = {**os.environ, **env, "HF_HOME": str(tmp_path)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    version, *paths = json.loads(done.stdout)
    assert version.startswith("0.")
    assert [Path(path).read_bytes() for path in paths] == [(folder / name).read_bytes() for name in (LARGE, SMALL, ODD)]
