"""What S3's ETags tell of contents (https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html): MD5 of an object
that came in one piece; of one that came in parts MD5 of its parts' MD5s, and how many they were. Those of objects that
were encrypted with a key of one's own tell nothing."""

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
"""Parts whose sizes are asked for one by one."""

Head = Callable[[int | None], Mapping[str, Any]]
"""What the store answers to a HEAD of a part, by its number from 1, or of the whole object."""


def md5(file: Path) -> str:
    return _joined(file, [file.stat().st_size]).hex()


def holds(file: Path, etag: str, head: Head) -> bool | None:
    """Whether a file's contents are those that the ETag is of; None if it does not tell."""
    size, several = file.stat().st_size, _PARTS.fullmatch(etag)
    if PLAIN.fullmatch(etag):
        return md5(file) == etag or (None if _is_hidden(head(None)) else False)
    if several is None:
        return None
    count, first = int(several[1]), head(1)
    length = int(first.get("ContentLength") or 0)
    if _is_hidden(first) or first.get("PartsCount") != count or not length:
        return None
    # Nearly everybody's parts are of one size but the last.
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
    return f"{hashlib.md5(_joined(file, sizes), usedforsecurity=False).hexdigest()}-{len(sizes)}"


def _joined(file: Path, sizes: Iterable[int]) -> bytes:
    """The MD5s, one after the other, of the pieces of these sizes."""
    found = b""
    with file.open("rb") as stream:
        for left in sizes:
            digest = hashlib.md5(usedforsecurity=False)
            while left > 0 and (chunk := stream.read(min(CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
            found += digest.digest()
    return found
