"""What a signature states of the archive beside its bytes: who signed it, name, version and date."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import assume, given
from hypothesis import strategies as st
from packageurl import PackageURL

from mar_pipeline import __main__ as command
from mar_pipeline.archive import signing, statement
from mar_pipeline.archive.reader import Archive
from mar_pipeline.errors import InputError
from tests.support import fake_archives as archives
from tests.support.keys import write_key

NOVEMBER = {"SOURCE_DATE_EPOCH": "1764483600"}  # date -u -d 2025-11-30T06:20:00Z +%s


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, Path]:
    return write_key(tmp_path, "key", ec.generate_private_key(ec.SECP256R1()))


def archive(folder: Path, name: str, kind: str = "zip", *, called: str | None = None, **model: Any) -> Path:
    """An archive whose manifest says `name`, in a file that is called so or otherwise."""
    files = archives.contents(name, None)
    manifest = {"model": {"modelName": name, "modelVersion": "1.0", **model}}
    return archives.write(
        folder, called or name, {**files, "MAR-INF/MANIFEST.json": json.dumps(manifest).encode()}, kind
    )


def subject_of(signature: Path) -> str:
    """The subject's name in a signature, read without any of our code."""
    bundle = json.loads(signature.read_text())
    (subject,) = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))["subject"]
    return str(subject["name"])


def moved(signed: Path, target: Path) -> Path:
    """An archive and its signature under another name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(signed, target)
    shutil.move(signing.signature_path(signed), signing.signature_path(target))
    return target


@pytest.mark.parametrize("kind", archives.KINDS)
def test_a_signature_states_name_version_and_date(tmp_path: Path, key: tuple[Path, Path], kind: str) -> None:
    ham = archive(tmp_path / "store", "ham", kind)
    purl = PackageURL.from_string(subject_of(signing.sign(ham, key[0], NOVEMBER)))
    assert (purl.type, purl.namespace, purl.name, purl.version) == ("generic", None, "ham", "1.0")
    assert purl.qualifiers == {"signed": "2025-11-30T06:20:00Z"}
    stated = signing.verify(ham, key[1])
    assert (stated.name, stated.version) == ("ham", "1.0")
    assert stated.time == datetime(2025, 11, 30, 6, 20, tzinfo=timezone.utc)


def test_without_source_date_epoch_the_date_is_now(tmp_path: Path, key: tuple[Path, Path]) -> None:
    ham = archive(tmp_path / "store", "ham")
    before = datetime.now(timezone.utc).replace(microsecond=0)
    signing.sign(ham, key[0], {})
    time = signing.verify(ham, key[1]).time
    assert time is not None
    assert before <= time <= datetime.now(timezone.utc)
    with pytest.raises(InputError, match="SOURCE_DATE_EPOCH is 'soon'"):
        signing.sign(ham, key[0], {"SOURCE_DATE_EPOCH": "soon"})


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_keys_id_is_what_openssl_and_sha256sum_print(tmp_path: Path, key: tuple[Path, Path]) -> None:
    ham = archive(tmp_path / "store", "ham")
    signing.sign(ham, key[0])
    line = "openssl pkey -pubin -in key.public.pem -outform DER | sha256sum"
    printed = subprocess.run(line, shell=True, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert signing.verify(ham, key[1]).key == printed.split()[0]


@pytest.mark.parametrize("kind", archives.KINDS)
def test_another_archive_of_the_same_signer_does_not_pass_in_its_place(
    tmp_path: Path, key: tuple[Path, Path], kind: str
) -> None:
    ham = archive(tmp_path / "store", "ham", kind)
    signing.sign(ham, key[0])
    spam = moved(ham, tmp_path / "other" / f"spam{archives.KINDS[kind]}")
    with pytest.raises(InputError, match=r"was signed as ham 1\.0, and not as spam"):
        signing.verify(spam, key[1])
    spam = moved(spam, tmp_path / "other" / f"ham@1.0{archives.KINDS[kind]}")
    with pytest.raises(InputError, match=r"was signed as ham 1\.0, and not as ham@1\.0"):
        signing.verify(spam, key[1])
    # Whoever says which archive they mean may call the file as they like.
    for name in ("ham", "ham@1.0"):
        assert signing.verify(spam, key[1], name=name).name == "ham"
    for name in ("spam", "ham@2.0", "ham@", "spam@1.0"):
        with pytest.raises(InputError, match=f"is ham 1\\.0, and {name} is expected"):
            signing.verify(spam, key[1], name=name)


def test_a_link_under_another_name_does_not_pass_in_its_place(tmp_path: Path, key: tuple[Path, Path]) -> None:
    ham = archive(tmp_path / "store", "ham")
    signature = signing.sign(ham, key[0])
    link = tmp_path / "spam.mar"
    link.symlink_to(ham)
    shutil.copy(signature, signing.signature_path(link))
    with pytest.raises(InputError, match="and not as spam"):
        signing.verify(link, key[1])


def test_a_manifest_that_says_otherwise_is_refused(tmp_path: Path) -> None:
    ham = archive(tmp_path / "store", "ham")
    stated = statement.Statement(key="0" * 64, name="ham", version="2.0")
    with pytest.raises(InputError, match=r"has the version 1\.0 in its manifest, and was signed as ham 2\.0"):
        statement.check(stated, ham, None, None)


def test_a_copy_under_another_name_is_signed_by_that_name(tmp_path: Path, key: tuple[Path, Path]) -> None:
    """TorchServe serves it by its file's name. What it is in its manifest, it is still."""
    copy = archive(tmp_path / "store", "ham", called="ham-2026")
    signing.sign(copy, key[0])
    assert signing.verify(copy, key[1]).name == "ham-2026"
    for name in ("ham-2026", "ham", "ham@1.0"):
        signing.verify(copy, key[1], name=name)
    with pytest.raises(InputError, match=r"was signed as ham-2026 1\.0, and not as ham"):
        signing.verify(moved(copy, tmp_path / "ham.mar"), key[1])


def test_an_older_signature_is_refused(tmp_path: Path, key: tuple[Path, Path]) -> None:
    ham = archive(tmp_path / "store", "ham")
    signing.sign(ham, key[0], NOVEMBER)
    that = datetime(2025, 11, 30, 6, 20, tzinfo=timezone.utc)
    signing.verify(ham, key[1], not_before=that)
    with pytest.raises(InputError, match=r"is of 2025-11-30 06:20:00 UTC, and none before 2025-11-30 06:20:01"):
        signing.verify(ham, key[1], not_before=that.replace(second=1))


def test_signatures_that_state_nothing_are_accepted_but_where_something_is_expected(
    tmp_path: Path, key: tuple[Path, Path]
) -> None:
    ham = archive(tmp_path / "store", "ham")
    words = ["sign", "key", ham, "--signature", f"{ham}.sig", "--private_key", key[0]]
    subprocess.run([sys.executable, "-m", "model_signing", *map(str, words)], check=True, capture_output=True)
    stated = signing.verify(ham, key[1])
    assert (stated.name, stated.version, stated.time) == (None, None, None)
    assert "states no name, version or date" in str(stated)
    # Its manifest was signed as all its bytes were.
    signing.verify(ham, key[1], name="ham@1.0")
    with pytest.raises(InputError, match=r"is ham 1\.0, and spam is expected"):
        signing.verify(ham, key[1], name="spam")
    with pytest.raises(InputError, match="does not state a date"):
        signing.verify(ham, key[1], not_before=datetime(2000, 1, 1, tzinfo=timezone.utc))


def test_what_was_signed_is_read_where_it_was_verified(tmp_path: Path, key: tuple[Path, Path]) -> None:
    """A second envelope in the file, which JSON's readers prefer or not, changes nothing."""
    ham = archive(tmp_path / "store", "ham")
    text = signing.sign(ham, key[0]).read_text()
    bundle = json.loads(text)
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    payload["subject"][0]["name"] = "pkg:generic/spam@9?signed=2099-01-01T00:00:00Z"
    forged = {**bundle["dsseEnvelope"], "payload": base64.b64encode(json.dumps(payload).encode()).decode()}
    for both in (
        f'{{"dsseEnvelope": {json.dumps(forged)}, {text[1:]}',
        f'{text.rstrip()[:-1]}, "dsseEnvelope": {json.dumps(forged)}}}',
        f'{text.rstrip()[:-1]}, "dsse_envelope": {json.dumps(forged)}}}',
    ):
        signing.signature_path(ham).write_text(both)
        with suppress(InputError):
            assert signing.verify(ham, key[1]).name == "ham"


def test_one_of_several_keys_suffices(tmp_path: Path, key: tuple[Path, Path]) -> None:
    ham = archive(tmp_path / "store", "ham")
    signing.sign(ham, key[0])
    others = [write_key(tmp_path, name, ec.generate_private_key(ec.SECP256R1()))[1] for name in ("b", "c")]
    signing.verify(ham, others[0], key[1], others[1])
    with pytest.raises(InputError, match=r"is by none of these keys: .*b\.public\.pem, .*c\.public\.pem"):
        signing.verify(ham, *others)
    with pytest.raises(InputError, match="cannot be read"):
        signing.verify(ham, key[1], tmp_path / "nowhere.pem")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text(st.characters(exclude_categories=["Cs"])))
def test_any_name_and_version_are_stated_as_they_are(name: str, version: str) -> None:
    class Told(Archive):
        def __init__(self) -> None:
            self.path = Path("/", name)
            self.manifest = {"model": {"modelVersion": version}}

    assume(name := statement.file_name(Path("/", name)))  # what a path makes of it
    purl = statement.subject(Told(), datetime(2026, 1, 2, tzinfo=timezone.utc))
    stated = statement.Statement.of(purl, "k")
    assert (stated.name, stated.version) == (name, version or None)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "ham",
        "ham.mar",
        "pkg:generic/ham",
        "pkg:generic/ham@1?signed=",
        "pkg:pypi/ham@1?signed=2026-01-01T00:00:00Z",
    ],
)
def test_other_subjects_state_nothing(subject: str) -> None:
    assert statement.Statement.of(subject, "k") == statement.Statement(key="k")


@pytest.mark.parametrize("time", ["yesterday", "2026-13-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00+02:00"])
def test_a_date_in_another_form_is_none(time: str) -> None:
    assert statement.Statement.of(f"pkg:generic/ham@1?signed={time}", "k").time is None


def test_the_command_says_who_signed_what_and_when(
    tmp_path: Path, key: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ham = archive(tmp_path / "store", "ham")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", NOVEMBER["SOURCE_DATE_EPOCH"])
    command.run(["sign", str(ham), "--key", str(key[0])])
    who = signing.verify(ham, key[1]).key
    capsys.readouterr()
    command.run(["check", str(ham), "--key", str(key[1])])
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"Signed by the key {who[:16]}, ham 1.0 on 2025-11-30 at 06:20:00 UTC."
    command.run(["check", str(ham), "--key", str(key[1]), "--json"])
    told = json.loads(capsys.readouterr().out)["signature"]
    assert told == {"key": who, "name": "ham", "version": "1.0", "time": "2025-11-30T06:20:00Z"}
