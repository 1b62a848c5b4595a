"""Registered models of MLflow: its genuine client against a registry in a folder, and against a stand-in of its
server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mar_pipeline import sources
from mar_pipeline.cache.store import Store
from mar_pipeline.errors import InputError, MarError, StageError
from mar_pipeline.model.address import find
from mar_pipeline.sources.mlflow import registry as mlflow
from mar_pipeline.sources.source import Source
from tests.builds.sources.test_object_stores import error_of, fetch, sha256
from tests.support import s3
from tests.support.mar import Mar
from tests.support.stand_ins import mlflow as mlflow_stand_in
from tests.support.stand_ins.mlflow import PASSWORD, USER

pytestmark = pytest.mark.slow

TASK = ("--task", "seq_classification")
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def registry(tmp_path: Path, fresh_mar: Mar, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of an empty registry, which is the command line's too."""
    env = {
        "MLFLOW_TRACKING_URI": (tmp_path / "registry").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    fresh_mar.env |= env
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    from mlflow import MlflowClient

    client = MlflowClient(env["MLFLOW_TRACKING_URI"], env["MLFLOW_TRACKING_URI"])
    client.create_registered_model("tiny")
    return client


def config(mar: Mar, model: str) -> Path:
    path = mar.folder / "c.yaml"
    path.write_text(f"handler: {{mode: sequence_classification, model_name: '{model}'}}\n")
    return path


def as_mlflow_saves(checkpoint: Path, folder: Path) -> Path:
    """A checkpoint as MLflow's flavour for transformers lays it out."""
    (folder / "components" / "tokenizer").mkdir(parents=True)
    (folder / "model").mkdir()
    (folder / "MLmodel").write_text("flavors: {transformers: {}}\n")
    for file in checkpoint.iterdir():
        shutil.copy(file, folder / ("components/tokenizer" if file.name.startswith("tok") else "model") / file.name)
    return folder


def test_a_registered_folder_builds_by_its_alias_and_again_without_the_registry(
    registry: Any, fresh_mar: Mar, bert: Path, tmp_path: Path
) -> None:
    saved = as_mlflow_saves(bert, tmp_path / "saved")
    registry.create_model_version("tiny", saved.as_uri())
    registry.set_registered_model_alias("tiny", "champion", "1")
    (archive,) = fresh_mar.build(*TASK, "--model", "models:/tiny@champion")
    assert archive["name"] == "tiny"
    assert archive["source"] == {"kind": "mlflow", "model": "tiny", "version": "1"}
    told = json.loads(fresh_mar("inspect", archive["path"], "--json").stdout)["provenance"]["checkpoint"]
    assert told == {file.name: sha256(file.read_bytes()) for file in bert.iterdir()}
    (again,) = fresh_mar.build(*TASK, "--model", "models:/tiny@champion", "--offline", MLFLOW_TRACKING_URI=NOWHERE)
    assert all(stage["cached"] for stage in again["stages"])


def test_a_lock_keeps_the_version_when_the_alias_moves(
    registry: Any, fresh_mar: Mar, bert: Path, tmp_path: Path
) -> None:
    with s3.running() as server:
        fresh_mar.env |= s3.environment(server.address)
        registry.create_model_version("tiny", server.add("registered/1", bert))
        registry.set_registered_model_alias("tiny", "champion", "1")
        path = config(fresh_mar, "models:/tiny@champion")
        assert fresh_mar("lock", path).returncode == 0
        told = json.loads((tmp_path / "c.yaml.lock").read_text())
        assert told["sources"] == [{"kind": "mlflow", "model": "tiny", "version": "1"}]
        (archive,) = fresh_mar.packed(path, "--locked")

        other = shutil.copytree(bert, tmp_path / "other")
        weights = bytearray((other / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (other / "model.safetensors").write_bytes(bytes(weights))
        registry.create_model_version("tiny", server.add("registered/2", other))
        registry.set_registered_model_alias("tiny", "champion", "2")
        (again,) = fresh_mar.packed(path)
        assert again["sha256"] == archive["sha256"]
        (unasked,) = fresh_mar.packed(path, MLFLOW_TRACKING_URI=NOWHERE, AWS_ENDPOINT_URL=NOWHERE)
        assert all(stage["cached"] for stage in unasked["stages"])
        assert "the model: version 1 -> 2" in error_of(fresh_mar("lock", "--check", path), 2)
        (fresh,) = fresh_mar.packed(path, MAR_CACHE=str(tmp_path / "elsewhere"))
        assert fresh["sha256"] == archive["sha256"]
        (tmp_path / "c.yaml.lock").unlink()
        (new,) = fresh_mar.packed(path)
        assert new["source"]["version"] == "2"
        assert new["sha256"] != archive["sha256"]


def test_what_mlflow_calls_its_files_is_followed_to_where_they_are(registry: Any, bert: Path, tmp_path: Path) -> None:
    run = registry.create_run("0")
    registry.log_artifacts(run.info.run_id, str(bert), "model")
    for place in (f"runs:/{run.info.run_id}/model", str(bert), bert.as_uri()):
        version = registry.create_model_version("tiny", place).version
        assert set(source(Store(tmp_path / "cache"), f"models:/tiny/{version}").sizes()) == {
            file.name for file in bert.iterdir()
        }
    assert source(Store(tmp_path / "cache"), "models:/tiny/latest").provenance()["version"] == str(version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stages are on their way out
        registry.transition_model_version_stage("tiny", "2", "Production")
    assert source(Store(tmp_path / "cache"), "models:/tiny/Production").provenance()["version"] == "2"


@pytest.mark.parametrize(
    ("model", "env", "code", "said"),
    [
        ("models:/none/1", {}, 2, "models:/none/1 does not exist in MLflow"),
        ("models:/tiny/9", {}, 2, "models:/tiny/9 does not exist in MLflow"),
        ("models:/tiny@nobody", {}, 2, "models:/tiny@nobody does not exist in MLflow"),
        ("models:/tiny/Production", {}, 2, "models:/tiny/Production does not exist in MLflow"),
        ("models:/tiny/1", {}, 2, "not a folder on this machine"),
        ("models:/tiny/2", {}, 2, "is at an address that cannot be used"),
        ("models:/tiny/1", {"MLFLOW_TRACKING_URI": ""}, 2, "Set MLFLOW_TRACKING_URI"),
        ("models:/tiny/1", {"MLFLOW_ALLOW_FILE_STORE": "false"}, 2, "MLFLOW_ALLOW_FILE_STORE=true"),
        ("models:/tiny/1", {"MLFLOW_TRACKING_URI": "sqlite:////nowhere/x.db"}, 2, "cannot read"),
        ("models:/tiny/1", {"MLFLOW_TRACKING_URI": f"{NOWHERE}/a-secret-path"}, 3, "cannot be reached"),
        ("models:/tiny@never-seen", {"offline": "yes"}, 2, "without --offline"),
        ("models:/tiny", {}, 2, "models:/NAME/VERSION"),
        ("runs:/abc/model", {}, 2, "mlflow.register_model"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_said_in_three_lines(
    registry: Any, fresh_mar: Mar, model: str, env: dict[str, str], code: int, said: str
) -> None:
    registry.create_model_version("tiny", "file:///no/such/folder")
    registry.create_model_version("tiny", "s3://key:secret@bucket/x")
    words = ["--offline"] if env.pop("offline", None) else []
    done = fresh_mar("build", *TASK, "--model", model, *words, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", **env)
    error = error_of(done, code)
    assert said in error
    assert "secret" not in done.stderr
    assert not (fresh_mar.folder / "mlflow.db").exists()
    assert not (fresh_mar.folder / "mlruns").exists()


def test_a_missing_package_is_named(fresh_mar: Mar, tmp_path: Path) -> None:
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "mlflow.py").write_text("raise ImportError('not here')")
    env = {"PYTHONPATH": str(tmp_path / "stub"), "MLFLOW_TRACKING_URI": NOWHERE}
    error = error_of(fresh_mar("build", *TASK, "--model", "models:/x/1", **env), 2)
    assert "pip install 'mar-pipeline[mlflow]'" in error


# Files that only the server has


@pytest.fixture
def server(bert: Path, tmp_path: Path) -> Iterator[mlflow_stand_in.Server]:
    as_mlflow_saves(bert, tmp_path / "artifacts/0/run/saved")
    with mlflow_stand_in.running(tmp_path / "artifacts") as found:
        found.versions, found.aliases = {"3": "mlflow-artifacts:/0/run/saved"}, {"champion": "3"}
        yield found


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    env = {
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return env


def source(store: Store, model: str) -> Source:
    found = sources.of(store, False, find(model, []), None)
    found.may_fetch = True
    return found


def test_a_model_of_a_server_builds_and_its_password_is_written_nowhere(
    server: mlflow_stand_in.Server, credentials: dict[str, str], fresh_mar: Mar, bert: Path
) -> None:
    fresh_mar.env |= {**credentials, "MLFLOW_TRACKING_URI": server.address}
    done = fresh_mar("build", *TASK, "--model", "models:/tiny@champion", "--out", fresh_mar.out)
    assert done.returncode == 0, done.stderr
    told = json.loads(fresh_mar("inspect", fresh_mar.out / "model-store/tiny.mar", "--json").stdout)["provenance"]
    assert told["source"] == {"kind": "mlflow", "model": "tiny", "version": "3"}
    assert told["checkpoint"] == {file.name: sha256(file.read_bytes()) for file in bert.iterdir()}
    (again,) = fresh_mar.build(*TASK, "--model", "models:/tiny@champion", "--offline", MLFLOW_TRACKING_URI=NOWHERE)
    assert all(stage["cached"] for stage in again["stages"])

    said: list[subprocess.CompletedProcess[str]] = [done]
    address = server.address.replace("//", f"//{USER}:{PASSWORD}@")
    for env in ({"MLFLOW_TRACKING_PASSWORD": "wrong"}, {"MLFLOW_TRACKING_URI": address.rpartition(":")[0] + ":9"}):
        said.append(fresh_mar("build", *TASK, "--model", "models:/tiny@champion", **env))
    assert "MLFLOW_TRACKING_PASSWORD" in error_of(said[1], 2)
    error_of(said[2], 3)
    assert not [one for one in said if PASSWORD in one.stdout + one.stderr]
    everything = [file for file in (*fresh_mar.cache.rglob("*"), *fresh_mar.out.rglob("*")) if file.is_file()]
    assert len(everything) > 20
    assert not [file for file in everything if PASSWORD.encode() in file.read_bytes()]


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("ranges", [True, False])
def test_what_breaks_off_goes_on_where_the_server_can_and_else_begins_anew(
    server: mlflow_stand_in.Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    ranges: bool,
) -> None:
    data = os.urandom(4 << 20)
    (tmp_path / "artifacts/0/run/saved/w").write_bytes(data)
    server.ranges = ranges
    with s3.proxy(server.address) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
        found = source(Store(tmp_path / "cache"), "models:/tiny/3")
        assert found.sizes()["w"] == len(data)
        proxy.cuts = [1_000_000, 1_500_000]
        assert fetch(found, "w") == {"w": sha256(data)}
        assert not proxy.cuts
        assert proxy.sent < (1.05 if ranges else 1.7) * len(data)


@pytest.mark.usefixtures("credentials")
def test_a_server_that_ends_too_early_each_time_is_an_error(
    server: mlflow_stand_in.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "artifacts/0/run/saved/w").write_bytes(os.urandom(1 << 20))
    server.ranges = False
    with s3.proxy(server.address) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
        found = source(Store(tmp_path / "cache"), "models:/tiny/3")
        assert found.sizes()
        proxy.cuts = [100_000] * 100
        with pytest.raises(StageError, match="cannot be reached"):
            fetch(found, "w")


# Whom the password is told


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[mlflow_stand_in.Server]:
    """Another server, which notes what it is asked."""
    (tmp_path / "of-a-stranger").mkdir()
    with mlflow_stand_in.running(tmp_path / "of-a-stranger") as found:
        yield found


def port_of(server: mlflow_stand_in.Server) -> str:
    return server.address.rpartition(":")[2]


SERVICE = "api/2.0/mlflow-artifacts/artifacts"


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    "place",
    [
        "mlflow-artifacts://127.0.0.1:{other}/0/run/saved",
        "mlflow-artifacts://127.0.0.1:{own}@127.0.0.1:{other}/0/run/saved",
        "mlflow-artifacts://localhost:{own}/0/run/saved",
        "mlflow-artifacts://127.0.0.1/0/run/saved",
        "mlflow-artifacts://{other}/0/run/saved",
        "MLFLOW-ARTIFACTS://127.0.0.1:{other}/0/run/saved",
        "http://127.0.0.1:{other}/" + SERVICE + "/0/run/saved",
        "http://127.0.0.1:{own}@127.0.0.1:{other}/" + SERVICE + "/0/run/saved",
        "https://127.0.0.1:{own}/" + SERVICE + "/0/run/saved",
        "http://127.0.0.1:{own}/another/application",
        "http://127.0.0.1:notaport/" + SERVICE + "/0/run/saved",
        "http://[/" + SERVICE,
    ],
)
def test_files_at_another_host_than_the_tracking_servers_are_not_asked_for(
    server: mlflow_stand_in.Server,
    stranger: mlflow_stand_in.Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    place: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    server.versions["3"] = place.format(own=port_of(server), other=port_of(stranger))
    with pytest.raises(InputError, match="models:/tiny/3 is at ") as caught:
        source(Store(tmp_path / "cache"), "models:/tiny/3").sizes()
    assert PASSWORD not in str(caught.value)
    assert not stranger.asked
    assert not [path for path, _ in server.asked if "artifacts" in path]


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    "prefix", ["mlflow-artifacts:/", "mlflow-artifacts://{host}/", "http://{host}/" + SERVICE + "/"]
)
@pytest.mark.parametrize("login", ["", f"{USER}:{PASSWORD}@"])
def test_files_at_the_tracking_server_are_fetched_however_their_address_names_it(
    server: mlflow_stand_in.Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    prefix: str,
    login: str,
) -> None:
    if login:
        monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
        monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address.replace("://", f"://{login}"))
    server.versions["3"] = prefix.format(host=f"127.0.0.1:{port_of(server)}") + "0/run/saved"
    found = source(Store(tmp_path / "cache"), "models:/tiny/3")
    assert fetch(found, "MLmodel") == {"MLmodel": sha256((tmp_path / "artifacts/0/run/saved/MLmodel").read_bytes())}


@pytest.mark.usefixtures("credentials")
def test_a_tracking_server_that_sends_on_to_another_does_not_send_the_password_along(
    server: mlflow_stand_in.Server,
    stranger: mlflow_stand_in.Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    server.elsewhere = f"http://127.0.0.1:{port_of(stranger)}/signed"
    found = source(Store(tmp_path / "cache"), "models:/tiny/3")
    with pytest.raises(MarError):  # the stranger wants a password
        fetch(found, "MLmodel")
    assert stranger.asked
    assert {told for _, told in stranger.asked} == {None}


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    "scheme", ["ftp", "sftp", "hdfs", "viewfs", "dbfs", "r2", "b2", "wasbs", "gopher", "runs", "models", "memory", "hf"]
)
def test_an_address_that_is_not_read_is_refused_at_once(
    server: mlflow_stand_in.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server.versions["3"] = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/x"
        if scheme in ("runs", "models"):  # what MLflow follows leads to one again
            monkeypatch.setattr(mlflow, "_place", lambda _client, uri: uri)
        begin = time.monotonic()
        with pytest.raises(InputError, match=f"begins with {scheme}:, which is not supported"):
            source(Store(tmp_path / "cache"), "models:/tiny/3").sizes()
        assert time.monotonic() - begin < 30
        silent.settimeout(0.1)
        with pytest.raises(TimeoutError):
            silent.accept()


@pytest.mark.usefixtures("credentials")
def test_a_server_does_not_choose_which_folder_of_this_machine_is_read(
    server: mlflow_stand_in.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bert: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    for place in (str(bert), bert.as_uri(), f"file://localhost{bert}", f"FILE:{bert}"):
        server.versions["3"] = place
        with pytest.raises(InputError, match="is in a local folder, but the registry is a server"):
            source(Store(tmp_path / "cache"), "models:/tiny/3").sizes()


@pytest.mark.parametrize("named", ["runs:/0/model", "models:/m-0"])
def test_a_tracking_server_does_not_either_where_the_registry_is_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bert: Path, named: str
) -> None:
    run = SimpleNamespace(info=SimpleNamespace(artifact_uri=bert.parent.as_uri()))
    client = SimpleNamespace(
        get_model_version_download_uri=lambda *_: named,
        get_run=lambda _: run,
        get_logged_model=lambda _: SimpleNamespace(artifact_location=bert.as_uri()),
    )
    monkeypatch.setattr(mlflow, "_client", lambda: client)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", tmp_path.as_uri())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    with pytest.raises(InputError, match="is in a local folder, but the tracking store is a server"):
        source(Store(tmp_path / "cache"), "models:/tiny/3").sizes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tmp_path.as_uri())
    run.info.artifact_uri = bert.as_uri()
    found: Any = source(Store(tmp_path / "cache"), "models:/tiny/3")
    assert found._locate()[1].startswith(bert.as_uri())
