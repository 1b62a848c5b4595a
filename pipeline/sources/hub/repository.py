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
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial as partial_of
from io import BytesIO
from pathlib import Path
from typing import Any

from ...cache.store import Store
from ...errors import InputError, StageError
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
        """Note what the revision is, once all of it is there, here and as the client does: what is offline later finds
        the commit by it."""
        if is_commit(self.revision) or self.no_network:
            return
        self.store.remember(self._last_seen, self.commit)
        with suppress(OSError):  # a cache that is full, or read-only, may still have all that is needed
            cache.keep_reference(self._cache, self.revision, self.commit)

    def _ask(self, revision: str) -> str:
        """The commit of a revision, and with the same request what it holds."""
        commit, self._listing = listing.ask(self.repo, revision)
        self._keep_listing(commit)
        return commit

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
        snapshot = self._snapshot
        files = snapshot.listing()
        if not files:
            raise self._not_cached(self.commit)
        about = card_of(files)
        text = snapshot.file(about).read_text("utf-8", "replace") if about else None
        return {"files": files, "license": None if text is None else card.license_in(text)}

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
        return cache.folder_of(self.repo)

    @property
    def _snapshot(self) -> Snapshot:
        return Snapshot(self._cache, self.commit, self.store)

    def text(self, path: str) -> str:
        if self._snapshot.entry(path, self._files()[path], lambda _: None) is None:
            if not self.may_fetch and not self.no_network:
                raise NotReadYet(f"{path} of {self.repo} was not fetched yet")
            if self.store.read_only and not self.no_network:
                return self._read(path)
            self.fetch({path: path}, lambda *_: None)
        try:
            return self._snapshot.file(path).read_text(encoding="utf-8")
        except ValueError:
            raise self._no_text(path) from None

    def _read(self, path: str) -> str:
        """A text of the commit, which is not kept."""
        self._complete_facts([path])
        facts, into = self._files()[path], BytesIO()
        if facts["size"] > LARGEST_TEXT:
            raise self._no_text(path)
        client.quiet()
        with client.errors(self.repo, self.commit):
            client.get(self.repo, self.commit, path, into, facts["size"])
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
        """A file of the snapshot and its entry, fetched if it is not there, or is not what the commit has."""
        snapshot, facts = self._snapshot, self._files()[path]
        file = snapshot.file(path)
        if (found := snapshot.entry(path, facts, tick)) is not None:
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
                snapshot.discard(path)
        entry = self._download(path, facts, snapshot, tick)
        self.store.digests.know(file, entry)
        return file, entry

    def _complete_facts(self, paths: Iterable[str]) -> None:
        """Ask for sizes and contents' names, which some mirrors tell of one file at a time alone."""
        files = self._files()
        unknown = [path for path in paths if files[path]["size"] is None or not listing.etag(files[path])]
        if not unknown or self.no_network:
            return
        for path in unknown:
            files[path] |= listing.ask_of_file(self.repo, self.revision, self.commit, path)
        self._keep_listing(self.commit)

    def _download(self, path: str, facts: Facts, snapshot: Snapshot, tick: Tick) -> Entry:
        from huggingface_hub import constants, hf_hub_download

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
            file = snapshot.file(path)
            whole = self.store.digests.read(file, path, tick)
            if not listing.is_right(whole, facts, file):
                raise StageError(f"{path} of {self.repo} is not what the commit has.", fix="Build again.")
            return whole

        def pull(into: Partial) -> None:
            client.get(self.repo, self.commit, path, into, size, resume_at=into.size)

        client.quiet()
        with client.written(), client.errors(self.repo, self.commit):
            with Partial(snapshot.part(facts), tick, size) as part:
                entry = snapshot.brought(path, facts)
                if entry is not None:
                    part.restart()
                    part.path.unlink()
                    tick(size)
                else:
                    right = partial_of(listing.is_right, facts=facts, file=part.path)
                    partial.complete(part, size, pull, right, client.wait, f"{path} of {self.repo}")
                    entry = part.entry(path)
                    part.finish(snapshot.blob(facts))
            snapshot.put(path, facts)
        return entry

    def _not_cached(self, revision: str, path: str = "") -> InputError:
        what = f"{path} of {self.repo}" if path else self.repo
        return InputError(
            f"{what} at {revision} is not in the Hugging Face cache, and the network is not to be used.",
            fix="Build once without --offline (and without HF_HUB_OFFLINE), or set HF_HOME to the cache that has it.",
        )


def _is_reference(revision: str) -> bool:
    """Whether a revision can be a name in a repository: it becomes part of addresses and paths."""
    return revision.isprintable() and revision.isascii() and not {"", ".", ".."} & set(revision.split("/"))
