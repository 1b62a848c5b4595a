"""Signatures: what `mar sign` makes, model_signing's own command accepts, and nothing else passes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from mar_pipeline import __main__ as command
from mar_pipeline.archive import model_store, signing
from mar_pipeline.errors import InputError
from tests.support import fake_archives as archives
from tests.support.keys import write_key
from tests.support.mar import Mar, words

FILES = archives.contents("a", archives.provenance(archives.HUB))


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, Path]:
    return write_key(tmp_path, "key", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(params=archives.KINDS)
def archive(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An archive in each format."""
    return archives.write(tmp_path / "model-store", "a", FILES, request.param)


@pytest.fixture
def mar_file(tmp_path: Path) -> Path:
    return archives.write(tmp_path / "model-store", "a", FILES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return archives.write(tmp_path / "model-store", "a", FILES, "folder")


def model_signing(*words: object) -> subprocess.CompletedProcess[str]:
    """The library's own command."""
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *map(str, words)], capture_output=True, text=True, check=False
    )


def tamper(archive: Path) -> None:
    """Change one byte of the weights, or of the packed file."""
    file = archive / "model.safetensors" if archive.is_dir() else archive
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def refused(words: list[object], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The error that a command line gets: one to three lines, no traceback, nothing on standard output."""
    assert command.run([str(word) for word in words]) == code
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert 1 <= len(error.splitlines()) <= 3, error
    return error


def test_model_signings_own_command_accepts_a_signature(archive: Path, key: tuple[Path, Path]) -> None:
    signature = signing.sign(archive, key[0])
    assert signature == archive.parent / f"{archive.name}.sig"
    done = model_signing("verify", "key", archive, "--signature", signature, "--public_key", key[1])
    assert done.returncode == 0, done.stdout + done.stderr
    signing.verify(archive, key[1])


def test_an_archive_that_was_changed_is_refused(archive: Path, key: tuple[Path, Path]) -> None:
    signature = signing.sign(archive, key[0])
    tamper(archive)
    done = model_signing("verify", "key", archive, "--signature", signature, "--public_key", key[1])
    assert done.returncode != 0
    with pytest.raises(InputError, match="is not what was signed"):
        signing.verify(archive, key[1])


def test_a_signature_by_model_signings_own_command_is_accepted(archive: Path, key: tuple[Path, Path]) -> None:
    done = model_signing("sign", "key", archive, "--signature", f"{archive}.sig", "--private_key", key[0])
    assert done.returncode == 0, done.stdout + done.stderr
    signing.verify(archive, key[1])


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_larger_curves_sign_too(mar_file: Path, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    private, public = write_key(tmp_path, "large", ec.generate_private_key(curve))
    signing.sign(mar_file, private)
    signing.verify(mar_file, public)


def test_an_archive_without_signature_is_refused(mar_file: Path, key: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=r"is not signed: there is no .*a\.mar\.sig"):
        signing.verify(mar_file, key[1])


def test_a_signature_by_another_key_is_refused(mar_file: Path, key: tuple[Path, Path], tmp_path: Path) -> None:
    signing.sign(mar_file, key[0])
    _, other = write_key(tmp_path, "other", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(InputError, match="is not by the key of"):
        signing.verify(mar_file, other)


def test_a_forged_key_hint_does_not_help(
    mar_file: Path, key: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signing.sign(mar_file, key[0])
    right = json.loads(signing.signature_path(mar_file).read_text())["verificationMaterial"]
    private, _ = write_key(tmp_path, "other", ec.generate_private_key(ec.SECP256R1()))
    forged = json.loads(signing.sign(mar_file, private).read_text())
    signing.signature_path(mar_file).write_text(json.dumps({**forged, "verificationMaterial": right}))
    with pytest.raises(InputError, match="was changed, or is not by the key of"):
        signing.verify(mar_file, key[1])
    # Without a hint the library warns on standard output, where a command's result goes, and looks at the signature.
    nameless = {**right, "publicKey": {}}
    signing.signature_path(mar_file).write_text(json.dumps({**forged, "verificationMaterial": nameless}))
    with pytest.raises(InputError, match="was changed, or is not by the key of"):
        signing.verify(mar_file, key[1])
    assert capsys.readouterr().out == ""


def test_another_archives_signature_is_refused(mar_file: Path, key: tuple[Path, Path], tmp_path: Path) -> None:
    other = archives.write(tmp_path, "b", archives.contents("b", None))
    shutil.copy(signing.sign(other, key[0]), signing.signature_path(mar_file))
    with pytest.raises(InputError, match="is not what was signed"):
        signing.verify(mar_file, key[1])


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[]", b"{}", b'{"verificationMaterial": {}}', b'"text"'],
    ids=["empty", "binary", "list", "object", "material", "text"],
)
def test_a_file_that_is_no_signature_is_refused(mar_file: Path, key: tuple[Path, Path], content: bytes) -> None:
    signing.signature_path(mar_file).write_bytes(content)
    with pytest.raises(InputError, match="is not a signature by a key") as caught:
        signing.verify(mar_file, key[1])
    assert len(str(caught.value).splitlines()) <= 3


def test_a_signature_without_signatures_is_refused(mar_file: Path, key: tuple[Path, Path]) -> None:
    bundle = json.loads(signing.sign(mar_file, key[0]).read_text())
    bundle["dsseEnvelope"]["signatures"] = []
    signing.signature_path(mar_file).write_text(json.dumps(bundle))
    with pytest.raises(InputError, match="is not a signature by a key"):
        signing.verify(mar_file, key[1])


@pytest.mark.parametrize("path", ["more.py", ".git/hooks", ".gitattributes", ".github/a.yaml"])
def test_a_file_slipped_into_a_folder_is_noticed(folder: Path, key: tuple[Path, Path], path: str) -> None:
    signing.sign(folder, key[0])
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_text("evil")
    with pytest.raises(InputError, match="is not what was signed"):
        signing.verify(folder, key[1])


def test_a_file_taken_out_of_a_folder_is_noticed(folder: Path, key: tuple[Path, Path]) -> None:
    signing.sign(folder, key[0])
    (folder / "handlers" / "base.py").unlink()
    with pytest.raises(InputError, match="is not what was signed"):
        signing.verify(folder, key[1])


def test_a_folder_with_links_in_it_cannot_be_signed(
    folder: Path, key: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "more.py").symlink_to(folder / "handlers" / "base.py")
    assert "more.py is a symbolic link" in refused(["sign", folder, "--key", key[0]], capsys)
    assert not signing.signature_path(folder).exists()


def test_a_folders_signature_lies_beside_it_from_within_too(
    folder: Path, key: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(folder.rglob("*"))
    monkeypatch.chdir(folder)
    assert signing.sign(Path(), key[0]) == folder.parent / "a.sig"
    assert sorted(folder.rglob("*")) == before
    signing.verify(Path(), key[1])
    signing.verify(Path("../a/"), key[1])


def test_a_link_to_an_archive_is_signed_as_the_archive(mar_file: Path, key: tuple[Path, Path], tmp_path: Path) -> None:
    link = tmp_path / "latest.mar"
    link.symlink_to(mar_file)
    assert signing.sign(link, key[0]) == tmp_path / "latest.mar.sig"
    signing.verify(link, key[1])


def test_signing_again_replaces_the_signature_and_leaves_nothing_else(
    mar_file: Path, key: tuple[Path, Path], tmp_path: Path
) -> None:
    signing.sign(mar_file, key[0])
    private, public = write_key(tmp_path, "other", ec.generate_private_key(ec.SECP256R1()))
    signing.sign(mar_file, private)
    signing.verify(mar_file, public)
    assert sorted(item.name for item in mar_file.parent.iterdir()) == ["a.mar", "a.mar.sig"]


def test_a_signature_that_cannot_be_written_is_a_failed_stage(
    mar_file: Path, key: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    signing.signature_path(mar_file).mkdir()
    assert "a.mar.sig" in refused(["sign", mar_file, "--key", key[0]], capsys, code=3)
    assert sorted(item.name for item in mar_file.parent.iterdir()) == ["a.mar", "a.mar.sig"]


def keys(folder: Path) -> dict[str, tuple[Path, str]]:
    """Keys that cannot sign, and what is said of each."""
    good = ec.generate_private_key(ec.SECP256R1())
    junk = folder / "junk.pem"
    junk.write_bytes(b"\x00 no key")
    return {
        "nowhere": (folder / "nowhere.pem", "cannot be read"),
        "folder": (folder, "cannot be read"),
        "junk": (junk, "has no key in PEM format"),
        "public": (write_key(folder, "good", good)[1], "is a public key; a private one is needed"),
        "password": (write_key(folder, "locked", good, b"secret")[0], "protected by a password"),
        "rsa": (write_key(folder, "rsa", rsa.generate_private_key(65537, 2048))[0], "of an unsupported kind"),
        "ed25519": (write_key(folder, "ed", ed25519.Ed25519PrivateKey.generate())[0], "unsupported kind"),
        "curve": (write_key(folder, "k1", ec.generate_private_key(ec.SECP256K1()))[0], "unsupported kind"),
    }


@pytest.mark.parametrize("kind", ["nowhere", "folder", "junk", "public", "password", "rsa", "ed25519", "curve"])
def test_a_key_that_cannot_sign_is_refused(
    mar_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    private, why = keys(tmp_path)[kind]
    error = refused(["sign", mar_file, "--key", private], capsys)
    assert why in error
    assert "openssl ec" in error
    assert not signing.signature_path(mar_file).exists()


def test_a_private_key_is_none_to_check_with(mar_file: Path, key: tuple[Path, Path]) -> None:
    signing.sign(mar_file, key[0])
    with pytest.raises(InputError, match="is a private key; a public one is needed"):
        signing.verify(mar_file, key[0])


def test_what_is_no_archive_is_refused(
    tmp_path: Path, key: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "does not exist" in refused(["sign", tmp_path / "a.mar", "--key", key[0]], capsys)
    (tmp_path / "b.mar").write_text("no zip")
    assert "not an archive" in refused(["sign", tmp_path / "b.mar", "--key", key[0]], capsys)


def test_a_missing_library_is_said_with_what_to_install(
    mar_file: Path, key: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    assert "pip install 'mar-pipeline[sign]'" in refused(["sign", mar_file, "--key", key[0]], capsys)
    with pytest.raises(InputError, match=r"pip install 'mar-pipeline\[sign\]'"):
        signing.verify(mar_file, key[1])


def test_the_command_says_where_the_signature_is(
    mar_file: Path, key: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(["sign", str(mar_file), "--key", str(key[0])]) == 0
    assert str(mar_file) + ".sig" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_keys_are_made_as_the_docs_say(mar_file: Path, tmp_path: Path) -> None:
    lines = [line.strip() for line in str(signing.__doc__).splitlines() if line.strip().startswith("openssl")]
    assert len(lines) == 2
    for line in lines:
        subprocess.run(line.split(), cwd=tmp_path, check=True, capture_output=True)
    signing.sign(mar_file, tmp_path / "private.pem")
    signing.verify(mar_file, tmp_path / "public.pem")


def test_a_signature_is_no_archive_of_the_model_store(archive: Path, key: tuple[Path, Path]) -> None:
    before = model_store.archives(archive.parents[1])
    signing.sign(archive, key[0])
    assert model_store.archives(archive.parents[1]) == before == [archive.name]


@pytest.mark.slow
def test_signed_archives_are_built_no_more_and_served_as_ever(fresh_mar: Mar, key: tuple[Path, Path]) -> None:
    asked = words("seq_classification", "pretrained")
    (built,) = fresh_mar.build(*asked)
    sums = (fresh_mar.out / "SHA256SUMS").read_text()
    done = fresh_mar("sign", built["path"], "--key", key[0])
    assert done.returncode == 0, done.stderr
    (again,) = fresh_mar.build(*asked)
    assert all(stage["cached"] for stage in again["stages"])
    assert (fresh_mar.out / "SHA256SUMS").read_text() == sums
    smoke = fresh_mar("smoke", "--out", fresh_mar.out, "--json")
    assert smoke.returncode == 0, smoke.stderr
    assert len(json.loads(smoke.stdout)["archives"]) == 1


def test_a_check_with_a_key_asks_for_its_signature_first(
    archive: Path, key: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = key
    assert "is not signed" in refused(["check", archive, "--key", public], capsys)
    signing.sign(archive, private)
    assert command.run(["check", str(archive), "--key", str(public)]) in (0, 2)  # it is no whole archive
    assert "files" in capsys.readouterr().out
    tamper(archive)
    assert "is not what was signed" in refused(["check", archive, "--key", public], capsys)


def test_a_signature_that_is_too_large_is_not_read(mar_file: Path, key: tuple[Path, Path]) -> None:
    with signing.sign(mar_file, key[0]).open("r+b") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(InputError, match="a signature has at most 67,108,864"):
        signing.verify(mar_file, key[1])


def test_a_key_that_is_a_pipe_is_refused_and_not_waited_for(
    mar_file: Path, key: tuple[Path, Path], tmp_path: Path
) -> None:
    signing.sign(mar_file, key[0])
    os.mkfifo(tmp_path / "pipe.pem")
    with pytest.raises(InputError, match=r"pipe\.pem cannot be read: it is a pipe, not a file"):
        signing.verify(mar_file, tmp_path / "pipe.pem")
    with pytest.raises(InputError, match="cannot be read"):
        signing.verify(mar_file, Path("a\0b"))
