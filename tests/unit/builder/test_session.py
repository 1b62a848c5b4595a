"""The library's API: configs through one cache into one output folder, without a screen."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from textwrap import indent
from typing import Any, cast

import pytest

from mar_pipeline import sources
from mar_pipeline.builder import runner, session
from mar_pipeline.builder.build import NAMES, Build, Inputs, Job, Undeclared
from mar_pipeline.builder.stage import Kept
from mar_pipeline.errors import StageError
from mar_pipeline.sources.folder import Folder
from mar_pipeline.sources.source import NotReadYet
from tests.support import ROOT
from tests.unit.builder.test_plan import Events, build, checkpoint

__all__ = ["build", "checkpoint"]


@pytest.fixture
def noted(build: Build, monkeypatch: pytest.MonkeyPatch) -> Build:
    """A build whose gate lets everything pass, with a note."""

    def passed(job: Job) -> Kept:
        (job.folder / "report.json").write_text(json.dumps({"verified": True, "notes": ["a note"]}))
        return Kept()

    stages = tuple(replace(stage, run=passed) if stage.name == "verify" else stage for stage in runner.STAGES)
    monkeypatch.setattr(runner, "STAGES", stages)
    return build


def test_a_program_builds_and_nothing_is_printed(noted: Build, capsys: pytest.CaptureFixture[str]) -> None:
    notes: list[str] = []
    (archive,) = session.run([noted.config], noted.store, session.Options(out=noted.out), note=notes.append)
    assert capsys.readouterr() == ("", "")
    assert notes == ["named: a note"]
    data = Path(archive["path"]).read_bytes()
    assert (archive["sha256"], archive["size"]) == (hashlib.sha256(data).hexdigest(), len(data))


def test_what_is_left_to_say_is_said_when_nobody_is_told_how_it_goes_any_more(noted: Build) -> None:
    heard: list[str] = []

    @contextmanager
    def events() -> Iterator[Events]:
        heard.append("begin")
        yield Events(heard.append)
        heard.append("end")

    session.run([noted.config], noted.store, session.Options(out=noted.out), note=heard.append, events=events())
    assert heard == ["begin", *NAMES, "end", "named: a note"]


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


def test_the_stages_have_the_names_and_the_order_that_callers_name_them_by() -> None:
    assert tuple(stage.name for stage in runner.STAGES) == NAMES


KNOWN = {"sha256": "archive", "size": "archive", "verified": "verify", "path": "model_store"}
"""A report's field -> the first stage after which it is known."""


@pytest.mark.parametrize("until", NAMES)
def test_a_build_ends_after_the_stage_that_it_is_to_end_after(noted: Build, until: session.StageName) -> None:
    passed: list[str] = []
    events = nullcontext(Events(passed.append))
    (report,) = session.run([noted.config], noted.store, noted.options, until=until, events=events)
    count = NAMES.index(until) + 1
    assert passed == [stage["stage"] for stage in report["stages"]] == list(NAMES[:count])
    known = {field for field, stage in KNOWN.items() if NAMES.index(stage) < count}
    assert report.keys() == {"name", "source", "locked", "stages"} | known
    assert noted.out.exists() == (until == "model_store")
    (planned,) = session.plan([noted.config], noted.store, noted.options)
    assert [stage["cached"] for stage in planned["stages"]] == [True] * count + [False] * (len(NAMES) - count)


def test_an_archive_that_is_only_packed_lies_in_the_cache(noted: Build) -> None:
    (packed,) = session.run([noted.config], noted.store, noted.options, until="archive")
    file = noted.store.blob(packed["sha256"])
    assert hashlib.sha256(file.read_bytes()).hexdigest() == packed["sha256"]
    (whole,) = session.run([noted.config], noted.store, noted.options)
    assert Path(whole["path"]).read_bytes() == file.read_bytes()


def test_a_name_that_is_not_a_stages_is_the_callers_mistake(noted: Build) -> None:
    with pytest.raises(ValueError, match="'pack' is not a stage"):
        session.run([noted.config], noted.store, noted.options, until=cast(Any, "pack"))
    for call in (session.run, session.plan):
        with pytest.raises(ValueError, match="'pack' is not a stage"):
            call([noted.config], noted.store, session.Options(forced=cast(Any, ("pack",))))
    assert not noted.out.exists()


def test_a_lock_names_every_file_that_is_taken_and_is_not_written(noted: Build, checkpoint: Path) -> None:
    lock = session.lock(noted.config, noted.store)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= lock.files.keys()
    for name, file in lock.files.items():
        assert file.sha256 == hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
    assert not list(checkpoint.parent.glob("*.lock"))


def test_the_example_of_the_reference_builds(
    noted: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert noted.config.path is not None
    folder = noted.config.path.parent
    noted.config.path.rename(folder / "tickets.yaml")
    monkeypatch.chdir(folder)
    page = ROOT / "docs" / "reference" / "python-api.md"
    (example,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    exec(compile(example, str(page), "exec"), {})
    digest = hashlib.sha256(Path("build/model-store/named.mar").read_bytes()).hexdigest()
    assert capsys.readouterr().out.splitlines() == [f"build/model-store/named.mar {digest}", "named: a note"][::-1]
    assert session.__doc__ is not None
    assert indent(example, "    ") in session.__doc__


@pytest.mark.parametrize("stage", ["handler", "model_store"])
def test_a_stage_that_is_forced_runs_although_it_is_cached(noted: Build, stage: str) -> None:
    session.run([noted.config], noted.store, session.Options(out=noted.out))
    (done,) = session.run([noted.config], noted.store, session.Options(out=noted.out, forced=(stage,)))
    assert [one["stage"] for one in done["stages"] if not one["cached"]] == [stage]


class Counted:
    """A source that counts how often the builder asks what it holds."""

    def __init__(self, source: Any, listings: list[str]) -> None:
        self.__dict__.update(_source=source, _listings=listings)

    def __getattr__(self, name: str) -> Any:
        if name == "sizes":
            self._listings.append(self._source.where)
        return getattr(self._source, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._source, name, value)


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources whose files were listed, once for each time."""
    lines: list[str] = []
    source_of = sources.of
    monkeypatch.setattr(sources, "of", lambda *words: Counted(source_of(*words), lines))
    return lines


@pytest.mark.parametrize("cached", [False, True], ids=["not cached", "cached"])
def test_the_checkpoint_is_resolved_once_a_plan_and_once_a_build(
    noted: Build, listings: list[str], cached: bool
) -> None:
    if cached:
        session.run([noted.config], noted.store, noted.options)
        listings.clear()
    session.plan([noted.config], noted.store, noted.options)
    assert len(listings) == 1
    session.run([noted.config], noted.store, noted.options)
    assert len(listings) == 2


def test_a_folder_that_changes_each_time_it_is_read_is_an_error(noted: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def restless(_folder: Folder, _files: Any) -> dict[str, Any]:
        raise NotReadYet("model.safetensors is new, or changed since it was last read")

    monkeypatch.setattr(Folder, "identity", restless)
    with pytest.raises(StageError, match=r"checkpoint changed while it was read: model\.safetensors is new"):
        session.run([noted.config], noted.store, noted.options)


READS: dict[str, Callable[[Inputs], object]] = {
    "its tree": lambda inputs: inputs.tree("verify"),
    "its parameters": lambda inputs: inputs.result("verify").params,
    "its files": lambda inputs: inputs.read_json("verify", "report.json"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("where", ["params", "tools", "run"])
def test_a_stage_that_reads_a_result_which_it_does_not_declare_is_the_developers_mistake(
    noted: Build, monkeypatch: pytest.MonkeyPatch, read: Callable[[Inputs], object], where: str
) -> None:
    """Though the other result is there: the stages run in another order here."""

    def wrong(given: Inputs | Job) -> Any:
        read(given.inputs if isinstance(given, Job) else given)

    last = replace(runner.STAGES[1], name="last", **{where: wrong})
    monkeypatch.setattr(runner, "STAGES", (*runner.STAGES, last))
    with pytest.raises(Undeclared, match=r"stage last reads the result of verify, .* inputs are: download"):
        session.run([noted.config], noted.store, noted.options)


def test_only_the_download_and_who_declares_it_see_the_checkpoint(noted: Build) -> None:
    state = runner.run(noted, Events()).state
    assert state.inputs("download", ()).checkpoint is state.checkpoint
    assert state.inputs("serialize", ("download",)).checkpoint is state.checkpoint
    with pytest.raises(Undeclared, match="stage other reads the checkpoint, and its declared inputs are: serialize"):
        state.inputs("other", ("serialize",)).checkpoint  # noqa: B018


def test_no_stage_gets_hold_of_the_state_which_the_runner_writes() -> None:
    folder = Path(runner.__file__).parent
    files = {file.relative_to(folder).as_posix(): file.read_text(encoding="utf-8") for file in folder.rglob("*.py")}
    named = {name for name, text in files.items() if re.search(r"\bState\b", text)}
    assert named == {"build.py", "runner.py", "status.py"}
    written = {name for name, text in files.items() if re.search(r"\bstate\.\w+(\[[^]]+\])? \|?= ", text)}
    assert written == {"runner.py"}
