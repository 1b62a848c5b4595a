"""Builds up to the archive, in this process, without torch: the worker that reads the tokenizer has a stand-in."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.archive.reader import PROVENANCE, Archive
from mar_pipeline.builder import runner, status
from mar_pipeline.builder.backends import pretrained
from mar_pipeline.builder.build import Build, Job, Options
from mar_pipeline.builder.runner import Done
from mar_pipeline.builder.stage import Kept
from mar_pipeline.builder.stages import serialize
from mar_pipeline.builder.status import Reason, Status
from mar_pipeline.cache.store import Damaged, Store
from mar_pipeline.config import build_config
from mar_pipeline.errors import StageError
from mar_pipeline.model.address import STARTERS
from mar_pipeline.serving.smoke import tolerance_of
from tests.support import copied


def worded(status: Status) -> tuple[str, ...]:
    return tuple(map(str, status.reasons))


class Events:
    """Notes what a build does; `at` is called with the name of each stage that has ended."""

    def __init__(self, at: Any = lambda _: None) -> None:
        self.reasons: dict[str, tuple[str, ...]] = {}
        self._at = at

    def started(self, _build: Build, status: Status) -> None:
        self.reasons[status.stage] = worded(status)

    def progress(self, _what: str, _done: int, _total: int | None) -> None: ...

    def finished(self, _build: Build, done: Done) -> None:
        self._at(done.stage)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return copied(STARTERS / "seq_classification", tmp_path / "checkpoint")


@pytest.fixture
def build(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """A build of the checkpoint. Its gate lets everything pass, and its tokenizer is as it says: whether answers agree
    is no matter here."""

    def packed(_op: str, job: dict[str, Any], **_: Any) -> None:
        told = {"follows": "transformers 5.0.0", "class": "OwnTokenizer", "rewritten": []}
        (Path(job["out"]) / "tokenization.json").write_text(json.dumps(told))

    def passed(job: Job) -> Kept:
        (job.folder / "report.json").write_text('{"notes": []}')
        return Kept()

    stages = tuple(replace(stage, run=passed) if stage.name == "verify" else stage for stage in runner.STAGES)
    monkeypatch.setattr(runner, "STAGES", stages)
    monkeypatch.setattr(serialize, "work", packed)
    file = tmp_path / "config.yaml"
    file.write_text(
        "handler: {mode: sequence_classification, model_name: ./NAME}\narchive: {name: named}\n".replace(
            "NAME", checkpoint.name
        )
    )
    # Its weights are sound, which takes a worker with torch to see.
    monkeypatch.setattr(pretrained, "work", lambda *_, **__: None)
    options = Options(out=tmp_path / "out")
    return Build(config=build_config.load(file), store=Store(tmp_path / "cache"), options=options)


def again(build: Build, *settings: str) -> Build:
    overrides = build_config.Overrides(settings=settings)
    assert build.config.path is not None
    return replace(build, config=build_config.load(build.config.path, overrides))


@pytest.mark.parametrize("stage", ["download", "serialize", "handler"])
def test_a_checkpoint_that_changes_during_a_build_is_an_error_whatever_its_date_says(
    build: Build, checkpoint: Path, stage: str
) -> None:
    def write(ended: str) -> None:
        if ended == stage:
            file = checkpoint / "model.safetensors"
            times, data = file.stat(), bytearray(file.read_bytes())
            data[-1] ^= 1
            file.write_bytes(data)
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    with pytest.raises(StageError, match=r"model\.safetensors changed during the build"):
        runner.run(build, Events(write))
    assert not list(build.out.rglob("*.mar"))


def test_a_plan_and_a_build_give_the_same_reasons(build: Build) -> None:
    runner.run(build, Events())
    changed = again(build, "handler.max_length=99", "archive.version=2.0")
    planned = {status.stage: worded(status) for status in runner.plan(changed) if status.key and not status.cached}
    assert planned == {"handler": ("handler.max_length 256 -> 99",)}
    events = Events()
    runner.run(again(build, "handler.max_length=99", "archive.version=2.0"), events)
    assert planned.items() <= events.reasons.items()
    handler, version = events.reasons["archive"]
    assert re.fullmatch(r"the result of handler [0-9a-f]{12} -> [0-9a-f]{12}", handler)
    assert version == "version 1.0 -> 2.0"


def test_a_tolerance_of_ones_own_is_in_the_archive_and_allowed_when_it_is_served(build: Build) -> None:
    for settings, recorded, allowed in (((), None, 1e-4), (("verify.tolerance=0.03",), {"tolerance": 0.03}, 0.03)):
        chosen = again(build, *settings)
        runner.run(chosen, Events())
        archive = chosen.out / "model-store" / chosen.filename
        assert Archive(archive).json(PROVENANCE)["settings"].get("verify") == recorded
        assert tolerance_of(archive) == allowed


def test_reasons_are_data_and_words(build: Build) -> None:
    first = {status.stage: status.reasons for status in runner.plan(build)}
    assert first["download"] == (Reason("unread", "config.json is new, or changed since it was last read"),)
    assert first["archive"] == (Reason("waits", "handler"),)
    runner.run(build, Events())
    (changed,) = (s for s in runner.plan(again(build, "handler.max_length=99")) if s.stage == "handler")
    assert changed.reasons == (Reason("params", "handler.max_length", 256, 99),)
    (build.out / "SHA256SUMS").write_text("")
    *_, placed = runner.plan(build)
    assert placed.reasons == (Reason("outdated", "SHA256SUMS"),)
    assert str(placed.reasons[0]) == "SHA256SUMS is out of date"


def test_a_plan_names_the_version_of_a_tool_that_changed(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.run(build, Events())
    installed = status.versions
    monkeypatch.setattr(status, "versions", lambda names: installed(names) | dict.fromkeys(names, "9.9"))
    found = {status.stage: worded(status) for status in runner.plan(again(build))}
    before = installed(["transformers", "tokenizers"])
    assert found["serialize"] == (
        f"version of tokenizers {before['tokenizers']} -> 9.9",
        f"version of transformers {before['transformers']} -> 9.9",
    )


def test_a_setting_that_came_or_went_is_shown_with_its_value(build: Build) -> None:
    runner.run(build, Events())
    found = {status.stage: worded(status) for status in runner.plan(again(build, "handler.pack_weights=false"))}
    assert found["handler"] == ("handler.pack_weights (none) -> False",)


def test_what_is_damaged_again_and_again_is_an_error_and_no_endless_loop(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def always(*_: Any) -> None:
        raise Damaged("model.safetensors")

    monkeypatch.setattr(Store, "use", always)
    with pytest.raises(StageError, match=r"model\.safetensors was damaged 3 times"):
        runner.run(build, Events())


def test_an_archives_older_format_leaves_the_model_store(build: Build) -> None:
    runner.run(build, Events())
    for form, names in (("no-archive", ["named"]), ("tgz", ["named.tar.gz"]), ("zip-store", ["named.mar"])):
        runner.run(again(build, f"archive.format={form}"), Events())
        assert [path.name for path in (build.out / "model-store").iterdir()] == names
        lines = (build.out / "SHA256SUMS").read_text().splitlines()
        assert {line.split("/")[1].split("/")[0] for line in lines} == set(names)
        assert not list(build.out.glob(".*"))


def test_a_folder_of_an_archive_is_replaced_whole(build: Build) -> None:
    runner.run(again(build, "archive.format=no-archive"), Events())
    folder = build.out / "model-store" / "named"
    (folder / "stray").write_text("not ours")
    runner.run(again(build, "archive.format=no-archive", "archive.version=2.0"), Events())
    assert '"modelVersion": "2.0"' in (folder / "MAR-INF" / "MANIFEST.json").read_text()
    assert not (folder / "stray").exists()
