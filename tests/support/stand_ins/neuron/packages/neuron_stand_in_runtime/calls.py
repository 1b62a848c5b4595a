"""The stand-ins' record of how they were called, for tests."""

from __future__ import annotations

import json
import os
from typing import Any

from .machine import AT_IMPORT, neuron_variables


def record(function: str, keywords: dict[str, Any], shapes: list[list[int]]) -> None:
    """Append a call to the file that NEURON_STAND_IN_CALLS names: a line of JSON with `function`, `keywords`, `shapes`
    (of the tensors), `environment` (the runtime's variables now), `at_import` (what it took of them) and `pid`."""
    file = os.environ.get("NEURON_STAND_IN_CALLS")
    if not file:
        return
    call = {
        "function": function,
        "keywords": keywords,
        "shapes": shapes,
        "environment": neuron_variables(),
        "at_import": AT_IMPORT,
        "pid": os.getpid(),
    }
    # One write of a line, so that processes which share the file do not mix their lines.
    with open(file, "a", encoding="utf-8") as lines:  # noqa: PTH123
        lines.write(json.dumps(call, default=repr) + "\n")
