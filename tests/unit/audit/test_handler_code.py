"""What `mar check` says of an archive's handler, as TorchServe looks for its entry point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.archiver import HANDLER, findings, make

Found = dict[str, Any]


TWO = b"class A:\n    pass\n\nclass B:\n    pass\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (TWO, "defines 2 classes (A, B)"),
        (HANDLER + b"\nAlias = Handler\n", "defines 2 classes"),
        (HANDLER + b"\nfrom collections import namedtuple\nRow = namedtuple('Row', 'a b')\n", "defines 2 classes"),
        (b"try:\n    class A: pass\nexcept ImportError:\n    pass\nclass B: pass\n", "defines 2 classes"),
        (b"try:\n    import a\nexcept ImportError:\n    class A: pass\nclass B: pass\n", "defines 2 classes (A, B)"),
        (b"if x:\n    class A: pass\nelse:\n    class B: pass\n", "defines 2 classes (A, B)"),
        (b"def predict(data): pass\n", "neither a class nor a function handle"),
        (b"class A:\n    def handle(self, data, context): pass\n", "without the method initialize"),
        (b"def handle(:\n", "is not valid Python"),
        (b"\xff\xfe", "is not valid Python"),
    ],
)
def test_a_handler_without_one_entry_point_is_an_error(tmp_path: Path, source: bytes, said: str) -> None:
    errors = findings(make(tmp_path, {"handler.py": source}), "error")
    assert [line for line in errors if line.startswith("handler.py: ") and said in line]


@pytest.mark.parametrize(
    "source",
    [
        HANDLER,
        TWO + b"\ndef handle(data, context): pass\n",
        b"from handlers.base import Base, Other\n\nclass Mine(Base):\n    pass\n",
        b"from elsewhere import handle\n",
        b"from elsewhere import *\n",
        HANDLER + b"\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    class B: pass\n",
        HANDLER + b"\nclass B: pass\ndel B\n",
        b"try:\n    from base import Base\nexcept ImportError:\n    class Base: pass\nclass B(Base): pass\n",
        b"if x:\n    from base import Base\nelse:\n    class Base: pass\nclass B(Base): pass\n",
        b"if x:\n    class B(Base): pass\nelse:\n    class B(Base): pass\n",
        HANDLER + b"\ndef make():\n    class B: pass\n    return B\n",
    ],
)
def test_a_handler_with_one_entry_point_is_sound(tmp_path: Path, source: bytes) -> None:
    assert findings(make(tmp_path, {"handler.py": source})) == []


@pytest.mark.parametrize("source", [HANDLER, TWO, HANDLER + b"\nAlias = Handler\n", b"x = 1\n"], ids=range(4))
def test_classes_are_counted_as_torchserve_counts_them(tmp_path: Path, source: bytes) -> None:
    util = pytest.importorskip("ts.utils.util")
    import importlib.util as machinery

    from mar_pipeline.audit.entry_point import Module

    (tmp_path / "counted.py").write_bytes(source)
    spec = machinery.spec_from_file_location("counted", tmp_path / "counted.py")
    assert spec is not None
    assert spec.loader is not None
    module = machinery.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len(Module(source.decode()).classes) == len(util.list_classes_from_module(module))
