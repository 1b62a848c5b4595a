"""Locks: what they hold, what a build does with one, and what has drifted."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.model.lock import Lock, read
from tests.support import tiny
from tests.support.mar import Mar
from tests.support.proxy import Mischief
from tests.support.stand_ins.hub import Hub, running

pytestmark = pytest.mark.slow

CONFIG = "handler: {{mode: sequence_classification, model_name: {model}{more}}}\narchive: {{name: locked}}\n"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another tiny BERT."""
    return tiny.save(tmp_path_factory.mktemp("other") / "bert", "bert", "seq_classification", intermediate_size=48)


@pytest.fixture
def hub(bert: Path) -> Iterator[Hub]:
    with running() as found:
        found.add("org/tiny", bert, license="mit")
        yield found


@pytest.fixture
def online(hub: Hub, fresh_mar: Mar) -> Mar:
    fresh_mar.env |= {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address}
    return fresh_mar


def config(mar: Mar, model: str, more: str = "") -> Path:
    path = mar.folder / "model.yaml"
    path.write_text(CONFIG.format(model=model, more=more))
    return path


def written(mar: Mar, path: Path) -> dict[str, Any]:
    done = mar("lock", path)
    assert done.returncode == 0, done.stderr
    return dict(json.loads((path.parent / f"{path.name}.lock").read_text()))


def error(done: Any, code: int) -> str:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    told = str(done.stderr[done.stderr.index("error:") :])
    assert len(told.strip().splitlines()) <= 3
    return told


def test_a_lock_holds_the_commit_the_licence_and_every_file_and_no_weights_are_fetched_for_it(
    hub: Hub, online: Mar, bert: Path
) -> None:
    found = written(online, config(online, "org/tiny"))
    commit = hub.models["org/tiny"]["commit"]
    assert found["sources"] == [{"kind": "hub", "repo": "org/tiny", "commit": commit}]
    assert found["license"] == "mit"
    assert found["files"] == {
        file.name: {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": file.stat().st_size}
        for file in bert.iterdir()
    }
    assert list(found["files"]) == sorted(found["files"])
    assert hub.sent_by["model.safetensors"] == 0


def test_a_lock_is_the_same_text_whenever_and_wherever_it_is_written(online: Mar, tmp_path: Path) -> None:
    path = config(online, "org/tiny")
    written(online, path)
    first = path.with_name("model.yaml.lock").read_bytes()
    path.with_name("model.yaml.lock").unlink()
    online.env |= {"HF_HOME": str(tmp_path / "another"), "MAR_CACHE": str(tmp_path / "cache-2"), "PYTHONHASHSEED": "7"}
    written(online, path)
    assert path.with_name("model.yaml.lock").read_bytes() == first


def test_a_branch_that_moved_is_told_by_check_and_changes_no_locked_build(hub: Hub, online: Mar, other: Path) -> None:
    path = config(online, "org/tiny")
    before = written(online, path)
    assert online("lock", "--check", path).returncode == 0
    hub.add("org/tiny", other)
    assert "commit" in error(online("lock", "--check", path), 2)
    assert before == json.loads(path.with_name("model.yaml.lock").read_text())
    asked = len(hub.asked)
    (archive,) = online.packed(path, "--locked")
    assert archive["locked"]
    assert archive["source"]["commit"] == before["sources"][0]["commit"]
    files = json.loads(online("inspect", archive["path"], "--json").stdout)["provenance"]["checkpoint"]
    assert files == {name: file["sha256"] for name, file in before["files"].items()}
    assert not [line for line in hub.asked[asked:] if line.endswith("/revision/main")]
    (unlocked,) = online.packed(path, "--model", "org/tiny", "--revision", "main")
    assert not unlocked["locked"]
    assert unlocked["source"]["commit"] == hub.models["org/tiny"]["commit"] != before["sources"][0]["commit"]


def test_an_unlocked_model_of_the_hub_is_built_and_said_to_be_unlocked(online: Mar, hub: Hub) -> None:
    path = config(online, "org/tiny")
    done = online("build", path, "--out", online.out)
    assert done.returncode == 0
    assert f"mar lock {path}" in done.stderr
    assert hub.models["org/tiny"]["commit"][:12] in done.stderr
    assert "licence mit" in done.stdout
    written(online, path)
    assert "not locked" not in online("build", path, "--out", online.out).stderr


def test_a_lock_is_demanded_by_locked_and_has_to_be_of_the_config(online: Mar, hub: Hub, bert: Path) -> None:
    hub.add("org/other", bert)
    path = config(online, "org/tiny")
    assert "has no lock" in error(online("plan", path, "--locked"), 2)
    written(online, path)
    assert online("plan", path, "--locked").returncode == 0
    assert "org/other, but was org/tiny" in error(online("plan", path, "--locked", "--model", "org/other"), 2)
    config(online, "org/tiny", ", revision: v2")
    assert "handler.revision is v2, but was None" in error(online("plan", path, "--locked"), 2)


def test_files_that_differ_from_the_lock_are_refused_by_name_wherever_they_came_from(
    online: Mar,
) -> None:
    path = config(online, "org/tiny")
    lock = path.with_name("model.yaml.lock")
    found = written(online, path)
    found["files"]["model.safetensors"]["sha256"] = "0" * 64
    lock.write_text(json.dumps(found))
    told = error(online("build", path, "--out", online.out), 2)
    assert "model.safetensors is " in told
    assert f"mar lock {path}" in told
    assert not online.out.exists()


def test_a_folder_that_changed_is_warned_of_and_refused_when_locked(fresh_mar: Mar, bert: Path, other: Path) -> None:
    folder = shutil.copytree(bert, fresh_mar.folder / "checkpoint")
    path = config(fresh_mar, "./checkpoint")
    written(fresh_mar, path)
    assert fresh_mar("lock", "--check", path).returncode == 0
    fresh_mar.packed(path, "--locked")
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")
    shutil.copy(other / "config.json", folder / "config.json")
    (folder / "added_tokens.json").write_text("{}")
    told = error(fresh_mar("build", path, "--locked", "--out", fresh_mar.out), 2)
    assert "added_tokens.json is new; config.json is " in told
    assert "model.safetensors is " in told
    done = fresh_mar("build", path, "--out", fresh_mar.out)
    assert done.returncode == 0, done.stderr
    assert "warning: ./checkpoint is not what" in done.stderr
    assert "added_tokens.json is new" in error(fresh_mar("lock", "--check", path), 2)
    written(fresh_mar, path)
    assert fresh_mar("lock", "--check", path).returncode == 0


def test_a_locked_and_fetched_model_needs_no_network(online: Mar, hub: Hub) -> None:
    path = config(online, "org/tiny")
    written(online, path)
    (first,) = online.packed(path)
    asked = len(hub.asked)
    (again,) = online.packed(path, "--locked", "--offline")
    assert again["sha256"] == first["sha256"]
    assert len(hub.asked) == asked


def test_a_shard_that_was_tampered_with_never_passes_a_lock(online: Mar, hub: Hub) -> None:
    path = config(online, "org/tiny")
    written(online, path)
    hub.mischief.append(Mischief("swap", "safetensors", method="GET", times=9, at=9))
    assert "does not have the digest" in error(online("build", path, "--locked", "--out", online.out), 3)
    assert not online.out.exists()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 1}', "<<<<<<< ours", '{"format": 9}', '{"format": 1, "files": 3}'],
    ids=["empty", "cut", "list", "bare", "merge", "newer", "wrong"],
)
def test_a_lock_that_cannot_be_read_is_no_lock(fresh_mar: Mar, text: str) -> None:
    path = config(fresh_mar, "starter:seq_classification")
    path.with_name("model.yaml.lock").write_text(text)
    told = error(fresh_mar("plan", path), 2)
    assert f"mar lock {path}" in told


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    lock = Lock(model="m", settings={"revision": "v1"}, sources=[{"kind": "folder"}], license=None, files={})
    (tmp_path / "a.yaml.lock").write_text(lock.to_json())
    assert read(tmp_path / "a.yaml") == lock
    assert read(tmp_path / "b.yaml") is None


def test_the_task_of_a_locked_model_is_told_by_its_commit(online: Mar, hub: Hub, tmp_path: Path) -> None:
    path = config(online, "org/tiny")
    path.write_text(path.read_text().replace("mode: sequence_classification, ", ""))
    written(online, path)
    hub.add("org/tiny", tiny.save(tmp_path / "tagger", "bert", "token_classification"))
    asked = len(hub.asked)
    done = online("plan", path, "--locked")
    assert done.returncode == 0, done.stderr
    assert not [line for line in hub.asked[asked:] if line.endswith("/revision/main")]


def test_a_locked_build_without_the_network_gives_the_same_bytes_elsewhere(online: Mar, tmp_path: Path) -> None:
    path = config(online, "org/tiny")
    written(online, path)
    (first,) = online.packed(path)
    (again,) = online.packed(path, "--locked", "--offline", MAR_CACHE=str(tmp_path / "another"))
    assert again["sha256"] == first["sha256"]
    assert again["source"]["license"] == "mit"


def test_looking_at_a_branch_that_moved_does_not_spoil_what_is_built_offline(
    online: Mar, hub: Hub, other: Path
) -> None:
    path = config(online, "org/tiny")
    (first,) = online.packed(path)
    hub.add("org/tiny", other)
    assert online("plan", path).returncode == 0
    assert online("lock", "--check", path).returncode == 2
    (again,) = online.packed(path, "--offline")
    assert again["sha256"] == first["sha256"]


def test_a_part_of_a_commit_in_the_cache_is_not_taken_for_the_whole_later(
    online: Mar, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, hf_hub_download

    # It reads its variable when it is imported, which may have been in another test.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        hf_hub_download("org/tiny", name, endpoint=hub.address, cache_dir=online.folder / "hf" / "hub")
    path = config(online, "org/tiny")
    assert "its cache may have a part only" in error(online("lock", "--offline", path), 2)
    online.packed(path, "--offline")
    (whole,) = online.packed(path)
    files = json.loads(online("inspect", whole["path"], "--json").stdout)["provenance"]["checkpoint"]
    assert "tokenizer_config.json" in files


def test_a_lock_that_cannot_be_read_is_written_anew(fresh_mar: Mar) -> None:
    path = config(fresh_mar, "starter:seq_classification")
    path.with_name("model.yaml.lock").write_text("<<<<<<< ours")
    written(fresh_mar, path)
    assert fresh_mar("plan", path, "--locked").returncode == 0


def test_a_licence_that_changed_has_drifted_too(fresh_mar: Mar, bert: Path) -> None:
    folder = shutil.copytree(bert, fresh_mar.folder / "checkpoint")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    path = config(fresh_mar, "./checkpoint")
    assert written(fresh_mar, path)["license"] == "mit"
    assert fresh_mar("build", path, "--locked", "--out", fresh_mar.out).returncode == 0
    (folder / "README.md").write_text("---\nlicense: gpl-3.0\n---\n")
    assert "its licence is gpl-3.0, and was mit" in error(fresh_mar("build", path, "--locked"), 2)
    (archive,) = fresh_mar.packed(path)
    assert not archive["locked"]
