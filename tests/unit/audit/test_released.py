"""Python code of an archive that is no handler of a release is named."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mar_pipeline
from mar_pipeline.audit import released
from tests.support import ROOT
from tests.support.archiver import findings, make

HANDLERS = ROOT / "handlers"


@pytest.fixture
def released_handlers() -> None:
    """Here, what is released counts."""


def ours() -> dict[str, bytes | None]:
    """The handler files of a build for sequence classification."""
    tasks = {"seq_classification", "token_classification", "question_answering", "text_generation"}
    files = {file.relative_to(HANDLERS).as_posix(): file.read_bytes() for file in HANDLERS.rglob("*.py")}
    shared = {f"handlers/{name}": data for name, data in files.items() if name.removesuffix(".py") not in tasks}
    return {**shared, "handler.py": None, "seq_classification.py": files["seq_classification.py"]}


def named(folder: Path, changes: dict[str, bytes | None]) -> list[str]:
    files = {**ours(), **changes}
    (folder / "h").mkdir(parents=True)
    handler = folder / "h" / "seq_classification.py"
    handler.write_bytes(files["seq_classification.py"] or b"")
    lines = findings(make(folder, files, handler=str(handler)), "note")
    return [line.partition(": is not, byte for byte, a handler of a released mar-pipeline")[0] for line in lines]


def test_handlers_of_this_version_are_not_named(tmp_path: Path) -> None:
    assert named(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"seq_classification.py": b"class A:\n    initialize = handle = print\n"}, ["seq_classification.py"]),
        ({"handlers/base.py": (HANDLERS / "base.py").read_bytes() + b"\n"}, ["handlers/base.py"]),
        ({"json.py": (HANDLERS / "base.py").read_bytes()}, ["json.py"]),
        ({"torch/__init__.py": b""}, ["torch/__init__.py"]),
        ({"x.sh": b"echo\n", "tool": b"#!/usr/bin/env python\n"}, ["tool", "x.sh"]),
    ],
    ids=["task", "shared", "elsewhere", "empty", "scripts"],
)
def test_all_other_programs_are_named(tmp_path: Path, changes: dict[str, bytes | None], names: list[str]) -> None:
    assert sorted(named(tmp_path, changes)) == names


def test_every_one_of_many_is_named(tmp_path: Path) -> None:
    archive = make(tmp_path, {f"m{number}.py": b"x = 1\n" for number in range(30)})
    said = " ".join(findings(archive, "note"))
    assert {f"m{number}.py" for number in range(30)} <= set(re.findall(r"m\d+\.py", said))


def test_the_recorded_versions_are_versions_with_digests() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for version, digests in released.recorded().items():
        assert f"## [{version}]" in changes
        assert digests
        assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in digests.values())
        if version == mar_pipeline.__version__:
            assert digests == released.running(), "run: python -m mar_pipeline.audit.released"


def test_versions_that_the_changelog_dates_are_recorded() -> None:
    """A release adds its digests before its date is set."""
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    dated = re.findall(r"^## \[([^]]+)\] - \d{4}-\d\d-\d\d$", changes, re.MULTILINE)
    assert set(dated) <= released.recorded().keys()


def test_the_digests_are_those_of_sha256sum() -> None:
    done = subprocess.run(
        ["sha256sum", "base.py", "seq_classification.py"], cwd=HANDLERS, capture_output=True, check=True
    )
    base, task = (line.split()[0] for line in done.stdout.decode().splitlines())
    digests = released.running()
    assert (digests["handlers/base.py"], digests["seq_classification.py"]) == (base, task)


def test_a_release_adds_its_version_and_keeps_the_others(tmp_path: Path) -> None:
    file = tmp_path / "released.json"
    file.write_text(json.dumps({"0.0.1": {"x.py": "a" * 64}}))
    released.add(file)
    assert json.loads(file.read_text()) == {"0.0.1": {"x.py": "a" * 64}, mar_pipeline.__version__: released.running()}


def test_a_handler_of_an_earlier_release_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = b"class A:\n    initialize = handle = print\n"
    told = {"0.0.1": {"handlers/base.py": hashlib.sha256(old).hexdigest()}}
    monkeypatch.setattr(released, "recorded", lambda: told)
    released._known.cache_clear()
    try:
        assert named(tmp_path, {"handlers/base.py": old}) == []
    finally:
        released._known.cache_clear()


def test_the_command_needs_no_torch() -> None:
    code = "import sys, mar_pipeline.audit.released as r; r.running(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
