"""A repository on the Hugging Face Hub, through huggingface_hub: a revision's commit, its listing and its files.

The user's own cache and token are used, and HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and the proxies' variables
apply, since the official client reads them. It is imported late: a build from a folder, or of a pinned and cached
commit, does not need it. Its `http_get` downloads the bytes, but into our partial file (`transfer.partial`), since the
client's own cannot be resumed in another process. Complete files are in the client's layout: blobs/, named by ETag, and
links to them in snapshots/COMMIT/.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial as partial_of
from io import BytesIO
from pathlib import Path
from typing import Any

from ...cache.store import Store
from ...errors import InputError, StageError
from ...files.opening import opened, read_text
from ...files.tree import Entry, Tick, canonical
from ...model import card
from ...model.address import is_commit
from ...model.selection import card as card_of
from ..source import LARGEST_TEXT, Fetched, NotReadYet, Progress
from ..transfer import partial
from ..transfer.parallel import each
from ..transfer.partial import Partial
from . import cache, client, listing
from .cache import Snapshot
from .listing import Facts


class Hub:
    """A repository at a revision (branch, tag or commit; the main branch if None). Raises InputError for an impossible
    revision. (A `Source`.)"""

    def __init__(self, store: Store, repo: str, revision: str | None, *, no_network: bool) -> None:
        self.store, self.repo, self.revision, self.no_network = store, repo, revision or "main", no_network
        if not _is_reference(self.revision):
            raise InputError(
                f"{self.revision!r} cannot be a revision of {repo}.",
                fix="Give an existing branch, tag or commit (--revision, or handler.revision).",
            )
        self.where = repo
        self.may_fetch = False
        self._commit: str | None = None
        self._listing: dict[str, Any] | None = None
        self.is_listed = True
        """Whether the commit's listing is known; if not, only its files in the cache are."""

    # Commit and listing

    @property
    def commit(self) -> str:
        """The commit (40 hexadecimal digits) that the revision points to now; offline the last known one, or that in
        the Hugging Face cache."""
        if self._commit is None:
            if is_commit(self.revision):
                self._commit = self.revision
            elif self.no_network:
                self._commit = self.store.recall(self._last_seen) or cache.reference(self._cache, self.revision)
                if self._commit is None:
                    raise self._not_cached(self.revision)
            else:
                self._commit = self._ask(self.revision)
        return self._commit

    @property
    def _last_seen(self) -> str:
        return f"hub:{self.repo}@{self.revision}"

    def keep_reference(self) -> None:
        """Remember the revision's commit for offline builds, here and in the client's cache. To be called once all
        files are there."""
        if is_commit(self.revision) or self.no_network:
            return
        self.store.remember(self._last_seen, self.commit)
        with suppress(OSError):  # a full or read-only cache may still have all the needed files
            cache.keep_reference(self._cache, self.revision, self.commit)

    def _ask(self, revision: str) -> str:
        """The commit of a revision; the same request gives its listing."""
        client.warn_of_plaintext(self.store.warn)
        commit, self._listing = listing.request(self.repo, revision)
        self._keep_listing(commit)
        return commit

    def _keep_listing(self, commit: str) -> None:
        self.store.remember(self._listing_name(commit), canonical(self._listing))

    def _listing_name(self, commit: str) -> str:
        # By endpoint: mirrors list different facts, and not all can be trusted.
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
                raise NotReadYet(f"{self.repo} at {commit[:12]} is not listed yet")
        assert self._listing is not None
        return dict(self._listing["files"])

    def _cached_listing(self) -> dict[str, Any]:
        snapshot = self._snapshot
        files = snapshot.listing()
        if not files:
            raise self._not_cached(self.commit)
        licence = None
        if about := card_of(files):
            with opened(snapshot.file(about)) as stream:
                licence = card.license_in(stream.read(card.HEAD).decode("utf-8", "replace"))
        return {"files": files, "license": licence}

    def sizes(self) -> Mapping[str, int]:
        return {path: file["size"] or 0 for path, file in self._files().items()}

    def license(self) -> str | None:
        self._files()
        assert self._listing is not None
        name = self._listing["license"]
        return None if name is None else str(name)

    def identity(self, files: Mapping[str, str]) -> dict[str, Any]:
        # With the file names: offline the cache may have only some of the commit's files.
        return {"repo": self.repo, "commit": self.commit, "files": sorted(files)}

    def provenance(self) -> dict[str, Any]:
        return {"kind": "hub", "repo": self.repo, "commit": self.commit}

    def sha256(self, path: str) -> str | None:
        """The SHA-256 of a large file, from the Hub's listing; None for a small one."""
        digest = self._files()[path]["sha256"]
        return None if digest is None else str(digest)

    # Files

    @property
    def _cache(self) -> Path:
        return cache.folder_of(self.repo)

    @property
    def _snapshot(self) -> Snapshot:
        return Snapshot(self._cache, self.commit, self.store)

    def text(self, path: str) -> str:
        if self._snapshot.entry(path, self._files()[path], lambda _: None) is None:
            if not self.may_fetch and not self.no_network:
                raise NotReadYet(f"{path} of {self.repo} is not downloaded yet")
            if self.store.read_only and not self.no_network:
                return self._read(path)
            self.fetch({path: path}, lambda *_: None)
        try:
            return read_text(self._snapshot.file(path), LARGEST_TEXT)
        except ValueError:
            raise self._not_text(path) from None

    def _read(self, path: str) -> str:
        """A small file's text, which is not cached."""
        self._complete_facts([path])
        facts, into = self._files()[path], BytesIO()
        if facts["size"] > LARGEST_TEXT:
            raise self._not_text(path)
        client.configure()
        with client.errors(self.repo, self.commit):
            client.get(self.repo, self.commit, path, into, facts["size"])
        data = into.getvalue()
        if facts["sha256"] and hashlib.sha256(data).hexdigest() != facts["sha256"]:
            raise StageError(f"{path} of {self.repo} does not have the commit's digest.", fix="Try again.")
        try:
            return data.decode("utf-8")
        except ValueError:
            raise self._not_text(path) from None

    def _not_text(self, path: str) -> InputError:
        return InputError(f"{path} of {self.repo} is not a text file.", fix="Name another revision.")

    def fetch(self, files: Mapping[str, str], progress: Progress) -> list[Fetched]:
        absent = [path for path in files.values() if not self._snapshot.file(path).is_file()]
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
        files = self._files()
        size = sum(self._snapshot.missing(files[path]) for path in absent)
        partial.refuse_too_little_room(self._cache, size, self.repo)

    def _whole(self, path: str, tick: Tick) -> tuple[Path, Entry]:
        """A file of the snapshot and its entry; it is downloaded if it is missing or damaged."""
        snapshot, facts = self._snapshot, self._files()[path]
        file = snapshot.file(path)
        if (existing := snapshot.entry(path, facts, tick)) is not None:
            return file, existing
        if file.is_file():
            if self.no_network:
                raise InputError(
                    f"{file} differs from {self.repo} at {self.commit[:12]}.",
                    "Something wrote to it, or the disk is failing.",
                    "Build without --offline, HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE: it is downloaded again.",
                )
            self.store.warn(
                f"The Hugging Face cache is damaged: {file} differs from the commit's file. It is downloaded again."
            )
            with client.cache_errors():
                snapshot.discard(path)
        entry = self._download(path, facts, snapshot, tick)
        self.store.digests.know(file, entry)
        return file, entry

    def _complete_facts(self, paths: Iterable[str]) -> None:
        """Request missing sizes and ETags: some mirrors send them for single files only."""
        files = self._files()
        unknown = [path for path in paths if files[path]["size"] is None or not listing.etag(files[path])]
        if not unknown or self.no_network:
            return
        for path in unknown:
            files[path] |= listing.request_file(self.repo, self.revision, self.commit, path)
        self._keep_listing(self.commit)

    def _download(self, path: str, facts: Facts, snapshot: Snapshot, tick: Tick) -> Entry:
        from huggingface_hub import constants, hf_hub_download

        client.warn_of_plaintext(self.store.warn)
        size = int(facts["size"])
        if size > constants.MAX_HTTP_DOWNLOAD_SIZE:
            # The Hub serves such a large file by its own protocol (Xet) only, which its client implements.
            try:
                with client.errors(self.repo, self.commit):
                    hf_hub_download(self.repo, path, revision=self.commit)
            except ValueError as error:  # the package for that protocol is missing
                raise InputError(
                    f"{path} of {self.repo} cannot be downloaded: {error}", fix="pip install hf_xet"
                ) from None
            file = snapshot.file(path)
            whole = self.store.digests.read(file, path, tick)
            if not listing.matches(whole, facts, file):
                raise StageError(f"{path} of {self.repo} does not have the commit's digest.", fix="Build again.")
            return whole

        def pull(into: Partial) -> None:
            client.get(self.repo, self.commit, path, into, size, resume_at=into.size)

        client.configure()
        with client.cache_errors(), client.errors(self.repo, self.commit):
            with Partial(snapshot.part(facts), tick, size) as part:
                entry = snapshot.existing_blob(path, facts)
                if entry is not None:
                    part.restart()
                    part.path.unlink()
                    tick(size)
                else:
                    valid = partial_of(listing.matches, facts=facts, file=part.path)
                    partial.complete(part, size, pull, valid, client.wait, f"{path} of {self.repo}")
                    entry = part.entry(path)
                    part.finish(snapshot.blob(facts))
            snapshot.put(path, facts)
        return entry

    def _not_cached(self, revision: str, path: str = "") -> InputError:
        what = f"{path} of {self.repo}" if path else self.repo
        return InputError(
            f"{what} at {revision} is not in the Hugging Face cache, and the network is forbidden (offline).",
            fix="Build once without --offline, HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE; or set HF_HOME to the cache "
            "that has it; or write a local folder with ./ in front.",
        )


def _is_reference(revision: str) -> bool:
    """Whether a revision is safe to be a part of URLs and paths."""
    return revision.isprintable() and revision.isascii() and not {"", ".", ".."} & set(revision.split("/"))
