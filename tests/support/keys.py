"""Keys for signatures, as PEM files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization


def write_key(folder: Path, name: str, key: Any, password: bytes | None = None) -> tuple[Path, Path]:
    """A private key's file and its public half's."""
    private, public = folder / f"{name}.pem", folder / f"{name}.public.pem"
    protection: Any = serialization.NoEncryption()
    if password:
        protection = serialization.BestAvailableEncryption(password)
    form = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, protection))
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, spki))
    return private, public
