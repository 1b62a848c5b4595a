"""What a stage is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..files.tree import Entry
from ..sources.source import NotReadYet, Progress
from .build import Build, Checkpoint, Inputs, Job

Permit = Callable[[NotReadYet], Progress]
"""Called with the reason before something is fetched. Raises it where nothing may be fetched, as in a plan; else
returns what is told of the progress."""


@dataclass(frozen=True)
class Kept:
    """What is part of a stage's result beside the files that it wrote: `entries` whose contents lie elsewhere, and
    `places` of those that lie outside the store, by path, unless the stage's inputs have them already."""

    entries: Iterable[Entry] = ()
    places: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A step whose result is cached. Its key is made of `name`, `version`, `params`, `tools` and the digests of the
    `inputs`' trees. It can read the results of its inputs, and no others.

    `tools` are the distributions whose versions decide what comes out. `run` fills the job's folder. `prepare`, if
    there is one, resolves the checkpoint, which `params` and `run` read; it raises NotReadYet as `Permit` does.
    """

    name: str
    version: int
    inputs: tuple[str, ...]
    params: Callable[[Inputs], dict[str, Any]]
    tools: Callable[[Inputs], Iterable[str]]
    run: Callable[[Job], Kept]
    prepare: Callable[[Build, Permit], Checkpoint] | None = None


@dataclass(frozen=True, kw_only=True)
class Placing:
    """A step whose result lies in the output folder, and not in the cache.

    `status` gives the key of what should lie there for a build, and why it does not (nothing if it does). `place` puts
    it there, always if `forced`; False if another build has done so just now.
    """

    name: str
    inputs: tuple[str, ...]
    status: Callable[[Inputs], tuple[str, tuple[str, ...]]]
    place: Callable[[Inputs, bool], bool]


def versions(names: Iterable[str]) -> dict[str, str]:
    """The installed version of each distribution ("absent" if there is none), without importing it."""
    installed = {}
    for name in names:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "absent"
    return installed
