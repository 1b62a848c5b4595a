"""Whether a stage's result is there, and why not: the one answer that `plan` and `run` ask for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..cache.store import Record, key_of
from ..files.tree import canonical
from .build import Build, State
from .stage import Placing, Stage, versions


@dataclass(frozen=True)
class Status:
    """Whether a stage's result is there. `key` is None where it depends on a stage that has to run first."""

    stage: str
    key: str | None
    cached: bool
    reasons: tuple[str, ...]
    record: Record | None = None
    material: dict[str, Any] | None = None


def status(state: State, stage: Stage | Placing) -> Status:
    """Whether a stage has to run. Raises InputError if the config and the checkpoint contradict."""
    absent = [name for name in stage.inputs if name not in state.results]
    if absent:
        return Status(stage.name, None, False, (f"{absent[-1]} runs first",))
    build, inputs = state.build, state.inputs(stage.name, stage.inputs)
    forced = stage.name in build.options.forced
    if isinstance(stage, Placing):
        key, reasons = stage.status(inputs)
        reasons = ("forced",) if forced else reasons
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
        return Status(stage.name, key, False, ("forced",), None, material)
    record = build.store.find(stage.name, key, inputs.places)
    if record is not None:
        return Status(stage.name, key, True, (), record, material)
    return Status(stage.name, key, False, _why(build, stage.name, key, material), None, material)


def _why(build: Build, stage: str, key: str, material: dict[str, Any]) -> tuple[str, ...]:
    before = build.store.latest(stage, build.subject)
    if before is None:
        return ("not built before",)
    if key_of(before) == key:
        return ("its cached result is gone, or is damaged",)
    # As it is kept: in JSON there are no tuples, and no numbers for keys.
    old, new = _flat(before), _flat(json.loads(canonical(material)))
    return tuple(
        _change(name, old, new)
        for name in sorted(old.keys() | new.keys())
        if name not in old or name not in new or old[name] != new[name]
    )


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {
            key: item for k, v in value.items() for key, item in _flat(v, f"{name}.{k}" if name else str(k)).items()
        }
    return {name: value}


def _change(name: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    kind, _, rest = name.partition(".")
    if kind in ("stage", "version"):
        return "mar-pipeline does this stage in another way now"
    labels = {
        "inputs": f"the result of {rest}",
        "params": rest.removeprefix("settings."),
        "tools": f"version of {rest}",
    }
    return f"{labels[kind]} {_shown(old, name)} -> {_shown(new, name)}"


def _shown(values: dict[str, Any], name: str) -> str:
    if name not in values:
        return "(none)"
    value = values[name]
    digest = isinstance(value, str) and len(value) == 64
    return str(value)[:12] if digest else json.dumps(value, ensure_ascii=False) if value == "" else str(value)
