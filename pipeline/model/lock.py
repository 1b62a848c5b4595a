"""A lock: the exact files of a config's model, beside the config as `<config>.lock`.

format    1
model     as the config names it
settings  those of the config's that choose files: revision, base_model, base_revision, allow_pickle, ...
sources   where it came from: a Hub repository and its commit, an address; an adapter's base model second
license   what the model card says, or null
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
from ..tasks import Task
from .address import ModelSource

FORMAT = 1
SUFFIX = ".lock"


@dataclass(frozen=True, kw_only=True)
class File:
    """A file's content: hexadecimal SHA-256, bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Lock:
    model: str
    settings: dict[str, Any]
    sources: list[dict[str, Any]]
    license: str | None
    files: dict[str, File]

    def to_json(self) -> str:
        """The text of the file: always the same for the same model."""
        files = {path: asdict(file) for path, file in sorted(self.files.items())}
        told = {"format": FORMAT, **asdict(self), "files": files}
        return json.dumps(told, indent=2, ensure_ascii=False) + "\n"

    def part(self, number: int, path: Path) -> Locked:
        """What it says of the source `number`; `path` is where it lies."""
        told = self.sources[number] if number < len(self.sources) else {}
        licence = told.get("license") if number else self.license
        return Locked(path=path, told=told, files=self.files, license=licence)

    def commit(self, number: int, repo: str) -> str | None:
        """The commit of the source `number`, if it is that repository."""
        source = self.sources[number] if number < len(self.sources) else {}
        return source.get("commit") if source.get("repo") == repo else None

    def drift(self, files: Mapping[str, File]) -> list[str]:
        """What these files have otherwise, a line each."""
        lines = []
        for path in sorted(self.files.keys() | files.keys()):
            locked, found = self.files.get(path), files.get(path)
            if found is None:
                lines.append(f"{path} is gone")
            elif locked is None:
                lines.append(f"{path} is new")
            elif locked != found:
                lines.append(_difference(path, locked, found))
        return lines

    def differences(self, other: Lock) -> list[str]:
        """How another lock of the same config differs, a line each."""
        lines = self.stale(other.model, other.settings)
        for number, (before, after) in enumerate(zip(self.sources, other.sources, strict=False)):
            what = "the base model" if number else "the model"
            lines += [
                f"{what}: {name} {before.get(name)} -> {after.get(name)}"
                for name in sorted(before.keys() | after.keys())
                if before.get(name) != after.get(name)
            ]
        if len(self.sources) != len(other.sources):
            lines.append(f"it has {len(other.sources)} sources, and had {len(self.sources)}")
        if self.license != other.license:
            lines.append(f"its licence is {other.license}, and was {self.license}")
        return lines + self.drift(other.files)

    def stale(self, model: str, settings: Mapping[str, Any]) -> list[str]:
        """What the config has otherwise than when it was locked, a line each."""
        lines = [] if self.model == model else [f"handler.model_name is {model}, and was {self.model}"]
        return lines + [
            f"handler.{name} is {settings.get(name)}, and was {self.settings.get(name)}"
            for name in sorted(self.settings.keys() | settings.keys())
            if self.settings.get(name) != settings.get(name)
        ]


@dataclass(frozen=True, kw_only=True)
class Locked:
    """What the lock at `path` says of one source: what was `told` of it, its `license`, and the `files` of the whole
    checkpoint by their paths in it."""

    path: Path
    told: Mapping[str, Any]
    files: Mapping[str, File]
    license: str | None


TaskLookup = Callable[[ModelSource, str | None, Locked | None], Task]
"""The task that a model at a revision was trained for; what is locked of it need not be asked for."""


def changes(locked: Mapping[str, File], files: Mapping[str, File]) -> list[str]:
    """Which of these files are not as they are locked, a line each."""
    return [_difference(path, locked[path], file) for path, file in files.items() if locked.get(path, file) != file]


def _difference(path: str, locked: File, found: File) -> str:
    return f"{path} is {found.sha256[:12]} ({found.size:,} bytes), and was {locked.sha256[:12]} ({locked.size:,} bytes)"


def refusal(model: str, path: Path, drift: list[str]) -> InputError:
    """That a model is not what the lock at `path` says, which has otherwise what `drift` tells."""
    shown = "; ".join([*drift[:4], *([f"and {len(drift) - 4} more"] if len(drift) > 4 else [])])
    return InputError(
        f"{model} is not what {path} says: {shown}.",
        "Somebody changed it since it was locked, or it is not the model that was meant.",
        f"Find out who did; if the change is meant: mar lock {path.with_name(path.name.removesuffix(SUFFIX))}",
    )


def path_of(config: Path) -> Path:
    return config.with_name(config.name + SUFFIX)


def read(config: Path | None) -> Lock | None:
    """The lock beside a config, if there is one. Raises InputError if it cannot be read."""
    if config is None or not path_of(config).is_file():
        return None
    path = path_of(config)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise InputError(
                f"{path} has the format {told['format']}, and this version reads {FORMAT}.",
                fix=f"Use the mar-pipeline that wrote it, or write it again: mar lock {config}",
            )
        return Lock(
            model=str(told["model"]),
            settings=dict(told["settings"]),
            sources=[_source(source) for source in told["sources"]],
            license=None if told["license"] is None else str(told["license"]),
            files={str(name): File(sha256=str(f["sha256"]), size=int(f["size"])) for name, f in told["files"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError, OSError) as error:
        raise InputError(
            f"{path} is no lock that can be read: {type(error).__name__}: {error}.",
            "Somebody edited it, or a merge left its marks in it.",
            f"Restore it, or write it again: mar lock {config}",
        ) from None


def _source(told: Any) -> dict[str, Any]:
    source = dict(told)
    if source["kind"] == "hub" and not re.fullmatch(r"[0-9a-f]{40}", source["commit"]):
        raise ValueError(f"{source['commit']!r} is no commit")
    return source
