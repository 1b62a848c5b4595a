"""The worker in another environment: `PYTHON pipeline/portable/__main__.py JOB.json`.

mar_pipeline is not installed in that environment. So this folder is registered as the package `mar_portable`, and its
modules use their relative imports.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

# Python imports from the script's own folder first: our modules must not replace the standard library's.
sys.path.pop(0)

_folder = Path(__file__).resolve().parent
_spec = importlib.util.spec_from_file_location(
    "mar_portable", str(_folder / "__init__.py"), submodule_search_locations=[str(_folder)]
)
assert _spec is not None
assert _spec.loader is not None
sys.modules["mar_portable"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["mar_portable"])

importlib.import_module("mar_portable.protocol").main(importlib.import_module("mar_portable.neuron").OPERATIONS)
