"""Archives hold tables of their own, since they are served where this package is not installed: copies of the
pipeline's."""

from __future__ import annotations

import importlib

import pytest

from handlers import runtimes
from handlers.protocol import schema
from handlers.runtimes import neuron_package
from mar_pipeline.builder.backends import BACKENDS
from mar_pipeline.config.settings import HandlerSettings
from mar_pipeline.config.values import COMPILED
from mar_pipeline.host import toolchain
from mar_pipeline.host.chips import CHIPS
from mar_pipeline.tasks import TASKS, Task


def test_chips_are_the_same_where_models_are_compiled_and_where_they_are_served() -> None:
    ours = {chip.name: (chip.package, chip.distribution, chip.machines) for chip in CHIPS.values()}
    assert ours == runtimes.CHIPS
    assert neuron_package.REPOSITORY == toolchain.REPOSITORY
    assert set(COMPILED) == set(CHIPS) < set(BACKENDS)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_task_is_the_same_where_it_is_built_and_where_it_is_served(task: Task) -> None:
    module = importlib.import_module(f"handlers.{task.name}")
    (handler,) = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]
    assert handler.task._asdict() == {name: getattr(task, name) for name in runtimes.Task._fields}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_tasks_fields_are_those_of_its_requests(task: Task) -> None:
    assert set(task.fields) <= set(schema.INPUTS[task.name]["properties"])
    assert schema.PLAIN[task.name] == (task.fields[0] if len(task.fields) == 1 else None)
    assert all(set(task.fields) <= set(sample) for sample in task.samples)
    assert set(task.settings) <= set(HandlerSettings.model_fields)
