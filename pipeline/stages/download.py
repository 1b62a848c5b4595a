"""Download: the checkpoint's files and their digests, from the Hub or from a folder. Nothing of it is copied."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import checkpoint, hub
from ..errors import InputError
from ..stage import Build, Job, NotReadYet, Progress, Stage
from ..store import key_of
from ..tree import Entry

_COMMIT = re.compile(r"[0-9a-f]{40}")


def _folder_files(build: Build) -> tuple[Path, list[str]]:
    """The checkpoint folder of the config, and the files in it that are needed. Raises InputError."""
    folder = build.config.model.path
    assert folder is not None
    where = build.config.model.name
    names = checkpoint.needed((file.name for file in folder.iterdir() if file.is_file()), where)
    if checkpoint.INDEX in names:
        parts = checkpoint.shards((folder / checkpoint.INDEX).read_text(encoding="utf-8"), where)
        absent = [name for name in parts if not (folder / name).is_file()]
        if absent:
            raise InputError(
                f"{where} lacks {absent[0]}, which its index of weights names.",
                "A copy of the folder stopped half-way.",
                "Copy the missing shards, or save the model again.",
            )
        names += parts
    for name in names:
        if name.endswith(".safetensors"):
            checkpoint.tensors(folder / name)
    return folder, names


def commit(build: Build) -> str:
    """The commit that the config's revision is now."""
    model = build.config.model
    assert model.repo is not None
    if "commit" not in build.params.get("resolved", {}):
        name = f"hub:{model.repo}@{build.config.revision or 'main'}"
        found = hub.commit_of(
            model.repo,
            build.config.revision,
            no_network=hub.offline(build.offline),
            last_seen=build.store.recall(name),
        )
        build.store.remember(name, found)
        build.params["resolved"] = {"commit": found}
    return str(build.params["resolved"]["commit"])


def params(build: Build) -> dict[str, Any]:
    """A commit, or the digests of a folder's files. Raises NotReadYet for files that changed, InputError."""
    if build.config.model.repo is not None:
        return {"repo": build.config.model.repo, "commit": commit(build)}
    folder, names = _folder_files(build)
    digests = {}
    for name in names:
        known = build.store.known(folder / name)
        if known is None:
            raise NotReadYet(f"{name} is new, or changed since it was last read")
        digests[name] = known.sha256
    return {"files": digests}


def prepare(build: Build, progress: Progress) -> None:
    """Read a folder's files for their digests."""
    folder, names = _folder_files(build)
    total = sum((folder / name).stat().st_size for name in names)
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        progress(f"reading {build.config.model.name}", done, total)

    # Builds that begin together read it once.
    with build.store.lock(key_of({"read": str(folder)})):
        for name in names:
            build.store.read(folder / name, name, tick)


def run(job: Job) -> Iterable[Entry]:
    """The entries of the checkpoint's files, which stay where they are: `build.origin`."""
    build = job.build
    model = build.config.model
    if model.repo is None:
        folder, names = _folder_files(build)
    else:
        folder, names = hub.fetch(
            model.repo,
            commit(build),
            no_network=hub.offline(build.offline),
            progress=lambda done, total: job.progress(f"downloading {model.repo}", done, total),
        )
        for name in names:
            if name.endswith(".safetensors"):
                checkpoint.tensors(folder / name)
    build.origin = str(folder.resolve())
    total = sum((folder / name).stat().st_size for name in names)
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        job.progress("taking digests", done, total)

    return [build.store.read(Path(build.origin) / name, name, tick) for name in names]


STAGE = Stage(
    name="download",
    version=1,
    inputs=(),
    params=params,
    tools=lambda _build: (),
    run=run,
    prepare=prepare,
)
