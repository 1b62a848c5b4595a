"""TorchScript files: zip files of torch.jit.save, whose pickles torch.jit reads with a reader of its own, and whose
code calls operations of torch.

That reader (torch/csrc/jit/serialization/unpickler.cpp) imports no Python, but creates objects of classes that are in
the file, or built into torch. The code can do whatever an operation can: some read and write files. So the names of
both are compared with lists of those that are known to be harmless.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from pathlib import Path

from . import opcodes

_RECORDS = re.compile(
    r"version|byteorder|\.format_version|\.storage_alignment|\.data/(version|serialization_id)"
    r"|(data|constants|traced_inputs)(\.pkl|/\d+)|code/.+\.(py|debug_pkl)|extra/.+"
)
"""The records that torch.jit.save writes and torch.jit.load reads."""
_DEFINED = re.compile(r"\b(?:def|class)\s+(\w+)|^\s*(\w+) = __torch__[\w.]+$", re.ASCII | re.MULTILINE)
"""What code defines: classes, functions, and short names of functions."""

# fmt: off
_GLOBALS = re.compile(
    r"torch\.jit\._pickle\.(build_(intlist|tensorlist|doublelist|boollist|tensor_from_id)|restore_type_tag)"
    r"|torch\._utils\._rebuild_(tensor_v2|qtensor|sparse_tensor)|torch\._tensor\._rebuild_from_type_v2|torch\.Tensor"
    r"|torch\.device|torch\.\w+Storage|torch\.per_(tensor|channel)_(affine|symmetric|affine_float_qparams)"
    r"|builtins\.complex|collections\.OrderedDict|__torch__\.[\w.]+"
)
# fmt: on
"""What the pickles may name: `Unpickler::readGlobal` of unpickler.cpp, and classes of the file."""
_CLASSES = re.compile(
    r"__torch__\.torch\.classes\.(neuron\.Model|quantized\.\w+|sparse\.\w+|xnnpack\.\w+|mkldnn\.\w+|rnn\.CellParamsBase)"
)
"""Classes that are built into torch or into AWS's packages, and only hold weights or compiled graphs."""
_OPCODES = ("INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "FRAME")

_NAMESPACES = frozenset(("quantized", "mkldnn", "mkldnn_prepacked", "prepacked", "sparse", "neuron"))
"""Further namespaces of operations, as in ops.quantized.linear. None has one that opens a file."""
_VISION = frozenset(("nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"))
"""torchvision's operations on tensors; it has others that read files."""
_CALLABLE = frozenset(
    ("AssertionError", "CONSTANTS", "_to_tensor", "abs", "all", "annotate", "any", "awaitable", "bin", "bool", "chr",
     "complex", "device", "dict", "divmod", "enumerate", "float", "fork", "getattr", "hasattr", "hash", "hex", "id",
     "int", "isinstance", "len", "list", "max", "min", "oct", "ord", "pow", "print", "range", "rangelist", "round",
     "set", "sorted", "str", "sum", "tuple", "unchecked_cast", "uninitialized", "zip")
)  # fmt: skip
"""What code may call without a dot: the names of torch/csrc/jit/frontend/ir_emitter.cpp and of import_source.cpp."""
_KEYWORDS = frozenset(
    ("return", "if", "elif", "else", "while", "for", "in", "not", "and", "or", "is", "assert", "raise", "with", "as",
     "pass", "break", "continue", "del", "None", "True", "False", "except")
)  # fmt: skip

REFUSED = frozenset(
    ("save", "_save", "load", "_load", "from_file", "tofile", "fromfile", "rpc_sync", "rpc_async", "rpc_remote",
     "to_here", "system", "open", "exec", "eval", "compile_file")
)  # fmt: skip
"""Operations of torch that read or write files or the network, and names that nothing in a graph needs."""

_MOST_CODE = 16 << 20
"""Bytes of code that are examined, of all of a file's records together."""
_MOST_PICKLED = 64 << 20

# In code that torch prints, a text is on one line. A byte that fits nothing else is matched by the last part.
_TOKEN = re.compile(
    r'[\x20\t\n]+|#[^\n]*|("(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\')|([A-Za-z_]\w*)'
    r"|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?j?|([()\[\]{}.,:;=+\-*/%<>!&|^~])|(.)",
    re.ASCII | re.DOTALL,
)


class Harmful(Exception):
    """What a TorchScript file has in it that is not known to be harmless, in words that follow the file's name."""


@lru_cache
def operations() -> frozenset[str]:
    """The operations of torch (`aten` and `prim`) that are known to touch only tensors: all but REFUSED.

    To write the list for another version of torch: python -m tests.support.operations
    """
    return frozenset(Path(__file__).with_name("operations.txt").read_text(encoding="utf-8").split())


def is_one(names: Collection[str]) -> bool:
    """Whether a zip file with members of these names may be read as TorchScript: torch.load decides it by
    constants.pkl, torch.jit.load takes model.json for its first format, and both run what is in code/."""
    marks = ("constants.pkl", "model.json", "attributes.pkl", "bytecode.pkl")
    paths = [name.lower().split("/") for name in names]
    return any(path[-1] in marks or path[1:2] == ["code"] for path in paths)


def check(names: Collection[str], read: Callable[[str, int], bytes]) -> list[str]:
    """Raise Harmful unless the members of a zip file are TorchScript that is known to be harmless. Returns the members
    that are none of torch's own, which are to be examined as any file.

    `read` returns a member's bytes; if they are more than a number, it raises an error of its own.
    """
    tops = {name.partition("/")[0] for name in names}
    if len(tops) != 1:
        raise Harmful(f"is TorchScript with {len(tops)} folders at its root, and torch reads one of them")
    (top,) = tops
    records = {name: name[len(top) + 1 :] for name in names}
    for record in records.values():
        if not _RECORDS.fullmatch(record):
            raise Harmful(f"is TorchScript with a record that torch.jit.save does not write: {record[:80]}")
    left = _MOST_CODE
    sources: dict[str, str] = {}
    for name, record in records.items():
        if record.endswith(".py") and record.startswith("code/"):
            code = read(name, left)
            left -= len(code)
            sources[record] = code.decode("latin-1")
        elif record.endswith((".pkl", ".debug_pkl")) and not record.startswith("extra/"):
            _check_pickle(record, read(name, _MOST_PICKLED))
    found = [match for text in sources.values() for match in _DEFINED.findall(text)]
    defined = frozenset(function or short for function, short in found)
    for record, text in sources.items():
        for why in _calls(text, defined):
            raise Harmful(f"is TorchScript whose {record} {why}")
    return [name for name, record in records.items() if record.startswith("extra/")]


def _check_pickle(record: str, data: bytes) -> None:
    """Raise Harmful unless the pickle names only what torch.jit.save writes, and ends where its record does."""
    end = 0
    try:
        for name, argument, at in opcodes.read(data, 0, len(data)):
            end = at
            if name in _OPCODES:
                raise Harmful(f"is TorchScript whose {record} has the opcode {name}, which torch.jit does not write")
            if name == "GLOBAL":
                named = ".".join(argument.decode("utf-8", "backslashreplace").split("\n")[:2])
                if not _GLOBALS.fullmatch(named) or (".torch.classes." in named and not _CLASSES.fullmatch(named)):
                    raise Harmful(f"is TorchScript whose {record} names {named}, which torch.jit.save does not write")
    except (opcodes.Malformed, opcodes.Misframed, opcodes.Cut):
        raise Harmful(f"is TorchScript whose {record} is malformed") from None
    if end != len(data):
        raise Harmful(f"is TorchScript whose {record} has bytes behind its end")


def _calls(text: str, defined: frozenset[str]) -> Iterator[str]:
    """Why code is not known to be harmless, in words that follow its name."""
    chain: list[str] = []  # the names of a.b.c; the first is "" if they follow an expression
    before = previous = ""  # the tokens in front of the chain and of this one
    for token, kind in _tokens(text):
        if kind == "odd":
            yield f"has {token[:10]!r}, which torch does not write in code"
            return
        if kind == "text" and token[1:-1] in REFUSED:
            yield f"names the operation {token[1:-1]}"
        if kind == "name" and previous == ".":
            chain.append(token)
        elif token == ".":
            chain = chain or [""]
        else:
            if chain and (why := _unknown(chain, before, defined, called=token == "(")):
                yield why
            elif not chain and token == "(" and previous[-1:] in (")", "]", "}", '"', "'"):
                yield "calls what an expression returns"
            before, chain = (previous, [token]) if kind == "name" else ("", [])
        previous = token


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Each token with its kind: name, text, sign, number, or "odd" for what is none; line ends outside of brackets."""
    depth, previous = 0, ""
    for match in _TOKEN.finditer(text):
        string, name, sign, odd = match.groups()
        token = match[0]
        if token[0] in " \t\n#":
            if "\n" in token and depth == 0:
                yield "\n", "sign"
        elif odd or (string and (previous[-1:] in ("'", '"') or previous[:1].isalpha())):
            # Two texts in a row may be one of three quotes; a name in front of one, its prefix.
            yield token, "odd"
        else:
            depth += 1 if token in "([{" else -1 if token in ")]}" else 0
            yield token, "text" if string else "name" if name else "sign" if sign else "number"
        previous = token
    yield "\n", "sign"


def _unknown(chain: list[str], before: str, defined: frozenset[str], *, called: bool) -> str:
    """Why names with dots between them are not known to be harmless; "" if they are."""
    first, last, named = chain[0], chain[-1], ".".join(chain).lstrip(".")
    if last in REFUSED and (len(chain) > 1 or before in ("def", "class")):
        return f"calls {named}, which can read or write files or the network"
    if before in ("def", "class"):
        return ""
    if first == "torch":
        known = len(chain) == 2 and last in operations()
    elif first == "ops" and len(chain) == 3:
        known = last in {"aten": operations(), "prim": operations(), "torchvision": _VISION}.get(chain[1], ())
        known = known or chain[1] in _NAMESPACES
    elif first == "ops":
        known = False
    elif first == "__torch__":
        known = bool(_CLASSES.match(named)) if ".torch.classes" in named else not called or last in defined
    elif len(chain) == 1:
        known = not called or last in _CALLABLE or last in _KEYWORDS or last in defined
    else:
        known = not called or last in operations() or last in defined
    return "" if known else f"calls {named}, which is not known to be harmless"
