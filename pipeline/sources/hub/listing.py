"""What the Hub says that a commit holds: its files, by what they can be known, and its licence.

A listing is JSON: `files`, the facts of each by its path, and `license`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import StageError
from ...files.tree import CHUNK, Entry
from ...model import card
from ...model.address import is_commit
from . import client

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

SHA256 = re.compile(r"[0-9a-f]{64}")
SHA1 = re.compile(r"[0-9a-f]{40}")

Facts = Mapping[str, Any]
"""What is known of a file: its `size`, the `sha256` of a large one, the SHA-1 by which `git` names any other; None for
what is not."""


def ask(repo: str, revision: str) -> tuple[str, dict[str, Any]]:
    """The commit that a revision is now, and its listing."""

    def call() -> ModelInfo:
        return client.api().model_info(repo, revision=revision, files_metadata=True)

    info = client.patiently(call, repo, revision)
    if not info.sha or not is_commit(info.sha):
        raise StageError(f"The Hub named no commit for {repo} at {revision}.", fix="Try again, or give a commit.")
    files = {}
    for file in info.siblings or ():
        lfs = file.lfs
        files[str(file.rfilename)] = {
            "size": _if_size(lfs.size if lfs else file.size),
            # They become names of files, so they have to be what they are said to be.
            "sha256": _if_digest(lfs.sha256 if lfs else None, SHA256),
            "git": None if lfs else _if_digest(file.blob_id, SHA1),
        }
    return info.sha, {"files": files, "license": _license(info)}


def ask_of_file(repo: str, revision: str, commit: str, path: str) -> dict[str, Any]:
    """The facts of one file. Some mirrors have none of them in a listing."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repo, path, revision=commit)
    answer = client.patiently(partial(get_hf_file_metadata, url), repo, revision)
    name = re.sub(r"[^A-Za-z0-9_\-]", "", answer.etag or "")[:128]
    if not name or answer.size is None:
        raise StageError(
            f"The Hub ({client.endpoint()}) tells nothing by which {path} of {repo} could be known.",
            fix="Use another HF_ENDPOINT.",
        )
    large = bool(SHA256.fullmatch(name))
    return {"size": answer.size, "sha256": name if large else None, "git": None if large else name}


def etag(facts: Facts) -> str:
    """What the Hub names a file's content by: SHA-256 of a large one, git's SHA-1 of the others; empty if unknown."""
    return str(facts["sha256"] or facts["git"] or "")


def is_right(entry: Entry, facts: Facts, file: Path) -> bool:
    """Whether a file is the one that the commit has: by SHA-256 where the Hub tells it, else as git names it (some
    mirrors give the plain SHA-1 of the contents)."""
    if facts["sha256"]:
        return bool(entry.sha256 == facts["sha256"])
    if not SHA1.fullmatch(facts["git"] or ""):
        return True
    headed = hashlib.sha1(b"blob %d\0" % entry.size, usedforsecurity=False)
    plain = hashlib.sha1(usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            headed.update(chunk)
            plain.update(chunk)
    return facts["git"] in (headed.hexdigest(), plain.hexdigest())


def _license(info: Any) -> str | None:
    """What a model's card says of its licence, or its tags."""
    found = card.license_of(dict(info.card_data.to_dict()) if info.card_data else {})
    tags = [tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:")]
    return found or (tags[0] if tags else None)


def _if_digest(value: Any, pattern: re.Pattern[str]) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _if_size(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
