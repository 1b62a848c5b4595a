"""Archive: by torch-model-archiver's rules and with its manifest, but written by `archive.writer`.

The archiver copies everything twice, through a folder that all its runs share, and no two of its archives have the same
bytes. So only its functions for names and the manifest are used.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ... import __version__
from ...archive import writer
from ...archive.formats import FORMATS
from ...archive.reader import MANIFEST, PROVENANCE
from ...archive.writer import Member
from ...cache.digests import changed
from ...cache.store import Damaged
from ...errors import InputError
from ...files.tree import Entry, Tick, Tree
from ...handlers.protocol.tokenizer_settings import SETTINGS
from ...portable.graph import FACTS, NO_CHIP
from .. import resolve
from ..build import Inputs, Job
from ..stage import Kept, Stage, versions
from .locking import license_of

TOOLS = ("torch-model-archiver", "torch", "transformers", "tokenizers")


def sha256(inputs: Inputs) -> str:
    """Of the finished archive: of its file, or of a folder's listing (as `reader.digest` has it)."""
    tree, name = inputs.tree("archive"), inputs.build.filename
    if tree.get(name):
        return tree.entries[0].sha256
    return Tree.of(replace(entry, path=entry.path.removeprefix(f"{name}/")) for entry in tree).digest


def params(inputs: Inputs) -> dict[str, Any]:
    archive = inputs.config.archive
    return {
        "name": archive.name,
        "version": archive.version,
        "format": archive.format,
        "source": source(inputs),
        "settings": inputs.result("serialize").params,
        **_verify(inputs),
        "mar-pipeline": __version__,
        "python": _python(),
        "epoch": writer.epoch(os.environ.get("SOURCE_DATE_EPOCH")),
    }


def source(inputs: Inputs) -> dict[str, Any]:
    """Where the model came from: a Hub repository at a commit, an address, a starter, or a folder; and its licence, its
    base model, and the code of its own that runs, where it has them. A folder's path is left out, since it would
    make other archives of the same files."""
    model, *base = [
        _with_license(part.source.provenance(), license_of(inputs.build, inputs.checkpoint, number))
        for number, part in enumerate(inputs.checkpoint.parts)
    ]
    code = [entry.path for entry in inputs.tree("download") if entry.path.endswith(".py")]
    return {**model, **({"base": base[0]} if base else {}), **({"remote_code": code} if code else {})}


def _with_license(source: dict[str, Any], licence: str | None) -> dict[str, Any]:
    return {**source, "license": licence} if licence else source


def provenance(inputs: Inputs) -> dict[str, Any]:
    """What the archive was made of, with the SHA-256 of every file but provenance.json and the manifest."""
    files = {entry.path: entry.sha256 for name in ("serialize", "handler") for entry in inputs.tree(name)}
    # Whether the graph could be run where it was compiled.
    untried = inputs.read_json("serialize", FACTS).get("tried", True) is False
    tokenizer = inputs.read_json("serialize", SETTINGS)
    return {
        "format": 1,
        **({"unverified": NO_CHIP} if untried else {}),
        "source": source(inputs),
        "checkpoint": {entry.path: entry.sha256 for entry in inputs.tree("download")},
        "files": dict(sorted(files.items())),
        "tokenizer": {name: tokenizer[name] for name in ("follows", "class", "rewritten")},
        "versions": {"mar-pipeline": __version__, "python": _python(), **versions(_tools(inputs))},
        "settings": {
            "serialize": inputs.result("serialize").params,
            "handler": inputs.result("handler").params["settings"],
            "archive": {
                "name": inputs.config.archive.name,
                "version": inputs.config.archive.version,
                "format": inputs.config.archive.format,
            },
            **_verify(inputs),
        },
    }


def _verify(inputs: Inputs) -> dict[str, Any]:
    """The tolerance of the archive's scores, where it is not the default one: `mar smoke` allows it too."""
    tolerance = inputs.config.verify.tolerance
    return {} if tolerance is None else {"verify": {"tolerance": tolerance}}


def provenance_text(inputs: Inputs) -> str:
    """The text of provenance.json."""
    return json.dumps(provenance(inputs), indent=2) + "\n"


def _tools(inputs: Inputs) -> tuple[str, ...]:
    return (*TOOLS, *resolve.merging(inputs))


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def run(job: Job) -> Kept:
    inputs, build, seconds = job.inputs, job.build, job.params["epoch"]
    places = inputs.places
    members = [
        *(Member(entry, build.store.use(entry, places)) for entry in _entries(inputs)),
        Member.of(PROVENANCE, provenance_text(inputs).encode()),
    ]
    members.sort(key=lambda member: member.entry.path)
    members.append(Member.of(MANIFEST, _manifest(job, seconds).encode()))
    total, done = sum(member.entry.size for member in members), 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        job.progress("packing", done, total)

    target, form = job.folder / build.filename, FORMATS[build.config.archive.format]
    try:
        if form.kind == "no-archive":
            return Kept(_folder(members, target, job, tick))
        write = {
            "zip": partial(writer.write_zip, deflated=form.deflated),
            "tgz": partial(writer.write_tar, root=build.config.archive.name),
        }[form.kind]
        entry = write(target, members, seconds, tick)
    except writer.Wrong as wrong:
        if build.store.blob(wrong.entry.sha256).exists() and not build.store.intact(wrong.entry):
            raise Damaged(wrong.entry.path) from None
        raise changed(wrong.entry) from None
    job.digested[target.name] = entry
    return Kept()


def _folder(members: list[Member], target: Path, job: Job, tick: Tick) -> list[Entry]:
    """Write an archive that is a folder; the entries of files that are in the store already. Raises writer.Wrong,
    Damaged."""
    kept = []
    for member in members:
        entry = replace(member.entry, path=f"{target.name}/{member.entry.path}")
        if member.source == job.build.store.blob(entry.sha256):
            if not job.build.store.intact(entry):
                raise Damaged(member.entry.path)
            kept.append(entry)
        else:
            writer.write(job.folder / entry.path, member, tick)
            job.digested[entry.path] = entry
    return kept


def _entries(inputs: Inputs) -> list[Entry]:
    """The files that go into the archive. Raises InputError for a name that an archive cannot hold."""
    from model_archiver.model_packaging_utils import ModelExportUtils

    entries = [entry for name in ("serialize", "handler") for entry in inputs.tree(name)]
    ours = [PROVENANCE, MANIFEST]
    left_out = {"__MACOSX", "__pycache__"}  # as in the archiver's `archive_dir`
    writer.refuse(
        [*ours, *(entry.path for entry in entries)], lambda folder: ModelExportUtils.directory_filter(folder, left_out)
    )
    return entries


def _manifest(job: Job, seconds: int) -> str:
    """The archiver's manifest of `seconds` since the epoch. Raises InputError for a name that it does not take."""
    from model_archiver.model_archiver_config import ModelArchiverConfig
    from model_archiver.model_archiver_error import ModelArchiverError
    from model_archiver.model_packaging_utils import ModelExportUtils

    archive, weights = job.config.archive, job.inputs.tree("serialize")
    try:
        ModelExportUtils.validate_inputs(archive.name, str(job.folder))
        text = ModelExportUtils.generate_manifest_json(
            ModelArchiverConfig(
                model_name=archive.name,
                version=archive.version,
                handler=f"{job.config.task.name}.py",
                serialized_file=next((name for name in ("model.pt", "model.safetensors") if weights.get(name)), None),
                config_file="model-config.yaml",
                archive_format=archive.format,
            )
        )
    except ModelArchiverError as error:
        raise InputError(
            f"torch-model-archiver refuses the name {archive.name}: {str(error).splitlines()[0]}",
            fix="Set archive.name to another one.",
        ) from None
    created = time.strftime("%d/%m/%Y %H:%M:%S", time.gmtime(seconds))
    return json.dumps({**json.loads(text), "createdOn": created}, indent=2)


STAGE = Stage(
    name="archive",
    version=2,
    inputs=("download", "serialize", "handler"),
    params=params,
    tools=_tools,
    run=run,
)
