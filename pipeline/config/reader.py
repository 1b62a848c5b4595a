"""Reads one config file, applies the command line's settings, and checks the result: every problem, with its line."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import InputError
from ..files import pointers
from ..files.opening import opened
from ..files.yaml import MAX_BYTES, Document, Where, parse
from ..model import address, lock
from ..model.address import ModelSource
from ..model.lock import TaskLookup
from ..tasks import MODES, TASKS, Task
from ..tasks import find as find_task
from ..text import near, shown
from . import messages, nested, rules
from .problems import Problems
from .settings import ConfigFile
from .values import COMPILED

# Keys whose unquoted values are kept as text: the version 1.10 is not a number, and the label `no` is not a boolean.
_AS_WRITTEN = re.compile(r"archive\.(name|version)|handler\.(base_)?revision|handler\.labels(\[\d+\]|\.\d+)")
# Field of Overrides -> the key of `handler:` that it sets.
_OPTIONS = {"task": "mode", "model": "model_name", "revision": "revision", "save_mode": "save_mode"}


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Settings of the command line, which replace those of the file. Each item of `settings` is KEY=VALUE, with a
    dotted key and a YAML value."""

    task: str | None = None
    model: str | None = None
    revision: str | None = None
    save_mode: str | None = None
    name: str | None = None
    settings: tuple[str, ...] = ()
    lookup: TaskLookup | None = None
    """Called if neither the file nor an option names the task. Raises InputError if the model's files do not show it
    either."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A valid config file, with its task and model."""

    file: ConfigFile
    task: Task
    model: ModelSource


class ConfigReader:
    """Reads one file. If it has problems, `read()` returns None, and `lines()` lists them."""

    def __init__(self, path: Path, overrides: Overrides) -> None:
        self.path, self.overrides = path, overrides
        self._problems = Problems(path)
        self._document = Document()

    def lines(self) -> list[str]:
        """A line for each problem: those of the command line, then those of the file, from its top."""
        return self._problems.shown()

    def read(self) -> Checked | None:
        """The checked file, or None if it has problems. Raises nothing."""
        text = self._text()
        if text is None:
            return None
        self._document = parse(text)
        self._problems.lines = self._document.lines
        for problem in self._document.problems:
            self._problems.at_line(problem.line, problem.where, problem.message)
        data = self._document.data
        if not isinstance(data, dict):
            if not self._problems:
                what = "is empty" if data is None else f"holds {shown(data)}, not 'key: value' lines"
                example = "a config has a section `handler:` with the line `model_name: starter:seq_classification`"
                self._problems.at_line(1, (), f"{what}; {example}, or another model")
            return None
        if "handler" not in data and {"architectures", "model_type"} & data.keys():
            build = f"mar build --model {shlex.quote(str(self.path.parent))}"
            self._problems.at_line(1, (), f"is a checkpoint's config.json, not a config; for its model: {build}")
            return None
        self._override(data)
        _drop_empty(data, ())
        self._as_written(data)
        return self._check(data)

    def _text(self) -> str | None:
        path = self.path
        try:
            if path.is_dir():
                self._problems.add_general(
                    f"{path} is a folder; a config is a YAML file. "
                    f"For the model in it: mar build --model {shlex.quote(str(path))}"
                )
                return None
            with opened(path) as stream:
                raw = stream.read(MAX_BYTES + 1)
        except FileNotFoundError:
            self._problems.add_general(f"{path}: no such file{_near_files(path)}")
            return None
        except (OSError, ValueError) as error:
            self._problems.add_general(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}")
            return None
        if pointers.is_pointer(raw):
            self._problems.add_general(f"{path}: is a Git LFS pointer, not the file itself: run `git lfs pull`")
            return None
        if raw.startswith((b"PK\x03\x04", b"\x1f\x8b")):
            self._problems.at_line(1, (), "is an archive, not a config; see `mar run` and `mar inspect`")
            return None
        if len(raw) > MAX_BYTES:
            self._problems.add_general(f"{path}: is larger than {MAX_BYTES >> 20} MiB, so it is not a config")
            return None
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            self._problems.at_line(line, (), f"byte 0x{raw[error.start]:02x} is not UTF-8: save it as UTF-8 text")
            return None

    def _override(self, data: dict[str, Any]) -> None:
        """Put the command line's settings into `data`, and note the option that each came from."""
        handler = data.get("handler")
        if isinstance(handler, dict):
            if self.overrides.task is not None:
                handler.pop("task", None)
            if self.overrides.model is not None:
                # The file's revision belongs to the file's model.
                handler.pop("revision", None)
        for option, key in _OPTIONS.items():
            value = getattr(self.overrides, option)
            if value is not None:
                self._put(data, ("handler", key), value, f"--{option.replace('_', '-')} {value}")
        if self.overrides.name is not None:
            self._put(data, ("archive", "name"), self.overrides.name, f"--name {self.overrides.name}")
        for setting in self.overrides.settings:
            shown = f"--set {setting if setting.isprintable() else repr(setting)}"
            key, equals, text = setting.partition("=")
            where: Where = tuple(part.strip() for part in key.split("."))
            if not equals or not all(where):
                self._problems.add_general(f"{shown}: expected KEY=VALUE, such as handler.max_length=256")
                continue
            value = parse(text)
            for problem in value.problems:
                self._problems.add_general(f"{shown}: {problem.message}")
            if not value.problems and self._put(data, where, value.data, shown):
                self._document.texts.update({(*where, *inner): word for inner, word in value.texts.items()})
                self._document.quoted.update({(*where, *inner): word for inner, word in value.quoted.items()})
        self._one_batch(data)

    def _one_batch(self, data: dict[str, Any]) -> None:
        """A compiled graph's batch has two names; the one on the command line replaces the file's."""
        handler, names = data.get("handler"), {("handler", "batch_size"), ("batchSize",)}
        if not isinstance(handler, dict) or handler.get("hardware") not in COMPILED:
            return
        given = names & self._problems.options.keys()
        if given == {("handler", "batch_size")}:
            data.pop("batchSize", None)
        elif given == {("batchSize",)}:
            handler.pop("batch_size", None)

    def _put(self, data: dict[str, Any], where: Where, value: Any, shown: str) -> bool:
        """Set a key, given by the option `shown`. Whether it could be set: a parent may be a plain value."""
        section = data
        for depth, part in enumerate(where[:-1], 1):
            inner = section.get(str(part))
            if inner is None:
                inner = section[str(part)] = {}
            if not isinstance(inner, dict):
                self._problems.add_general(f"{shown}: {messages.dotted(where[:depth])} is not a section")
                return False
            section = inner
        section[str(where[-1])] = value
        for known in (self._problems.options, self._document.lines, self._document.texts, self._document.quoted):
            nested.forget_below(known, where)
        self._problems.options[where] = shown
        return True

    def _as_written(self, data: dict[str, Any]) -> None:
        """Replace the values of `_AS_WRITTEN` keys by their text in the file."""
        for where, text in self._document.texts.items():
            if not _AS_WRITTEN.fullmatch(messages.dotted(where)):
                continue
            section: Any = data
            for part in where[:-1]:
                section = section.get(part) if isinstance(section, dict) else None
            key: Any = where[-1]
            exists = isinstance(section, list) or (isinstance(section, dict) and key in section)
            # A bool is an int too. Lists and mappings stay as they are: the types reject them.
            if exists and isinstance(section[key], (int, float)):
                section[key] = text

    def _check(self, data: dict[str, Any]) -> Checked | None:
        readable = isinstance(data.get("handler", {}), dict)
        given = nested.keys(data)
        config = self._validated(data)
        if config is None:
            return None
        model = self._model(config)
        no_task = readable and not given & {"handler.mode", "handler.task"}
        if no_task and self.overrides.lookup and "handler.model_name" in given:
            no_task = False
            # A file with other problems is reported without asking a server.
            if model and (model.kind in ("starter", "folder") or not self._problems):
                config = self._with_task(config, model, self.overrides.lookup)
        for key, message in rules.conflicts(config, nested.keys(data).__contains__):
            self._problems.add(tuple(int(part) if part.isdecimal() else part for part in key.split(".")), message)
        if no_task:
            self._problems.add(("handler", "mode"), f"is missing: one of {', '.join(MODES)}")
        if readable and "handler.model_name" not in given:
            self._problems.add(("handler", "model_name"), "is missing: a Hub id, a folder, or starter:TASK")
        task = rules.task_of(config.handler)
        if self._problems or model is None or task is None:
            return None
        return Checked(file=config, task=task, model=model)

    def _validated(self, data: dict[str, Any]) -> ConfigFile | None:
        """The validated file; None if it is not a mapping. Keys with a problem are noted and removed from `data`, so
        that the others are checked too."""
        while True:
            try:
                return ConfigFile.model_validate(data)
            except ValidationError as error:
                wrong = messages.of(error, self._document.quoted)
            for where, message in wrong:
                self._problems.add(where, message)
            bad = {nested.deepest(data, where) for where, _ in wrong}
            if () in bad:
                return None
            for where in bad:
                nested.remove(data, where)

    def _with_task(self, config: ConfigFile, model: ModelSource, lookup: TaskLookup) -> ConfigFile:
        """The config with its model's task; if the model does not show it, that is a problem."""
        revision, locked = config.handler.revision, None
        try:
            existing = lock.read(self.path)
            if existing is not None and not existing.stale(model.name, config.handler.choosing_files):
                revision = (existing.commit(0, model.repo) if model.repo else None) or revision
                locked = existing.part(0, lock.path_of(self.path))
            mode = lookup(model, revision, locked).mode
        except InputError as error:
            message = f"is missing, and the model's files do not show the task: {error.what} {error.fix}"
            self._problems.add(("handler", "mode"), message.rstrip())
            return config
        return config.model_copy(update={"handler": config.handler.model_copy(update={"mode": mode})})

    def _model(self, config: ConfigFile) -> ModelSource | None:
        """The model that the config names. Adds a problem if there is none of that name, or revisions contradict."""
        name, where = config.handler.model_name, ("handler", "model_name")
        if name is None:
            return None
        folders = [Path()] if where in self._problems.options else [self.path.parent, Path()]
        try:
            source = address.find(name, list(dict.fromkeys(folders)))
        except ValueError as error:
            self._problems.add(where, str(error))
            return None
        base = config.handler.base_model
        if base is not None and address.without_secrets(base) != base:
            self._problems.add(("handler", "base_model"), "holds credentials, which must come from the environment")
        revision = config.handler.revision
        if source.kind != "hub" and revision is not None:
            kind = address.KINDS[source.kind].words
            self._problems.add(("handler", "revision"), f"only a Hub id has revisions, and {name} is {kind}")
        if source.revision is not None and revision not in (None, source.revision):
            self._problems.add(("handler", "revision"), f"differs from the revision in {name}; leave one of them out")
        return source


def _drop_empty(data: dict[str, Any], section: tuple[str, ...]) -> None:
    """Remove known keys without a value (`revision:`): they count as not given."""
    for name, inner in messages.keys(section).items():
        if name in data and data[name] is None:
            del data[name]
        elif inner is not None and isinstance(data.get(name), dict):
            _drop_empty(data[name], (*section, name))


def _near_files(path: Path) -> str:
    """A hint at an existing config or task with a name like that of a missing file; "" if there is none."""
    task = find_task(path.stem)
    if task is not None:
        config = Path("configs", f"{task.name}.yaml")
        return f"; did you mean --task {task.name}{f', or {config}' if config.is_file() else ''}?"
    for folder in dict.fromkeys((path.parent, path.parent / "configs", Path("configs"))):
        names = {file.stem: file for file in sorted(folder.glob("*.y*ml"))} if folder.is_dir() else {}
        if name := near(path.stem, names):
            return f"; did you mean {names[name]}?"
    name = near(path.stem, [*TASKS, *MODES])
    return f"; did you mean --task {name}?" if name else ""
