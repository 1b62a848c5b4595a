"""`mar check`: what it finds in archives of the real torch-model-archiver that were changed afterwards."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline import __main__ as command
from mar_pipeline.audit.check import check
from tests.support import archiver
from tests.support.archiver import FILES, HANDLER, findings, make, manifest, rewrite
from tests.support.mar import Mar

Found = dict[str, Any]


@pytest.mark.parametrize("form", ["default", "zip-store", "tgz", "no-archive"])
def test_a_sound_archive_gives_nothing_to_say(tmp_path: Path, form: str) -> None:
    found = check(make(tmp_path, form=form))
    assert found["findings"] == []
    assert (found["ok"], found["recorded"], found["intact"]) == (True, len(FILES), len(FILES))


@pytest.mark.parametrize("form", ["zip-store", "tgz", "no-archive"])
def test_files_that_are_not_as_recorded_are_errors(tmp_path: Path, form: str) -> None:
    told = json.loads(archiver.provenance({**FILES, "gone.txt": b"x", "handler.py": b"another"}))["files"]
    archive = make(tmp_path, {"more.py": b"pass\n"}, form=form, record={"files": told})
    errors = findings(archive, "error")
    assert len(errors) == 3
    assert any(line.startswith("handler.py: is not the file that was built") for line in errors)
    assert any(line.startswith("gone.txt: was built and is missing") for line in errors)
    assert any(line.startswith("more.py: is not in the record") for line in errors)


def test_a_file_that_is_changed_later_is_found(tmp_path: Path) -> None:
    archive = rewrite(make(tmp_path), {"config.json": FILES["config.json"] + b" "})
    (line,) = findings(archive)
    assert line.startswith("config.json: is not the file that was built")


def test_an_archive_without_a_record_is_only_told_so(tmp_path: Path) -> None:
    found = check(make(tmp_path, recorded=False))
    assert found["ok"]
    (finding,) = found["findings"]
    assert (finding["level"], "provenance.json" in finding["what"]) == ("note", True)


def test_a_record_that_makes_no_sense_is_an_error(tmp_path: Path) -> None:
    for index, text in enumerate((b"[]", b"{", b'{"files": []}', b"\xff")):
        archive = make(tmp_path / str(index), {"provenance.json": text}, recorded=False)
        assert findings(archive, "error")[0].startswith("provenance.json: is not a record")


def test_a_damaged_member_is_named_and_the_others_are_still_held_against_the_record(tmp_path: Path) -> None:
    archive = make(tmp_path)
    data = bytearray(archive.read_bytes())
    data[data.index(FILES["model.safetensors"]) + 100] ^= 1
    archive.write_bytes(data)
    found = check(archive)
    assert [one["where"] for one in found["findings"]] == ["model.safetensors"]
    assert "damaged" in found["findings"][0]["what"]
    assert found["intact"] == len(FILES) - 1


def test_a_cut_tar_does_not_call_missing_what_it_could_not_reach(tmp_path: Path) -> None:
    random = os.urandom(2_000_000)
    # Manifest and record have to come first, so that there is an archive to be held against a record.
    archive, plain = tmp_path / "model.tar.gz", make(tmp_path, {"z.bin": random}, form="no-archive")
    with tarfile.open(archive, "w:gz") as written:
        written.add(plain / "MAR-INF", "model/MAR-INF")
        written.add(plain / "provenance.json", "model/provenance.json")
        written.add(plain / "z.bin", "model/z.bin")
        written.add(plain / "handler.py", "model/handler.py")
    archive.write_bytes(archive.read_bytes()[:1_000_000])
    errors = findings(archive, "error")
    assert len(errors) == 1
    assert "damaged" in errors[0]


def test_two_members_of_one_name_are_an_error(tmp_path: Path) -> None:
    archive = make(tmp_path)
    with zipfile.ZipFile(archive, "a") as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened.writestr("handler.py", HANDLER)
    assert [line for line in findings(archive, "error") if "2 times" in line]


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil", "a/../../b", "..\\evil.py", "C:/evil"])
def test_a_path_that_leads_out_is_an_error(tmp_path: Path, name: str) -> None:
    archive = rewrite(make(tmp_path, recorded=False), {name: b"x = 1\n"})
    assert [line for line in findings(archive, "error") if "leads out" in line]


def test_names_that_differ_by_capitals_are_a_warning(tmp_path: Path) -> None:
    archive = rewrite(make(tmp_path, recorded=False), {"HANDLER.py": HANDLER})
    assert [line for line in findings(archive, "warning") if "differ only in case" in line]


def _spoil(archive: Path, old: bytes, new: bytes) -> Path:
    archive.write_bytes(archive.read_bytes().replace(old, new))
    return archive


def _hidden(archive: Path) -> Path:
    """A member that the directory at the zip file's end does not list."""
    data, extra = archive.read_bytes(), io.BytesIO()
    with zipfile.ZipFile(extra, "w") as opened:
        opened.writestr("hidden.py", b"print('here')")
    member = extra.getvalue()[: extra.getvalue().index(b"PK\1\2")]
    start, place = data.index(b"PK\1\2"), data.rindex(b"PK\5\6") + 16
    end = bytearray(data[start:])
    end[place - start : place - start + 4] = (start + len(member)).to_bytes(4, "little")
    archive.write_bytes(data[:start] + member + bytes(end))
    return archive


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_hidden, "bytes behind its last member"),
        (
            lambda archive: (archive.write_bytes(b"#!/bin/sh\n" + archive.read_bytes()), archive)[1],
            "is not where its end record says",
        ),
        (lambda archive: archive.rename(archive.with_suffix(".zip")), "Rename it"),
    ],
    ids=["hidden member", "bytes in front", "other name"],
)
def test_what_only_torchserves_reader_would_see_is_an_error(
    tmp_path: Path, change: Callable[[Path], Path], said: str
) -> None:
    found = check(change(make(tmp_path)))
    assert [one for one in found["findings"] if one["level"] == "error" and said in one["what"] + one["do"]]


def test_a_compression_that_java_cannot_read_is_an_error(tmp_path: Path) -> None:
    archive = make(tmp_path)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_LZMA) as opened:
        opened.writestr("more.txt", b"x")
    assert [line for line in findings(archive, "error") if "method 14" in line]


def test_a_folders_link_out_is_an_error(tmp_path: Path) -> None:
    archive = make(tmp_path, form="no-archive")
    (tmp_path / "secret").write_text("x")
    (archive / "link.txt").symlink_to(tmp_path / "secret")
    assert [line for line in findings(archive, "error") if line.startswith("link.txt: is a link that leads out")]


def test_a_tars_link_is_an_error(tmp_path: Path) -> None:
    plain = make(tmp_path, form="no-archive")
    (plain / "link.py").symlink_to("handler.py")
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as written:
        written.add(plain, "model")
    assert [line for line in findings(archive, "error") if line.startswith("model/link.py: is a link")]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"modelName": "a b"}, 'modelName is "a b"'),
        ({"top": {"runtime": "python2"}}, 'runtime is "python2"'),
        ({"top": {"runtime": None}}, "runtime is null"),
        ({"serializedFile": "model.pt"}, 'serializedFile is "model.pt", and there is no such file'),
        ({"modelFile": ["x"]}, "modelFile is a list"),
        ({"requirementsFile": "requirements.txt"}, "no such file"),
        ({"configFile": "none.yaml"}, "no such file"),
        ({"handler": ["handler.py"]}, "handler is a list, and not a text"),
        ({"modelVersion": {"a": 1}}, "modelVersion is a section, and not a text"),
        ({"top": {"createdOn": []}}, "createdOn is a list, and not a text"),
        ({"handler": "another.py"}, "neither in the archive nor built into TorchServe"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_manifest_that_torchserve_cannot_use_is_an_error(tmp_path: Path, changes: Found, said: str) -> None:
    (line,) = findings(manifest(make(tmp_path), **changes), "error")
    assert said in line


@pytest.mark.parametrize("handler", ["image_classifier", "handler", "handler.py", "handler:handle", "pack/handler.py"])
def test_handlers_that_torchserve_finds_are_none(tmp_path: Path, handler: str) -> None:
    archive = manifest(
        make(tmp_path, {"handler.py": HANDLER + b"\ndef handle(data, context):\n    pass\n"}), handler=handler
    )
    assert findings(archive) == []


@pytest.mark.parametrize(
    ("line", "pinned"),
    [
        ("torch==2.4.0", True),
        ("torch[x]==2.4.0; python_version > '3'", True),
        ("torch==2.4.0 \\\n    --hash=sha256:" + "a" * 64, True),
        (f"pkg @ https://example.org/p.whl#sha256={'a' * 64}", True),
        ("# a comment\n\n--no-cache-dir", True),
        ("torch", False),
        ("torch>=2", False),
        ("torch==2.*", False),
        ("pkg @ https://example.org/p.whl", False),
        ("git+https://example.org/p.git", False),
        ("-r more.txt", False),
        ("--extra-index-url https://example.org", False),
    ],
)
def test_requirements_without_one_exact_version_are_a_warning(tmp_path: Path, line: str, pinned: bool) -> None:
    archive = make(
        tmp_path, {"requirements.txt": line.encode()}, requirements_file=str(tmp_path / "source" / "requirements.txt")
    )
    assert (findings(archive, "error") == []) is pinned
    assert "install_py_dep_per_model" in findings(archive, "note")[0]


def test_a_transformers_model_without_a_tokenizer_is_a_warning(tmp_path: Path) -> None:
    archive = make(tmp_path, {"tokenizer.json": None})
    assert [line for line in findings(archive, "warning") if "no tokenizer" in line]
    vision: dict[str, bytes | None] = {"tokenizer.json": None, "preprocessor_config.json": b"{}"}
    assert findings(make(tmp_path / "vision", vision)) == []


def test_errors_end_with_2_and_warnings_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = make(tmp_path, {"model-config.yaml": b"threshold: 0.5\n"})
    assert command.run(["check", str(archive)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("warning: model-config.yaml threshold is not a key of the server")
    assert out.splitlines()[-1].endswith("0 errors, 1 warning, 0 notes")
    rewrite(archive, {"config.json": b"{}"})
    assert command.run(["check", str(archive), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["errors"], found["warnings"]) == (False, 1, 1)
    assert {"level", "where", "what", "do"} == found["findings"][0].keys()


@pytest.mark.parametrize("name", ["inspect", "check", "diff"])
def test_what_is_no_archive_is_refused_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    sound = make(tmp_path / "sound")
    cut = tmp_path / "cut.mar"
    cut.write_bytes(sound.read_bytes()[:-30])
    other = rewrite(Path(shutil.copy(sound, tmp_path / "other.mar")), {"MAR-INF/MANIFEST.json": b'{"model": 3}'})
    spoiled = _spoil(Path(shutil.copy(sound, tmp_path / "spoiled.mar")), b'"createdOn"', b'"createdIn"')
    tar = tmp_path / "cut.tar.gz"
    tar.write_bytes(make(tmp_path / "tar", {"z": os.urandom(100_000)}, form="tgz").read_bytes()[:50_000])
    for archive in (tmp_path / "none.mar", cut, other, spoiled, tar):
        line = [name, str(archive), *([str(sound)] if name == "diff" else [])]
        assert command.run(line) == 2, archive
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: "), err
        assert "Traceback" not in err


def test_a_name_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = str(rewrite(make(tmp_path), {"\x1b[2Jx.py": b"x = 1\n"}))
    for line in (["check", archive], ["inspect", archive], ["diff", archive, str(make(tmp_path / "b"))]):
        command.run(line)
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "x1b[2Jx.py" in out


def test_large_members_are_read_in_pieces(tmp_path: Path) -> None:
    archive = make(tmp_path)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as opened, opened.open("zeros.yaml", "w") as member:
        for _ in range(300):
            member.write(bytes(1 << 20))
    code = (
        "import pathlib, sys; from mar_pipeline.audit.check import check; check(pathlib.Path(sys.argv[1]))\n"
        "print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, archive], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150_000  # kilobytes


@pytest.mark.parametrize("name", ["inspect", "check", "diff"])
def test_no_model_library_is_loaded(tmp_path: Path, name: str) -> None:
    archive = str(make(tmp_path))
    line = [name, archive, *([archive] if name == "diff" else [])]
    code = (
        f"import sys; from mar_pipeline.__main__ import run\nassert run({line!r}) == 0\n"
        "sys.exit(str({'torch', 'transformers', 'numpy', 'safetensors'} & sys.modules.keys() or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "0"


@pytest.mark.slow
def test_what_this_program_builds_has_no_error_and_no_warning(
    mar: Mar, built: dict[tuple[str, str], dict[str, Any]], tmp_path: Path
) -> None:
    paths = [Path(one["path"]) for one in built.values()]
    for form in ("default", "tgz", "no-archive"):
        # The output folder is other tests' too.
        named = ("--task", "seq_classification", "--set", f"archive.format={form}", "--out", tmp_path / form)
        done = mar("build", *named, "--json")
        assert done.returncode == 0, done.stderr
        paths.append(Path(json.loads(done.stdout)["archives"][0]["path"]))
    for path in paths:
        found = check(path)
        assert (found["errors"], found["warnings"], found["notes"]) == (0, 0, 0), found["findings"]
        assert found["intact"] == found["files"] - 2
