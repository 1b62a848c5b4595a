"""The differences between two archives, and whether they can change the model's answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..archive import records
from ..archive.formats import WORDS
from ..archive.reader import DAMAGE, MANIFEST, PROVENANCE, Archive, digest
from ..config import messages
from ..config.frontend import Frontend
from ..errors import InputError
from ..files import yaml
from ..handlers.protocol.tokenizer_settings import SETTINGS
from ..model.checkpoint import CONFIG, FOREIGN, INDEX, PICKLES, SIDE_FILES
from ..text import printable, size, some
from . import tensors, values
from .difference import EFFECTS, GROUPS, MEANINGS, Difference, Effect, Group
from .survey import Survey, survey

_RECORDS = (MANIFEST, PROVENANCE)
_SHOWN = 20  # keys of one file that are listed one by one

# Server settings that decide where a model runs; the other server settings do not change the answers.
_PLACES = ("deviceType", "parallelType", "parallelLevel", "torchrun")


class _Side:
    """One of the two archives, read. Raises InputError if the file is not an archive, or is damaged."""

    def __init__(self, path: Path) -> None:
        self.path, self.archive = path, Archive(path)
        self.read: Survey = survey(self.archive)
        for where, why in self.read.damaged.items():
            what = f"{path} is damaged: {where}{': ' if where else ''}{why}."
            raise InputError(what, fix="Build it again, or copy it again.")
        self.files = self.read.files
        config = self.archive.manifest["model"].get("configFile")
        self.config = config if isinstance(config, str) else "model-config.yaml"
        weight = self.archive.manifest["model"].get("serializedFile")
        self.serialized = weight if isinstance(weight, str) else ""

    def value(self, path: str) -> Any:
        """The value of a JSON or YAML file; None for other files."""
        text = self.read.text(path)
        if text is None:
            return None
        if path == self.config or path.endswith((".yaml", ".yml")):
            return yaml.parse(text).data
        if not path.endswith(".json"):
            return None  # not parsed as YAML: other texts, Python for one, often parse too
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None


def compare(first: Path, second: Path) -> dict[str, Any]:
    """The differences by group, and their meaning in one sentence. Raises InputError for a file that is not an archive,
    or is damaged."""
    a, b = _Side(first), _Side(second)
    # Several files have the labels: list each difference once.
    differences = list(dict.fromkeys(_files(a, b)))
    differences += _container(a, b, differences)
    differences.sort(key=lambda difference: GROUPS.index(difference.group))
    return {
        "a": str(first),
        "b": str(second),
        "same": not differences,
        "meaning": MEANINGS[max((difference.effect for difference in differences), default=0)],
        "differences": [{"group": difference.group, "text": difference.text} for difference in differences],
    }


def show(result: dict[str, Any]) -> str:
    """The result of `compare` as text: a line for each difference, and their meaning."""
    lines = [printable(f"{one['group']}: {one['text']}") for one in result["differences"]]
    return "\n".join([*lines, result["meaning"]])


def _files(a: _Side, b: _Side) -> Iterator[Difference]:
    yield from _weights(a, b)
    for path in sorted({*a.files, *b.files}):
        group = _group(path, a, b)
        if group == "weights" or not _differs(path, a, b):
            continue
        details = _inside(group, path, a, b) if path in a.files and path in b.files else None
        yield from [Difference(group, _whole_file(path, a, b), EFFECTS[group])] if details is None else details


def _group(path: str, a: _Side, b: _Side) -> Group:
    name = path.rpartition("/")[2]
    if path == MANIFEST:
        return "manifest"
    if path == PROVENANCE:
        return "source"
    if path in (a.config, b.config) or name in (CONFIG, "generation_config.json"):
        return "settings"
    if path in (a.serialized, b.serialized) or name in (INDEX, "graph.json"):
        return "weights"
    if Path(name).match(f"*{tensors.SUFFIX}") or any(Path(name).match(kind) for kind in (*PICKLES, *FOREIGN)):
        return "weights"
    if name in (*SIDE_FILES, SETTINGS) or name.endswith(".model"):
        return "tokenizer"
    if name == "index_to_name.json":
        return "labels"
    if name == "samples.json":
        return "samples"
    if name.endswith((".py", ".so")) or "requirements" in name:
        return "handler code"
    return "other files"


def _whole_file(path: str, a: _Side, b: _Side) -> str:
    one, other = a.files.get(path), b.files.get(path)
    if one is None or other is None:
        there = one or other
        assert there is not None
        return f"{path} is only in {'A' if one else 'B'} ({size(there.size)})"
    sizes = size(one.size) if size(one.size) == size(other.size) else f"{size(one.size)} -> {size(other.size)}"
    return f"{path} differs ({sizes}, {one.sha256[:6]}.. -> {other.sha256[:6]}..)"


def _weights(a: _Side, b: _Side) -> Iterator[Difference]:
    paths = [path for path in sorted({*a.files, *b.files}) if _group(path, a, b) == "weights"]
    paths = [path for path in paths if _differs(path, a, b)]
    safe = [path for path in paths if path.endswith(tensors.SUFFIX)]
    lines, effect = _tensors(safe, a, b) if safe else ([], Effect.ANSWERS)
    for path in paths:
        if path in safe or path.rpartition("/")[2] == INDEX:
            # Which file a tensor is in does not matter if the tensors are the same.
            yield Difference("weights", _whole_file(path, a, b), effect)
        elif path in a.files and path in b.files:
            yield from _records(path, a, b)
        else:
            yield Difference("weights", _whole_file(path, a, b), Effect.ANSWERS)
    for text in lines:
        yield Difference("weights", text, effect)


def _differs(path: str, a: _Side, b: _Side) -> bool:
    one, other = a.files.get(path), b.files.get(path)
    return one is None or other is None or one.sha256 != other.sha256


def _tensors(paths: list[str], a: _Side, b: _Side) -> tuple[list[str], Effect]:
    """The differences between the tensors of these files, a line each, and their effect."""
    try:
        one, other = (tensors.of_archive(side.archive, paths) for side in (a, b))
    except ValueError as error:
        return [f"which tensors differ is unknown: {error}"], Effect.ANSWERS
    lines = tensors.differences(one, other)
    if not lines:
        return [f"all {len(one)} tensors are the same: only the layout of the file differs"], Effect.RECORD
    return lines, Effect.ANSWERS


def _records(path: str, a: _Side, b: _Side) -> Iterator[Difference]:
    """A weights file in both archives, compared by its records if torch.save or torch.jit.save wrote it."""
    summary = _whole_file(path, a, b)
    try:
        with a.archive.open(path) as one, b.archive.open(path) as other:
            first, second = records.records(one), records.records(other)
    except (*DAMAGE, KeyError):
        yield Difference("weights", summary, Effect.ANSWERS)
        return
    changed = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    matter = [name for name in changed if not records.is_trace_of_build(name)]
    if not matter:
        yield Difference(
            "weights", f"{summary}: code and values are the same; only traces of the build differ", Effect.RECORD
        )
        return
    code = [name for name in matter if name.startswith("code/")]
    parts = [
        f"code differs in {some(code)}" if code else "",
        f"{len(matter) - len(code)} of {len(first)} other records differ" if len(matter) > len(code) else "",
    ]
    yield Difference("weights", f"{summary}: {'; '.join(part for part in parts if part)}", Effect.ANSWERS)


def _inside(group: Group, path: str, a: _Side, b: _Side) -> list[Difference] | None:
    """A file in both archives, compared key by key; None if it has no keys to compare."""
    one, other = a.value(path), b.value(path)
    if group == "samples" and isinstance(one, list) and isinstance(other, list):
        shared = sum(sample in other for sample in one)
        return [Difference(group, f"{len(one)} -> {len(other)} requests, {shared} of them the same", Effect.TRIED)]
    if not isinstance(one, dict) or not isinstance(other, dict):
        return None
    changed = values.of(one, other)
    if not changed:
        return [Difference(group, f"{path} is formatted differently; its values are the same", Effect.RECORD)]
    every = (_change(group, path, where, change, a, b) for where, change in changed.items())
    differences = [one for one in every if one is not None]
    if not differences and not any(_differs(path, a, b) for path in {*a.files, *b.files} if path not in _RECORDS):
        # The record lists other files, but the files are the same.
        return None
    if len(differences) > _SHOWN:
        effect = max(one.effect for one in differences)
        more = Difference(group, f"{path} differs in {len(differences) - _SHOWN} more values", effect)
        return [*differences[:_SHOWN], more]
    return differences


def _change(group: Group, path: str, where: tuple[str, ...], change: str, a: _Side, b: _Side) -> Difference | None:
    """A changed value as a difference of its group; None if another difference covers it."""
    key = messages.dotted(where)
    if path == PROVENANCE:
        return _recorded(where, change)
    if path == MANIFEST:
        names = {"modelName", "modelVersion", "description"}
        if where[0] != "model":
            return Difference(group, f"{key} {change}", Effect.ANSWERS if key == "runtime" else Effect.RECORD)
        effect = Effect.SERVER if where[-1] in names else Effect.ANSWERS
        return Difference(group, f"{where[-1]} {change}", effect)
    if group == "labels":
        return Difference(group, f"{key} {change}", Effect.LABELS)
    if path.rpartition("/")[2] == CONFIG:
        if where[0] == "id2label" and len(where) > 1:
            return Difference("labels", f"{messages.dotted(where[1:])} {change}", Effect.LABELS)
        if where[0] == "label2id":  # the inverse of id2label
            return None
        descriptive = where[0] in ("transformers_version", "_name_or_path")
        return Difference(group, f"{path}: {key} {change}", Effect.RECORD if descriptive else Effect.ANSWERS)
    if path in (a.config, b.config):
        leaves_alone = where[0] in messages.keys_of(Frontend) and where[0] not in _PLACES
        return Difference(group, f"{key} {change}", Effect.SERVER if leaves_alone else Effect.ANSWERS)
    return Difference(group, f"{path}: {key} {change}", EFFECTS[group])


def _recorded(where: tuple[str, ...], change: str) -> Difference | None:
    top, rest = where[0], messages.dotted(where[1:])
    if top == "versions":
        return Difference("versions", f"{rest} {change}", Effect.RECORD)
    if where == ("settings", "archive", "format"):
        return Difference("container", f"{rest.removeprefix('archive.')} {change}", Effect.CONTAINER)
    # Files, the tokenizer's settings, packed ones and labels are compared on their own.
    compared = (("settings", "handler"), ("settings", "archive"), ("settings", "serialize", "labels"))
    if top in ("files", "tokenizer") or any(where[: len(start)] == start for start in compared):
        return None
    if top == "checkpoint":
        return Difference("source", f"the checkpoint's {'/'.join(where[1:])} {change}", Effect.RECORD)
    key = messages.dotted(where).removeprefix("source.").removeprefix("settings.")
    return Difference("source", f"{key} {change}", Effect.RECORD)


def _container(a: _Side, b: _Side, differences: list[Difference]) -> Iterable[Difference]:
    """Differences in packing. Containers of the same kind are compared only if their files are the same: otherwise
    their bytes differ anyway."""
    first, second = a.archive.kind, b.archive.kind
    if first != second:
        if not any(one.group == "container" for one in differences):
            yield Difference("container", f"{WORDS[first]} -> {WORDS[second]}", Effect.CONTAINER)
    elif not differences and first != "no-archive" and digest(a.path) != digest(b.path):
        packed = [{m.path: m.stored for m in side.archive.members()} for side in (a, b)]
        what = "compression" if packed[0] != packed[1] else "order" if list(a.files) != list(b.files) else "times"
        text = f"the same files in {WORDS[first]} with different bytes: {what}"
        yield Difference("container", text, Effect.CONTAINER)
