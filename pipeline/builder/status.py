"""Whether a stage's result is there, and why not: the one answer that `plan` and `run` ask for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from ..cache.store import Record, key_of
from ..files.tree import canonical
from ..sources.source import NotReadYet
from .build import Build, StageName, State
from .stage import FileProblem, Placing, Stage, versions

NOTHING = "(none)"
"""In place of a value, where there is none."""

Change = Literal["inputs", "params", "tools"]
Kind = Literal["waits", "unread", "forced", "first", "lost", "raced", "version"] | Change | FileProblem

_WORDS: dict[Kind, str] = {
    "waits": "{name} runs first",
    "unread": "{name}",
    "forced": "forced",
    "first": "not built before",
    "lost": "its cached result is gone, or is damaged",
    "raced": "another build made it just now",
    "version": "mar-pipeline does this stage in another way now",
    "inputs": "the result of {name} {before} -> {after}",
    "params": "{name} {before} -> {after}",
    "tools": "version of {name} {before} -> {after}",
    "absent": "{name} is not there",
    "differs": "{name} is another one",
    "outdated": "{name} is out of date",
    "other_format": "{name} has the same name in another format",
}


@dataclass(frozen=True)
class Reason:
    """Why a stage has to run; `str` words it. `name` is what it is about: an input, a setting, a distribution, a file;
    of a change there are the values `before` and `after`."""

    kind: Kind
    name: str = ""
    before: Any = NOTHING
    after: Any = NOTHING

    def __str__(self) -> str:
        return _WORDS[self.kind].format(name=self.name, before=_shown(self.before), after=_shown(self.after))


def _shown(value: Any) -> str:
    is_digest = isinstance(value, str) and len(value) == 64
    return str(value)[:12] if is_digest else '""' if value == "" else str(value)


@dataclass(frozen=True)
class Status:
    """Whether a stage's result is there. `key` is None where it depends on a stage that has to run first, or on what
    is not read yet."""

    stage: StageName
    key: str | None
    cached: bool
    reasons: tuple[Reason, ...]
    record: Record | None = None
    material: dict[str, Any] | None = None


def unread(stage: StageName, reason: NotReadYet) -> Status:
    """The status of a stage whose key takes something that has to be read or fetched first."""
    return Status(stage, None, False, (Reason("unread", str(reason)),))


def status(state: State, stage: Stage | Placing) -> Status:
    """Whether a stage has to run. Raises InputError if the config and the checkpoint contradict."""
    absent = [name for name in stage.inputs if name not in state.results]
    if absent:
        return Status(stage.name, None, False, (Reason("waits", absent[-1]),))
    build, inputs = state.build, state.inputs(stage.name, stage.inputs)
    forced = (Reason("forced"),) if stage.name in build.options.forced else ()
    if isinstance(stage, Placing):
        key, problems = stage.status(inputs)
        reasons = forced or tuple(Reason(kind, path) for path, kind in problems.items())
        return Status(stage.name, key, not reasons, reasons)
    material = {
        "stage": stage.name,
        "version": stage.version,
        "params": stage.params(inputs),
        "tools": versions(stage.tools(inputs)),
        "inputs": {name: inputs.tree(name).digest for name in stage.inputs},
    }
    key = key_of(material)
    if forced:
        return Status(stage.name, key, False, forced, None, material)
    record = build.store.find(stage.name, key, inputs.places)
    reasons = () if record is not None else _reasons(build, stage.name, key, material)
    return Status(stage.name, key, record is not None, reasons, record, material)


def _reasons(build: Build, stage: str, key: str, material: dict[str, Any]) -> tuple[Reason, ...]:
    """What changed since the subject's last run of the stage."""
    last = build.store.latest(stage, build.subject)
    if last is None:
        return (Reason("first"),)
    if key_of(last) == key:
        return (Reason("lost"),)
    # As it is kept: in JSON there are no tuples, and no numbers for keys.
    before, after = _flat(last), _flat(json.loads(canonical(material)))
    names = sorted(before.keys() | after.keys())
    return tuple(_change(name, before, after) for name in names if before.get(name, ...) != after.get(name, ...))


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dots in its names."""
    if isinstance(value, dict):
        return {
            key: item for k, v in value.items() for key, item in _flat(v, f"{name}.{k}" if name else str(k)).items()
        }
    return {name: value}


def _change(name: str, before: dict[str, Any], after: dict[str, Any]) -> Reason:
    kinds: dict[str, Change] = {"inputs": "inputs", "params": "params", "tools": "tools"}
    section, _, rest = name.partition(".")
    if section not in kinds:  # the stage's own version
        return Reason("version")
    return Reason(kinds[section], rest.removeprefix("settings."), before.get(name, NOTHING), after.get(name, NOTHING))
