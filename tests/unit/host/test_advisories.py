"""Security advisories of libraries: what is installed is told, and what can be left out of our range is."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from handlers.protocol.problem import Problem
from handlers.text.chat import Chat
from mar_pipeline.host import advisories, doctor
from mar_pipeline.host.advisories import ADVISORIES
from tests.support import ROOT


def declared() -> dict[str, Requirement]:
    """What pyproject.toml asks for, for whatever use."""
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return {canonicalize_name(one.name): one for one in map(Requirement, reversed(lines))}


def lowest(requirement: Requirement) -> str:
    return next(one.version for one in requirement.specifier if one.operator == ">=")


@pytest.mark.parametrize(
    ("package", "version", "told"),
    [
        ("transformers", "4.57.6", ["CVE-2026-5241", "CVE-2026-4372", "CVE-2026-1839"]),
        ("transformers", "5.2.0", ["CVE-2026-5241", "CVE-2026-4372"]),
        ("transformers", "5.3.0", []),
        ("torch", "2.5.1+cu124", ["CVE-2025-32434", "CVE-2026-24747"]),
        ("torch", "2.9.1", ["CVE-2026-24747"]),
        ("torch", "2.13.0+cpu", []),
        ("jinja2", "3.1.5", ["CVE-2025-27516"]),
        ("jinja2", "3.1.6", []),
        ("filelock", "3.12.4", ["CVE-2025-68146", "CVE-2026-22701"]),
        ("filelock", "3.20.2", ["CVE-2026-22701"]),
        ("filelock", "3.20.3", []),
        ("torchserve", "0.12.0", ["Netty 4.1.53"]),
    ],
)
def test_the_doctor_names_the_advisories_of_what_is_installed(
    monkeypatch: pytest.MonkeyPatch, package: str, version: str, told: list[str]
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: version if name == package else None)
    found = doctor.advised()
    assert [check.name for check in found] == ([f"advisories: {package}"] if told else [])
    for check in found:
        assert check.status == "warn"
        assert check.found.startswith(version)
        assert [one for one in told if one not in check.found + check.fix] == []
        assert "pip install" in check.fix or package == "torchserve"


def test_the_documents_have_the_same_table() -> None:
    assert advisories.table() in (ROOT / "docs" / "reference" / "advisories.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "package", sorted({one.package for one in ADVISORIES} - {"transformers", "torch", "torchserve"})
)
def test_no_version_with_an_advisory_can_be_installed_where_another_does_as_well(package: str) -> None:
    oldest = lowest(declared()[package])
    assert not [one.ids for one in ADVISORIES if one.package == package and one.concerns(oldest)]


def test_every_library_that_is_imported_is_declared() -> None:
    distributions = metadata.packages_distributions()
    imported = set()
    for file in [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("handlers/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            imported |= {name.partition(".")[0] for name in names}
    imported -= {*sys.stdlib_module_names, "mar_pipeline", "handlers"}
    assert "jinja2" in imported
    missing = {
        name
        for name in imported
        if (found := {canonicalize_name(one) for one in distributions.get(name, [])}) and not found & declared().keys()
    }
    # What belongs to one that is: to torch, s3fs and the like, pydantic, cyclonedx-python-lib, pyopenssl.
    assert missing <= {"numpy", "fsspec", "pydantic_core", "packageurl", "cryptography"}


@pytest.mark.parametrize("release", ["2.11.3", "3.0", "3.1.5", "3.1.5.post1"])
def test_a_server_with_an_old_jinja_refuses_chats_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, release: str
) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: release)
    with caplog.at_level(logging.WARNING):
        chat = Chat("{{ messages[0].content }}", {})
    with pytest.raises(Problem, match="cannot be read"):
        chat.prompt([{"role": "user", "content": "hi"}])
    assert re.search(rf"jinja2 {re.escape(release)} .* 3\.1\.6 or newer is needed", caplog.text)


@pytest.mark.parametrize("release", ["3.1.6", "3.2.0rc1", "3.10", "4.0.dev0"])
def test_a_newer_jinja_writes_chats(monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: release)
    chat = Chat("{{ messages[0].content }}", {})
    assert chat.prompt([{"role": "user", "content": "hi"}]) == "hi"


@pytest.mark.parametrize(
    ("vulns", "code", "said"),
    [
        ([{"id": "GHSA-53q9", "aliases": ["CVE-2025-32434"]}], 0, ""),
        (
            [{"id": "GHSA-1234", "aliases": ["CVE-2031-1"]}],
            1,
            "torch 2.4: GHSA-1234, which docs/",
        ),
        (None, 0, "pip-audit reaches no database of vulnerabilities here"),
    ],
)
def test_the_audit_fails_at_a_vulnerability_that_the_table_lacks(
    tmp_path: Path, vulns: list[dict[str, Any]] | None, code: int, said: str
) -> None:
    found = {"vulns": vulns} if vulns is not None else {"skip_reason": "not found"}
    answer = json.dumps({"dependencies": [{"name": "torch", "version": "2.4", **found}]})
    stand_in = tmp_path / "pip-audit"
    stand_in.write_text(f"#!/bin/sh\necho '{answer}'\n")
    stand_in.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = [sys.executable, ".ci/audit.py"]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert said in done.stdout
