"""A config: one archive to build, with the values filled in that do not depend on the checkpoint.

Its file is a TorchServe `model-config.yaml`: front-end keys at the top, `pt2:` and `handler:` as in pytorch/serve's
Hugging Face example, and the sections `hardware:`, `archive:` and `verify:`. `mar_pipeline.config.settings` has every
key.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .. import ROOT
from ..errors import InputError
from ..model.address import ModelSource
from ..model.address import find as find_model
from ..model.lock import TaskLookup
from ..tasks import MODES, TASKS, Task
from ..tasks import find as find_task
from . import messages, rules
from .frontend import Frontend
from .reader import Checked, ConfigReader, Overrides
from .settings import ArchiveSettings, HandlerSettings, HardwareSettings, VerifySettings

__all__ = [
    "ArchiveSettings",
    "BuildConfig",
    "HandlerSettings",
    "ModelSource",
    "Overrides",
    "VerifySettings",
    "dump",
    "legal_name",
    "load",
    "load_all",
    "packaged",
    "packed",
    "packed_handler",
    "task_of",
]

_LONGEST_NAME = 200


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """One archive to build.

    path         the config's file
    revision     the Hub repository's branch, tag or commit
    frontend     TorchServe's keys for the packed model-config.yaml
    pt2          the section `pt2:` for it, or None
    is_packaged  whether the file is one that ships with the package
    notes        a line for each setting that has no effect
    """

    path: Path | None
    task: Task
    model: ModelSource
    revision: str | None
    handler: HandlerSettings
    hardware: HardwareSettings
    frontend: dict[str, Any]
    pt2: dict[str, Any] | None
    archive: ArchiveSettings
    verify: VerifySettings
    is_packaged: bool = False
    notes: tuple[str, ...] = ()

    @property
    def lock_command(self) -> str:
        """How to lock the model, for advice. A packaged config is not locked: other users of it have other models."""
        if self.path is None or self.is_packaged:
            return "mar lock CONFIG, with a config file of your own"
        return f"mar lock {shlex.quote(str(self.path))}"


def load(path: Path, overrides: Overrides | None = None) -> BuildConfig:
    """The config in the file `path`. Raises InputError with a line for each of its problems."""
    return load_all([path], overrides)[0]


def load_all(paths: Iterable[Path], overrides: Overrides | None = None) -> list[BuildConfig]:
    """The configs in the files `paths`. Raises InputError with a line for each problem of each file, and for files
    whose archives have the same name."""
    configs: list[BuildConfig] = []
    problems: list[str] = []
    paths = list(paths)
    if overrides is not None and overrides.name is not None and len(paths) > 1:
        raise InputError(
            f"--name {overrides.name} names one archive, but {len(paths)} configs are given.",
            fix="Build them one by one, or set archive.name in each config.",
        )
    for path in map(Path, paths):
        reader = ConfigReader(path, overrides or Overrides())
        checked = reader.read()
        problems += reader.lines()
        if checked is not None:
            configs.append(_settled(path, checked))
    problems += _clashes(configs)
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))
    return configs


def task_of(model: str, revision: str | None, lookup: TaskLookup) -> str:
    """The name of the task of the model `model` (as written after --model). Raises InputError if it is unknown."""
    try:
        return lookup(find_model(model, [Path()]), revision, None).name
    except ValueError as error:
        end = "" if str(error).endswith("?") else "."
        raise InputError(
            f"--model: {error}{end}",
            fix="Give a Hub id, a folder, an address (s3://..., models:/...), or starter:NAME.",
        ) from None


def packaged(task: Task | str) -> Path:
    """The file of the config that ships for a task. Raises InputError if there is no task of that name."""
    name = task if isinstance(task, str) else task.name
    row = find_task(name)
    if row is None:
        hint = messages.meant(name, [*TASKS, *MODES])
        raise InputError(f"No such task: {name}{hint}", fix=f"The tasks are {', '.join(TASKS)}.")
    return ROOT / "configs" / f"{row.name}.yaml"


def _settled(path: Path, checked: Checked) -> BuildConfig:
    task, model = checked.task, checked.model
    full = rules.settled(checked.file, task)
    archive = full.archive
    if not archive.name:
        archive = archive.model_copy(update={"name": legal_name(model.short_name)})
    return BuildConfig(
        path=path,
        task=task,
        model=model,
        revision=full.handler.revision or model.revision,
        handler=full.handler,
        hardware=_beside(full.hardware, path.parent),
        frontend=full.model_dump(include=set(Frontend.model_fields), exclude_none=True, by_alias=True),
        pt2=full.pt2.model_dump(exclude_none=True) if full.pt2 else None,
        archive=archive,
        verify=full.verify,
        is_packaged=path.resolve() == packaged(task).resolve(),
        notes=tuple(rules.without_effect(checked.file, task)),
    )


def _beside(hardware: HardwareSettings, folder: Path) -> HardwareSettings:
    """The settings with a relative `python` resolved against the config's folder, if it exists there. Otherwise it is
    relative to the working directory."""
    if hardware.python is None or not (folder / hardware.python).exists():
        return hardware
    return hardware.model_copy(update={"python": str(folder / hardware.python)})


def _clashes(configs: list[BuildConfig]) -> Iterable[str]:
    """A line for each config whose archive would overwrite the archive of one before it."""
    owners: dict[str, BuildConfig] = {}
    for config in configs:
        # Ignoring case: on some file systems A.mar and a.mar are the same file.
        owner = owners.setdefault(config.archive.name.casefold(), config)
        if owner is config:
            continue
        if owner.path == config.path:
            yield f"{config.path} is given twice"
        else:
            yield (
                f"{owner.path} and {config.path} both make the archive {config.archive.name}; "
                "set archive.name in one of them"
            )


def legal_name(name: str) -> str:
    """`name` without the characters that torch-model-archiver refuses; "model" if nothing is left."""
    clean = re.sub(r"[^A-Za-z0-9_\-.]+", "-", name)
    return re.sub(r"^[^A-Za-z0-9]+", "", clean)[:_LONGEST_NAME].rstrip("-.") or "model"


def packed_handler(config: BuildConfig, *, max_length: int) -> dict[str, Any]:
    """The `handler:` section of the packed model-config.yaml, for inputs of `max_length` tokens: the settings that the
    handler reads for this task, in a fixed order."""
    handler = config.handler
    section: dict[str, Any] = {
        "mode": config.task.mode,
        "save_mode": handler.save_mode,
        "hardware": handler.hardware,
        "max_length": max_length,
        # Not a folder's path: the archive must not depend on where the model lies.
        "model_name": config.archive.name if config.model.kind == "folder" else config.model.repo or config.model.name,
        "dtype": handler.dtype,
    }
    if handler.trust_remote_code and handler.save_mode == "pretrained":
        section["trust_remote_code"] = True
    if handler.attn_implementation is not None:
        section["attn_implementation"] = handler.attn_implementation
    if handler.pack_weights is not None:
        section["pack_weights"] = handler.pack_weights
    if handler.BetterTransformer is not None:
        section["BetterTransformer"] = handler.BetterTransformer
    section["model_parallel"] = handler.model_parallel
    section["captum_explanation"] = handler.captum_explanation
    for name, default in config.task.settings.items():
        if default is not None:
            value = getattr(handler, name)
            default = default(max_length) if callable(default) else default
            section[name] = default if value is None else value
    if handler.generation is not None:
        section["generation"] = handler.generation.model_dump(exclude_none=True)
    return section


def packed(config: BuildConfig, handler: dict[str, Any]) -> dict[str, Any]:
    """The packed model-config.yaml, as plain data in a fixed order."""
    data = dict(config.frontend)
    if config.pt2 is not None:
        data["pt2"] = config.pt2
    data["handler"] = handler
    return data


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Never write aliases: they would depend on object identity."""
        return True


def dump(data: dict[str, Any]) -> str:
    """`data` as YAML text that TorchServe's parser and Python's read alike, with keys in order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)
