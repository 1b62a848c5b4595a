"""What the commands that build share: the builds of configs, and how a build is summed up."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cli import console
from ..text import seconds, size, table

if TYPE_CHECKING:
    from ..cache.store import Store
    from ..config.build_config import BuildConfig
    from .stage import Build


def builds(
    configs: list[BuildConfig],
    store: Store,
    out: Path,
    offline: bool,
    locked: bool = False,
    allow_unverified: bool = False,
) -> list[Build]:
    """A build of each config, not begun. What their settings have no effect on is said once. Raises InputError if they
    are to be `locked`, and one has no lock that fits."""
    from ..host import toolchain
    from ..model.lock import fitting
    from .stage import Build

    for one in configs:
        if one.handler.hardware in toolchain.CHIPS:
            # What is missing is told before anything is fetched.
            toolchain.tools(toolchain.CHIPS[one.handler.hardware], one.hardware.python)
    for text in dict.fromkeys(text for config in configs for text in config.notes):
        console.note(text)
    return [
        Build(
            config=one,
            store=store,
            out=out,
            offline=offline,
            lock=fitting(one, strict=locked, say=console.note),
            locked=locked,
            allow_unverified=allow_unverified,
        )
        for one in configs
    ]


def run(
    configs: list[BuildConfig],
    store: Store,
    out: Path,
    offline: bool,
    forced: Collection[str] = (),
    locked: bool = False,
    allow_unverified: bool = False,
) -> list[dict[str, Any]]:
    """Build every config into one output folder; each archive as `--json` tells it. Raises MarError."""
    from . import runner as planning
    from .stages.archive import filename, sha256, source
    from .stages.model_store import FOLDER
    from .stages.verify import REPORT

    archives: list[dict[str, Any]] = []
    notes: list[str] = []
    with store.in_use(), console.events() as events:
        for one in builds(configs, store, out, offline, locked, allow_unverified):
            done = planning.run(one, forced, events)
            report = one.read_json("verify", REPORT)
            archives.append(
                {
                    "name": one.config.archive.name,
                    "path": str(out / FOLDER / filename(one)),
                    "sha256": sha256(one),
                    "size": one.trees["archive"].size,
                    "verified": report["verified"],
                    **({"unverified": report["unverified"]} if "unverified" in report else {}),
                    "source": source(one),
                    "locked": one.lock is not None and not one.drifted,
                    "stages": [stage.as_dict() for stage in done],
                }
            )
            notes += _moving(one)
            notes += [f"{one.config.archive.name}: {text}" for text in report.get("notes", ())]
    for text in notes:
        console.note(text)
    return archives


def _moving(build: Build) -> list[str]:
    """That a model may be another one tomorrow, if it may."""
    from ..sources.hub.repository import is_commit
    from .stages.download import is_local

    config = build.config
    if build.lock is not None or is_local(build):
        return []
    told = build.sources[0].provenance()
    commit, version = told.get("commit"), told.get("version")
    what = f"commit {commit[:12]}" if commit else f"version {version}" if version else "what was there"
    what += (
        ", and its files' digests are kept nowhere"
        if is_commit(config.revision)
        else ", and the next build may be of another"
    )
    how = f"mar lock {config.path}" if config.path and not config.is_packaged else "a config of its own, and `mar lock`"
    return [f"{config.model.name} is not locked: this is {what}. To keep it: {how}"]


def summary(archive: dict[str, Any]) -> None:
    """Print what a person wants to know of an archive that was built."""
    print(f"\n{archive['path']}")
    how = "answers like the original model" if archive["verified"] else f"unverified: {archive['unverified']}"
    print(f"  {size(archive['size'])}, {how}")
    print(f"  SHA-256 {archive['sha256']}")
    if archive["source"]["kind"] != "starter":
        print(f"  from {_origin(archive['source'])}{' (locked)' if archive['locked'] else ''}")
    print(f"  licence {archive['source'].get('license') or 'not stated'}")
    rows = [
        [f"  {stage['stage']}", "cached" if stage["cached"] else "done", seconds(stage["seconds"])]
        for stage in archive["stages"]
    ]
    print(table(["  stage", "", "time"], rows))


def _origin(source: dict[str, Any]) -> str:
    """Where a model came from, in a few words."""
    base = f", over {_origin(source['base'])}" if "base" in source else ""
    if source["kind"] == "hub":
        return f"{source['repo']} at {source['commit'][:12]}{base}"
    if source["kind"] == "mlflow":
        return f"{source['model']}, version {source['version']}{base}"
    return f"{source.get('url', 'a folder')}{base}"
