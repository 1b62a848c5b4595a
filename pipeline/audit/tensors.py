"""Weights of two archives compared by their safetensors. Only names and digests are held; values are read in chunks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

from ..archive.reader import Archive
from ..files.tree import CHUNK
from ..text import some

SUFFIX = ".safetensors"
_LONGEST_HEADER = 100_000_000  # bytes, as the format has it


@dataclass(frozen=True)
class Tensor:
    """A tensor: its type as the header has it (F32, BF16, ...), shape, and hexadecimal SHA-256 of its bytes."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str


def tensors(stream: IO[bytes]) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, read from its beginning. Raises ValueError if it is none."""
    length = int.from_bytes(stream.read(8), "little")
    if not 2 <= length <= _LONGEST_HEADER:
        raise ValueError("no safetensors file: its header's length makes no sense")
    found: dict[str, Tensor] = {}
    try:
        header = json.loads(stream.read(length))
        entries = [(*one["data_offsets"], name, one) for name, one in header.items() if name != "__metadata__"]
        at = 0
        for begin, end, name, one in sorted(entries, key=lambda entry: entry[:3]):
            if begin != at:
                raise ValueError("no safetensors file: its tensors overlap, or leave gaps")
            found[name] = Tensor(str(one["dtype"]), tuple(one["shape"]), _sha256(stream, end - begin))
            at = end
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("no safetensors file: its header names no tensors") from None
    return found


def _sha256(stream: IO[bytes], left: int) -> str:
    sha = hashlib.sha256()
    while left > 0 and (chunk := stream.read(min(left, CHUNK))):
        sha.update(chunk)
        left -= len(chunk)
    if left:
        raise ValueError("no safetensors file: it ends before its last tensor")
    return sha.hexdigest()


def of_archive(archive: Archive, paths: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of some of an archive's safetensors files together. Raises ValueError if one is none."""
    found: dict[str, Tensor] = {}
    wanted = set(paths)
    for path, stream in archive.streams():
        if path in wanted:
            for name, tensor in tensors(stream).items():
                found[name if name not in found else f"{path}: {name}"] = tensor
    return found


def differences(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    """What differs between two models' tensors, a few named; nothing if they are the same."""
    both = [name for name in first if name in second]
    reshaped = [name for name in both if first[name].shape != second[name].shape]
    retyped = [name for name in both if first[name].dtype != second[name].dtype]
    other = {*reshaped, *retyped}
    changed = [name for name in both if name not in other and first[name].sha256 != second[name].sha256]
    added, removed = ({n: m[n] for n in m if n not in o} for m, o in ((second, first), (first, second)))
    renamed = _renamed(removed, added)
    found = [
        _counted([name for name in added if name not in renamed.values()], "added"),
        _counted([name for name in removed if name not in renamed], "removed"),
        _counted([f"{name} -> {renamed[name]}" for name in renamed], "renamed"),
        _counted([f"{n} {list(first[n].shape)} -> {list(second[n].shape)}" for n in reshaped], "reshaped"),
        _counted([f"{n} {first[n].dtype} -> {second[n].dtype}" for n in retyped], "of another type"),
    ]
    if changed:
        only = "only values differ, " if not any(found) else "other values "
        found.append(f"{only}in {len(changed)} of {len(both)} tensors: {some(changed)}")
    return [line for line in found if line]


def _renamed(removed: dict[str, Tensor], added: dict[str, Tensor]) -> dict[str, str]:
    """Which tensors have the same values under a new name that holds the old one, or is held by it."""
    by_value: dict[Tensor, list[str]] = {}
    for name, tensor in added.items():
        by_value.setdefault(tensor, []).append(name)
    found = {}
    for name, tensor in removed.items():
        alike = [other for other in by_value.get(tensor, []) if other.endswith(name) or name.endswith(other)]
        if alike:
            found[name] = alike[0]
            by_value[tensor].remove(alike[0])
    return found


def _counted(names: list[str], how: str) -> str:
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} {how}: {some(names)}" if names else ""
