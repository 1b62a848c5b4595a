"""`mar release`: what the bill of materials says, and that it says it again."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

import mar_pipeline.archive
from mar_pipeline import __main__ as command
from mar_pipeline.archive import bom
from mar_pipeline.builder import session
from mar_pipeline.errors import InputError, StageError
from mar_pipeline.tasks import TASKS
from tests.support import ROOT
from tests.support import fake_archives as archives
from tests.support.mar import Mar, words

SOURCES: dict[str, dict[str, Any]] = {
    "hub": archives.HUB,
    "old-hub": {"kind": "hub", "repo": "gpt2", "commit": "607a30d783dfa663caf39e06633721c8d4cfcd7e"},
    "starter": {"kind": "starter", "name": "seq_classification"},
    "folder": {"kind": "folder"},
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder with an archive of each source, one in each format, and one that another tool made."""
    place = tmp_path / "build"
    kinds = dict(zip(SOURCES, ("zip", "tgz", "folder", "zip"), strict=True))
    for name, source in SOURCES.items():
        files = archives.contents(name, archives.provenance(source))
        archives.write(place / "model-store", name, files, kinds[name])
    archives.write(place / "model-store", "foreign", archives.contents("foreign", None))
    return place


def bill(out: Path) -> dict[str, Any]:
    bom.write(out, None)
    return dict(json.loads((out / bom.NAME).read_text()))


def components(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {component["bom-ref"]: component for component in found["components"]}


def sha256(content: bytes) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}]


def checked(out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=out, capture_output=True, text=True, check=False
    )


def valid(text: str) -> bool:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_bill_is_valid_by_the_strict_schema(out: Path) -> None:
    text = bom.write(out, bom.timestamp({"SOURCE_DATE_EPOCH": "1000000000"})).read_text()
    assert valid(text)
    assert not valid(text.replace('"machine-learning-model"', '"machine"'))


def test_every_archive_is_a_model_with_its_version_and_digest(out: Path) -> None:
    found = components(bill(out))
    for file in ("hub.mar", "old-hub.tar.gz", "foreign.mar"):
        model = found[file]
        assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", file.split(".")[0], "1.0")
        assert model["hashes"] == sha256((out / "model-store" / file).read_bytes())
    assert "hashes" not in found["starter"]


@pytest.mark.parametrize("file", ["hub.mar", "old-hub.tar.gz", "starter"])
def test_every_file_of_an_archive_is_listed_with_its_digest(out: Path, file: str) -> None:
    name = file.split(".")[0]
    files = archives.contents(name, archives.provenance(SOURCES[name]))
    listed = {item["name"]: item["hashes"] for item in components(bill(out))[file]["components"]}
    assert listed == {path: sha256(content) for path, content in files.items()}


def test_a_model_of_the_hub_is_named_by_repository_and_commit(out: Path) -> None:
    found = components(bill(out))
    (source,) = found["hub.mar"]["pedigree"]["ancestors"]
    assert PackageURL.from_string(source["purl"]) == PackageURL(
        "huggingface", "distilbert", "distilbert-base-uncased", archives.COMMIT
    )
    assert source["components"][0]["hashes"] == sha256(b"weights")
    (old,) = found["old-hub.tar.gz"]["pedigree"]["ancestors"]
    assert old["purl"] == "pkg:huggingface/gpt2@607a30d783dfa663caf39e06633721c8d4cfcd7e"


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("hub.mar", f"pkg:huggingface/distilbert/distilbert-base-uncased@{archives.COMMIT}"),
        ("starter", "starter"),
        ("folder.mar", "folder"),
    ],
)
def test_the_kind_of_source_is_told(out: Path, file: str, source: str) -> None:
    told = {item["name"]: item["value"] for item in components(bill(out))[file]["properties"]}
    assert told["mar:source"] == source


@pytest.mark.parametrize(
    ("source", "config", "licence"),
    [
        (SOURCES["starter"], {}, {"id": "Apache-2.0"}),
        (SOURCES["folder"], {"license": "mit"}, {"id": "MIT"}),
        ({**archives.HUB, "license": "apache-2.0"}, {"license": "mit"}, {"id": "Apache-2.0"}),
        (archives.HUB, {"license": "other"}, {"name": "other"}),
        (archives.HUB, {}, None),
    ],
    ids=["starter", "config", "provenance", "no-spdx", "unknown"],
)
def test_a_licence_is_told_where_the_archive_tells_it(
    tmp_path: Path, source: dict[str, Any], config: dict[str, Any], licence: dict[str, str] | None
) -> None:
    archives.write(tmp_path / "model-store", "a", archives.contents("a", archives.provenance(source), config))
    model = components(bill(tmp_path))["a.mar"]
    assert [item["license"] for item in model.get("licenses", [])] == ([licence] if licence else [])
    assert valid((tmp_path / bom.NAME).read_text())


def test_the_base_model_of_an_adapter_is_an_ancestor_with_its_own_licence(tmp_path: Path) -> None:
    source = {"kind": "url", "url": "s3://models/adapter", "license": "mit"}
    source["base"] = {**archives.HUB, "license": "apache-2.0"}  # type: ignore[assignment]
    archives.write(tmp_path / "model-store", "a", archives.contents("a", archives.provenance(source), {}))
    found = {item["name"]: item for item in components(bill(tmp_path))["a.mar"]["pedigree"]["ancestors"]}
    model, base = found["s3://models/adapter"], found["distilbert-base-uncased"]
    assert model["licenses"] == [{"license": {"id": "MIT"}}]
    assert base["purl"] == f"pkg:huggingface/distilbert/distilbert-base-uncased@{archives.COMMIT}"
    assert base["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert valid((tmp_path / bom.NAME).read_text())


def test_packages_are_those_that_the_archive_was_built_with(out: Path) -> None:
    found = bill(out)
    purls = {item["purl"] for item in found["components"] if "purl" in item}
    assert purls == {
        "pkg:pypi/mar-pipeline@0.0.7",
        "pkg:pypi/torch-model-archiver@0.12.0",
        "pkg:pypi/torch@2.4.0%2Bcpu",
        "pkg:pypi/transformers@4.57.6",
    }
    needs = {item["ref"]: item.get("dependsOn", []) for item in found["dependencies"]}
    assert {components(found)[ref].get("purl") for ref in needs["hub.mar"]} == {*purls, None}
    assert needs["foreign.mar"] == []


def test_every_reference_is_to_one_component(out: Path) -> None:
    found = bill(out)
    root = found["metadata"]["component"]["bom-ref"]
    refs = [root, *components(found)]
    refs += [item["bom-ref"] for model in found["components"] for item in model.get("components", [])]
    assert len(refs) == len(set(refs)) > 20
    needs = {item["ref"]: item.get("dependsOn", []) for item in found["dependencies"]}
    assert {*needs, *(ref for needed in needs.values() for ref in needed)} <= set(refs)
    assert needs[root] == ["folder.mar", "foreign.mar", "hub.mar", "old-hub.tar.gz", "starter"]


def test_the_same_archives_give_the_same_bytes_anywhere(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bom.write(out, None).read_bytes()
    shutil.copytree(out / "model-store", tmp_path / "elsewhere" / "model-store")
    monkeypatch.chdir(tmp_path)
    assert bom.write(Path("elsewhere"), None).read_bytes() == first
    code = f"import pathlib; from mar_pipeline.archive import bom; bom.write(pathlib.Path({str(out)!r}), None)"
    for seed in ("1", "2"):
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"PYTHONHASHSEED": seed}, check=True)
        assert (out / bom.NAME).read_bytes() == first
    assert b"timestamp" not in first


def test_another_archive_gives_another_bill(out: Path) -> None:
    first = bill(out)
    (out / "SHA256SUMS").unlink()
    archives.write(out / "model-store", "foreign", archives.contents("foreign", {"format": 1}))
    assert bill(out)["serialNumber"] != first["serialNumber"]


def test_the_time_is_that_of_source_date_epoch(out: Path) -> None:
    text = bom.write(out, bom.timestamp({"SOURCE_DATE_EPOCH": "1000000000"})).read_text()
    assert json.loads(text)["metadata"]["timestamp"] == "2001-09-09T01:46:40+00:00"
    assert bom.timestamp({}) is None
    for wrong in ("yesterday", "1e9", "99999999999999999"):
        with pytest.raises(InputError, match="SOURCE_DATE_EPOCH"):
            bom.timestamp({"SOURCE_DATE_EPOCH": wrong})


def test_the_checksums_cover_every_archive_and_the_bill(out: Path) -> None:
    bom.write(out, None)
    done = checked(out)
    assert (done.returncode, done.stdout.count(": OK")) == (0, 1 + 4 + 5), done.stdout + done.stderr
    with (out / bom.NAME).open("a") as bill_file:
        bill_file.write(" ")
    assert "bom.cdx.json: FAILED" in checked(out).stdout


def test_signatures_are_neither_archives_nor_in_the_bill(out: Path) -> None:
    first = bom.write(out, None).read_bytes()
    sums = (out / "SHA256SUMS").read_bytes()
    for name in ("hub.mar.sig", "old-hub.tar.gz.sig", "starter.sig"):
        (out / "model-store" / name).write_text("{}")
    assert bom.write(out, None).read_bytes() == first
    assert (out / "SHA256SUMS").read_bytes() == sums


def test_an_archive_that_is_not_what_was_built_gets_no_bill(out: Path) -> None:
    first = bom.write(out, None).read_bytes()
    archives.write(out / "model-store", "hub", archives.contents("hub", {"format": 1}))
    with pytest.raises(StageError, match=r"hub\.mar is not the file that was built"):
        bom.write(out, None)
    assert (out / bom.NAME).read_bytes() == first


@pytest.mark.parametrize(
    "provenance",
    [[1], {"source": "here"}, {"versions": {"torch": 2}}, {"checkpoint": {"a": "b"}}, {"settings": 1}],
    ids=["list", "source", "version", "digest", "settings"],
)
def test_a_provenance_that_makes_no_sense_is_refused(tmp_path: Path, provenance: Any) -> None:
    archives.write(tmp_path / "model-store", "a", archives.contents("a", provenance))
    with pytest.raises(InputError, match=r"a\.mar"):
        bom.write(tmp_path, None)
    assert not (tmp_path / bom.NAME).exists()


def test_a_damaged_archive_is_refused(out: Path) -> None:
    whole = (out / "model-store" / "hub.mar").read_bytes()
    (out / "model-store" / "hub.mar").write_bytes(whole.replace(b"hubhub", b"HUBHUB", 1))
    with pytest.raises(InputError, match=r"hub\.mar is damaged"):
        bom.write(out, None)


@pytest.fixture
def asked(out: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The archives that `mar release` builds; nothing is built."""
    names: list[str] = []

    def run(configs: list[Any], *_: object, **__: object) -> list[dict[str, Any]]:
        names.extend(config.archive.name for config in configs)
        stages: list[dict[str, Any]] = []
        told = {"name": "hub", "path": "hub.mar", "sha256": "0", "size": 1, "verified": True, "stages": stages}
        return [{**told, "source": {"kind": "starter"}, "locked": False}]

    monkeypatch.setattr(session, "run", run)
    monkeypatch.chdir(out.parent)
    return names


def test_without_configs_every_tasks_own_is_released(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["release"]) == 0
    assert asked == list(TASKS)
    shown = capsys.readouterr().out
    assert "build/bom.cdx.json" in shown
    assert "sha256sum --check SHA256SUMS" in shown


def test_a_release_as_json_is_one_object(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["release", str(ROOT / "configs" / "text_generation.yaml"), "--json"]) == 0
    assert asked == ["text_generation"]
    told = json.loads(capsys.readouterr().out)
    assert [archive["name"] for archive in told["archives"]] == ["hub"]
    assert (told["bom"], told["sums"]) == ("build/bom.cdx.json", "build/SHA256SUMS")


def test_a_missing_library_is_said_before_anything_is_built(
    asked: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "mar_pipeline.archive.bom")
    monkeypatch.delattr(mar_pipeline.archive, "bom")
    monkeypatch.setitem(sys.modules, "cyclonedx.model", None)
    assert command.run(["release"]) == 2
    assert asked == []
    error = capsys.readouterr().err
    assert "pip install 'mar-pipeline[release]'" in error
    assert "Traceback" not in error


def test_a_time_that_is_none_is_said_before_anything_is_built(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    assert command.run(["release"]) == 2
    assert asked == []


def test_make_release_takes_every_config_that_needs_no_network() -> None:
    done = subprocess.run(["make", "-n", "release"], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if "mar release" in line]
    for config in (ROOT / "configs").glob("*.yaml"):
        assert f"configs/{config.name}" in line or "configs/*.yaml" in line
    assert "hub" not in line


@pytest.mark.slow
def test_a_release_is_checked_again_without_building_again(fresh_mar: Mar) -> None:
    fresh_mar.build(*words("token_classification", "pretrained"))
    config = ROOT / "configs" / "seq_classification.yaml"
    done = fresh_mar("release", config, "--out", fresh_mar.out, "--json")
    assert done.returncode == 0, done.stderr
    assert [archive["name"] for archive in json.loads(done.stdout)["archives"]] == ["seq_classification"]
    first = (fresh_mar.out / bom.NAME).read_text()
    assert valid(first)
    models = [item for item in json.loads(first)["components"] if item["type"] == "machine-learning-model"]
    assert [item["name"] for item in models] == ["seq_classification", "token_classification-pretrained"]
    assert checked(fresh_mar.out).stdout.count(": OK") == 3

    again = fresh_mar("release", config, "--out", fresh_mar.out, "--json")
    (archive,) = json.loads(again.stdout)["archives"]
    assert all(stage["cached"] for stage in archive["stages"])
    assert (fresh_mar.out / bom.NAME).read_text() == first

    plain = fresh_mar("release", config, "--out", fresh_mar.out)
    assert "bom.cdx.json" in plain.stdout
    assert "Traceback" not in plain.stderr
