"""A YAML reader with line numbers: plain values, the line of every key, and every problem with its line.

Stricter than YAML: one document, plain values only (no tags, no dates, no base-60 numbers), no repeated key, no
`.nan` or `.inf`. Keys stay as they are written, so `yes:` is the key "yes". Aliases and merge keys work, within
limits that a hand-written file does not reach.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

Where = tuple[str | int, ...]

# A config has some fifty values; these limits stop alias bombs.
MAX_BYTES = 1 << 20
MAX_VALUES = 20_000
MAX_DEPTH = 32
MAX_DIGITS = 18
_DEEP = f"nested more than {MAX_DEPTH} deep"

_TAG = "tag:yaml.org,2002:"
_PLAIN = re.compile(r"tag:yaml\.org,2002:(str|int|float|bool|null|map|seq|merge)\Z")
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

# How plain scalars are resolved: as in YAML 1.1, which TorchServe reads, without its surprises: `1:30` (90), `010` (8)
# and dates stay text, and `1e-4` is a number, which it is not in YAML 1.1.
_RESOLVERS = (
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
)


class Problem(NamedTuple):
    """A problem with the value at `where` (its keys from the top), on `line` (from 1; 0: unknown)."""

    where: Where
    line: int
    message: str


@dataclass(frozen=True)
class Document:
    """A parsed text: its `data`, the `lines` of keys and list items (from 1), its scalars as written, and those of them
    that are in quotes."""

    data: Any = None
    lines: dict[Where, int] = field(default_factory=dict)
    texts: dict[Where, str] = field(default_factory=dict)
    quoted: dict[Where, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def loader(base: Any) -> Any:
    """A PyYAML loader class over `base` that only composes nodes, with the resolvers above."""
    cls: Any = type("ConfigLoader", (base,), {"yaml_implicit_resolvers": {}})
    for name, pattern, first in _RESOLVERS:
        letters = ["" if letter == "\0" else letter for letter in first]
        cls.add_implicit_resolver(_TAG + name, re.compile(rf"(?:{pattern})\Z"), letters)
    return cls


# The C parser is some ten times as fast; PyYAML has it only if it was built with libyaml.
_LOADER = loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def parse(text: str) -> Document:
    """The document in `text`. Never raises: errors are in `problems`, and `data` is what could be read."""
    try:
        if (line := _too_deep(text)) is not None:
            return Document(problems=[Problem((), line, _DEEP)])
        node = yaml.compose(text, Loader=_LOADER)
    except UnicodeEncodeError as error:  # half a surrogate pair, from the command line
        return Document(problems=[_not_allowed(text, text[error.start])])
    except yaml.YAMLError as error:
        return Document(problems=[_syntax(text, error)])
    if node is None:
        return Document()
    walk = _Walk()
    try:
        data = walk.value(node, (), 0)
    except _TooMuch as error:
        return Document(lines=walk.lines, problems=[*walk.problems, error.problem])
    return Document(data, walk.lines, walk.texts, walk.quoted, walk.problems)


def _too_deep(text: str) -> int | None:
    """The line where nesting exceeds MAX_DEPTH, if it does. PyYAML composes by recursion, before 6.0.4 in C without any
    limit: a few hundred thousand brackets would end the process."""
    if sum(text.count(letter) for letter in "[{-?:") < MAX_DEPTH:
        return None
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                return event.start_mark.line + 1 if event.start_mark else 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None


class _TooMuch(Exception):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem


class _Walk:
    """Converts nodes to values, and collects lines and problems."""

    def __init__(self) -> None:
        self.lines: dict[Where, int] = {}
        self.texts: dict[Where, str] = {}
        self.quoted: dict[Where, str] = {}
        self.problems: list[Problem] = []
        self._count = 0

    def value(self, node: yaml.Node, where: Where, depth: int) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(where, line)
        self._count += 1
        if depth > MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} deep, or an alias of itself"
            raise _TooMuch(Problem(where[:4], line, message))
        if self._count > MAX_VALUES:
            raise _TooMuch(Problem(where[:4], line, f"more than {MAX_VALUES:,} values, aliases written out"))
        if not _PLAIN.match(node.tag):
            tag = node.tag.replace(_TAG, "!!")
            self.problems.append(Problem(where, line, f"the tag {tag[:60]} is not allowed: write a plain value"))
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*where, index), depth + 1) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, where, line)

    def _mapping(self, node: yaml.MappingNode, where: Where, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            line, at = key.start_mark.line + 1, (*where, key.value)
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(Problem(where, line, "a key must be one word, not a list or a mapping"))
            elif key.tag == _TAG + "merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            elif key.value in mapping:
                message = f"given twice (first on line {self.lines[at]}): remove one"
                self.problems.append(Problem(at, line, message))
            else:
                self.lines[at] = line
                mapping[key.value] = self.value(value, at, depth + 1)
        for source in merged:
            self._merge(source, mapping, where, depth)
        return mapping

    def _merge(self, source: yaml.Node, mapping: dict[str, Any], where: Where, depth: int) -> None:
        """Add the mapping of a merge key (`<<`): only keys that are not present yet, as YAML defines it."""
        if not isinstance(source, yaml.MappingNode):
            line = source.start_mark.line + 1
            self.problems.append(Problem((*where, "<<"), line, "a merge key (<<) takes a mapping, or a list of them"))
            return
        inner = _Walk()
        inner._count = self._count
        values = inner.value(source, where, depth + 1)
        self._count = inner._count
        self.problems += inner.problems
        for key, value in (values or {}).items():
            if key in mapping:
                continue
            path = (*where, key)
            size = len(path)
            mapping[key] = value
            self.lines.update({at: n for at, n in inner.lines.items() if at[:size] == path})
            self.texts.update({at: t for at, t in inner.texts.items() if at[:size] == path})
            self.quoted.update({at: t for at, t in inner.quoted.items() if at[:size] == path})

    def _scalar(self, node: yaml.ScalarNode, where: Where, line: int) -> Any:
        text: str = node.value
        self.texts[where] = text
        if node.style in ("'", '"'):
            self.quoted[where] = text
        kind = node.tag.removeprefix(_TAG)
        try:
            value = _plain(kind, text)
        except (ValueError, KeyError):
            self.problems.append(Problem(where, line, f"{text[:40]} is not {_KINDS.get(kind, kind)}{_QUOTES}"))
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self.problems.append(Problem(where, line, f"{text[:40]} is not a finite number{_QUOTES}"))
            return None
        return value


_QUOTES = "; if it is a text, put it in quotes"
_KINDS = {"int": f"a whole number of at most {MAX_DIGITS} digits", "float": "a number", "bool": "true or false"}


def _plain(kind: str, text: str) -> Any:
    """The value of a scalar. Raises ValueError or KeyError if the text does not match its tag (`!!int`)."""
    if kind == "null":
        return None
    if kind == "bool":
        return _WORDS[text.lower()]
    if kind == "int":
        if len(text) > MAX_DIGITS:
            raise ValueError
        return int(text.replace("_", ""), 16 if text.startswith("0x") else 10)
    if kind == "float":
        return float(re.sub(r"\.(inf|nan)$", r"\1", text, flags=re.IGNORECASE))
    return text


def _not_allowed(text: str, letter: str) -> Problem:
    # By its first place: libyaml counts bytes, and PyYAML characters.
    line = text.count("\n", 0, max(text.find(letter), 0)) + 1
    return Problem((), line, f"the character U+{ord(letter):04X} is not allowed in YAML: remove it")


def _syntax(text: str, error: yaml.YAMLError) -> Problem:
    """A parser's error as a problem whose message says what to change."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return _not_allowed(text, chr(getattr(error, "character", 0)))
    rows = text.split("\n")
    row = rows[mark.line] if mark.line < len(rows) else ""
    problem = str(getattr(error, "problem", "") or "")
    if "nesting depth" in problem:  # libyaml's own limit, in a run of brackets
        return Problem((), mark.line + 1, _DEEP)
    if "\t" in row[: len(row) - len(row.lstrip())]:
        advice = "indented with a tab: use spaces"
    elif "mapping values are not allowed" in problem:
        advice = "a second ': ' on this line, or wrong indentation: put quotes around text that contains ': '"
    elif "undefined alias" in problem:
        advice = "an alias (*name) without an anchor (&name): put quotes around text that starts with *"
    elif "single document" in problem or "another document" in problem:
        advice = "a second document (---) starts here: a config is one document"
    elif any(part in problem for part in ("block end", "expected ':'", "expected key", "block mapping")):
        advice = "not a 'key: value' line, or its indentation differs from its neighbours'"
    elif "cannot start any token" in problem:
        advice = f"a value cannot start with {row[mark.column : mark.column + 1]}: put quotes around it"
    elif any(part in problem for part in ("end of stream", "unexpected end", "',' or", "node content")):
        advice = "a bracket or a quote is opened and not closed"
    else:
        advice = problem or "cannot be read"
    return Problem((), min(mark.line + 1, len(text.splitlines())), f"not valid YAML: {advice}")
