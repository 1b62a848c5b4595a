"""The Hub's listing of a commit: its files with sizes and digests, and its licence.

A listing is JSON: `files` (path -> facts) and `license`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import StageError
from ...files.opening import opened
from ...files.tree import CHUNK, Entry
from ...model import card
from ...model.address import is_commit
from . import client

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

SHA256 = re.compile(r"[0-9a-f]{64}")
SHA1 = re.compile(r"[0-9a-f]{40}")

Facts = Mapping[str, Any]
"""The facts of a file: its `size` in bytes, its `sha256` if it is large, else its `git` SHA-1; None for an unknown
one."""


def request(repo: str, revision: str) -> tuple[str, dict[str, Any]]:
    """The commit that a revision points to now, and its listing. Raises InputError, StageError."""

    def call() -> ModelInfo:
        return client.api().model_info(repo, revision=revision, files_metadata=True)

    info = client.with_retries(call, repo, revision)
    if not info.sha or not is_commit(info.sha):
        raise StageError(
            f"The Hub's answer has no commit for {repo} at {revision}.", fix="Try again, or give a commit."
        )
    files = {}
    for file in info.siblings or ():
        lfs = file.lfs
        files[str(file.rfilename)] = {
            "size": _if_size(lfs.size if lfs else file.size),
            # They become file names, so anything but a digest is dropped.
            "sha256": _if_digest(lfs.sha256 if lfs else None, SHA256),
            "git": None if lfs else _if_digest(file.blob_id, SHA1),
        }
    return info.sha, {"files": files, "license": _license(info)}


def request_file(repo: str, revision: str, commit: str, path: str) -> dict[str, Any]:
    """The facts of one file, for mirrors whose listings lack them. Raises InputError, StageError."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repo, path, revision=commit)
    answer = client.with_retries(partial(get_hf_file_metadata, url), repo, revision)
    name = re.sub(r"[^A-Za-z0-9_\-]", "", answer.etag or "")[:128]
    if not name or answer.size is None:
        raise StageError(
            f"The Hub ({client.endpoint()}) does not send an ETag and a size for {path} of {repo}.",
            fix="Use another HF_ENDPOINT.",
        )
    large = bool(SHA256.fullmatch(name))
    return {"size": answer.size, "sha256": name if large else None, "git": None if large else name}


def etag(facts: Facts) -> str:
    """The Hub's ETag of a file: the SHA-256 of a large one, git's SHA-1 of another; "" if unknown."""
    return str(facts["sha256"] or facts["git"] or "")


def matches(entry: Entry, facts: Facts, file: Path) -> bool:
    """Whether a local file is the commit's: by SHA-256 if the Hub lists it, else by git's SHA-1 (some mirrors have the
    plain SHA-1 of the contents). A file without either passes."""
    if facts["sha256"]:
        return bool(entry.sha256 == facts["sha256"])
    if not SHA1.fullmatch(facts["git"] or ""):
        return True
    headed = hashlib.sha1(b"blob %d\0" % entry.size, usedforsecurity=False)
    plain = hashlib.sha1(usedforsecurity=False)
    with opened(file) as stream:
        while chunk := stream.read(CHUNK):
            headed.update(chunk)
            plain.update(chunk)
    return facts["git"] in (headed.hexdigest(), plain.hexdigest())


def _license(info: Any) -> str | None:
    """The licence in a model's card, or else in its tags."""
    name = card.license_of(dict(info.card_data.to_dict()) if info.card_data else {})
    tags = [tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:")]
    return name or (tags[0] if tags else None)


def _if_digest(value: Any, pattern: re.Pattern[str]) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _if_size(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
