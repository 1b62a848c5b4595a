"""The output folder: dates that tools which copy by size and date go by, what is replaced there and what is not."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
import uuid
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.archive.model_store import SUMS, read_sums
from mar_pipeline.builder import runner
from mar_pipeline.builder.backends import pretrained
from mar_pipeline.builder.build import Build
from mar_pipeline.builder.stages import model_store, verify
from mar_pipeline.cache import store
from mar_pipeline.cache.store import Damaged, Store
from mar_pipeline.config import build_config
from mar_pipeline.errors import InputError, StageError
from mar_pipeline.files.tree import Entry, Tree
from mar_pipeline.model.address import STARTERS
from tests.support import ROOT, copied
from tests.unit.builder.test_plan import Events, again, build, checkpoint

__all__ = ["build", "checkpoint"]

FORMATS = ("zip-store", "tgz", "no-archive")


def train(folder: Path, step: int) -> None:
    """Other weights of the same size."""
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-8:] = step.to_bytes(8, "big")
    file.write_bytes(data)


def digests(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def dates(folder: Path) -> dict[str, int]:
    return {
        file.relative_to(folder).as_posix(): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()
    }


def by_size_and_date(source: Path, target: Path) -> None:
    """What `rsync -a` does: a file is copied, with its date, if size or date (whole seconds) differ."""
    for file in source.rglob("*"):
        there = target / file.relative_to(source)
        if file.is_file():
            new, old = file.stat(), there.stat() if there.exists() else None
            if old is None or (old.st_size, int(old.st_mtime)) != (new.st_size, int(new.st_mtime)):
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, there)


def by_rsync(source: Path, target: Path) -> None:
    if shutil.which("rsync") is None:
        pytest.skip("there is no rsync here")
    subprocess.run(["rsync", "-a", f"{source}/", f"{target}/"], check=True)


@pytest.mark.parametrize(
    ("form", "copy"),
    [*((form, by_size_and_date) for form in FORMATS), ("zip-store", by_rsync)],
    ids=[*FORMATS, "by rsync itself"],
)
def test_a_retrained_model_is_copied_by_rsync(
    build: Build, checkpoint: Path, tmp_path: Path, form: str, copy: Any
) -> None:
    # Back as well, which is cached, and takes less than a second.
    for step in (1, 2, 1):
        train(checkpoint, step)
        runner.run(again(build, f"archive.format={form}"), Events())
        copy(build.out, tmp_path / "server")
        assert digests(tmp_path / "server") == digests(build.out)


@pytest.mark.parametrize("form", FORMATS)
def test_files_have_the_time_of_their_making_and_are_no_links_into_the_cache(build: Build, form: str) -> None:
    start = time.time()
    runner.run(again(build, f"archive.format={form}"), Events())
    for file in (file for file in build.out.rglob("*") if file.is_file()):
        assert start - 2 <= file.stat().st_mtime <= time.time() + 2
        assert file.stat().st_nlink == 1
    blobs = [file for file in build.store.root.glob("blobs/*/*") if file.stat().st_size > 1000]
    assert {time.gmtime(blob.stat().st_mtime).tm_year for blob in blobs} == {1980}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("other", [False, True], ids=["with the same cache", "with another cache"])
def test_what_is_there_already_keeps_its_date(build: Build, tmp_path: Path, form: str, other: bool) -> None:
    runner.run(again(build, f"archive.format={form}"), Events())
    for file in (file for file in build.out.rglob("*") if file.is_file()):
        os.utime(file, (1_700_000_000, 1_700_000_000))
    before = dates(build.out)
    one = again(build, f"archive.format={form}")
    if other:
        one = replace(one, store=Store(tmp_path / "another"))
    stages = runner.run(one, Events()).stages
    assert dates(build.out) == before
    assert stages[-1].cached
    # And if something else has to be written:
    (build.out / "reports" / "named.json").unlink()
    runner.run(again(build, f"archive.format={form}"), Events())
    after = dates(build.out)
    assert after.pop("reports/named.json") != before.pop("reports/named.json")
    assert after == before


def test_only_what_changed_in_a_folder_gets_another_date(build: Build) -> None:
    runner.run(again(build, "archive.format=no-archive"), Events())
    before = dates(build.out)
    runner.run(again(build, "archive.format=no-archive", "archive.version=2.0"), Events())
    changed = {path for path, date in dates(build.out).items() if before[path] != date}
    held = "model-store/named"
    assert changed == {f"{held}/MAR-INF/MANIFEST.json", f"{held}/provenance.json", "SHA256SUMS"}


def test_a_date_in_the_far_future_is_of_a_wrong_clock_and_is_not_gone_on_from(build: Build, checkpoint: Path) -> None:
    runner.run(build, Events())
    archive = build.out / "model-store" / "named.mar"
    for ahead, wanted in ((100, 101), (10**8, 0)):
        then = int(time.time()) + ahead
        os.utime(archive, (then, then))
        train(checkpoint, ahead)
        runner.run(again(build), Events())
        assert abs(archive.stat().st_mtime - (time.time() + wanted)) < 5 or archive.stat().st_mtime == then + 1


DAMAGES = {
    "a byte of it changed": lambda file: _written(file, b"\0" + file.read_bytes()[1:]),
    "a byte of it changed, its date kept": lambda file: _written(file, b"\0" + file.read_bytes()[1:], keep=True),
    "it was cut": lambda file: _written(file, file.read_bytes()[:-1], keep=True),
    "it is gone": lambda file: file.unlink(),
    "another one took its place": lambda file: _written(file.with_name("x"), b"x").replace(file),
    "it is a link into the cache": lambda file: _linked(file),
}


def _written(file: Path, data: bytes, *, keep: bool = False) -> Path:
    before = file.stat() if file.exists() else None
    file.write_bytes(data)
    if keep and before:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    return file


def _linked(file: Path) -> None:
    """As builds left it once."""
    sha = hashlib.sha256(file.read_bytes()).hexdigest()
    blob = next((file.parents[2] / "cache").glob(f"blobs/*/{sha}"))
    file.unlink()
    os.link(blob, file)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_file_that_is_not_the_builds_is_noticed_and_made_anew(build: Build, damage: Any) -> None:
    runner.run(build, Events())
    archive = build.out / "model-store" / "named.mar"
    wanted = digests(build.out)
    damage(archive)
    looked = replace(again(build), store=Store(build.store.root, read_only=True))
    (status,) = (one for one in runner.plan(looked) if one.stage == "model_store")
    assert any("named.mar" in reason.name for reason in status.reasons)
    runner.run(again(build), Events())
    assert digests(build.out) == wanted
    assert archive.stat().st_nlink == 1
    assert time.time() - archive.stat().st_mtime < 60


def test_a_blob_that_is_damaged_is_not_copied(build: Build) -> None:
    runner.run(build, Events())
    wanted = digests(build.out)
    shutil.rmtree(build.out)
    sha = wanted["model-store/named.mar"]
    blob = build.store.blob(sha)
    blob.chmod(0o644)
    _written(blob, b"\0" + blob.read_bytes()[1:], keep=True)
    entry = Entry("named.mar", sha, blob.stat().st_size, 0)
    with pytest.raises(Damaged):
        model_store._copy(build, entry, blob.with_name("copy"))
    runner.run(again(build), Events())
    assert digests(build.out) == wanted


# What is replaced


def test_of_leftovers_only_those_by_our_own_names_go(build: Build) -> None:
    build.out.mkdir()
    ours = build.out / f".mar-{uuid.uuid4().hex}"
    foreign = [build.out / name for name in (".mar-notes", ".mar-" + "a" * 31, ".mar-" + "A" * 32, ".marrow")]
    link = build.out / f".mar-{uuid.uuid4().hex}"
    for folder in (ours, *foreign):
        folder.mkdir()
        (folder / "file").write_text("precious")
    link.symlink_to(foreign[0])
    runner.run(build, Events())
    assert not ours.exists()
    assert link.is_symlink()
    assert all((folder / "file").read_text() == "precious" for folder in foreign)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("zip-store", "named"),
        ("zip-store", "named.tar.gz"),
        ("no-archive", "named"),
        ("tgz", "named.mar"),
        ("zip-store", "named.mar"),
    ],
)
def test_what_is_not_an_archive_is_in_the_way_and_stays(build: Build, form: str, name: str) -> None:
    place = build.out / "model-store" / name
    inside = place / "thesis.txt" if name == "named" or name == "named.mar" else place
    inside.parent.mkdir(parents=True)
    inside.write_text("precious")
    with pytest.raises(StageError, match="is in the way"):
        runner.run(again(build, f"archive.format={form}"), Events())
    assert inside.read_text() == "precious"
    assert not list(build.out.glob(".mar-*"))


@pytest.fixture
def told(build: Build) -> list[str]:
    """What builds warn of."""
    lines: list[str] = []
    build.store._warn = lines.append
    return lines


def run_of(build: Build, number: int) -> Path:
    assert build.config.model.path is not None
    folder = build.out.parent / f"run{number}" / "checkpoint-25"
    copied(STARTERS / "seq_classification", folder)
    train(folder, number)
    return folder


def built(build: Build, model: Path | str, *settings: str, cache: Path | None = None) -> Build:
    overrides = build_config.Overrides(model=str(model), name="named", settings=settings)
    assert build.config.path is not None
    loaded = build_config.load(build.config.path, overrides)
    store = build.store if cache is None else Store(cache, warn=build.store._warn)
    one = replace(build, config=loaded, store=store)
    runner.run(one, Events())
    return one


def test_an_archive_of_another_model_is_replaced_with_a_word_that_names_both(build: Build, told: list[str]) -> None:
    first, second = run_of(build, 1), run_of(build, 2)
    built(build, first)
    assert told == []
    built(build, second)
    (line,) = told
    assert "named.mar" in line
    assert str(first) in line
    assert str(second) in line
    assert "--name" in line


SAME = {
    "a rebuild": lambda _: (),
    "a retraining": lambda folder: train(folder, 77) or (),
    "another version": lambda _: ("archive.version=2.0",),
    "other settings": lambda _: ("handler.max_length=99",),
    "another format": lambda _: ("archive.format=tgz",),
    "a folder": lambda _: ("archive.format=no-archive",),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_the_same_model_goes_without_a_word(build: Build, told: list[str], change: Any) -> None:
    folder = run_of(build, 1)
    built(build, folder)
    built(build, folder, *change(folder))
    assert told == []


@pytest.mark.parametrize("form", FORMATS)
def test_another_cache_knows_as_far_as_the_archive_tells(
    build: Build, told: list[str], tmp_path: Path, form: str
) -> None:
    form = f"archive.format={form}"
    built(build, "starter:seq_classification", form)
    built(build, "starter:seq_classification", form, "archive.version=2.0", cache=tmp_path / "second")
    # The same weights, wherever they lie.
    built(build, copied(STARTERS / "seq_classification", tmp_path / "copy"), form, cache=tmp_path / "third")
    assert told == []
    other = run_of(build, 1)
    built(build, "starter:seq_classification", form)
    built(build, other, form, cache=tmp_path / "fourth")
    (line,) = told
    assert "starter:seq_classification" in line
    assert str(other) in line


@pytest.mark.parametrize(
    ("name", "form"), [("named.mar", "zip-store"), ("named.tar.gz", "zip-store"), ("named.mar", "tgz")]
)
def test_archives_of_other_tools_and_of_other_formats_go_with_a_word(
    build: Build, told: list[str], name: str, form: str
) -> None:
    place = build.out / "model-store" / name
    place.parent.mkdir(parents=True)
    manifest = json.dumps({"model": {"modelName": "theirs\x1b[31m", "modelVersion": "7"}}).encode()
    if name.endswith(".mar"):
        with zipfile.ZipFile(place, "w") as made:
            made.writestr("MAR-INF/MANIFEST.json", manifest)
    else:
        with tarfile.open(place, "w:gz") as tar:
            info = tarfile.TarInfo("named/MAR-INF/MANIFEST.json")
            info.size = len(manifest)
            tar.addfile(info, io.BytesIO(manifest))
    built(build, "starter:seq_classification", f"archive.format={form}")
    (line,) = told
    assert "theirs" in line
    assert "starter:seq_classification" in line
    assert line.isprintable()


# Names


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("run1/checkpoint-25", "run1-checkpoint-25"),
        ("run1/checkpoint-25/", "run1-checkpoint-25"),
        ("run 1/checkpoints/checkpoint-25", "run-1-checkpoint-25"),
        ("s3://bucket/run1/checkpoint-25", "run1-checkpoint-25"),
        ("org/checkpoint-25", "checkpoint-25"),  # of the Hub, where names are the repositories'
        ("run1/final", "final"),
        ("x" * 230 + "/checkpoint-25", "x" * 150 + "-checkpoint-25"),
        (".../checkpoint-25", "checkpoint-25"),
    ],
)
def test_the_default_name_of_a_trainers_checkpoint_tells_runs_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if not model.startswith(("s3:", "org/")):
        (tmp_path / model).mkdir(parents=True)
    (found,) = build_config.load_all([build_config.packaged("seq_classification")], build_config.Overrides(model=model))
    assert found.archive.name == name


@pytest.mark.parametrize("name", ["tickets", "2024", "1e3", "true", "null", "a.b-c_d"])
def test_the_name_option_is_the_setting(name: str) -> None:
    path = build_config.packaged("seq_classification")
    (found,) = build_config.load_all([path], build_config.Overrides(name=name))
    assert found.archive.name == name
    (wanted,) = build_config.load_all([path], build_config.Overrides(settings=(f"archive.name='{name}'",)))
    assert found == wanted


def test_one_name_is_of_one_archive() -> None:
    paths = [build_config.packaged(task) for task in ("seq_classification", "token_classification")]
    with pytest.raises(InputError, match="--name tickets names one archive, but 2 configs are given"):
        build_config.load_all(paths, build_config.Overrides(name="tickets"))
    with pytest.raises(InputError, match="--name a/b"):
        build_config.load_all(paths[:1], build_config.Overrides(name="a/b"))


def test_make_names_the_archive_as_it_is_told_on_the_command_line_alone() -> None:
    root = ROOT

    def said(*words: str, **env: str) -> str:
        command = ["make", "-n", "mar", "TASK=seq_classification", *words]
        return subprocess.run(
            command, cwd=root, env={**os.environ, **env}, capture_output=True, text=True, check=True
        ).stdout

    assert '--name "tickets"' in said("NAME=tickets")
    # Some systems have a NAME of their own in the environment.
    assert "--name" not in said(NAME="HOST")


# Weights in the cache


def twisted(data: bytes, at: int) -> bytes:
    """Other bytes with the same CRC-32: the generator polynomial, 0x04C11DB7 with x^32, added to them at a place. Bits
    of a byte count from the lowest."""
    coefficients = [1, *(0x04C11DB7 >> (31 - bit) & 1 for bit in range(32))]
    pattern = sum(bit << place for place, bit in enumerate(coefficients)).to_bytes(5, "little")
    made = bytearray(data)
    made[at : at + 5] = bytes(one ^ other for one, other in zip(made[at : at + 5], pattern, strict=True))
    assert zlib.crc32(made) == zlib.crc32(data)
    return bytes(made)


@pytest.fixture
def gated(build: Build, monkeypatch: pytest.MonkeyPatch) -> Build:
    """A build whose weights lie in the cache, as those that are converted do, and are large; and which is verified in
    earnest, but for the answers of the two models."""

    def converted(job: Any) -> list[Any]:
        made = bytearray((job.lay_out("download") / "model.safetensors").read_bytes())
        made[-8:] = b"12345678"  # others than the checkpoint's, which lie outside
        (job.folder / "model.safetensors").write_bytes(made)
        return []

    def work(kind: str, job: dict[str, Any], **_: Any) -> Any:
        answers: list[Any] = [{} for _ in job["requests"]]
        tokens: dict[str, Any] = {kind: [None for _ in job["corpus"][kind]] for kind in ("texts", "pairs", "talks")}
        tokens |= {"class": "Tokenizer", "parts": {}, "flags": {}, "beyond": []}
        same = {"single": answers, "again": answers, "batched": answers, "beside": [], "errors": []}
        same |= {"statuses": [200] * len(answers), "notes": [], "tokens": tokens}
        return same if kind == "answer" else {"answers": answers, "tokens": tokens, "model": "Own"}

    monkeypatch.setattr(store, "SMALL", 1 << 20)
    monkeypatch.setattr(pretrained, "serialize", converted)
    monkeypatch.setattr(verify, "work", work)
    stages = tuple(verify.STAGE if stage.name == "verify" else stage for stage in runner.STAGES)
    monkeypatch.setattr(runner, "STAGES", stages)
    return build


def quietly(file: Path, data: bytes) -> None:
    """Other bytes in a file, with its mode and date."""
    before = file.stat()
    file.chmod(0o644)
    file.write_bytes(data)
    file.chmod(before.st_mode)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def packed(build: Build, name: str) -> bytes:
    (place,) = (build.out / "model-store").glob(f"{name}*")
    if place.is_dir():
        return (place / "model.safetensors").read_bytes()
    if place.name.endswith(".mar"):
        with zipfile.ZipFile(place) as opened:
            return opened.read("model.safetensors")
    with tarfile.open(place) as tar:
        stream = tar.extractfile(f"{name}/model.safetensors")
        assert stream is not None
        return stream.read()


@pytest.mark.parametrize("form", [*FORMATS, "default"])
def test_large_weights_that_were_changed_in_the_cache_with_their_checksum_kept_are_never_served(
    gated: Build, checkpoint: Path, told: list[str], form: str
) -> None:
    results = runner.run(gated, Events()).state.results
    assert told == []
    weights = (checkpoint / "model.safetensors").read_bytes()[:-8] + b"12345678"
    blob = gated.store.blob(hashlib.sha256(weights).hexdigest())
    quietly(blob, twisted(weights, len(weights) - 100))
    assert gated.store.locate(results["serialize"].tree.get("model.safetensors"), {}) == blob  # nothing tells it
    other = again(gated, "archive.name=other", f"archive.format={form}")
    runner.run(other, Events())
    assert packed(other, "other") == weights
    assert blob.read_bytes() == weights
    assert told
    assert all("damaged" in line and "rebuilt" in line for line in told)


def test_weights_outside_the_cache_that_are_not_what_was_noted_are_read_again(
    build: Build, gated: Build, checkpoint: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pretrained, "serialize", lambda job: [e for e in job.inputs.tree("download") if "safetensors" in e.path]
    )
    results = runner.run(gated, Events()).state.results
    file = checkpoint / "model.safetensors"
    entry = results["download"].tree.get(file.name)
    quietly(file, twisted(file.read_bytes(), entry.size - 100))
    gated.store.digests.know(file, entry)  # as if its times did not tell
    other = again(gated, "archive.name=other")
    runner.run(other, Events())
    assert packed(other, "other") == file.read_bytes()
    told_by = json.loads(zipfile.ZipFile(build.out / "model-store" / "other.mar").read("provenance.json"))
    assert told_by["files"][file.name] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert told


def test_large_files_are_read_before_a_worker_gets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SMALL", 10)
    cache = Store(tmp_path / "cache")
    with cache.scratch() as scratch:
        (scratch / "weights").write_bytes(b"w" * 100)
        tree = Tree.of(cache.take(scratch))
    blob = cache.blob(tree.entries[0].sha256)
    quietly(blob, b"v" + b"w" * 99)
    cache.lay_out(tree, {}, tmp_path / "made just now", whole=False)
    with pytest.raises(Damaged):
        cache.lay_out(tree, {}, tmp_path / "laid")
    assert not blob.exists()


def test_a_pipe_in_place_of_the_sums_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / SUMS)
    assert read_sums(tmp_path) == {}


def test_lines_of_the_sums_that_lead_out_are_dropped_with_a_warning(build: Build) -> None:
    told: list[str] = []
    build.store._warn = told.append
    (build.out.parent / "secret").write_text("x")
    (build.out / "a").mkdir(parents=True)
    (build.out / "notes.txt").write_text("x")
    out = [
        "../secret",
        "/etc/passwd",
        "a/../../secret",
        "./notes.txt",
        "model-store/../../secret",
        "a//b",
        "a/./b",
        "a\\b",
    ]
    lines = [f"{'0' * 64}  {path}\n" for path in [*out, "notes.txt", "\x1b[31mx"]]
    (build.out / SUMS).write_text("".join(lines))
    runner.run(build, Events())
    kept = [line.partition("  ")[2] for line in (build.out / SUMS).read_text().splitlines()]
    assert kept == [f"model-store/{build.filename}", "notes.txt"]
    assert [text for text in told if "are dropped" in text and "../secret" in text]
    told.clear()
    runner.run(again(build, "archive.version=2"), Events())
    assert not [text for text in told if "are dropped" in text]
