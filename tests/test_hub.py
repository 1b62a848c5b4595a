"""Models from the Hub: the genuine client against a stand-in of the server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Mar
from tests.hub_stand_in import TOKEN, Hub, running

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
        yield found


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
    online.build(*TASK, "--model", "org/tiny")
    online.env["HF_HOME"] = str(tmp_path / "another")
    (archive,) = online.build(*TASK, "--model", "org/tiny")
    assert all(stage["cached"] for stage in archive["stages"])
    (tmp_path / "hf").rename(tmp_path / "gone")
    (archive,) = online.build(*TASK, "--model", "org/tiny")
    assert [stage["stage"] for stage in archive["stages"] if not stage["cached"]] == ["download"]


@pytest.mark.parametrize(
    ("model", "words", "code", "said"),
    [
        ("org/none", (), 2, "No such model"),
        ("org/private", (), 2, "No such model"),
        ("org/gated", (), 2, "HF_TOKEN"),
        ("org/pickled", (), 2, "pickled (pytorch_model.bin)"),
        ("org/tiny", ("--revision", "v9"), 2, "no revision 'v9'"),
        ("org/tiny", ("--offline",), 2, "without --offline"),
    ],
    ids=["none", "private", "gated", "pickled", "revision", "offline"],
)
def test_what_cannot_be_had_is_said_in_three_lines(
    online: Mar, model: str, words: tuple[str, ...], code: int, said: str
) -> None:
    done = online("build", *TASK, "--model", model, *words)
    assert done.returncode == code, done.stderr
    error = done.stderr[done.stderr.index("error:") :]
    assert said in error
    assert len(error.strip().splitlines()) <= 3


def test_a_hub_that_cannot_be_reached_is_said_with_what_to_set(online: Mar) -> None:
    done = online("build", *TASK, "--model", "org/tiny", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 3
    assert "--offline" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_token_opens_a_private_model_and_is_written_nowhere(online: Mar) -> None:
    (archive,) = online.build(*TASK, "--model", "org/private", HF_TOKEN=TOKEN)
    everything = [file for file in (*online.cache.rglob("*"), *online.out.rglob("*")) if file.is_file()]
    assert online.folder / archive["path"] in everything
    assert not [file for file in everything if TOKEN.encode() in file.read_bytes()]
