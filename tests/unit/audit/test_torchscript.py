"""TorchScript that `mar check` takes for harmless, and what it refuses: code that opens files, and what torch.jit.save
does not write."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest

from mar_pipeline.audit import examine, packed, torchscript

HEAD = """class M(Module):
  __parameters__ = []
  __buffers__ = []
  training : bool
  def forward(self: __torch__.M,
    x: Tensor) -> Tensor:
"""


def script(body: str = "    return x\n", **more: bytes) -> bytes:
    """A TorchScript file with this code, as torch.jit.save lays it out."""
    files = {
        "m/data.pkl": b"\x80\x02c__torch__\nM\nq\x00)\x81}X\x08\x00\x00\x00trainingq\x01\x89sb.",
        "m/code/__torch__.py": (HEAD + body).encode(),
        "m/constants.pkl": b"\x80\x02).",
        "m/version": b"3\n",
        **{f"m/{name}": data for name, data in more.items()},
    }
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return made.getvalue()


def refused(data: bytes) -> str:
    found = examine.problem(packed.held("model.pt", data), packed.Budget())
    return found.what if found else ""


CODE = {
    "    return torch.from_file('/tmp/x', True, 4)\n": "torch.from_file",
    "    torch.save(x, '/tmp/x')\n    return x\n": "torch.save",
    "    ops.aten.save(x, '/tmp/x')\n    return x\n": "ops.aten.save",
    "    torch . save(x, '/tmp/x')\n    return x\n": "torch.save",
    "    (torch).save(x, '/tmp/x')\n    return x\n": "torch",
    "    x.save('/tmp/x')\n    return x\n": "x.save",
    "    (x).save('/tmp/x')\n    return x\n": "calls save",
    "    f = x.save\n    f('/tmp/x')\n    return x\n": "x.save",
    "    f = getattr(x, 'save')\n    f('/tmp/x')\n    return x\n": "names the operation save",
    "    getattr(x, 'a')('/tmp/x')\n    return x\n": "calls what an expression returns",
    "    t = torch\n    return t.new_op(x)\n": "torch",
    "    return torch.an_operation_of_tomorrow(x)\n": "torch.an_operation_of_tomorrow",
    "    return ops.prim.rpc_sync(x)\n": "ops.prim.rpc_sync",
    "    return ops.c10d.send(x)\n": "ops.c10d.send",
    "    return ops.torchvision.read_file('/tmp/x')\n": "ops.torchvision.read_file",
    "    return ops.save(x)\n": "ops.save",
    "    return ops.prim\n": "ops.prim",
    "    return open('/etc/passwd')\n": "open",
    "    a = __torch__.torch.classes.aoti.Loader('/tmp/x')\n    return x\n": "__torch__.torch.classes.aoti.Loader",
    '    a = """\n    return torch.save(x)\n    """\n    return x\n': "which torch does not write",
    "    a = r'\\'; torch.save(x, '/tmp/x') #'\n    return x\n": "which torch does not write",
    "    return x\\\n.save('/tmp/x')\n": "which torch does not write",
    "    return x\n  def save(self: __torch__.M, x: Tensor) -> Tensor:\n    return x\n": "calls save",
}


@pytest.mark.parametrize("body", CODE)
def test_code_that_may_open_files_is_refused_by_name(body: str) -> None:
    said = refused(script(body))
    assert "is TorchScript whose code/__torch__.py " in said
    assert CODE[body] in said


HARMLESS = (
    "    return torch.add(x, 1.5e-05, alpha=2)\n",
    "    _0 = (self.layer).forward(x, )\n    return _0\n  def forward1(self: __torch__.M) -> bool:\n    return True\n",
    "    _0 = __torch__.M\n    # torch.save(x)\n    return _0(x)\n",
    "    a, b, = torch.chunk(x, 2)\n    (a)\n    (b)\n    return annotate(List[Tensor], [a, b])[0]\n",
    "    if torch.gt(x, 2):\n      ops.prim.RaiseException('save me', \"it's\")\n    else:\n      pass\n    return x\n",
    "    return torch.mul(x, CONSTANTS.c0)\n",
    "    return ops.quantized.linear_dynamic(x, self._packed, False)\n",
    "    return ops.torchvision.nms(x, x, 0.5)\n",
    "    return ops.neuron.forward_v2([x], self.model)\n",
)


@pytest.mark.parametrize("body", HARMLESS)
def test_code_that_touches_only_tensors_is_harmless(body: str) -> None:
    assert refused(script(body)) == ""


@pytest.mark.parametrize(
    ("record", "data", "said"),
    [
        ("data.pkl", b"\x80\x02cposix\nsystem\n.", "names posix.system"),
        ("data.pkl", b"\x80\x02c__torch__.torch.classes.aoti\nLoader\n.", "names __torch__.torch.classes.aoti.Loader"),
        ("constants.pkl", b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "STACK_GLOBAL"),
        ("constants.pkl", b"\x80\x02(iposix\nsystem\n.", "INST"),
        ("constants.pkl", b"\x80\x02\x82\x01.", "EXT1"),
        ("constants.pkl", b"\x80\x02).more", "bytes behind its end"),
        ("constants.pkl", b"\x80\x02)", "malformed"),
        ("code/__torch__/a.py.debug_pkl", b"\x80\x02cposix\nsystem\n.", "names posix.system"),
        ("attributes.pkl", b"\x80\x02).", "a record that torch.jit.save does not write"),
        ("model.json", b"{}", "a record that torch.jit.save does not write"),
        ("DATA.pkl", b"\x80\x02).", "twice"),
        ("../x.py", b"", "a record that torch.jit.save does not write"),
    ],
)
def test_what_torch_does_not_write_is_refused(record: str, data: bytes, said: str) -> None:
    assert said in refused(script(**{record: data}))


@pytest.mark.parametrize("left", ["m/model.json", "m/code/x.py", "m/CODE/x.py", "m/attributes.pkl"])
def test_torchscript_of_other_formats_is_refused(left: str) -> None:
    """torch.jit.load reads a model.json of its first format, in which constants.pkl is not needed."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        opened.writestr("m/version", b"1\n")
        opened.writestr(left, b"{}")
        opened.writestr("m/code/y.py", b"torch.save(1, '/tmp/x')\n")
    assert "is TorchScript" in refused(made.getvalue())


def test_the_code_is_examined_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchscript, "_MOST_CODE", 100)
    assert "too large to be examined" in refused(script())


@pytest.mark.slow
def test_operations_that_are_taken_for_harmless_open_no_files() -> None:
    """torch's own schemas: all of its operations are known, and none of the harmless ones takes the name of a file."""
    from tests.support import operations

    schemas = operations.schemas()
    left = {name for name in schemas if operations.LEFT_OUT.search(name)} | torchscript.REFUSED
    assert schemas.keys() - torchscript.operations() <= left, "write the list again: python -m tests.support.operations"
    files = {name for name, each in schemas.items() if any("str filename" in one for one in each)}
    assert {"save", "from_file"} <= files
    assert files & torchscript.operations() == set()


@pytest.mark.slow
def test_what_torch_writes_is_harmless_and_what_opens_files_is_not() -> None:
    import warnings

    import torch

    class Layers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
            self.steps = torch.nn.LSTM(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x).relu() if x.sum() > 0 else x.softmax(-1)
            y: dict[str, torch.Tensor] = {"a": x}
            if len(y) > 1:
                raise ValueError("this saves nothing")
            return self.steps(y["a"])[0]

    class Writes(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.from_file("x", shared=True, size=1)

    class Saves(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save(x, "x")
            return x

    def saved(graph: Any) -> bytes:
        made = io.BytesIO()
        torch.jit.save(graph, made, _extra_files={"note.txt": "text"})
        return made.getvalue()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = Layers()
        small = torch.ao.quantization.quantize_dynamic(Layers(), {torch.nn.Linear}, dtype=torch.qint8)
        graphs = (torch.jit.script(layers), torch.jit.trace(layers, torch.ones(1, 2)), torch.jit.script(small))
        assert [refused(saved(graph)) for graph in graphs] == ["", "", ""]
        assert "torch.from_file" in refused(saved(torch.jit.script(Writes())))
        assert "torch.save" in refused(saved(torch.jit.script(Saves())))


@pytest.mark.slow
def test_the_refused_code_is_code_that_torch_runs(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    for body in ("    torch.save(x, 'x')\n    return x\n", "    ops.aten.save(x, 'x')\n    return x\n"):
        torch.jit.load(io.BytesIO(script(body)))(torch.ones(1))
        assert (tmp_path / "x").exists()
        (tmp_path / "x").unlink()
