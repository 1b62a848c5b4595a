"""`mar build` and `mar plan`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...errors import InputError, MarError
from ...text import near, table
from .. import console, progress, report
from ..options import BuildOptions, example, open_store, taking

if TYPE_CHECKING:
    from ...builder import session
    from ...cache.store import Store
    from ...config.build_config import BuildConfig


def _configs(store: Store, options: BuildOptions) -> list[BuildConfig]:
    from ...config import build_config
    from ...sources.task import task_lookup

    lookup, task = task_lookup(store, options.offline), options.task
    if not options.configs and task is None:
        if options.model is None:
            raise InputError(
                "Neither a config, nor --task, nor --model is given.", fix="Try: mar build --task seq_classification"
            )
        task = build_config.task_of(options.model, options.revision, lookup)
    overrides = build_config.Overrides(
        task=task,
        model=options.model,
        revision=options.revision,
        save_mode=options.save_mode,
        name=options.name,
        settings=tuple(options.settings or ()),
        lookup=lookup,
    )
    return build_config.load_all(options.configs or [build_config.packaged(str(task))], overrides)


_SETTING = re.compile(r"\b[Ss]et ((?:handler|hardware|archive|verify)(?:\.\w+)+)(?:: (\w+))?")


@contextmanager
def _advised(options: BuildOptions) -> Iterator[None]:
    """Where there is no config file, advice that names a setting says how to set it on the command line."""
    try:
        yield
    except MarError as error:
        setting = _SETTING.search(error.fix)
        if setting and not options.configs and " --" not in error.fix:
            option = f"--set {setting[1]}={setting[2] or 'VALUE'}"
            error.fix = f"{error.fix.removesuffix('.')}. Without a config file: {option}"
        raise


def _forced(stages: list[str] | None) -> tuple[session.StageName, ...]:
    from ...builder.build import NAMES

    for name in stages or ():
        if name not in NAMES:
            like = near(name, NAMES)
            raise InputError(
                f"--force {name}: no such stage." + (f" Did you mean {like}?" if like else ""),
                fix=f"The stages are {', '.join(NAMES)}.",
            )
    return tuple(name for name in NAMES if name in (stages or ()))


def _session_options(options: BuildOptions) -> session.Options:
    from ...builder import session

    return session.Options(
        out=options.out,
        offline=options.offline,
        locked=options.locked,
        allow_unverified=options.allow_unverified,
        timeout=options.timeout,
        forced=_forced(options.force),
    )


@example("mar build --task seq_classification", "mar build my-model.yaml --set handler.max_length=256")
@taking(BuildOptions)
def build(options: BuildOptions) -> None:
    """Build archives: download, serialize, handler, archive, verify, model_store. Cached stages are not run again."""
    from ...builder import session

    settings, store = _session_options(options), open_store(options.cache)
    with _advised(options):
        loaded = _configs(store, options)
        archives = session.run(loaded, store, settings, note=console.note, events=progress.events())
    if options.as_json:
        print(json.dumps({"archives": archives}))
        return
    for archive in archives:
        report.summary(archive)
    mar = console.command()
    place = shlex.quote(str(options.out))
    if not archives[-1]["verified"]:
        print(f"\nTry it on the chip, with the whole folder:  {mar} smoke --out {place}")
        return
    print(f"\nTry it:     {mar} run {shlex.quote(str(archives[-1]['path']))}")
    print(f"Serve it:   {mar} smoke --out {place}   or   {mar} serve --out {place}")


@example("mar plan my-model.yaml")
@taking(BuildOptions)
def plan(options: BuildOptions) -> None:
    """Show which stages `mar build` would run, which are cached, and why; change nothing."""
    from ...builder import session

    settings, store = _session_options(options), open_store(options.cache, read_only=True)
    with _advised(options):
        archives = session.plan(_configs(store, options), store, settings, note=console.note)
    if options.as_json:
        print(json.dumps({"archives": archives}))
        return
    for archive in archives:
        print(archive["name"])
        rows = [
            [
                f"  {stage['stage']}",
                "cached" if stage["cached"] else "would run",
                (stage["key"] or "-")[:12],
                "; ".join(stage["reasons"]),
            ]
            for stage in archive["stages"]
        ]
        print(table(["  stage", "", "key", "why"], rows))
