"""Which task a model was trained for, by its own config.json, or an adapter's."""

from __future__ import annotations

from . import adapter, checkpoint, sources
from .config_file import TellTask
from .errors import InputError
from .model_source import ModelSource
from .selection import ADAPTER, ADAPTER_CONFIG, read_object, select
from .store import Store
from .tasks import TASKS, Task


def teller(store: Store, offline: bool) -> TellTask:
    """A function that looks into a model; no more of it is fetched than its config.json."""

    def tell(model: ModelSource, revision: str | None) -> Task:
        source = sources.of(store, offline, model, revision)
        source.may_fetch = True
        with store.in_use():
            # Whether its weights can be used is told later, and better.
            files = select(source.sizes(), source.where, source.text, pickles=True).files
            name = f"{ADAPTER}/{ADAPTER_CONFIG}" if f"{ADAPTER}/{ADAPTER_CONFIG}" in files else checkpoint.CONFIG
            told = read_object(source.text(files[name]), name, source.where)
        found = adapter.task_of(told) if name.startswith(ADAPTER) else checkpoint.task_of(told)
        if found is None:
            said = ", ".join(map(str, told.get("architectures") or [told.get("task_type") or "no architecture"]))
            raise InputError(
                f"{model.name} says that it is {said}, which tells no task.",
                "A model without a head of one of the tasks cannot tell which it is for.",
                f"Say it: --task, one of {', '.join(TASKS)}",
            )
        return found

    return tell
