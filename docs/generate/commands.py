"""docs/reference/commands.md: every command with its arguments and options, from the parser itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import markdown, project

_SHARED = "Exit codes:"
"""The start of the part of the epilog that all commands share; docs/reference/exit-codes.md has more on it."""


def page() -> str:
    """The commands, a section each."""
    return "\n\n".join(_section(name, command) for name, command in walk())


def walk() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words: ("mar cache gc", command)."""
    yield from _walk("mar", project.commands())


def options(command: Any) -> set[str]:
    """Every spelling of every option of a command."""
    params = [one for one in command.params if one.param_type_name == "option"]
    return {"--help"} | {name for one in params for name in (*one.opts, *one.secondary_opts)}


def _walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        if getattr(inner, "commands", None):
            yield from _walk(f"{words} {name}", inner)
        elif not inner.hidden:
            yield f"{words} {name}", inner


def _section(name: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    rows = [_row(one) for one in command.params if one.param_type_name == "option" and not one.hidden]
    usage = [name, *(["[OPTIONS]"] if rows else []), *map(_argument, arguments)]
    parts = [f"## {name}", _text(command.help), f"```text\n{' '.join(usage)}\n```"]
    helped = [[f"`{_metavar(one)}`", one.help or ""] for one in arguments]
    if helped:
        parts.append(markdown.table(["argument", "meaning"], helped))
    if rows:
        parts.append(markdown.table(["option", "default", "meaning"], rows))
    if epilog := _own_epilog(command.epilog):
        parts.append(epilog)
    return "\n\n".join(parts)


def _text(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


def _own_epilog(epilog: str | None) -> str:
    """A command's epilog without the part that all commands share: its examples."""
    parts = [part for part in (epilog or "").replace("\b", "").split("\n\n") if not part.strip().startswith(_SHARED)]
    text = "\n\n".join(part.strip("\n") for part in parts).strip()
    return f"```text\n{text}\n```" if text else ""


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name).upper()


def _argument(argument: Any) -> str:
    word = _metavar(argument) + ("..." if argument.nargs == -1 else "")
    return word if argument.required else f"[{word}]"


def _row(option: Any) -> list[str]:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if not option.is_flag:
        names += f" `{option.metavar or option.name.upper().replace('AS_', '')}`"
    default = (
        "" if option.is_flag or option.default in (None, ()) or callable(option.default) else f"`{option.default}`"
    )
    if option.envvar:
        default = f"{default}, " if default else ""
        default += f"`{option.envvar}`"
    meaning = option.help or ""
    if getattr(option, "multiple", False):
        meaning += " May be given several times."
    return [names, default, meaning]
