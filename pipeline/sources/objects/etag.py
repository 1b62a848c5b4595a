"""Compares files with S3's ETags (https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html). The ETag of an
object that was uploaded at once is its MD5. After a multipart upload it is the MD5 of the parts' MD5s, with the number
of parts. The ETag of an object that is encrypted with KMS or a customer's key is not derived from its contents."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ...files.tree import CHUNK

PLAIN = re.compile(r"[0-9a-f]{32}")
_PARTS = re.compile(r"[0-9a-f]{32}-(\d{1,5})")
_MOST = 1000
"""The most parts whose sizes are requested one by one."""

Head = Callable[[int | None], Mapping[str, Any]]
"""The store's answer to HEAD for a part (its number, from 1), or for the whole object (None)."""


def md5(file: Path) -> str:
    """The MD5 of a file, hexadecimal."""
    return _digests(file, [file.stat().st_size]).hex()


def matches(file: Path, etag: str, head: Head) -> bool | None:
    """Whether a file has the contents of the object with this ETag; None if the ETag cannot show it."""
    size, several = file.stat().st_size, _PARTS.fullmatch(etag)
    if PLAIN.fullmatch(etag):
        return md5(file) == etag or (None if _is_hidden(head(None)) else False)
    if several is None:
        return None
    count, first = int(several[1]), head(1)
    length = int(first.get("ContentLength") or 0)
    if _is_hidden(first) or first.get("PartsCount") != count or not length:
        return None
    # Usually all parts but the last have the same size.
    equal = [length] * (count - 1) + [size - length * (count - 1)]
    if 0 < equal[-1] <= length and _of_parts(file, equal) == etag:
        return True
    if count > _MOST:
        return None
    sizes = [length, *(int(head(number)["ContentLength"]) for number in range(2, count + 1))]
    return sum(sizes) == size and _of_parts(file, sizes) == etag


def _is_hidden(answer: Mapping[str, Any]) -> bool:
    return "SSECustomerAlgorithm" in answer or str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")


def _of_parts(file: Path, sizes: list[int]) -> str:
    return f"{hashlib.md5(_digests(file, sizes), usedforsecurity=False).hexdigest()}-{len(sizes)}"


def _digests(file: Path, sizes: Iterable[int]) -> bytes:
    """The concatenated MD5s of a file's pieces of these sizes."""
    digests = b""
    with file.open("rb") as stream:
        for left in sizes:
            digest = hashlib.md5(usedforsecurity=False)
            while left > 0 and (chunk := stream.read(min(CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
            digests += digest.digest()
    return digests
