"""One config on its way to an archive: what is asked for (Build), what is known so far (State), and what a stage may
read of it (Inputs, Job)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ..archive.formats import FORMATS
from ..cache.digests import changed
from ..cache.store import Store
from ..config.build_config import BuildConfig
from ..files.tree import Entry, Tree, scan
from ..model import checkpoint, settings_files
from ..model.lock import Lock
from ..sources.source import Progress, Source
from ..workers.limits import Limits

StageName = Literal["download", "serialize", "handler", "archive", "verify", "model_store"]
NAMES: tuple[StageName, ...] = get_args(StageName)
"""The stages, in the order that they run in."""

_ADVICE = "If the model is as it should be, give a stage more time: --timeout SECONDS (0: no limit)."


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to build."""

    out: Path = Path("build")
    """The output folder."""
    offline: bool = False
    """Use no network: what is cached has to do."""
    locked: bool = False
    """Refuse a config without a lock that fits, and a folder that differs from its lock."""
    allow_unverified: bool = False
    """Accept a compiled graph that cannot be run on this machine."""
    timeout: float | None = None
    """Seconds that a stage may work with the model; 0 for no limit, None for one by the model's size."""
    forced: tuple[StageName, ...] = ()
    """Stages to run although their results are cached."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """One archive to build. Nothing of it changes while it goes through the stages."""

    config: BuildConfig
    store: Store
    options: Options = Options()
    lock: Lock | None = None
    """The lock of the config's model; None if there is none, or none that fits."""

    @property
    def out(self) -> Path:
        """The output folder."""
        return self.options.out

    @property
    def filename(self) -> str:
        """The archive's name in a model store."""
        return self.config.archive.name + FORMATS[self.config.archive.format].suffix

    @property
    def subject(self) -> str:
        """The config's file and the archive's name. A cache miss is explained by the subject's last build."""
        return f"{self.config.path.absolute() if self.config.path else ''}#{self.config.archive.name}"


@dataclass(frozen=True)
class Part:
    """Files of one source: path in the checkpoint -> path in the source."""

    source: Source
    files: Mapping[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """The model's files, resolved: of the model itself, and of an adapter's base model second."""

    parts: tuple[Part, ...]
    identity: Mapping[str, Any]
    """What pins the files' contents for the cache key: a commit, or their digests."""

    @property
    def is_local(self) -> bool:
        """Whether all of it lies in folders of this machine, where people work on it."""
        return all(part.source.provenance()["kind"] in ("folder", "starter") for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a stage made."""

    tree: Tree
    params: Mapping[str, Any]
    places: Mapping[str, str]
    """Where the tree's files lie that are outside the store, by their paths in the tree."""
    is_fresh: bool
    """Whether this process wrote it just now, so that its files need not be read for damage."""


class Undeclared(LookupError):
    """A stage reads what is not among its inputs: a mistake in the stage, which its author has to mend."""


@dataclass(frozen=True)
class Inputs:
    """What `stage` may read: the build, and the results of the stages that it declares as inputs. Raises Undeclared for
    the result of any other stage."""

    stage: str
    build: Build
    results: Mapping[str, Result]
    _checkpoint: Checkpoint | None

    @property
    def config(self) -> BuildConfig:
        return self.build.config

    @property
    def checkpoint(self) -> Checkpoint:
        """The model's files as they were resolved; for the download, and whoever declares it."""
        if self._checkpoint is None:
            raise self._undeclared("the checkpoint")
        return self._checkpoint

    @property
    def places(self) -> dict[str, str]:
        """Where files of the inputs lie that are outside the store, by their paths in the inputs' trees."""
        return {path: place for result in self.results.values() for path, place in result.places.items()}

    def result(self, stage: str) -> Result:
        try:
            return self.results[stage]
        except KeyError:
            raise self._undeclared(f"the result of {stage}") from None

    def _undeclared(self, what: str) -> Undeclared:
        declared = ", ".join(self.results) or "none"
        return Undeclared(f"The stage {self.stage} reads {what}, and its declared inputs are: {declared}.")

    def tree(self, stage: str) -> Tree:
        return self.result(stage).tree

    def is_intact(self, stage: str) -> bool:
        """Whether a result's files in the store hold what was written. They are read, unless the result is fresh."""
        result = self.result(stage)
        return result.is_fresh or all(self.build.store.intact(entry) for entry in result.tree)

    def find(self, stage: str, path: str) -> Path | None:
        """A file of a stage's result; None if it has no such file. Raises as `Store.use` does."""
        result = self.result(stage)
        entry = result.tree.get(path)
        return None if entry is None else self.build.store.use(entry, result.places)

    def read_json(self, stage: str, path: str) -> dict[str, Any]:
        """A JSON object of a stage's result; empty if it has no such file."""
        file = self.find(stage, path)
        return checkpoint.read_json(file) if file else {}


@dataclass
class State:
    """What is known of a build so far. Only the runner writes it, and stages get `Inputs` of it."""

    build: Build
    checkpoint: Checkpoint | None = None
    results: dict[str, Result] = field(default_factory=dict)
    drift: list[str] = field(default_factory=list)
    """How the checkpoint differs from its lock, a line each."""

    def inputs(self, stage: str, names: Iterable[str]) -> Inputs:
        """What a stage of that name may read, if it declares these `names`."""
        results = {name: self.results[name] for name in names}
        sees_checkpoint = "download" in (stage, *results)
        return Inputs(stage, self.build, results, self.checkpoint if sees_checkpoint else None)


@dataclass(frozen=True)
class Job:
    """What a stage's `run` gets."""

    inputs: Inputs
    params: Mapping[str, Any]
    """The stage's own, as its `params` gave them."""
    folder: Path
    """To be filled with the stage's result; empty, and on the store's file system."""
    scratch: Path
    """For anything else."""
    progress: Progress
    started: float = field(default_factory=time.monotonic)
    digested: dict[str, Entry] = field(default_factory=dict)
    """Entries of files in `folder` that were digested while they were written, by path. The stage adds them."""

    @property
    def build(self) -> Build:
        return self.inputs.build

    @property
    def config(self) -> BuildConfig:
        return self.inputs.build.config

    @property
    def limits(self) -> Limits:
        """The limits of a worker that the stage starts now: the time that is left of the stage's."""
        limits = Limits.of(self.inputs.tree("download").size, self.build.options.timeout, _ADVICE)
        return limits.after(time.monotonic() - self.started)

    def lay_out(self, stage: str) -> Path:
        """A folder with (links to) a stage's result; not to be written to. What lies in the store is read for its
        digests first, unless it is fresh. Of the checkpoint's settings it has what a loader may read. Raises
        InputError where they ask for code that is not trusted; as `Store.use` does."""
        folder, result = self.scratch / stage, self.inputs.result(stage)
        if not folder.exists():
            self.build.store.lay_out(result.tree, result.places, folder, whole=not result.is_fresh)
            if stage == "download":
                self._settle(folder)
        return folder

    def _settle(self, folder: Path) -> None:
        """Replace links to the checkpoint's small files by copies, and take out settings that name files or code."""
        build = self.build
        for entry in self.inputs.tree("download"):
            # What lies outside could be another file by the time that a worker reads it. Weights are held against their
            # digests when they are packed.
            if not entry.path.endswith((".safetensors", ".bin")):
                link = folder / entry.path
                shutil.copyfile(link, copy := link.with_name(f"{link.name}.copy"))
                if scan(copy, entry.path) != entry:
                    raise changed(entry)
                copy.replace(link)
        name = build.config.model.name
        for note in settings_files.sanitize(folder, name, trusted=build.config.handler.trust_remote_code):
            build.store.warn(f"{name} is built without some of its settings, which could name files or code: {note}.")
