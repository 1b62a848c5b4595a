"""Archives that are the same bytes whoever builds them, and builds that meet a damaged cache."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.files.tree import walk
from tests.support import ROOT, tiny
from tests.support.mar import MODES, Mar

pytestmark = pytest.mark.slow

NAMED = ("--task", "seq_classification", "--set", "archive.name=named")


@pytest.mark.parametrize("mode", MODES)
def test_two_builds_in_two_places_give_the_same_bytes(tmp_path: Path, mode: str) -> None:
    first, second = Mar(tmp_path / "one"), Mar(tmp_path / "another" / "place")
    found = []
    # One by forked processes and one by programs, whose sets and dictionaries of strings have another order.
    for mar, name, env in ((first, "checkpoint", {}), (second, "a copy, [of] it", {"PYTHONHASHSEED": "2"})):
        mar.folder.mkdir(parents=True)
        folder = mar.folder / name
        if mar is first:
            tiny.save(folder, "bert", "seq_classification")
        else:
            shutil.copytree(first.folder / "checkpoint", folder)
        (archive,) = mar.build(*NAMED, "--save-mode", mode, "--model", folder, **env)
        found.append((archive["sha256"], (mar.folder / archive["path"]).read_bytes()))
    assert found[0] == found[1]


def records(data: bytes) -> dict[str, bytes]:
    """The members of a zip file, and those of zip files in it."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        for name in opened.namelist():
            found[name] = opened.read(name)
            if found[name].startswith(b"PK\3\4"):
                found.update({f"{name}/{inner}": held for inner, held in records(found[name]).items()})
    return found


@pytest.mark.parametrize("mode", MODES)
def test_no_path_of_the_building_machine_is_in_an_archive(fresh_mar: Mar, bert: Path, mode: str) -> None:
    (archive,) = fresh_mar.packed(*NAMED, "--save-mode", mode, "--model", bert)
    held = records((fresh_mar.folder / archive["path"]).read_bytes())
    assert mode == "pretrained" or [name for name in held if name.startswith("model.pt/archive/code/")]
    places = {fresh_mar.folder, bert, Path(sys.prefix), ROOT, Path.home() / ".cache"}
    assert not [(name, place) for name, data in held.items() for place in places if str(place).encode() in data]


def test_the_date_of_the_source_is_the_archives(fresh_mar: Mar, bert: Path) -> None:
    words = (*NAMED, "--model", bert)
    (dated,) = fresh_mar.packed(*words, SOURCE_DATE_EPOCH="1700000000")
    with zipfile.ZipFile(fresh_mar.folder / dated["path"]) as opened:
        assert {info.date_time for info in opened.infolist()} == {(2023, 11, 14, 22, 13, 20)}
        assert json.loads(opened.read("MAR-INF/MANIFEST.json"))["createdOn"] == "14/11/2023 22:13:20"
    planned = fresh_mar.plan(*words)
    assert planned["archive"]["reasons"] == ["epoch 1700000000 -> 315532800"]
    assert planned["handler"]["cached"]
    done = fresh_mar("build", *words, SOURCE_DATE_EPOCH="yesterday")
    assert (done.returncode, "SOURCE_DATE_EPOCH is 'yesterday'" in done.stderr) == (2, True)


def test_the_manifest_is_the_archivers_own(built: dict[tuple[str, str], dict[str, Any]], tmp_path: Path) -> None:
    for (task, mode), archive in built.items():
        unpacked, made = tmp_path / f"{task}-{mode}", tmp_path / f"made-{task}-{mode}"
        with zipfile.ZipFile(archive["path"]) as opened:
            opened.extractall(unpacked)
        manifest = json.loads((unpacked / "MAR-INF" / "MANIFEST.json").read_text())
        shutil.rmtree(unpacked / "MAR-INF")
        made.mkdir()
        weights = "model.pt" if mode == "torchscript" else "model.safetensors"
        words = ["--model-name", archive["name"], "--version", "1.0", "--archive-format", "no-archive"]
        words += ["--handler", f"{task}.py", "--config-file", "model-config.yaml", "--serialized-file", weights]
        subprocess.run(
            [
                sys.executable,
                "-m",
                "model_archiver.model_packaging",
                *words,
                "--extra-files",
                ".",
                "--export-path",
                made,
            ],
            cwd=unpacked,
            env={**os.environ, "TMPDIR": str(tmp_path / "made-tmp")},
            check=True,
        )
        theirs = made / archive["name"]
        expected = json.loads((theirs / "MAR-INF" / "MANIFEST.json").read_text())
        assert {**manifest, "createdOn": ""} == {**expected, "createdOn": ""}
        assert list(manifest) == list(expected)
        shutil.rmtree(theirs / "MAR-INF")
        assert {path: file.read_bytes() for file, path in walk(theirs)} == {
            path: file.read_bytes() for file, path in walk(unpacked)
        }


def flip(file: Path, *, quietly: bool) -> None:
    """Change one byte in the middle; `quietly`, as a bad disk does, with no trace in the file's times."""
    before, data = file.stat(), bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.chmod(0o644)
    file.write_bytes(data)
    if quietly:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("quietly", [False, True], ids=["by a program", "by the disk"])
def test_a_damaged_result_is_told_and_made_again(fresh_mar: Mar, bert: Path, quietly: bool) -> None:
    words = (*NAMED, "--model", bert, "--save-mode", "torchscript")
    (whole,) = fresh_mar.packed(*words)
    with zipfile.ZipFile(whole["path"]) as opened:
        weights = hashlib.sha256(opened.read("model.safetensors")).hexdigest()
    flip(fresh_mar.cache / "blobs" / weights[:2] / weights, quietly=quietly)
    done = fresh_mar("build", *words, "--out", "other", "--force", "archive", "--json")
    assert done.returncode == 0, done.stderr
    (archive,) = json.loads(done.stdout)["archives"]
    assert archive["sha256"] == whole["sha256"]
    assert (fresh_mar.folder / "other/model-store/named.mar").read_bytes() == Path(whole["path"]).read_bytes()
    assert done.stderr.count("warning: The cache is damaged: model.safetensors") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("quietly", [False, True], ids=["by a program", "by the disk"])
def test_a_damaged_archive_is_never_handed_out(fresh_mar: Mar, bert: Path, quietly: bool) -> None:
    words = (*NAMED, "--model", bert)
    (whole,) = fresh_mar.packed(*words)
    before = Path(whole["path"]).read_bytes()
    flip(fresh_mar.cache / "blobs" / whole["sha256"][:2] / whole["sha256"], quietly=quietly)
    done = fresh_mar("build", *words, "--out", "other")
    assert done.returncode == 0, done.stderr
    assert "warning: The cache is damaged: named.mar" in done.stderr
    assert (fresh_mar.folder / "other/model-store/named.mar").read_bytes() == before


def test_a_plan_says_which_file_changed_and_from_what_to_what(fresh_mar: Mar, bert: Path) -> None:
    folder = fresh_mar.folder / "model"
    shutil.copytree(bert, folder)
    words = (*NAMED, "--model", folder)
    fresh_mar.packed(*words)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "note": 1}))
    assert fresh_mar.plan(*words)["download"]["reasons"] == ["config.json is new, or changed since it was last read"]
    fresh_mar.packed(*words)
    reasons = fresh_mar.plan(*words, "--set", "handler.top_k=2", "--set", "archive.version=2.0")
    assert reasons["handler"]["reasons"] == ["handler.top_k 1 -> 2"]


def test_the_cache_lists_what_it_holds_and_for_whom(fresh_mar: Mar, bert: Path) -> None:
    for name in ("one", "two"):
        (fresh_mar.folder / f"{name}.yaml").write_text(
            f"handler: {{mode: sequence_classification, model_name: {bert}}}\narchive: {{name: {name}}}\n"
        )
    fresh_mar.packed("one.yaml", "two.yaml")
    listed = json.loads(fresh_mar("cache", "list", "--json").stdout)
    users = {one["stage"]: [user["archive"] for user in one["configs"]] for one in listed["results"]}
    assert users["serialize"] == ["one", "two"]
    assert len([one for one in listed["results"] if one["stage"] == "archive"]) == 2
    assert {one["model"] for one in listed["results"]} == {str(bert)}
    text = fresh_mar("cache", "list").stdout
    assert "one.yaml (one), two.yaml (two)" in text
