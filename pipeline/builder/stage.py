"""What a stage is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from ..files.tree import Entry
from ..sources.source import NotReadYet, Progress
from .build import Build, Checkpoint, Inputs, Job, StageName

Permit = Callable[[NotReadYet], Progress]
"""Called with the reason before something is fetched. Raises it where nothing may be fetched, as in a plan; else
returns what is told of the progress."""

FileProblem = Literal["absent", "differs", "outdated", "other_format"]
"""How a file of the output folder is not as it should be. The last is one that should not be there."""


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

    name: StageName
    version: int
    inputs: tuple[StageName, ...]
    params: Callable[[Inputs], dict[str, Any]]
    tools: Callable[[Inputs], Iterable[str]]
    run: Callable[[Job], Kept]
    prepare: Callable[[Build, Permit], Checkpoint] | None = None


@dataclass(frozen=True, kw_only=True)
class Placing:
    """A step whose result lies in the output folder, and not in the cache.

    `status` gives the key of what should lie there for a build, and the files that do not, by their paths. `place` puts
    them there, all if `forced`; False if another build has done so just now.
    """

    name: StageName
    inputs: tuple[StageName, ...]
    status: Callable[[Inputs], tuple[str, dict[str, FileProblem]]]
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
