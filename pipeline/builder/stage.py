"""What a stage is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..files.tree import Entry
from ..sources.source import Progress
from .build import Build, Job


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A step whose result is cached. Its key is made of `name`, `version`, `params`, `tools` and the digests of the
    `inputs`' trees.

    `run` fills the job's folder, and returns the entries of its inputs that are part of its result as they are.
    `prepare`, if there is one, reads what `params` raised NotReadYet for.
    """

    name: str
    version: int
    inputs: tuple[str, ...]
    params: Callable[[Build], dict[str, Any]]
    tools: Callable[[Build], Iterable[str]]
    run: Callable[[Job], Iterable[Entry]]
    prepare: Callable[[Build, Progress], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Placing:
    """A step whose result lies in the output folder, and not in the cache.

    `status` gives the key of what should lie there for a build, and why it does not (nothing if it does). `place` puts
    it there, always if `forced`; False if another build has done so just now.
    """

    name: str
    inputs: tuple[str, ...]
    status: Callable[[Build], tuple[str, tuple[str, ...]]]
    place: Callable[[Build, bool], bool]


def versions(names: Iterable[str]) -> dict[str, str]:
    """The installed version of each distribution ("absent" if there is none), without importing it."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
