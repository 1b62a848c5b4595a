"""Which task a model was trained for, by its own config.json, or an adapter's."""

from __future__ import annotations

from typing import Any

from .. import sources
from ..cache.store import Store
from ..errors import InputError
from ..model import adapter, checkpoint
from ..model.address import ModelSource
from ..model.lock import Locked, TellTask
from ..model.selection import ADAPTER, ADAPTER_CONFIG, read_object, select
from ..tasks import TASKS, Task


def teller(store: Store, offline: bool) -> TellTask:
    """A function that looks into a model; no more of it is fetched than its config.json."""

    def tell(model: ModelSource, revision: str | None, locked: Locked | None) -> Task:
        with store.in_use():
            source = sources.of(store, offline, model, revision, locked)
            source.may_fetch = True
            # Whether its weights can be used is told later, and better.
            files = select(source.sizes(), source.where, source.text, pickles=True).files
            name = f"{ADAPTER}/{ADAPTER_CONFIG}" if f"{ADAPTER}/{ADAPTER_CONFIG}" in files else checkpoint.CONFIG
            told = read_object(source.text(files[name]), name, source.where)
        is_adapter = name.startswith(ADAPTER)
        found = adapter.task_of(told) if is_adapter else checkpoint.task_of(told)
        if found is None:
            said = _adapter_says(told) if is_adapter else _model_says(told)
            raise InputError(
                f"{model.name} says that it is {said}, which tells no task.",
                "A model without a head of one of the tasks cannot tell which it is for.",
                f"Say it: --task, one of {', '.join(TASKS)}",
            )
        return found

    return tell


def _model_says(told: dict[str, Any]) -> str:
    return ", ".join(map(str, told.get("architectures") or ["no architecture"]))


def _adapter_says(told: dict[str, Any]) -> str:
    kind = told.get("task_type")
    return f"an adapter for {kind}" if kind else "an adapter without a task_type"
