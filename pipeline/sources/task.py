"""Finds the task that a model was trained for, from its config.json or an adapter's adapter_config.json."""

from __future__ import annotations

from functools import partial
from typing import Any

from .. import sources
from ..cache.store import Store
from ..errors import InputError
from ..model import adapter, checkpoint
from ..model.address import ModelSource
from ..model.lock import Locked, TaskLookup
from ..model.selection import ADAPTER, ADAPTER_CONFIG, read_object, select
from ..tasks import TASKS, Task
from .source import read_text


def task_lookup(store: Store, offline: bool) -> TaskLookup:
    """A function that finds a model's task; it fetches no other file than the config. It raises InputError if the
    config does not show the task."""

    def lookup(model: ModelSource, revision: str | None, locked: Locked | None) -> Task:
        with store.in_use():
            source = sources.of(store, offline, model, revision, locked)
            source.may_fetch = True
            # Pickles too: the download stage has the better message if weights cannot be used.
            text = partial(read_text, source)
            files = select(source.sizes(), source.where, text, pickles=True).files
            name = f"{ADAPTER}/{ADAPTER_CONFIG}" if f"{ADAPTER}/{ADAPTER_CONFIG}" in files else checkpoint.CONFIG
            config = read_object(text(files[name]), name, source.where)
        is_adapter = name.startswith(ADAPTER)
        task = adapter.task_of(config) if is_adapter else checkpoint.task_of(config)
        if task is None:
            raise InputError(
                f"The task of {model.name} is unknown: its config names {_named(config, is_adapter)}.",
                "Only a model with the head of a supported task shows which task it is for.",
                f"Name the task (--task, or handler.mode in a config): one of {', '.join(TASKS)}.",
            )
        return task

    return lookup


def _named(config: dict[str, Any], is_adapter: bool) -> str:
    """What a config names in place of a task."""
    if is_adapter:
        kind = config.get("task_type")
        return f"an adapter for {kind}" if kind else "an adapter without a task_type"
    return ", ".join(checkpoint.architectures(config)) or "no architecture"
