"""The operations of the installed torch that TorchScript can call, for `mar check`'s list of harmless ones.

python -m tests.support.operations    writes the list: what is in it already, and what this torch adds
"""

from __future__ import annotations

import re
import textwrap

from mar_pipeline.audit import torchscript
from tests.support import ROOT

FILE = ROOT / "pipeline" / "audit" / "operations.txt"

LEFT_OUT = re.compile(r"PythonOp|Graph$|Group$|Guard$|Bail|StaticSubgraph|_tensor_unsafe$")
"""Operations that no code has, since they hold a graph or a Python function, and those that trust their indices."""


def schemas() -> dict[str, list[str]]:
    """The schemas of aten's and prim's operations, by name."""
    import torch

    found: dict[str, list[str]] = {}
    for schema in torch._C._jit_get_all_schemas():
        space, _, name = schema.name.partition("::")
        if space in ("aten", "prim"):
            found.setdefault(name, []).append(str(schema))
    return found


def main() -> None:
    names = {*torchscript.operations(), *schemas()} - torchscript.REFUSED
    names = {name for name in names if not LEFT_OUT.search(name)}
    FILE.write_text(textwrap.fill(" ".join(sorted(names)), 120, break_on_hyphens=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
