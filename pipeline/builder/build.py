"""One config on its way through the stages (Build), and what a stage is run with (Job)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cache.digests import changed
from ..cache.store import Store
from ..config.build_config import BuildConfig
from ..files.tree import Entry, Tree, scan
from ..model import checkpoint, settings_files
from ..model.lock import Lock
from ..sources.source import Progress, Source


@dataclass
class Build:
    """One config on its way through the stages: what is known so far."""

    config: BuildConfig
    store: Store
    out: Path
    offline: bool = False
    allow_unverified: bool = False
    """Whether an archive that cannot be run here is good enough."""
    lock: Lock | None = None
    """Of the config's model; None if it has none that fits."""
    locked: bool = False
    """Whether what differs from the lock is an error, even in a folder."""
    drifted: bool = False
    """Whether something differs from the lock."""
    sources: list[Source] = field(default_factory=list)
    """Of the model, and of the base model that an adapter has."""
    trees: dict[str, Tree] = field(default_factory=dict)
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    """The checkpoint's files that lie outside the store, by their paths in its tree."""
    made: set[str] = field(default_factory=set)
    """The stages whose results are as they were written, by us and just now."""

    def begin(self) -> None:
        """Know nothing again."""
        for known in (self.trees, self.params, self.made, self.places, self.sources):
            known.clear()

    def intact(self, stage: str) -> bool:
        """Whether a stage's files in the store hold what was written; they are read, unless they were made just now."""
        return stage in self.made or all(self.store.intact(entry) for entry in self.trees[stage])

    @property
    def subject(self) -> str:
        """What a miss is explained against: this archive, out of this config."""
        return f"{self.config.path.absolute() if self.config.path else ''}#{self.config.archive.name}"

    def find(self, stage: str, path: str) -> Path | None:
        """A file of a stage's result, where it lies; None if there is none. Raises as `Store.use` does."""
        entry = self.trees[stage].get(path)
        return None if entry is None else self.store.use(entry, self.places)

    def read_json(self, stage: str, path: str) -> dict[str, Any]:
        """A JSON object out of a stage's result; empty if it has no such file."""
        file = self.find(stage, path)
        return checkpoint.read_json(file) if file else {}


@dataclass
class Job:
    """What a stage's `run` gets: the build, a fresh `folder` to fill, a `scratch` folder, and whom to tell."""

    build: Build
    folder: Path
    scratch: Path
    progress: Progress
    digested: dict[str, Entry] = field(default_factory=dict)
    """Entries of files in `folder` that need not be read for them, by path."""

    def lay_out(self, stage: str, name: str | None = None) -> Path:
        """A folder with (links to) a stage's result; not to be written to. What lies in the store is read for its
        digests first, unless it was made just now. Of the checkpoint's settings it has what a loader may read. Raises
        InputError where they ask for code that is not trusted; as `Store.use` does."""
        folder = self.scratch / (name or stage)
        if not folder.exists():
            whole = stage not in self.build.made
            self.build.store.lay_out(self.build.trees[stage], self.build.places, folder, whole=whole)
            if stage == "download":
                self._settle(folder)
        return folder

    def _settle(self, folder: Path) -> None:
        build = self.build
        for entry in build.trees["download"]:
            # What lies outside could be another file by the time that a worker reads it. Weights are held against their
            # digests when they are packed.
            if not entry.path.endswith((".safetensors", ".bin")):
                link = folder / entry.path
                shutil.copyfile(link, copy := link.with_name(f"{link.name}.copy"))
                if scan(copy, entry.path) != entry:
                    raise changed(entry)
                copy.replace(link)
        name = build.config.model.name
        for note in settings_files.settle(folder, name, trusted=build.config.handler.trust_remote_code):
            build.store.warn(f"{name} is built without some of its settings, which could name files or code: {note}.")
