"""Lock files: the exact files of a config's model, beside the config as `<config>.lock`.

format    1
model     as the config names it
settings  the config's settings that choose files: revision, base_model, base_revision, allow_pickle, ...
sources   the model's provenance: a Hub repository and its commit, an address; an adapter's base model second
license   from the model card, or null
files     path in the checkpoint -> SHA-256 and size in bytes
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import strict_json
from ..files.opening import read_text
from ..tasks import Task
from ..text import visible
from .address import KINDS, ModelSource

FORMAT = 1
SUFFIX = ".lock"


@dataclass(frozen=True, kw_only=True)
class File:
    """A file's content: hexadecimal SHA-256, and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A lock file's contents; the module's docstring lists the fields."""

    model: str
    settings: dict[str, Any]
    sources: list[dict[str, Any]]
    license: str | None
    files: dict[str, File]

    def to_json(self) -> str:
        """The text of the lock file; equal locks have equal texts."""
        files = {path: asdict(file) for path, file in sorted(self.files.items())}
        data = {"format": FORMAT, **asdict(self), "files": files}
        # People read it, and its changes, on a terminal.
        return visible(json.dumps(data, indent=2, ensure_ascii=False)) + "\n"

    def part(self, number: int, path: Path) -> Locked:
        """The lock of the source `number` (0 is the model, 1 an adapter's base model); `path` is the lock file."""
        source = self.sources[number] if number < len(self.sources) else {}
        licence = source.get("license") if number else self.license
        return Locked(path=path, source=source, files=self.files, license=licence)

    def commit(self, number: int, repo: str) -> str | None:
        """The commit of the source `number` if it is the Hub repository `repo`, else None."""
        source = self.sources[number] if number < len(self.sources) else {}
        return source.get("commit") if source.get("repo") == repo else None

    def drift(self, files: Mapping[str, File]) -> list[str]:
        """A line for each file that is missing, new or changed in `files`."""
        lines = []
        for path in sorted(self.files.keys() | files.keys()):
            locked, current = self.files.get(path), files.get(path)
            if current is None:
                lines.append(f"{path} is missing")
            elif locked is None:
                lines.append(f"{path} is new")
            elif locked != current:
                lines.append(_difference(path, locked, current))
        return lines

    def differences(self, other: Lock) -> list[str]:
        """A line for each difference in a newer lock of the same config."""
        lines = self.stale(other.model, other.settings)
        for number, (before, after) in enumerate(zip(self.sources, other.sources, strict=False)):
            what = "the base model" if number else "the model"
            lines += [
                f"{what}: {name} {before.get(name)} -> {after.get(name)}"
                for name in sorted(before.keys() | after.keys())
                if before.get(name) != after.get(name)
            ]
        if len(self.sources) != len(other.sources):
            lines.append(f"it has {len(other.sources)} sources, but had {len(self.sources)}")
        if self.license != other.license:
            lines.append(f"its licence is {other.license}, but was {self.license}")
        return lines + self.drift(other.files)

    def foreign(self, model: ModelSource) -> list[str]:
        """A line if what was locked is not of the model's kind, or another repository of the Hub: a lock that was
        edited, or the lock of another config."""
        source = self.sources[0] if self.sources else {}
        if source.get("kind") != model.kind:
            return [f"the model is {KINDS[model.kind].words}, but was of the kind {source.get('kind')}"]
        if model.repo is not None and source.get("repo") != model.repo:
            return [f"the model is {model.repo}, but was {source.get('repo')}"]
        return []

    def stale(self, model: str, settings: Mapping[str, Any]) -> list[str]:
        """A line for each of the config's values that changed since it was locked."""
        lines = [] if self.model == model else [f"handler.model_name is {model}, but was {self.model}"]
        return lines + [
            f"handler.{name} is {settings.get(name)}, but was {self.settings.get(name)}"
            for name in sorted(self.settings.keys() | settings.keys())
            if self.settings.get(name) != settings.get(name)
        ]


@dataclass(frozen=True, kw_only=True)
class Locked:
    """The lock of one source, from the lock file `path`: its provenance (`source`), its licence, and the files of the
    whole checkpoint by their paths in it."""

    path: Path
    source: Mapping[str, Any]
    files: Mapping[str, File]
    license: str | None


TaskLookup = Callable[[ModelSource, str | None, Locked | None], Task]
"""Finds the task of a model at a revision; locked files need no request. Raises InputError if the task is unknown."""


def changes(locked: Mapping[str, File], files: Mapping[str, File]) -> list[str]:
    """A line for each of `files` that differs from the locked one."""
    return [_difference(path, locked[path], file) for path, file in files.items() if locked.get(path, file) != file]


def _difference(path: str, locked: File, now: File) -> str:
    return f"{path} is {now.sha256[:12]} ({now.size:,} bytes), but was {locked.sha256[:12]} ({locked.size:,} bytes)"


def refusal(model: str, path: Path, drift: list[str]) -> InputError:
    """The error for a model that differs from its lock file `path`; `drift` lists the differences."""
    shown = "; ".join([*drift[:4], *([f"and {len(drift) - 4} more"] if len(drift) > 4 else [])])
    return InputError(
        f"{model} differs from {path}: {shown}.",
        "The model was changed after it was locked, or this is another model.",
        f"Find out why it changed; if that is intended: mar lock {path.with_name(path.name.removesuffix(SUFFIX))}",
    )


def path_of(config: Path) -> Path:
    """The lock file of a config."""
    return config.with_name(config.name + SUFFIX)


def read(config: Path | None) -> Lock | None:
    """The lock beside a config; None if it has none. Raises InputError if the lock cannot be read."""
    if config is None or not path_of(config).exists():
        return None
    path = path_of(config)
    try:
        data = strict_json.loads(read_text(path))
        if data["format"] != FORMAT:
            raise InputError(
                f"{path} has the format {data['format']}, but this version reads {FORMAT}.",
                fix=f"Use the version of mar-pipeline that wrote it, or write it again: mar lock {config}",
            )
        return Lock(
            model=str(data["model"]),
            settings=dict(data["settings"]),
            sources=[_source(source) for source in data["sources"]],
            license=None if data["license"] is None else str(data["license"]),
            files={str(name): File(sha256=str(f["sha256"]), size=int(f["size"])) for name, f in data["files"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as a lock: {type(error).__name__}: {error}.",
            "It was edited, or has conflict markers of a merge.",
            f"Restore it, or write it again: mar lock {config}",
        ) from None


def _source(data: Any) -> dict[str, Any]:
    source = dict(data)
    if source["kind"] == "hub" and not re.fullmatch(r"[0-9a-f]{40}", source["commit"]):
        raise ValueError(f"{source['commit']!r} is not a commit")
    return source
