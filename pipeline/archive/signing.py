"""Signatures of archives, by OpenSSF model-signing (extra `sign`): a Sigstore bundle beside each, `NAME.mar.sig`.

A key is one of an elliptic curve (P-256, P-384 or P-521), in a PEM file. To make one, and its public half:

    openssl ecparam -name prime256v1 -genkey -noout -out private.pem
    openssl ec -in private.pem -pubout -out public.pem

`model_signing verify key NAME.mar --signature NAME.mar.sig --public_key public.pem` accepts what is signed here.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..errors import InputError, StageError
from ..files.atomic import write_atomic
from .reader import Archive

SUFFIX = ".sig"
_MAKE = "openssl ecparam -name prime256v1 -genkey -noout -out private.pem"
_PUBLISH = "openssl ec -in private.pem -pubout -out public.pem"


def signature_path(archive: Path) -> Path:
    """Where an archive's signature lies: beside it, and beside the folder of one that is a folder."""
    # A folder may be called `.`, whose name says nothing.
    named = archive if archive.name not in ("", "..") else archive.resolve()
    return named.with_name(named.name + SUFFIX)


def sign(archive: Path, private_key: Path) -> Path:
    """Sign an archive; the signature's path. An older signature of it is replaced.

    Raises InputError for what is not an archive, or is damaged, and for a key that cannot sign, StageError if the disk
    refuses.
    """
    library = _library()
    Archive(archive).verify()
    _load(library, private_key, private=True)
    target = signature_path(archive)
    with tempfile.TemporaryDirectory() as folder, _readable(archive):
        made = Path(folder) / target.name
        signer = library.signing.Config().use_elliptic_key_signer(private_key=private_key)
        signer.set_hashing_config(_hashing(library)).sign(archive.resolve(), made)
        text = made.read_text(encoding="utf-8")
    try:
        write_atomic(target, text)
    except OSError as error:
        raise StageError(
            f"{target} cannot be written: {error.strerror}.", fix="Make its folder writable, or copy the archive."
        ) from None
    return target


def verify(archive: Path, public_key: Path) -> None:
    """Hold an archive against the signature beside it. Raises InputError, with the reason, unless whoever has the key's
    private half signed these very bytes."""
    library = _library()
    # What is not proven yet is not read as an archive.
    if not archive.exists():
        raise InputError(f"{archive} does not exist.")
    _load(library, public_key, private=False)
    signature = signature_path(archive)
    if not signature.is_file():
        raise InputError(
            f"{archive} is not signed: there is no {signature}.",
            fix="Sign it (mar sign FILE --key private.pem), or copy its signature to that place.",
        )
    verifier = library.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    try:
        # The library prints a warning of its own, where a command's result may be going.
        with contextlib.redirect_stdout(sys.stderr), _readable(archive):
            verifier.set_hashing_config(_hashing(library)).verify(archive.resolve(), signature)
    except InputError:
        raise
    except library.InvalidSignature:
        raise InputError(
            f"{signature} was changed, or was made by another key than {public_key}'s.",
            fix="Get archive, signature and public key again from whoever signed it.",
        ) from None
    # The signature may hold anything, and the library fails in many ways over it. None of them may pass for a yes.
    except Exception as error:
        raise _refused(archive, signature, public_key, str(error)) from None


def _refused(archive: Path, signature: Path, public_key: Path, why: str) -> InputError:
    if why.startswith("Key mismatch"):
        return InputError(
            f"{signature} is by another key than {public_key}'s.",
            fix="Use the public key of whoever signed it, if you trust them.",
        )
    if why.startswith("Signature mismatch"):
        return InputError(
            f"{archive} is not what was signed: its bytes are others than those that {signature} tells.",
            "It was built again or changed since, or the signature is another archive's.",
            "Get both again from whoever signed it, or sign it again if you built it.",
        )
    return InputError(
        f"{signature} is no signature by a key: {(why.splitlines() or ['it cannot be read'])[0]}.",
        fix="Get it again from whoever signed it, or sign the archive again.",
    )


def _library() -> Any:
    """What is used of model_signing and of cryptography under it. Raises InputError if they are not installed."""
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
        from model_signing import hashing, signing, verifying
    except ModuleNotFoundError as error:
        raise InputError(
            f"Signatures need model-signing, which is not installed ({error.name} is missing).",
            fix="pip install 'mar-pipeline[sign]'",
        ) from None
    return SimpleNamespace(
        InvalidSignature=InvalidSignature,
        UnsupportedAlgorithm=UnsupportedAlgorithm,
        ec=ec,
        hashing=hashing,
        load_private=load_pem_private_key,
        load_public=load_pem_public_key,
        signing=signing,
        verifying=verifying,
    )


def _hashing(library: Any) -> Any:
    """Every file by its SHA-256. The library would leave out what is called .git..., and so let it be slipped in."""
    return library.hashing.Config().set_ignored_paths(paths=(), ignore_git_paths=False)


@contextlib.contextmanager
def _readable(archive: Path) -> Iterator[None]:
    """Raises InputError for a folder with links in it, which cannot be signed: what they lead to may change."""
    if archive.is_dir() and (links := [file for file in archive.rglob("*") if file.is_symlink()]):
        raise InputError(
            f"{links[0]} is a symbolic link, and no signature can hold what it leads to.",
            fix="Put the file itself in its place.",
        )
    try:
        yield
    except OSError as error:
        raise InputError(f"{archive} cannot be read: {error.strerror or error} ({error.filename}).") from None


def _load(library: Any, path: Path, *, private: bool) -> None:
    """Raises InputError unless the file holds a key that the library takes."""
    kind, make = ("private", _MAKE) if private else ("public", _PUBLISH)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"The key {path} cannot be read: {error.strerror}.", fix=f"Make one: {make}") from None
    read: Callable[[], Any] = (
        (lambda: library.load_private(content, None)) if private else (lambda: library.load_public(content))
    )
    try:
        key = read()
    except TypeError:
        raise InputError(
            f"The key {path} is protected by a password, which cannot be asked for here.",
            fix=f"Use a copy without one: openssl ec -in {path} -out private.pem",
        ) from None
    except (ValueError, library.UnsupportedAlgorithm):
        other = b"PUBLIC KEY" if private else b"PRIVATE KEY"
        what = f"is a {'public' if private else 'private'} key" if other in content else "holds no key in PEM form"
        raise InputError(f"{path} {what}; a {kind} one is needed.", fix=f"Make one: {make}") from None
    wanted = library.ec.EllipticCurvePrivateKey if private else library.ec.EllipticCurvePublicKey
    if not isinstance(key, wanted) or key.curve.name not in ("secp256r1", "secp384r1", "secp521r1"):
        raise InputError(
            f"{path} is a key of a kind that cannot be used.",
            "It has to be one of an elliptic curve: P-256 (prime256v1), P-384 or P-521.",
            f"Make one: {make}",
        )
