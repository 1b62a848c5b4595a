"""What messages advise exists: settings and their values, commands and their options, extras, targets of make,
environment variables, pages, stages. Every text of the source that has a blank in it counts as a message, but for
docstrings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from docs.generate import commands
from mar_pipeline.builder.build import NAMES
from mar_pipeline.config import messages
from mar_pipeline.config.frontend import Frontend
from mar_pipeline.config.settings import ConfigFile, HandlerSettings
from mar_pipeline.files.yaml import parse
from tests.support import ROOT

FILES = [
    file
    for folder in ("pipeline", "handlers")
    for file in sorted((ROOT / folder).rglob("*.py"))
    # The texts of the corpus are tokenized, and those of the training are learnt.
    if not {"training", "corpus.py"} & set(file.parts) and file.relative_to(ROOT).parts[:2] != ("pipeline", "handlers")
]
UNKNOWN = "\N{OBJECT REPLACEMENT CHARACTER}"
"""In place of a value that is known only when the message is made."""

COMMANDS = {name.removeprefix("mar "): commands.options(command) for name, command in commands.walk()}
OTHERS = {
    "pip install": {"--extra-index-url", "--force-reinstall"},
    "git log": {"--format"},
    "tar ": {"--format"},
    "hardware.compiler_args": {"--auto-cast"},
    "let a container have the device": {"--device"},
    "give the container the argument": {"--disable-token-auth"},
}
"""Options of other programs, by words that a message with one of them has."""
NO_VARIABLES = ("MY_SETTING", "WORKER_STOPPED", "CUBLAS_STATUS_NOT_INITIALIZED")
"""An example, and what TorchServe and CUDA print."""
PAGE = (ROOT / "docs/reference/environment-variables.md").read_text(encoding="utf-8")


def texts(source: str) -> Iterator[str]:
    """The texts of a module, f-strings with UNKNOWN in place of values, and parts that are joined as one."""
    tree = ast.parse(source)
    skipped = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in node.body
        if isinstance(statement, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else UNKNOWN for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value


def all_messages() -> list[tuple[str, str]]:
    """Each message of the source, with its file."""
    return [
        (file.relative_to(ROOT).as_posix(), text)
        for file in FILES
        for text in texts(file.read_text(encoding="utf-8"))
        # Regular expressions are no messages.
        if " " in text.strip() and "(?P<" not in text
    ]


MESSAGES = all_messages()


def archiver() -> set[str]:
    """The options of torch-model-archiver, from its own parser."""
    from model_archiver.arg_parser import ArgParser

    found: set[str] = set()

    def parsed(parser: Any, *_: Any) -> None:
        found.update(option for action in parser._actions for option in action.option_strings)
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch, suppress(SystemExit):
        patch.setattr("argparse.ArgumentParser.parse_args", parsed)
        ArgParser.export_model_args_parser()
    return found


OTHERS["torch-model-archiver"] = archiver()


def wrong_settings(text: str) -> Iterator[str]:
    """Settings that do not exist, or do not take the value that follows them; handler's settings without `handler.`."""
    for match in re.finditer(
        r"(?<![\w./-])((?:handler|hardware|archive|verify|pt2)(?:\.[A-Za-z_]+)+)(?!\w*[\w(/*])", text
    ):
        *section, key = match[1].split(".")
        if key not in messages.keys(tuple(section)) and key not in ("py", "pt", "mar"):
            yield match[1]
            continue
        value = re.match(r": (true|false|[a-z]+\d*)\b(?! (?!or |and |for |to |instead)[a-z])", text[match.end() :])
        if value and not takes([*section, key], value[1]):
            yield f"{match[1]}: {value[1]}"
    own = "|".join(name for name in HandlerSettings.model_fields if "_" in name or name == "hardware")
    for match in re.finditer(
        rf"(?<![\w.])({own}): (?:true|false|cpu|gpu|neuronx?|pretrained|torchscript|eager)\b", text
    ):
        yield f"{match[0]} without handler."


def takes(key: list[str], value: str) -> bool:
    data: Any = parse(value).data
    for part in reversed(key):
        data = {part: data}
    try:
        ConfigFile.model_validate(data)
    except ValueError:
        return False
    return True


def wrong_commands(text: str) -> Iterator[str]:
    """Commands that do not exist, and options that the command, or none, has."""
    rest = text
    for match in re.finditer(r"(?<![\w./`-])`?mar ([a-z]+)(?: ([a-z]+)\b)?([^`;)]*)", text):
        name = match[1] if match[1] in COMMANDS else f"{match[1]} {match[2]}"
        if name not in COMMANDS:
            yield f"mar {match[1]}"
            continue
        # Up to the end of the sentence.
        line = re.split(r"\. |, |: | or ", match[0])[0]
        yield from (f"mar {name} {flag}" for flag in flags(line) if flag not in COMMANDS[name])
        for stage in re.findall(r"--force (\w+)", line):
            if stage not in NAMES:
                yield f"the stage {stage}"
        rest = rest.replace(line, " ")
    known = set().union(*COMMANDS.values(), *(options for words, options in OTHERS.items() if words in text))
    yield from (flag for flag in flags(rest) if flag not in known)


def flags(text: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)


def wrong_extras(text: str) -> Iterator[str]:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = re.findall(r"^(\w+) = \[", section, flags=re.MULTILINE)
    yield from (name for name in re.findall(r"mar-pipeline\[(\w+)\]", text) if name not in extras)


def wrong_targets(text: str) -> Iterator[str]:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for words in re.findall(r"`make ([a-z -]+)", text):
        yield from (f"make {target}" for target in words.split() if target not in targets)


def wrong_variables(text: str) -> Iterator[str]:
    """Environment variables that docs/reference/environment-variables.md does not have."""
    known = re.findall(r"`([A-Z][A-Z0-9_]*\*?)[`=]", PAGE)
    for name in re.findall(r"(?<![\w.])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", text):
        like = any(one.endswith("*") and name.startswith(one[:-1]) for one in known)
        if not like and name not in known and name not in NO_VARIABLES:
            yield name


def wrong_pages(text: str) -> Iterator[str]:
    for path in re.findall(r"(?<![\w/])(?:docs|configs)/[\w/.-]*\w", text):
        if not (ROOT / path).exists():
            yield path


def wrong_camels(text: str) -> Iterator[str]:
    """Words like `maxWorkers` that are no setting of TorchServe's front end."""
    manifest = {"modelName", "modelVersion", "configFile", "modelFile", "requirementsFile", "serializedFile"}
    known = {*Frontend.model_fields, *manifest, "cuDNN", "rL"}
    yield from (word for word in re.findall(r"(?<![\w./'])[a-z]+[A-Z]\w*\b(?!')", text) if word not in known)


CHECKS = (wrong_settings, wrong_commands, wrong_extras, wrong_targets, wrong_variables, wrong_pages, wrong_camels)


def wrong(text: str) -> list[str]:
    return [name for check in CHECKS for name in check(text)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_what_a_message_advises_exists(file: Path) -> None:
    name = file.relative_to(ROOT).as_posix()
    found = {text: those for place, text in MESSAGES if place == name and (those := wrong(text))}
    assert found == {}


INVENTED = {
    "a setting": ("Set handler.max_lenght to 5.", "handler.max_lenght"),
    "a setting deep in a section": ("Set handler.generation.topp: 1 instead.", "handler.generation.topp"),
    "a value of a setting": ("Build it with handler.save_mode: onnx.", "handler.save_mode: onnx"),
    "a number for a word": ("Build it with handler.dtype: int8, or leave it out.", "handler.dtype: int8"),
    "a setting without its section": ("Build it with save_mode: pretrained.", "save_mode: pretrained without handler."),
    "the section for the setting": ("Or set hardware: gpu.", "hardware: gpu without handler."),
    "an option": ("Use --taks seq_classification.", "--taks"),
    "an option of another command": ("Run `mar serve --task x`.", "mar serve --task"),
    "a command": ("Run `mar package FILE` first.", "mar package"),
    "a command of a command": ("Run `mar cache clean` first.", "mar cache"),
    "a stage": ("Build it again with `mar build --force pack`.", "the stage pack"),
    "an extra": ("Install it: pip install 'mar-pipeline[onnx]'", "onnx"),
    "a target of make": ("Run `make install`.", "make install"),
    "a variable": ("Set MAR_CASH to a folder.", "MAR_CASH"),
    "a variable of the Hub's": ("Set HF_OFFLINE=0.", "HF_OFFLINE"),
    "a page": ("docs/how-to/inferentias.md says how.", "docs/how-to/inferentias.md"),
    "a config": ("Start from configs/sequence.yaml.", "configs/sequence.yaml"),
    "a setting of the server": ("Set maxWorker to 2.", "maxWorker"),
    "an option of the archiver": ("Pack it with torch-model-archiver --config.", "--config"),
}


@pytest.mark.parametrize("kind", INVENTED)
def test_what_is_invented_is_noticed(kind: str) -> None:
    text, name = INVENTED[kind]
    # As it is read from a module, with and without a value in it.
    assert [wrong(one) for one in texts(f'raise InputError("What failed.", fix={text!r})')][1] == [name]
    assert [wrong(one) for one in texts(f'fix = f"{{name}}: {text}"')] == [[name]]


KINDS = ("InputError", "StageError", "MismatchError", "Refused")
OTHERWISE = {
    "dict.fromkeys(problems)": "a line for each problem of a config, each with its advice",
    "fault.findings": "the advice of its first finding",
    "StageError(str(error))": "the emulator's line, which says what TorchServe wants",
    "does not answer like the original": "a table of the differences",
    "its answer above gives the reason": "the handler's answer",
    "does not explain its answer": "the handler's answer",
}
"""Errors whose advice is elsewhere: words of their source -> where it is."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_expected_error_says_what_to_do(file: Path) -> None:
    without = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in KINDS:
            continue
        enough = len(node.args) > 2 or any(isinstance(one, ast.Starred) for one in node.args)
        if not enough and not any(word.arg == "fix" for word in node.keywords):
            without.append(ast.unparse(node))
    assert [text for text in without if not any(words in text for words in OTHERWISE)] == []


def test_the_messages_are_found() -> None:
    places = {place.partition("/")[0] for place, _ in MESSAGES}
    assert places == {"pipeline", "handlers"}
    assert len(MESSAGES) > 1500
    assert len(COMMANDS) == 16
