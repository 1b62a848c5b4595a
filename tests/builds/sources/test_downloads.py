"""Downloads from a Hub that misbehaves: the genuine client, against a stand-in of the server."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from mar_pipeline.cache.store import Store
from mar_pipeline.errors import InputError
from mar_pipeline.sources.hub.cache import link as put_into_snapshot
from mar_pipeline.sources.hub.repository import Hub as Source
from tests.long.torture.downloads import BYTES, REPO, Trial, checkpoint
from tests.support.proxy import Mischief, Pace
from tests.support.stand_ins.hub import TOKEN, Hub, running

pytestmark = pytest.mark.slow

SHARD = "model-2-of"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("hub") / "sharded", seed=5)


@pytest.fixture
def hub(source: Path) -> Iterator[Hub]:
    with running() as found:
        found.add(REPO, source)
        yield found


@pytest.fixture
def trial(hub: Hub, tmp_path: Path) -> Trial:
    return Trial(tmp_path, hub)


def digests(source: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in source.iterdir()}


def came(trial: Trial) -> dict[str, str]:
    """The digests of what came. Fails the test if the download failed."""
    found, err = trial.finish()
    assert found, err
    return {path: sha for path, (sha, _) in found.items()}


def refusal(trial: Trial) -> str:
    """The last line of a download that failed, which names the error."""
    found, err = trial.finish()
    assert not found
    return err


def size(source: Path) -> int:
    return sum(file.stat().st_size for file in source.iterdir())


@pytest.mark.parametrize(
    "mischief",
    [
        Mischief("drop", SHARD, at=1_234_567, reset=True),
        Mischief("drop", SHARD, times=3, at=1_000_000),
        Mischief("short", SHARD, keep=2_000_000),
        Mischief("truncate", SHARD, keep=2_000_000),
        Mischief("status", "model", host="cdn", times=2, code=503),
        Mischief("status", "api/models", times=2, code=502),
        Mischief("status", "model", host="cdn", code=429, retry_after=1),
        Mischief("hang", SHARD, seconds=5, at=100_000),
        Mischief("trickle", SHARD, rate=2e5, first=60_000),
    ],
    ids=lambda one: f"{one.kind} {one.code if one.kind == 'status' else one.times}",
)
def test_what_breaks_off_or_is_busy_is_asked_again_from_where_it_was(
    hub: Hub, trial: Trial, source: Path, mischief: Mischief
) -> None:
    hub.mischief.append(mischief)
    trial.env["HF_HUB_DOWNLOAD_TIMEOUT"] = "1"
    assert came(trial) == digests(source)
    assert not hub.mischief
    assert hub.sent <= 1.2 * size(source)


def test_a_server_that_says_how_long_it_is_busy_is_not_asked_before(hub: Hub, trial: Trial, source: Path) -> None:
    hub.mischief.append(Mischief("status", "api/models", code=503, retry_after=2))
    start = time.monotonic()
    assert came(trial) == digests(source)
    assert time.monotonic() - start > 2


@pytest.mark.parametrize("file", [SHARD, "config.json", "index.json"])
def test_other_bytes_of_the_right_size_are_fetched_again_and_never_kept(
    hub: Hub, trial: Trial, source: Path, file: str
) -> None:
    hub.mischief.append(Mischief("swap", file, method="GET", at=1))
    assert came(trial) == digests(source)
    assert not hub.mischief


@pytest.mark.parametrize("file", [SHARD, "config.json"])
def test_a_server_that_always_gives_other_bytes_is_refused_and_leaves_nothing(
    hub: Hub, trial: Trial, source: Path, file: str
) -> None:
    hub.mischief.append(Mischief("swap", file, method="GET", times=9, at=1))
    assert "does not have the digest that its repository lists" in refusal(trial)
    bad = [path for path in trial.folder.rglob("*") if path.is_file() and path.name.startswith(file)]
    assert not bad
    whole = set(digests(source).values())
    blobs = {path.name for path in trial.folder.rglob("blobs/*")}
    assert {name for name in blobs if len(name) == 64} <= whole
    (listed,) = hub.models[REPO]["commits"].values()
    (bad,) = [one for name, one in listed.files.items() if name.startswith(file)]
    assert not [name for name in blobs if name.startswith((bad.sha256, bad.oid))]


def test_a_range_that_the_server_ignores_costs_the_start_again_and_nothing_else(
    hub: Hub, trial: Trial, source: Path
) -> None:
    hub.mischief += [Mischief("drop", SHARD, at=2_000_000), Mischief("no-range", SHARD)]
    assert came(trial) == digests(source)
    assert hub.sent_by["model-2-of-3.safetensors"] <= 2_100_000 + BYTES


def test_a_branch_that_moves_in_mid_download_moves_nothing(
    hub: Hub, trial: Trial, source: Path, tmp_path: Path
) -> None:
    other = checkpoint(tmp_path / "other", seed=6)
    hub.mischief.append(Mischief("move", SHARD, action=lambda: hub.add(REPO, other)))
    assert came(trial) == digests(source)
    assert came(trial) == digests(other)


def test_a_redirect_elsewhere_brings_neither_its_bytes_nor_our_token_there(
    hub: Hub, trial: Trial, tmp_path: Path
) -> None:
    with running() as elsewhere:
        other = checkpoint(tmp_path / "other", seed=7)
        commit = elsewhere.add(REPO, other)
        away = f"{elsewhere.address}/{REPO}/resolve/{commit}/config.json"
        hub.mischief.append(Mischief("redirect", SHARD, times=9, location=away))
        trial.env["HF_TOKEN"] = TOKEN
        assert "StageError" in refusal(trial)
        assert elsewhere.requests
        assert not [one for one in elsewhere.requests if one.authorization]
        assert [one for one in hub.requests if one.host == "hub" and one.authorization]
        assert not [one for one in hub.requests if one.host == "cdn" and one.authorization]


def test_two_downloads_at_once_bring_each_file_once(hub: Hub, trial: Trial, source: Path) -> None:
    hub.pace = Pace(2e7, hub.stopped)
    processes = [trial.start() for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert {path: sha for path, (sha, _) in json.loads(out.splitlines()[-1]).items()} == digests(source)
    assert hub.sent <= 1.1 * size(source)


def test_a_file_that_several_put_into_a_snapshot_at_once_is_there_all_the_time(tmp_path: Path) -> None:
    blob, file = tmp_path / "blobs" / "content", tmp_path / "snapshots" / "commit" / "model.safetensors"
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    put_into_snapshot(file, blob)

    def again(_: int) -> bytes:
        put_into_snapshot(file, blob)
        return file.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(again, range(2_000))) == {b"weights"}
    assert file.is_symlink()
    assert blob.read_bytes() == b"weights"
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_file_that_changed_in_the_hugging_face_cache_is_noticed(hub: Hub, trial: Trial, source: Path) -> None:
    came(trial)
    (snapshot,) = trial.folder.rglob("snapshots/*")
    file = (snapshot / "model-2-of-3.safetensors").resolve()
    data = bytearray(file.read_bytes())
    data[7] ^= 1
    file.write_bytes(data)
    trial.env["HF_HUB_OFFLINE"] = "1"
    assert "differs from org/sharded at" in refusal(trial)
    trial.env["HF_HUB_OFFLINE"] = "0"
    sent = hub.sent
    assert came(trial) == digests(source)
    assert BYTES <= hub.sent - sent < 1.1 * BYTES


def test_what_is_fetched_lies_where_the_hubs_own_client_finds_it(hub: Hub, trial: Trial, source: Path) -> None:
    came(trial)
    from huggingface_hub import snapshot_download

    cache = trial.folder / "hf" / "hub"
    for revision in ("main", hub.models[REPO]["commit"]):
        found = Path(snapshot_download(REPO, revision=revision, cache_dir=cache, local_files_only=True))
        assert digests(found) == digests(source)


def test_what_the_hubs_own_client_has_fetched_is_not_fetched_again(hub: Hub, trial: Trial, source: Path) -> None:
    from huggingface_hub import snapshot_download

    cache = trial.folder / "hf" / "hub"
    snapshot_download(REPO, endpoint=hub.address, cache_dir=cache)
    sent = hub.sent
    assert came(trial) == digests(source)
    assert hub.sent == sent


def test_ctrl_c_ends_a_slow_download_at_once_and_keeps_what_came(hub: Hub, trial: Trial, source: Path) -> None:
    hub.pace = Pace(3e6, hub.stopped)
    process = trial.start()
    while hub.sent < 1_500_000 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    process.wait(timeout=20)
    assert time.monotonic() - start < 2
    hub.pace = None
    assert came(trial) == digests(source)
    assert hub.sent <= 1.2 * size(source)


@pytest.mark.parametrize("name", ["../../../../victim", "/tmp/victim", "v" * 300])
def test_what_a_server_calls_contents_names_no_file_outside_the_cache(hub: Hub, trial: Trial, name: str) -> None:
    (commit,) = hub.models[REPO]["commits"].values()
    commit.files["config.json"] = replace(commit.files["config.json"], oid=name)
    trial.finish()
    inside = trial.folder / "hf" / "hub"
    there = [path for path in trial.folder.rglob("*") if path.is_file() and inside not in path.parents]
    assert {path.relative_to(trial.folder).parts[0] for path in there} <= {"cache"}


@pytest.mark.parametrize("revision", ["/etc/passwd", "..", "a/../b", "", "a\nb", "ü"])
def test_a_revision_that_is_a_path_is_refused_before_anything_is_read(tmp_path: Path, revision: str) -> None:
    if not revision:
        assert Source(Store(tmp_path), REPO, revision, no_network=True).revision == "main"
        return
    with pytest.raises(InputError) as caught:
        Source(Store(tmp_path), REPO, revision, no_network=True)
    assert "cannot be a revision" in str(caught.value)


def test_a_link_out_of_the_hugging_face_cache_loses_nothing_of_the_users(trial: Trial, source: Path) -> None:
    came(trial)
    (snapshot,) = trial.folder.rglob("snapshots/*")
    mine = trial.folder / "my-own-work"
    mine.write_bytes(b"mine")
    (snapshot / "model-2-of-3.safetensors").unlink()
    (snapshot / "model-2-of-3.safetensors").symlink_to(mine)
    assert came(trial) == digests(source)
    assert mine.read_bytes() == b"mine"


def test_a_body_that_does_not_end_is_cut_off(hub: Hub, trial: Trial) -> None:
    (commit,) = hub.models[REPO]["commits"].values()
    name = "model-2-of-3.safetensors"
    commit.files[name] = replace(commit.files[name], size=100_000)
    assert "StageError" in refusal(trial)
    assert not [path for path in trial.folder.rglob("*") if path.is_file() and path.stat().st_size == BYTES - 1]
