"""What TorchServe will take for the entry point of a handler's file, told from its source without running it.

As ts/model_loader.py has it: the function named after `:` in the manifest, or one named `handle`; else the one class
that the module defines. Classes that are imported do not count, since they are another module's.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

# Calls whose result is a class of the module that they stand in.
_FACTORIES = frozenset(("namedtuple", "NamedTuple", "TypedDict", "make_dataclass", "type", "Enum", "IntEnum"))


class Module:
    """A module's names. Raises SyntaxError if it is none."""

    def __init__(self, source: str) -> None:
        self.names: set[str] = set()
        self.classes: dict[str, ast.ClassDef | None] = {}
        """By name; None for one that a call makes."""
        self.imports_all = False
        try:
            tree = ast.parse(source)
        except (ValueError, RecursionError, MemoryError) as error:
            raise SyntaxError(str(error) or "nested too deep") from None
        for statement, instead in _executed(tree.body):
            # Of two branches one runs: what both define is there once, and may be the other one's import.
            if not (instead and isinstance(statement, ast.ClassDef) and statement.name in self.names):
                self._add(statement)

    def entry(self, function: str | None) -> list[str]:
        """What is wrong with the module as a handler, a line each; nothing if TorchServe finds one entry point."""
        wanted = function or "handle"
        if wanted in self.names or (self.imports_all and not self.classes):
            return []
        names = sorted(self.classes)
        if len(names) > 1:
            return [
                f"defines {len(names)} classes ({', '.join(names[:4])}), and TorchServe takes a handler with just one: "
                "the worker dies as it loads"
            ]
        if not names:
            return [f"defines neither a class nor a function {wanted}, so TorchServe finds nothing to call"]
        found = []
        if function:
            found.append(f"has no function {function}, which the manifest names: TorchServe takes {names[0]} instead")
        made = self.classes[names[0]]
        if made is not None and not made.bases:
            methods = {part.name for part in made.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}
            missing = [name for name in ("initialize", "handle") if name not in methods]
            if missing:
                found.append(f"defines the class {names[0]} without the method {missing[0]}, which TorchServe calls")
        return found

    def _add(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.ClassDef):
            self.names.add(statement.name)
            self.classes[statement.name] = statement
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            self._bind(statement.name)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                if alias.name == "*":
                    self.imports_all = True
                else:
                    self._bind(alias.asname or alias.name.partition(".")[0])
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            self._assign(statement)
        elif isinstance(statement, ast.Delete):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    self.names.discard(target.id)
                    self.classes.pop(target.id, None)

    def _assign(self, statement: ast.Assign | ast.AnnAssign) -> None:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        if statement.value is None:
            return
        for target in targets:
            for name in (part.id for part in ast.walk(target) if isinstance(part, ast.Name)):
                self._bind(name)
                self._alias(name, statement.value)

    def _bind(self, name: str) -> None:
        self.names.add(name)
        self.classes.pop(name, None)

    def _alias(self, name: str, value: ast.expr) -> None:
        """A second name of a class is a second class to TorchServe."""
        if isinstance(value, ast.Name) and value.id in self.classes:
            self.classes[name] = self.classes[value.id]
        elif isinstance(value, ast.Call):
            called = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
            if called in _FACTORIES and len(value.args) > 1:
                self.classes[name] = None


def _executed(body: list[ast.stmt], instead: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """The statements that run when a module is imported, those in conditions and the like among them, and whether each
    may run in place of some before it."""
    for statement in body:
        yield statement, instead
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if not (isinstance(statement, ast.If) and _never(statement.test)):
            yield from _executed(getattr(statement, "body", []), instead)
        for handler in getattr(statement, "handlers", []):
            yield from _executed(handler.body, True)
        yield from _executed(getattr(statement, "orelse", []), instead or isinstance(statement, ast.If))
        yield from _executed(getattr(statement, "finalbody", []), instead)


def _never(test: ast.expr) -> bool:
    """Whether a condition does not hold in a module that is imported to run."""
    text = ast.unparse(test)
    return text in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'", "False")
