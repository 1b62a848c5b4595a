"""Detects pickles by their bytes: loading one runs any code that it names.

A pickle has no signature. So a file is followed opcode by opcode from its first byte, as `pickle.load` and torch.load
would (`opcodes`): in any protocol, whatever its name and whatever stands in front of PROTO.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import opcodes

WINDOW = 1 << 20
"""The first bytes of a file that are followed: names and classes of tensors come before their values."""

SUFFIXES = (".pkl", ".pickle", ".joblib")
_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46"  # the magic number of torch.serialization, as protocol 2
_IN_A_ROW = 8  # torch.save before 1.6 wrote four pickles

# Modules and functions that weights do not need, and that an attack would use. Only the words of an error depend on
# them: every pickle is one. The knowledge is that of picklescan's and fickling's lists, and of published bypasses.
# fmt: off
_HARMFUL_MODULES = frozenset((
    "os", "posix", "nt", "ntpath", "posixpath", "subprocess", "_posixsubprocess", "_winapi", "sys", "runpy", "socket",
    "_socket", "ssl", "shutil", "pty", "ctypes", "_ctypes", "importlib", "pkgutil", "imp", "zipimport", "webbrowser",
    "code", "codeop", "pdb", "bdb", "trace", "timeit", "profile", "cProfile", "doctest", "pydoc", "idlelib", "lib2to3",
    "asyncio", "multiprocessing", "concurrent", "threading", "_thread", "signal", "urllib", "urllib2", "http",
    "httplib", "ftplib", "smtplib", "telnetlib", "xmlrpc", "requests", "aiohttp", "httpx", "pickle", "_pickle",
    "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "types", "functools", "operator", "_operator",
    "inspect", "gc", "io", "_io", "pathlib", "tempfile", "glob", "fileinput", "linecache", "logging", "venv",
    "ensurepip", "pip", "distutils", "setuptools", "commands", "platform", "getpass", "sqlite3", "uuid", "test",
    "antigravity", "site", "atexit", "cffi", "numexpr",
))
_HARMFUL_PARTS = (
    "numpy.f2py", "numpy.testing", "numpy.distutils", "torch.serialization.load", "torch.load", "torch.hub",
    "torch.jit.load", "torch.utils", "torch._dynamo", "torch._inductor", "torch.fx", "torch.distributed",
    "torch.multiprocessing", "torch.package", "torch.storage._load_from_bytes", "torch.jit.unsupported_tensor_ops",
    "pandas.io", "pandas.read_pickle", "tensorflow",
)
_HARMFUL_BUILTINS = frozenset((
    "eval", "exec", "execfile", "compile", "open", "file", "apply", "getattr", "setattr", "delattr", "vars", "map",
    "filter", "globals", "locals", "breakpoint", "input", "__import__", "__build_class__", "reload",
))
# fmt: on

# A name that `import` can find. A text that begins with a c has others.
_IMPORTED = re.compile(r"[\w.-]+")


class Undecided(Exception):
    """Whether a file is a pickle depends on more bytes of it than were given."""


@dataclass(frozen=True)
class Pickled:
    """The kind of file, and the functions and classes that loading it imports, as far as they were followed."""

    kind: str
    names: tuple[str, ...] = ()

    @property
    def harmful(self) -> tuple[str, ...]:
        """The names that a model does not need and an attack would use."""
        return tuple(name for name in self.names if _harmful(name))


def _harmful(name: str) -> bool:
    # Either part of a name may have dots: `os` and `path.join`, or `os.path` and `join`.
    first, _, rest = name.partition(".")
    if first in ("builtins", "__builtin__"):
        return rest.partition(".")[0] in _HARMFUL_BUILTINS
    return first in _HARMFUL_MODULES or name.startswith(_HARMFUL_PARTS)


def look(start: bytes, size: int | None, *, other: bool = False) -> Pickled | None:
    """The pickle in a file of `size` bytes (None: unknown) that begins with `start`; None if reading it as one fails
    before it imports anything.

    A file that is of another kind already (`other`), such as text, may begin like a pickle by chance. It is one only if
    reading it calls something that can be imported. Raises Undecided if that depends on bytes after `start`.
    """
    names: dict[str, bool] = {}
    at, found, called = 0, False, False
    for _ in range(_IN_A_ROW):
        trace = opcodes.follow(start, at, size)
        names |= trace.names
        called |= trace.called or (trace.stopped and bool(trace.names))
        found |= trace.stopped or bool(trace.names) or (trace.cut and start[:1] == b"\x80")
        at = trace.end
        if not trace.stopped:
            break
    if other:
        names = {name: written for name, written in names.items() if not written or _IMPORTED.fullmatch(name)}
        if trace.cut and not (called and names):
            raise Undecided
        found = called and bool(names)
    if not found:
        return None
    kind = "a file of torch.save (before 1.6)" if start.startswith(_TORCH) else "a pickle"
    return Pickled(kind, tuple(names))
