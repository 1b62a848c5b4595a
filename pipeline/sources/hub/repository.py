"""The Hugging Face Hub, through huggingface_hub: a revision's commit, what it holds, and the needed files of it.

The user's own cache and token are used, and HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and the proxies' variables
hold, since the genuine client reads them. It is imported late: a build from a folder, or of a pinned and cached
commit, needs none. Its `http_get` brings the bytes, but into a file of ours (`transfer.partial`), since what breaks off
there is thrown away. The files then lie in its cache as it lays them out: blobs/, named by ETag, and links to them in
snapshots/COMMIT/.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial as partial_of
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

from ... import __version__
from ...cache.store import Store
from ...errors import InputError, StageError
from ...files.atomic import write_atomic
from ...files.tree import CHUNK, Entry, Tick, canonical
from ...model import card
from ...model.selection import card as card_of
from ..source import LARGEST_TEXT, Fetched, NotReadYet, Progress
from ..transfer import partial
from ..transfer.parallel import each
from ..transfer.partial import Partial
from . import client

Found = TypeVar("Found")

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a whole commit, which cannot move."""
    return bool(revision and _COMMIT.fullmatch(revision))


class Hub:
    """A repository at a revision (branch, tag or commit; the main branch if None), which is made a commit first."""

    def __init__(self, store: Store, repo: str, revision: str | None, *, no_network: bool) -> None:
        self.store, self.repo, self.revision, self.no_network = store, repo, revision or "main", no_network
        if not _is_reference(self.revision):
            raise InputError(
                f"{self.revision!r} cannot be a revision of {repo}.", fix="Give a branch, tag or commit that it has."
            )
        self.where = repo
        self.may_fetch = False
        self._commit: str | None = None
        self._listing: dict[str, Any] | None = None
        self.is_listed = True
        """Whether it is known what the commit holds, and not only what the cache has of it."""

    # What it is

    @property
    def commit(self) -> str:
        """The commit (40 hexadecimal digits) that the revision is now. Offline it is the one that was seen last, or
        the one in the Hugging Face cache."""
        if self._commit is None:
            if is_commit(self.revision):
                self._commit = self.revision
            elif self.no_network:
                self._commit = self.store.recall(self._last_seen) or self._cached_reference()
            else:
                self._commit = self._ask(self.revision)
        return self._commit

    @property
    def _last_seen(self) -> str:
        return f"hub:{self.repo}@{self.revision}"

    def _cached_reference(self) -> str:
        with suppress(OSError, ValueError):
            told = (self._cache / "refs" / self.revision).read_text(encoding="utf-8").strip()
            if _COMMIT.fullmatch(told):
                return told
        raise self._not_cached(self.revision)

    def keep_reference(self) -> None:
        """Note what the revision is, once all of it is there, here and as the client does: what is offline later finds
        the commit by it."""
        if is_commit(self.revision) or self.no_network:
            return
        self.store.remember(self._last_seen, self.commit)
        with suppress(OSError):  # a cache that is full, or read-only, may still have all that is needed
            write_atomic(self._cache / "refs" / self.revision, self.commit)

    def _ask(self, revision: str) -> str:
        """The commit of a revision, and with the same request what it holds."""
        from huggingface_hub import HfApi

        info = self._patiently(
            lambda: HfApi(library_name=_US, library_version=__version__).model_info(
                self.repo, revision=revision, files_metadata=True
            )
        )
        if not info.sha or not _COMMIT.fullmatch(info.sha):
            raise StageError(
                f"The Hub named no commit for {self.repo} at {revision}.", fix="Try again, or give a commit."
            )
        files = {}
        for file in info.siblings or ():
            lfs = file.lfs
            files[str(file.rfilename)] = {
                "size": _if_size(lfs.size if lfs else file.size),
                # They become names of files, so they have to be what they are said to be.
                "sha256": _if_digest(lfs.sha256 if lfs else None, _SHA256),
                "git": None if lfs else _if_digest(file.blob_id, _COMMIT),
            }
        self._listing = {"files": files, "license": _license(info)}
        self._keep_listing(info.sha)
        return info.sha

    def _keep_listing(self, commit: str) -> None:
        self.store.remember(self._listing_name(commit), canonical(self._listing))

    def _listing_name(self, commit: str) -> str:
        # Mirrors tell more or less of a file, and not all are to be trusted.
        return f"hub-files:{client.endpoint()} {self.repo}@{commit}"

    def _files(self) -> dict[str, dict[str, Any]]:
        commit = self.commit
        if self._listing is None:
            kept = self.store.recall(self._listing_name(commit))
            if kept is not None:
                self._listing = json.loads(kept)
            elif self.no_network:
                self._listing, self.is_listed = self._cached_listing(), False
            elif self.may_fetch:
                self._ask(commit)
            else:
                raise NotReadYet(f"{self.repo} at {commit[:12]} was not looked at yet")
        assert self._listing is not None
        return dict(self._listing["files"])

    def _cached_listing(self) -> dict[str, Any]:
        folder = self._snapshot
        present = [file for file in folder.rglob("*") if file.is_file()]
        if not present:
            raise self._not_cached(self.commit)
        files = {
            file.relative_to(folder).as_posix(): {
                "size": file.stat().st_size,
                # Blobs are named by their ETag: the SHA-256 of a large file.
                "sha256": file.resolve().name if _SHA256.fullmatch(file.resolve().name) else None,
                "git": file.resolve().name if _COMMIT.fullmatch(file.resolve().name) else None,
            }
            for file in present
        }
        about = card_of(files)
        return {
            "files": files,
            "license": card.license_in((folder / about).read_text("utf-8", "replace")) if about else None,
        }

    def sizes(self) -> Mapping[str, int]:
        return {path: file["size"] or 0 for path, file in self._files().items()}

    def license(self) -> str | None:
        self._files()
        assert self._listing is not None
        found = self._listing["license"]
        return None if found is None else str(found)

    def identity(self, files: Mapping[str, str]) -> dict[str, Any]:
        # Offline the cache may have a part of the commit only, which is not the whole.
        return {"repo": self.repo, "commit": self.commit, "files": sorted(files)}

    def provenance(self) -> dict[str, Any]:
        return {"kind": "hub", "repo": self.repo, "commit": self.commit}

    def sha256(self, path: str) -> str | None:
        """The digest of a large file, as the Hub tells it; None of a small one."""
        found = self._files()[path]["sha256"]
        return None if found is None else str(found)

    # Its files

    @property
    def _cache(self) -> Path:
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE) / f"models--{self.repo.replace('/', '--')}"

    @property
    def _snapshot(self) -> Path:
        return self._cache / "snapshots" / self.commit

    def text(self, path: str) -> str:
        file = self._snapshot / path
        if self._cached_entry(path, lambda _: None) is None:
            if not self.may_fetch and not self.no_network:
                raise NotReadYet(f"{path} of {self.repo} was not fetched yet")
            if self.store.read_only and not self.no_network:
                return self._read(path)
            self.fetch({path: path}, lambda *_: None)
        try:
            return file.read_text(encoding="utf-8")
        except ValueError:
            raise self._no_text(path) from None

    def _read(self, path: str) -> str:
        """A text of the commit, which is not kept."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        self._complete_facts([path])
        facts, into = self._files()[path], BytesIO()
        url = hf_hub_url(self.repo, path, revision=self.commit)
        headers = build_hf_headers(library_name=_US, library_version=__version__)
        if facts["size"] > LARGEST_TEXT:
            raise self._no_text(path)
        client.quiet()
        with client.errors(self.repo, self.commit):
            http_get(url, into, headers=headers, expected_size=facts["size"])
        data = into.getvalue()
        if facts["sha256"] and hashlib.sha256(data).hexdigest() != facts["sha256"]:
            raise StageError(f"{path} of {self.repo} is not what the commit has.", fix="Try again.")
        try:
            return data.decode("utf-8")
        except ValueError:
            raise self._no_text(path) from None

    def _no_text(self, path: str) -> InputError:
        return InputError(f"{path} of {self.repo} is no text.", fix="Name another revision.")

    def fetch(self, files: Mapping[str, str], progress: Progress) -> list[Fetched]:
        absent = [path for path in files.values() if not (self._snapshot / path).is_file()]
        if absent and self.no_network:
            raise self._not_cached(self.commit, absent[0])
        self._complete_facts(files.values())
        total, done = sum(self._files()[path]["size"] for path in files.values()), 0
        what = f"downloading {self.repo}" if absent else f"reading {self.repo}"
        self._refuse_too_little_room(absent)
        progress(what, 0, total)

        def tick(count: int) -> None:
            nonlocal done
            done += count
            progress(what, done, total)

        def one(item: tuple[str, str]) -> Fetched:
            name, path = item
            file, entry = self._whole(path, tick)
            entry = Entry(name, entry.sha256, entry.size, entry.crc32)
            return Fetched(entry=entry, place=str(file))

        # The largest first: they take the longest.
        queue = sorted(files.items(), key=lambda item: -self._files()[item[1]]["size"])
        return sorted(each(queue, one), key=lambda fetched: fetched.entry.path)

    def _refuse_too_little_room(self, absent: list[str]) -> None:
        files, blobs = self._files(), self._cache / "blobs"
        # What is a blob already another revision brought.
        wanted = [files[path] for path in absent if not (blobs / _etag(files[path])).is_file()]
        size = sum(partial.missing(_part(blobs, _etag(facts)), facts["size"]) for facts in wanted)
        partial.refuse_too_little_room(self._cache, size, self.repo)

    def _whole(self, path: str, tick: Tick) -> tuple[Path, Entry]:
        """A file of the snapshot and its entry, fetched if it is not there, or is not what the commit has."""
        file, facts = self._snapshot / path, self._files()[path]
        if (found := self._cached_entry(path, tick)) is not None:
            return file, found
        if file.is_file():
            if self.no_network:
                raise InputError(
                    f"{file} is not what {self.repo} has at {self.commit[:12]}.",
                    "Somebody wrote to it, or the disk is failing.",
                    "Build without --offline: it is fetched again.",
                )
            self.store.warn(f"The Hugging Face cache is damaged: {file} is not the commit's. It is fetched again.")
            with client.written():
                blob = file.resolve()
                file.unlink(missing_ok=True)
                if blob.parent == (self._cache / "blobs").resolve():  # and nothing of the user's own
                    blob.unlink(missing_ok=True)
        entry = self._download(path, facts, file, tick)
        self.store.digests.know(file, entry)
        return file, entry

    def _cached_entry(self, path: str, tick: Tick) -> Entry | None:
        """The entry of a file that lies in the snapshot, and is what the commit has."""
        file, facts = self._snapshot / path, self._files()[path]
        if not file.is_file():
            return None
        known = self.store.digests.known(file)
        try:
            entry = known or self.store.digests.read(file, path, tick)
            if known is not None:
                tick(known.size)
            if facts["size"] in (None, entry.size) and _right(entry, facts, file):
                return entry
            tick(-entry.size)
        except FileNotFoundError:
            pass  # another build found it damaged, and has removed it
        return None

    def _complete_facts(self, paths: Iterable[str]) -> None:
        """Ask for sizes and contents' names, which some mirrors tell of one file at a time alone."""
        files = self._files()
        unknown = [path for path in paths if files[path]["size"] is None or not _etag(files[path])]
        if not unknown or self.no_network:
            return
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        for path in unknown:
            url = hf_hub_url(self.repo, path, revision=self.commit)
            told = self._patiently(partial_of(get_hf_file_metadata, url))
            etag = re.sub(r"[^A-Za-z0-9_\-]", "", told.etag or "")[:128]
            if not etag or told.size is None:
                raise StageError(
                    f"The Hub ({client.endpoint()}) tells nothing by which {path} of {self.repo} could be known.",
                    fix="Use another HF_ENDPOINT.",
                )
            large = bool(_SHA256.fullmatch(etag))
            files[path] |= {"size": told.size, "sha256": etag if large else None, "git": None if large else etag}
        self._keep_listing(self.commit)

    def _download(self, path: str, facts: Mapping[str, Any], file: Path, tick: Tick) -> Entry:
        from huggingface_hub import constants, hf_hub_download, hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        size = int(facts["size"])
        if size > constants.MAX_HTTP_DOWNLOAD_SIZE:
            # So large a file is served by the Hub's own protocol alone, which its client speaks.
            try:
                with client.errors(self.repo, self.commit):
                    hf_hub_download(self.repo, path, revision=self.commit)
            except ValueError as error:  # the package for that protocol is missing
                raise InputError(
                    f"{path} of {self.repo} cannot be fetched: {error}", fix="pip install hf_xet"
                ) from None
            whole = self.store.digests.read(file, path, tick)
            if not _right(whole, facts, file):
                raise StageError(f"{path} of {self.repo} is not what the commit has.", fix="Build again.")
            return whole
        url = hf_hub_url(self.repo, path, revision=self.commit)
        headers = build_hf_headers(library_name=_US, library_version=__version__)
        blob = self._cache / "blobs" / _etag(facts)

        def pull(into: Partial) -> None:
            http_get(url, into, resume_size=into.size, headers=headers, expected_size=size)  # type: ignore[arg-type]

        client.quiet()
        with client.written(), client.errors(self.repo, self.commit):
            with Partial(_part(blob.parent, blob.name), tick, size) as part:
                entry = self._brought(blob, path, facts)
                if entry is not None:
                    part.restart()
                    part.path.unlink()
                    tick(size)
                else:
                    right = partial_of(_right, facts=facts, file=part.path)
                    partial.complete(part, size, pull, right, client.wait, f"{path} of {self.repo}")
                    entry = part.entry(path)
                    part.finish(blob)
            _link(file, blob)
        return entry

    def _brought(self, blob: Path, path: str, facts: Mapping[str, Any]) -> Entry | None:
        """The entry of a blob that another build, or another revision, has brought."""
        if not blob.is_file():
            return None
        entry = self.store.digests.read(blob, path)
        return entry if entry.size == facts["size"] and _right(entry, facts, blob) else None

    def _patiently(self, call: Callable[[], Found]) -> Found:
        return client.patiently(call, self.repo, self.revision)

    def _not_cached(self, revision: str, path: str = "") -> InputError:
        what = f"{path} of {self.repo}" if path else self.repo
        return InputError(
            f"{what} at {revision} is not in the Hugging Face cache, and the network is not to be used.",
            fix="Build once without --offline (and without HF_HUB_OFFLINE), or set HF_HOME to the cache that has it.",
        )


_US = "mar-pipeline"


def _license(info: Any) -> str | None:
    """What a model's card says of its licence, or its tags."""
    found = card.license_of(dict(info.card_data.to_dict()) if info.card_data else {})
    tags = [tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:")]
    return found or (tags[0] if tags else None)


def _is_reference(revision: str) -> bool:
    """Whether a revision can be a name in a repository: it becomes part of addresses and paths."""
    return revision.isprintable() and revision.isascii() and not {"", ".", ".."} & set(revision.split("/"))


def _if_digest(told: Any, pattern: re.Pattern[str]) -> str | None:
    return told if isinstance(told, str) and pattern.fullmatch(told) else None


def _if_size(told: Any) -> int | None:
    return told if isinstance(told, int) and told >= 0 else None


def _etag(facts: Mapping[str, Any]) -> str:
    """What the Hub names a file's content by: SHA-256 of a large one, git's SHA-1 of the others; empty if unknown."""
    return str(facts["sha256"] or facts["git"] or "")


def _part(blobs: Path, etag: str) -> Path:
    # The client knows the suffix for what may be removed.
    return blobs / f"{etag}.mar.incomplete"


def _link(file: Path, blob: Path) -> None:
    """Put a blob into a snapshot, as the client does: moved, where there are no links. Whoever reads the file meanwhile
    finds it, and whoever puts it there at the same time does the same."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".mar-{uuid.uuid4().hex}")
    try:
        beside.symlink_to(os.path.relpath(blob, file.parent))
    except OSError:
        blob.replace(file)
    else:
        beside.replace(file)


def _right(entry: Entry, facts: Mapping[str, Any], file: Path) -> bool:
    """Whether a file is the one that the commit has: by SHA-256 where the Hub tells it, else as git names it (some
    mirrors give the plain SHA-1 of the contents)."""
    if facts["sha256"]:
        return bool(entry.sha256 == facts["sha256"])
    if not _COMMIT.fullmatch(facts["git"] or ""):
        return True
    headed = hashlib.sha1(b"blob %d\0" % entry.size, usedforsecurity=False)
    plain = hashlib.sha1(usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            headed.update(chunk)
            plain.update(chunk)
    return facts["git"] in (headed.hexdigest(), plain.hexdigest())
