"""Archive: torch-model-archiver lays out the archive, in a process and a temporary folder of its own."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .. import __version__
from ..child import run as run_program
from ..child import tail
from ..errors import StageError
from ..stage import Build, Job, Stage, versions
from ..tree import Entry

# As in torch-model-archiver's `archiving_options`.
SUFFIXES = {"zip-store": ".mar", "default": ".mar", "tgz": ".tar.gz", "no-archive": ""}
TOOLS = ("torch-model-archiver", "torch", "transformers", "tokenizers")


def filename(build: Build) -> str:
    """What the archive is called in a model store."""
    return build.config.archive.name + SUFFIXES[build.config.archive.format]


def params(build: Build) -> dict[str, Any]:
    archive = build.config.archive
    return {
        "name": archive.name,
        "version": archive.version,
        "format": archive.format,
        "source": source(build),
        "settings": build.params["serialize"],
        "mar-pipeline": __version__,
        "python": _python(),
    }


def source(build: Build) -> dict[str, Any]:
    """Where the model came from: a Hub repository at a commit, or the name of a folder (its files say the rest)."""
    model = build.config.model
    if model.repo is not None:
        return {"kind": "hub", "repo": model.repo, "commit": build.params["download"]["commit"]}
    # The folder's path is the builder's own business, so only its last name is told.
    return {"kind": model.kind, "name": model.name if model.path is None else model.path.name}


def provenance(build: Build) -> dict[str, Any]:
    """What the archive was made of. Every file's SHA-256 but its own and the manifest's, which name what is here."""
    files = {entry.path: entry.sha256 for name in ("serialize", "handler") for entry in build.trees[name]}
    return {
        "format": 1,
        "source": source(build),
        "checkpoint": {entry.path: entry.sha256 for entry in build.trees["download"]},
        "files": dict(sorted(files.items())),
        "versions": {"mar-pipeline": __version__, "python": _python(), **versions(TOOLS)},
        "settings": {
            "serialize": build.params["serialize"],
            "handler": build.params["handler"]["settings"],
            "archive": {
                "name": build.config.archive.name,
                "version": build.config.archive.version,
                "format": build.config.archive.format,
            },
        },
    }


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def run(job: Job) -> Iterable[Entry]:
    build, archive = job.build, job.build.config.archive
    # The archiver splits its list of extra files at commas and expands wildcards: so it gets relative paths of our own
    # making, and a folder whose contents land at the archive's root.
    extra = job.scratch / "extra"
    for stage in ("serialize", "handler"):
        build.store.lay_out(build.trees[stage], build.origin, extra)
    (extra / "provenance.json").write_text(json.dumps(provenance(build), indent=2) + "\n", encoding="utf-8")
    temporary = job.scratch / "archiver"
    temporary.mkdir()
    # Named files are moved out of the folder, or the archiver would copy them twice.
    named = job.scratch / "named"
    named.mkdir()
    task = build.config.task.name
    weights = next((name for name in ("model.pt", "model.safetensors") if (extra / name).exists()), None)
    for name in (f"{task}.py", "model-config.yaml", weights):
        if name:
            (extra / name).replace(named / name)
    command = [
        *(sys.executable, "-m", "model_archiver.model_packaging"),
        *("--model-name", archive.name, "--version", archive.version),
        *("--handler", f"../named/{task}.py", "--config-file", "../named/model-config.yaml"),
        *("--extra-files", "../extra", "--export-path", "../out", "--archive-format", archive.format),
        *(("--serialized-file", f"../named/{weights}") if weights else ()),
    ]
    (job.scratch / "out").mkdir()
    log = job.scratch / "archiver.log"
    with _watched(job):
        code = run_program(command, cwd=temporary, log=log, env={"TMPDIR": str(temporary)})
    made = job.scratch / "out" / filename(build)
    if code != 0 or not made.exists():
        raise StageError(f"torch-model-archiver failed: {(tail(log, 1) or f'exit code {code}')}", fix=_space(job))
    made.replace(job.folder / made.name)
    return []


def _space(job: Job) -> str:
    free = shutil.disk_usage(job.scratch).free
    return f"{free / 1e6:,.0f} MB are free at the cache ({job.build.store.root}); see `mar doctor`."


@contextmanager
def _watched(job: Job) -> Iterator[None]:
    """Tell how much of the archive is written while the archiver runs."""
    done = threading.Event()
    total = sum(job.build.trees[name].size for name in ("serialize", "handler"))
    made = job.scratch / "out" / filename(job.build)

    def watch() -> None:
        while not done.wait(0.1):
            if made.is_file():
                job.progress("packing", min(made.stat().st_size, total), total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


STAGE = Stage(
    name="archive",
    version=1,
    inputs=("download", "serialize", "handler"),
    params=params,
    tools=lambda _build: TOOLS,
    run=run,
)
