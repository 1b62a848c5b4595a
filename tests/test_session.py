"""The library's API: configs through one cache into one output folder, without a screen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.builder import runner, session
from mar_pipeline.builder.build import Build
from tests.test_plan import Events, build, checkpoint

__all__ = ["build", "checkpoint"]


@pytest.fixture
def noted(build: Build, monkeypatch: pytest.MonkeyPatch) -> Build:
    """A build whose gate lets everything pass, with a note."""

    def passed(job: Any) -> list[Any]:
        (job.folder / "report.json").write_text(json.dumps({"verified": True, "notes": ["a note"]}))
        return []

    stages = tuple(replace(stage, run=passed) if stage.name == "verify" else stage for stage in runner.STAGES)
    monkeypatch.setattr(runner, "STAGES", stages)
    return build


def test_a_program_builds_and_nothing_is_printed(noted: Build, capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    (archive,) = session.run([noted.config], noted.store, session.Options(out=noted.out), say=said.append)
    assert capsys.readouterr() == ("", "")
    assert said == ["named: a note"]
    data = Path(archive["path"]).read_bytes()
    assert (archive["sha256"], archive["size"]) == (hashlib.sha256(data).hexdigest(), len(data))


def test_what_is_left_to_say_is_said_when_nobody_is_told_how_it_goes_any_more(noted: Build) -> None:
    heard: list[str] = []

    @contextmanager
    def events() -> Iterator[Events]:
        heard.append("begin")
        yield Events(heard.append)
        heard.append("end")

    session.run([noted.config], noted.store, session.Options(out=noted.out), say=heard.append, events=events())
    assert heard == ["begin", *runner.NAMES, "end", "named: a note"]


def test_a_plan_does_nothing_and_a_build_does_what_it_tells(noted: Build) -> None:
    options = session.Options(out=noted.out)
    (before,) = session.plan([noted.config], noted.store, options)
    assert not noted.out.exists()
    assert not any(stage["cached"] for stage in before["stages"])
    (done,) = session.run([noted.config], noted.store, options)
    (after,) = session.plan([noted.config], noted.store, options)
    assert all(stage["cached"] for stage in after["stages"])
    assert [stage["key"] for stage in after["stages"]] == [stage["key"] for stage in done["stages"]]
    assert (before["verified"], after["verified"]) == (False, True)


@pytest.mark.parametrize("stage", ["handler", "model_store"])
def test_a_stage_that_is_forced_runs_although_it_is_cached(noted: Build, stage: str) -> None:
    session.run([noted.config], noted.store, session.Options(out=noted.out))
    (done,) = session.run([noted.config], noted.store, session.Options(out=noted.out, forced=(stage,)))
    assert [one["stage"] for one in done["stages"] if not one["cached"]] == [stage]
