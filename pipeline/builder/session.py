"""The library's API: several configs, one cache, one output folder.

Nothing is printed: what a person should know goes to `say`, and how it goes to `events`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..archive.model_store import FOLDER
from ..cache.store import Store
from ..config.build_config import BuildConfig
from ..host import toolchain
from ..host.chips import CHIPS
from ..model.address import is_commit
from . import runner
from .build import Build, Checkpoint, Options
from .stages.archive import sha256, source
from .stages.locking import fitting
from .stages.verify import REPORT
from .status import Status

__all__ = ["Options", "Say", "Silent", "plan", "run"]

Say = Callable[[str], None]
"""Gets a note, without an end of line."""


class Silent:
    """Events that nobody wants to know of."""

    def started(self, build: Build, status: Status) -> None: ...

    def progress(self, what: str, done: int, total: int | None) -> None: ...

    def finished(self, build: Build, done: runner.Done) -> None: ...


def _unheard(_note: str) -> None:
    pass


def run(
    configs: list[BuildConfig],
    store: Store,
    options: Options,
    *,
    say: Say = _unheard,
    events: AbstractContextManager[runner.Events] | None = None,
) -> list[dict[str, Any]]:
    """Build every config into one output folder; each archive as `mar build --json` tells it. Raises MarError.

    `events` is entered while it builds; what there is to say after that is said when it is left.
    """
    archives: list[dict[str, Any]] = []
    notes: list[str] = []
    with store.in_use(), events or nullcontext(Silent()) as heard:
        for build in _builds(configs, store, options, say):
            outcome = runner.run(build, heard)
            inputs = outcome.state.inputs("session", outcome.state.results)
            report = inputs.read_json("verify", REPORT)
            archives.append(
                {
                    "name": build.config.archive.name,
                    "path": str(build.out / FOLDER / build.filename),
                    "sha256": sha256(inputs),
                    "size": inputs.tree("archive").size,
                    "verified": report["verified"],
                    **({"unverified": report["unverified"]} if "unverified" in report else {}),
                    "source": source(inputs),
                    "locked": build.lock is not None and not outcome.state.drift,
                    "stages": [stage.as_dict() for stage in outcome.stages],
                }
            )
            notes += _moving(build, inputs.checkpoint)
            notes += [f"{build.config.archive.name}: {text}" for text in report.get("notes", ())]
    for text in notes:
        say(text)
    return archives


def plan(configs: list[BuildConfig], store: Store, options: Options, *, say: Say = _unheard) -> list[dict[str, Any]]:
    """What `run` would do, doing nothing; each archive as `mar plan --json` tells it. Raises MarError."""
    archives: list[dict[str, Any]] = []
    # Nothing may be removed while it is looked at.
    with store.in_use():
        for one in _builds(configs, store, options, say):
            found = runner.plan(one)
            stages = [
                {"stage": s.stage, "cached": s.cached, "seconds": 0.0, "key": s.key, "reasons": list(s.reasons)}
                for s in found
            ]
            verified = next(s.cached for s in found if s.stage == "verify")
            archives.append({"name": one.config.archive.name, "verified": verified, "stages": stages})
    return archives


def _builds(configs: list[BuildConfig], store: Store, options: Options, say: Say) -> list[Build]:
    """A build of each config, not begun. What their settings have no effect on is said once. Raises InputError if they
    are to be `locked`, and one has no lock that fits."""
    for one in configs:
        if one.handler.hardware in CHIPS:
            # What is missing is told before anything is fetched.
            toolchain.tools(CHIPS[one.handler.hardware], one.hardware.python)
    for text in dict.fromkeys(text for config in configs for text in config.notes):
        say(text)
    return [
        Build(
            config=one,
            store=store,
            options=options,
            lock=fitting(one, strict=options.locked, say=say),
        )
        for one in configs
    ]


def _moving(build: Build, checkpoint: Checkpoint) -> list[str]:
    """A note if the model is not locked."""
    config = build.config
    if build.lock is not None or checkpoint.is_local:
        return []
    model = checkpoint.parts[0].source.provenance()
    commit, version = model.get("commit"), model.get("version")
    what = f"commit {commit[:12]}" if commit else f"version {version}" if version else "what was there"
    what += (
        ", and its files' digests are kept nowhere"
        if is_commit(config.revision)
        else ", and the next build may be of another"
    )
    how = f"mar lock {config.path}" if config.path and not config.is_packaged else "a config of its own, and `mar lock`"
    return [f"{config.model.name} is not locked: this is {what}. To keep it: {how}"]
