"""The library's API: build configs through one cache into one output folder, as `mar build` does.

    from pathlib import Path

    from mar_pipeline.builder import session
    from mar_pipeline.cache.store import Store
    from mar_pipeline.config import build_config

    configs = build_config.load_all([Path("tickets.yaml")])
    options = session.Options(out=Path("build"))
    for archive in session.run(configs, Store(Path("cache")), options, note=print):
        print(archive["path"], archive["sha256"])

Nothing is printed: notes for a person go to `note`, and the progress to `events`. What can be expected to fail raises
an `errors.MarError`: InputError for the config or the model, StageError for what a stage could not do, MismatchError
for an archive that does not answer like its model.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypedDict

from ..archive.model_store import FOLDER
from ..cache.store import Store
from ..config.build_config import BuildConfig
from ..host import toolchain
from ..host.chips import CHIPS
from ..model.address import is_commit
from ..model.lock import Lock
from . import runner
from .build import NAMES, Build, Checkpoint, Options, StageName
from .failures import explained
from .runner import Done, Events, Outcome
from .stages import locking
from .stages.archive import sha256, source
from .stages.verify import REPORT
from .status import Status

__all__ = [
    "ArchiveReport",
    "Events",
    "Notify",
    "Options",
    "PlanReport",
    "StageName",
    "StageReport",
    "lock",
    "plan",
    "run",
]

Notify = Callable[[str], None]
"""Shows a note to the user: a line of text, without its end."""


class StageReport(TypedDict):
    """How a stage went, or would go."""

    stage: StageName
    cached: bool
    """Whether its result is there already."""
    seconds: float
    key: str | None
    """The cache key; None in a plan if it depends on a stage that has to run first."""
    reasons: list[str]
    """Why it has to run."""


class _Known(TypedDict, total=False):
    path: str
    """Where the archive lies in the output folder; after model_store."""
    sha256: str
    """The archive's digest; of a folder, that of its listing. After archive, as is `size`."""
    size: int
    """Bytes."""
    verified: bool
    """Whether it was seen to answer like the original model; after verify."""
    unverified: str
    """Why it was not, if that was accepted."""


class ArchiveReport(_Known):
    """An archive that was built, as `mar build --json` has it. A build that ends early leaves out what it does not
    know."""

    name: str
    source: dict[str, Any]
    """Where the model came from, as provenance.json has it: `kind`, and what that kind has."""
    locked: bool
    """Whether the model is what the config's lock says."""
    stages: list[StageReport]


class PlanReport(TypedDict):
    """What a build would do, as `mar plan --json` has it."""

    name: str
    verified: bool
    stages: list[StageReport]


class _Silent:
    """Events that nobody hears."""

    def started(self, build: Build, status: Status) -> None: ...

    def progress(self, what: str, done: int, total: int | None) -> None: ...

    def finished(self, build: Build, done: Done) -> None: ...


def _ignored(_note: str) -> None:
    pass


def run(
    configs: list[BuildConfig],
    store: Store,
    options: Options,
    *,
    until: StageName | None = None,
    note: Notify = _ignored,
    events: AbstractContextManager[Events] | None = None,
) -> list[ArchiveReport]:
    """Build every config into the output folder; a report of each, in their order.

    With `until`, each build ends after the stage of that name: `until="archive"` packs and does not verify, and writes
    nothing into the output folder; the archive's file is then `store.blob(report["sha256"])`. `events` is entered while
    it builds. Notes on the models and the answers come after it is left.

    Raises InputError, StageError or MismatchError; what was finished stays in the cache. ValueError for a name that is
    not a stage's.
    """
    _check_names(options, until)
    reports: list[ArchiveReport] = []
    notes: list[str] = []
    with store.in_use(), events or nullcontext(_Silent()) as heard:
        for build in _builds(configs, store, options, note):
            outcome = runner.run(build, heard, until)
            reports.append(_report(outcome))
            notes += _notes(outcome)
    for text in notes:
        note(text)
    return reports


def plan(configs: list[BuildConfig], store: Store, options: Options, *, note: Notify = _ignored) -> list[PlanReport]:
    """What `run` would do, without doing, fetching or writing anything.

    Raises InputError, StageError; ValueError for a name in `options.forced` that is not a stage's.
    """
    _check_names(options, None)
    reports: list[PlanReport] = []
    # Nothing may be removed while it is looked at.
    with store.in_use():
        for build in _builds(configs, store, options, note):
            stages = [_stage(status) for status in runner.plan(build)]
            verified = next(stage["cached"] for stage in stages if stage["stage"] == "verify")
            reports.append({"name": build.config.archive.name, "verified": verified, "stages": stages})
    return reports


def lock(config: BuildConfig, store: Store, *, offline: bool = False) -> Lock:
    """The lock of what the config's model is now; nothing is written beside the config.

    Raises InputError, StageError.
    """
    build = Build(config=config, store=store, options=Options(offline=offline))
    with store.in_use(), explained(build, "lock"):
        return locking.locked(build)


def _check_names(options: Options, until: StageName | None) -> None:
    for name in (*options.forced, *([until] if until else [])):
        if name not in NAMES:
            raise ValueError(f"{name!r} is not a stage: they are {', '.join(NAMES)}")


def _builds(configs: list[BuildConfig], store: Store, options: Options, note: Notify) -> list[Build]:
    """A build of each config, not begun. Each setting without effect is noted once. Raises InputError if a compiler is
    missing, or a lock is, and the configs are to be `locked`."""
    for config in configs:
        if config.handler.hardware in CHIPS:
            # Before anything is fetched.
            toolchain.tools(CHIPS[config.handler.hardware], config.hardware.python)
    for text in dict.fromkeys(text for config in configs for text in config.notes):
        note(text)
    return [
        Build(
            config=config,
            store=store,
            options=options,
            lock=locking.fitting(config, strict=options.locked, note=note),
        )
        for config in configs
    ]


def _report(outcome: Outcome) -> ArchiveReport:
    state, build, results = outcome.state, outcome.state.build, outcome.state.results
    inputs = state.inputs("report", results)
    known: _Known = {}
    if outcome.stages[-1].stage == "model_store":
        known["path"] = str(build.out / FOLDER / build.filename)
    if "archive" in results:
        known |= {"sha256": sha256(inputs), "size": inputs.tree("archive").size}
    if "verify" in results:
        verdict = inputs.read_json("verify", REPORT)
        known["verified"] = verdict["verified"]
        if "unverified" in verdict:
            known["unverified"] = verdict["unverified"]
    return {
        "name": build.config.archive.name,
        **known,
        "source": source(inputs),
        "locked": build.lock is not None and not state.drift,
        "stages": [_stage(done) for done in outcome.stages],
    }


def _stage(passed: Done | Status) -> StageReport:
    return {
        "stage": passed.stage,
        "cached": passed.cached,
        "seconds": round(passed.seconds, 3) if isinstance(passed, Done) else 0.0,
        "key": passed.key,
        "reasons": [str(reason) for reason in passed.reasons],
    }


def _notes(outcome: Outcome) -> list[str]:
    """What a person should know of a build: a model that is not locked, and what was noticed in its answers."""
    state, build = outcome.state, outcome.state.build
    assert state.checkpoint is not None
    notes = _unpinned(build, state.checkpoint)
    if "verify" in state.results:
        verdict = state.inputs("notes", state.results).read_json("verify", REPORT)
        notes += [f"{build.config.archive.name}: {text}" for text in verdict.get("notes", ())]
    return notes


def _unpinned(build: Build, checkpoint: Checkpoint) -> list[str]:
    """A note if the model is not locked, so that the next build may be of another."""
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
    return [f"{config.model.name} is not locked: this is {what}. To keep it: {config.lock_command}"]
