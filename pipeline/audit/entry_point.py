"""The entry point that TorchServe will find in a handler's file, from its source, without running it.

By ts/model_loader.py it is the function that the manifest names after `:`, or one named `handle`; otherwise the only
class that the module defines. Imported classes do not count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

# Calls that define a class in the calling module.
_FACTORIES = frozenset(("namedtuple", "NamedTuple", "TypedDict", "make_dataclass", "type", "Enum", "IntEnum"))


class Module:
    """The names that a module defines. Raises SyntaxError if the source is not valid Python."""

    def __init__(self, source: str) -> None:
        self.names: set[str] = set()
        self.classes: dict[str, ast.ClassDef | None] = {}
        """Class definitions by name; None for a class that a call creates."""
        self.imports_all = False
        try:
            tree = ast.parse(source)
        except (ValueError, RecursionError, MemoryError) as error:
            raise SyntaxError(str(error) or "nested too deep") from None
        for statement, instead in _executed(tree.body):
            # Only one of two branches runs: a class that both define counts once.
            if not (instead and isinstance(statement, ast.ClassDef) and statement.name in self.names):
                self._add(statement)

    def entry(self, function: str | None) -> list[str]:
        """What is wrong with the module as a handler, a line each; empty if TorchServe finds one entry point."""
        target = function or "handle"
        if target in self.names or (self.imports_all and not self.classes):
            return []
        names = sorted(self.classes)
        if len(names) > 1:
            return [
                f"defines {len(names)} classes ({', '.join(names[:4])}), but TorchServe needs exactly one: the worker "
                "dies while it loads"
            ]
        if not names:
            return [f"defines neither a class nor a function {target}, so TorchServe finds nothing to call"]
        problems = []
        if function:
            problems.append(f"has no function {function}, which the manifest names: TorchServe uses {names[0]} instead")
        definition = self.classes[names[0]]
        if definition is not None and not definition.bases:
            methods = {
                part.name for part in definition.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            missing = [name for name in ("initialize", "handle") if name not in methods]
            if missing:
                problems.append(f"defines the class {names[0]} without the method {missing[0]}, which TorchServe calls")
        return problems

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
        """TorchServe counts an alias of a class as a second class."""
        if isinstance(value, ast.Name) and value.id in self.classes:
            self.classes[name] = self.classes[value.id]
        elif isinstance(value, ast.Call):
            called = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
            if called in _FACTORIES and len(value.args) > 1:
                self.classes[name] = None


def _executed(body: list[ast.stmt], instead: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """The statements that run on import, also those in conditions, loops and try blocks; each with whether it is an
    alternative to statements before it."""
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
    """Whether a condition is false when the module is imported."""
    text = ast.unparse(test)
    return text in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'", "False")
