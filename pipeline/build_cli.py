"""What the commands that build share: options, the builds of configs, and how a build is summed up."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console

if TYPE_CHECKING:
    from .config import BuildConfig
    from .stage import Build
    from .store import Store

Configs = Annotated[list[Path] | None, typer.Argument(help="Config files (YAML).", show_default=False)]
OutOption = Annotated[Path, typer.Option("--out", help="The output folder.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Use no network: what is cached has to do.")]


def builds(configs: list[BuildConfig], store: Store, out: Path, offline: bool) -> list[Build]:
    """A build of each config, not begun. What their settings have no effect on is said once."""
    from .stage import Build

    for text in dict.fromkeys(text for config in configs for text in config.notes):
        console.note(text)
    return [Build(config=config, store=store, out=out, offline=offline) for config in configs]


def run(
    configs: list[BuildConfig], store: Store, out: Path, offline: bool, forced: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Build every config into one output folder; each archive as `--json` tells it. Raises MarError."""
    from . import plan as planning
    from .model_store import FOLDER
    from .stages.archive import filename, sha256
    from .stages.verify import REPORT

    archives: list[dict[str, Any]] = []
    notes: list[str] = []
    with store.in_use(), console.events() as events:
        for one in builds(configs, store, out, offline):
            done = planning.run(one, forced, events)
            archives.append(
                {
                    "name": one.config.archive.name,
                    "path": str(out / FOLDER / filename(one)),
                    "sha256": sha256(one),
                    "size": one.trees["archive"].size,
                    "verified": True,
                    "stages": [stage.as_dict() for stage in done],
                }
            )
            notes += [f"{one.config.archive.name}: {text}" for text in one.read_json("verify", REPORT).get("notes", ())]
    for text in notes:
        console.note(text)
    return archives


def summary(archive: dict[str, Any]) -> None:
    """Print what a person wants to know of an archive that was built."""
    print(f"\n{archive['path']}")
    print(f"  {console.size(archive['size'])}, answers like the original model")
    print(f"  SHA-256 {archive['sha256']}")
    rows = [
        [f"  {stage['stage']}", "cached" if stage["cached"] else "done", console.seconds(stage["seconds"])]
        for stage in archive["stages"]
    ]
    print(console.table(["  stage", "", "time"], rows))
