"""Compares the safetensors of two archives. Only names and digests are in memory; values are read in chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

from ..archive.reader import Archive
from ..files.tree import CHUNK
from ..model.checkpoint import header
from ..text import some

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Tensor:
    """A tensor: its dtype as in the header (F32, BF16, ...), shape, and hexadecimal SHA-256 of its bytes."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str


def tensors(stream: IO[bytes]) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, read sequentially. Raises ValueError if the file is malformed."""
    try:
        return {
            name: Tensor(str(one["dtype"]), tuple(one["shape"]), _sha256(stream, end - begin))
            for name, one in header(stream).items()
            for begin, end in [one["data_offsets"]]
        }
    except ValueError as error:
        raise ValueError(f"not a safetensors file: {error}") from None


def _sha256(stream: IO[bytes], left: int) -> str:
    sha = hashlib.sha256()
    while left > 0 and (chunk := stream.read(min(left, CHUNK))):
        sha.update(chunk)
        left -= len(chunk)
    if left:
        raise ValueError("it ends before its last tensor")
    return sha.hexdigest()


def of_archive(archive: Archive, paths: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of several safetensors files of an archive by name. Raises ValueError if one is malformed."""
    by_name: dict[str, Tensor] = {}
    selected = set(paths)
    for path, stream in archive.streams():
        if path in selected:
            for name, tensor in tensors(stream).items():
                by_name[name if name not in by_name else f"{path}: {name}"] = tensor
    return by_name


def differences(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    """The differences between two models' tensors, a line for each kind; empty if they are the same."""
    both = [name for name in first if name in second]
    reshaped = [name for name in both if first[name].shape != second[name].shape]
    retyped = [name for name in both if first[name].dtype != second[name].dtype]
    other = {*reshaped, *retyped}
    changed = [name for name in both if name not in other and first[name].sha256 != second[name].sha256]
    added, removed = ({n: m[n] for n in m if n not in o} for m, o in ((second, first), (first, second)))
    renamed = _renamed(removed, added)
    lines = [
        _counted([name for name in added if name not in renamed.values()], "added"),
        _counted([name for name in removed if name not in renamed], "removed"),
        _counted([f"{name} -> {renamed[name]}" for name in renamed], "renamed"),
        _counted([f"{n} {list(first[n].shape)} -> {list(second[n].shape)}" for n in reshaped], "reshaped"),
        _counted([f"{n} {first[n].dtype} -> {second[n].dtype}" for n in retyped], "of a different dtype"),
    ]
    if changed:
        only = "only values differ, " if not any(lines) else "other values "
        lines.append(f"{only}in {len(changed)} of {len(both)} tensors: {some(changed)}")
    return [line for line in lines if line]


def _renamed(removed: dict[str, Tensor], added: dict[str, Tensor]) -> dict[str, str]:
    """New names by old name: tensors with equal values, where one name ends with the other (a prefix changed)."""
    by_value: dict[Tensor, list[str]] = {}
    for name, tensor in added.items():
        by_value.setdefault(tensor, []).append(name)
    renamed = {}
    for name, tensor in removed.items():
        alike = [other for other in by_value.get(tensor, []) if other.endswith(name) or name.endswith(other)]
        if alike:
            renamed[name] = alike[0]
            by_value[tensor].remove(alike[0])
    return renamed


def _counted(names: list[str], how: str) -> str:
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} {how}: {some(names)}" if names else ""
