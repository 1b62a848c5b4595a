"""Signatures of archives, by OpenSSF model-signing (extra `sign`): a Sigstore bundle beside each, `NAME.mar.sig`.

Keys are elliptic-curve keys (P-256, P-384 or P-521) in PEM files. To create a private key and its public key:

    openssl ecparam -name prime256v1 -genkey -noout -out private.pem
    openssl ec -in private.pem -pubout -out public.pem

`model_signing verify key NAME.mar --signature NAME.mar.sig --public_key public.pem` accepts these signatures, but does
not compare the name, version and date that they state (`statement`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..errors import InputError, StageError
from ..files.atomic import write_atomic
from ..files.opening import read_bytes
from ..text import printable
from . import statement, writer
from .reader import Archive

SUFFIX = ".sig"
LARGEST = 64 << 20
"""The most bytes of a signature: about 150 for each file of a folder."""
_LARGEST_KEY = 1 << 20
_MAKE = "openssl ecparam -name prime256v1 -genkey -noout -out private.pem"
_PUBLISH = "openssl ec -in private.pem -pubout -out public.pem"


def signature_path(archive: Path) -> Path:
    """The path of an archive's signature: beside its file or folder."""
    # For a folder given as `.`, the name is in its absolute path.
    named = archive if archive.name not in ("", "..") else archive.resolve()
    return named.with_name(named.name + SUFFIX)


def sign(archive: Path, private_key: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Sign an archive and return the signature's path. An older signature is replaced.

    The date that it states is SOURCE_DATE_EPOCH if that is set, else now. Raises InputError for a file that is not an
    archive or is damaged, and for a key that cannot sign, StageError if the signature cannot be written.
    """
    library = _library()
    read = Archive(archive)
    read.verify()
    _load(library, private_key, private=True)
    seconds = environment.get("SOURCE_DATE_EPOCH")
    time = datetime.fromtimestamp(writer.epoch(seconds), timezone.utc) if seconds else datetime.now(timezone.utc)
    subject = statement.subject(read, time)
    target = signature_path(archive)
    with tempfile.TemporaryDirectory() as folder, _readable(archive):
        bundle = Path(folder) / target.name
        signer = library.signing.Config().use_elliptic_key_signer(private_key=private_key)
        signer.set_hashing_config(_hashing(library, subject)).sign(archive.resolve(), bundle)
        text = bundle.read_text(encoding="utf-8")
    try:
        write_atomic(target, text)
    except OSError as error:
        raise StageError(
            f"{target} cannot be written: {error.strerror}.", fix="Make its folder writable, or copy the archive."
        ) from None
    return target


def verify(
    archive: Path, *public_keys: Path, name: str | None = None, not_before: datetime | None = None
) -> statement.Statement:
    """Verify an archive with the signature beside it, and return what that states. Nothing of the archive is parsed
    before.

    Raises InputError, with the reason, unless the private key of one of `public_keys` signed exactly these bytes, and
    under this file's name if the signature states one. `name` (NAME or NAME@VERSION) says which archive is expected
    instead (`statement.check`). With `not_before`, an older signature or one without a date is refused.
    """
    library = _library()
    if not archive.exists():
        raise InputError(f"{archive} does not exist.", fix="Check its path, or copy it again.")
    if not (archive.is_file() or archive.is_dir()):
        raise InputError(
            f"{archive} is a pipe or a device, and not an archive.", fix="Name the archive's file or folder."
        )
    keys = {path: _load(library, path, private=False) for path in public_keys}
    signature = signature_path(archive)
    if not signature.is_file():
        raise InputError(
            f"{archive} is not signed: there is no {signature}.",
            fix="Sign it (mar sign FILE --key private.pem), or copy its signature to that place.",
        )
    if signature.stat().st_size > LARGEST:
        raise InputError(
            f"{signature} has {signature.stat().st_size:,} bytes, and a signature has at most {LARGEST:,}.",
            fix="Get it again from whoever signed the archive, or sign it again.",
        )
    for path, key in keys.items():
        try:
            stated = statement.Statement.of(_verified(library, archive, signature, path), key)
        except _OtherKey:
            if len(keys) == 1:
                raise
            continue
        statement.check(stated, archive, name, not_before)
        return stated
    raise InputError(
        f"{signature} was changed, or is by none of these keys: {', '.join(map(str, keys))}.",
        fix="Get it again, or add the public key of whoever signed it, if you trust them.",
    )


class _OtherKey(InputError):
    """A signature is not by this key."""


def _verified(library: Any, archive: Path, signature: Path, public_key: Path) -> str:
    """The name of the statement's subject in a signature that is verified, and whose digests are the archive's."""
    verifier = library.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    hashing = _hashing(library)
    try:
        # The library prints a warning to stdout, which is for the command's result.
        with contextlib.redirect_stdout(sys.stderr), _readable(archive):
            verifier.set_hashing_config(hashing).verify(archive.resolve(), signature)
    except InputError:
        raise
    except library.InvalidSignature:
        raise _OtherKey(
            f"{signature} was changed, or is not by the key of {public_key}.",
            fix="Get the archive, the signature and the public key again from whoever signed it.",
        ) from None
    # A signature is untrusted input, on which the library fails in many ways. None of them may count as a success.
    except Exception as error:
        raise _refused(archive, signature, public_key, str(error)) from None
    return str(hashing.compared)


def _refused(archive: Path, signature: Path, public_key: Path, why: str) -> InputError:
    if why.startswith("Key mismatch"):
        return _OtherKey(
            f"{signature} is not by the key of {public_key}.",
            fix="Use the public key of whoever signed it, if you trust them.",
        )
    if why.startswith("Signature mismatch"):
        return InputError(
            f"{archive} is not what was signed: its bytes differ from those in {signature}.",
            "It was rebuilt or changed since, or the signature belongs to a different archive.",
            "Get both again from whoever signed it, or sign it again if you built it.",
        )
    return InputError(
        f"{signature} is not a signature by a key: {(why.splitlines() or ['it cannot be read'])[0]}.",
        fix="Get it again from whoever signed it, or sign the archive again.",
    )


def _library() -> Any:
    """The parts of model_signing and cryptography that are used. Raises InputError if they are not installed."""
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            PublicFormat,
            load_pem_private_key,
            load_pem_public_key,
        )
        from model_signing import hashing, signing, verifying
    except ModuleNotFoundError as error:
        raise InputError(
            f"Signatures need model-signing, which is not installed ({error.name} is missing).",
            fix="pip install 'mar-pipeline[sign]'",
        ) from None
    return SimpleNamespace(
        Encoding=Encoding,
        PublicFormat=PublicFormat,
        InvalidSignature=InvalidSignature,
        UnsupportedAlgorithm=UnsupportedAlgorithm,
        ec=ec,
        hashing=hashing,
        load_private=load_pem_private_key,
        load_public=load_pem_public_key,
        signing=signing,
        verifying=verifying,
    )


def _hashing(library: Any, subject: str | None = None) -> Any:
    """How the library computes an archive's manifest: the SHA-256 of every file. By default it ignores .git*, so that
    such files could be added unnoticed.

    The manifest has the name `subject` if that is given, which the library then signs. After the library has compared
    it with the manifest of a verified signature, `compared` is that one's name: the signature's file may have changed
    since, or be read differently by another parser.
    """

    class Named:
        """A manifest: what the library reads of one to sign it, and how it compares two."""

        def __init__(self, manifest: Any) -> None:
            self._manifest = manifest
            self.model_name = subject if subject is not None else manifest.model_name
            self.serialization_type = manifest.serialization_type
            self.resource_descriptors = manifest.resource_descriptors

        def __eq__(self, signed: Any) -> bool:
            config.compared = signed.model_name
            return bool(self._manifest == signed)

        __hash__ = None  # type: ignore[assignment]

    class Config(library.hashing.Config):  # type: ignore[misc]
        compared: Any = None

        def hash(self, *arguments: Any, **named: Any) -> Named:
            return Named(super().hash(*arguments, **named))

    config = Config()
    return config.set_ignored_paths(paths=(), ignore_git_paths=False)


@contextlib.contextmanager
def _readable(archive: Path) -> Iterator[None]:
    """Raises InputError for a folder with symbolic links: their targets may change after signing."""
    if archive.is_dir() and (links := [file for file in archive.rglob("*") if file.is_symlink()]):
        raise InputError(
            f"{links[0]} is a symbolic link, and a signature cannot cover its target.",
            fix="Put the file itself in its place.",
        )
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{archive} cannot be read: {error.strerror or error} ({error.filename}).",
            fix="Make it readable for this user, or copy it again.",
        ) from None


def _load(library: Any, path: Path, *, private: bool) -> str:
    """The SHA-256 of a key's public half (`Statement.key`). Raises InputError unless the file has a key that the
    library supports."""
    kind, make = ("private", _MAKE) if private else ("public", _PUBLISH)
    try:
        content = read_bytes(path, _LARGEST_KEY)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"The key {printable(str(path))} cannot be read: {why}.", fix=f"Create one: {make}") from None
    read: Callable[[], Any] = (
        (lambda: library.load_private(content, None)) if private else (lambda: library.load_public(content))
    )
    try:
        key = read()
    except TypeError:
        raise InputError(
            f"The key {path} is protected by a password, which this command cannot ask for.",
            fix=f"Use a copy without one: openssl ec -in {path} -out private.pem",
        ) from None
    except (ValueError, library.UnsupportedAlgorithm):
        other = b"PUBLIC KEY" if private else b"PRIVATE KEY"
        what = f"is a {'public' if private else 'private'} key" if other in content else "has no key in PEM format"
        raise InputError(f"{path} {what}; a {kind} one is needed.", fix=f"Create one: {make}") from None
    expected = library.ec.EllipticCurvePrivateKey if private else library.ec.EllipticCurvePublicKey
    if not isinstance(key, expected) or key.curve.name not in ("secp256r1", "secp384r1", "secp521r1"):
        raise InputError(
            f"{path} is a key of an unsupported kind.",
            "It has to be an elliptic-curve key: P-256 (prime256v1), P-384 or P-521.",
            f"Create one: {make}",
        )
    public = key.public_key() if private else key
    return hashlib.sha256(
        public.public_bytes(library.Encoding.DER, library.PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()
