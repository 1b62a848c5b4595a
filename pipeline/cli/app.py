"""The command `mar`: parses, calls, renders. Nothing below it prints."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..builder import session
from ..builder.session import Configs, LockedOption, OfflineOption, OutOption, UnverifiedOption
from ..errors import InputError
from ..text import near, table, visible
from . import console
from .commands.archive import check, diff, inspect
from .commands.cache import EPILOG, CacheOption, JsonOption
from .commands.cache import app as cache_app
from .commands.cache import folder as cache_place
from .commands.cache import store as open_store
from .commands.lock import lock
from .commands.release import release, sign

if TYPE_CHECKING:
    from ..cache.store import Store
    from ..config.build_config import BuildConfig

app = typer.Typer(
    name="mar",
    help="From a Hugging Face transformer to a TorchServe archive that answers like the original.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(cache_app, name="cache")

TaskOption = Annotated[
    str | None, typer.Option("--task", help="The task; its packaged config is used if none is given.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="A Hub id, a folder, an address (s3://...), or starter:NAME.")
]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit on the Hub.")]
SaveModeOption = Annotated[str | None, typer.Option("--save-mode", help="pretrained or torchscript.")]
NameOption = Annotated[
    str | None, typer.Option("--name", help="The archive's name, as --set archive.name=NAME; of one config.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as handler.max_length=256."),
]
ForceOption = Annotated[
    list[str] | None, typer.Option("--force", metavar="STAGE", help="Run a stage though it is cached.")
]


def _version(asked: bool) -> None:
    if asked:
        print(f"mar-pipeline {__version__}")
        raise typer.Exit


@app.callback(epilog=EPILOG)
def _main(
    _version_asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _configs(
    store: Store,
    offline: bool,
    files: list[Path] | None,
    task: str | None,
    model: str | None,
    revision: str | None,
    save_mode: str | None,
    name: str | None,
    settings: list[str] | None,
) -> list[BuildConfig]:
    from ..config import build_config
    from ..sources.task import teller

    tell = teller(store, offline)
    if not files and task is None:
        if model is None:
            raise InputError(
                "Neither a config nor a task or a model is given.", fix="Try: mar build --task seq_classification"
            )
        task = build_config.task_of(model, revision, tell)
    overrides = build_config.Overrides(
        task=task,
        model=model,
        revision=revision,
        save_mode=save_mode,
        name=name,
        settings=tuple(settings or ()),
        tell=tell,
    )
    return build_config.load_all(files or [build_config.packaged(str(task))], overrides)


def _forced(stages: list[str] | None) -> tuple[str, ...]:
    from ..builder.runner import NAMES

    for name in stages or ():
        if name not in NAMES:
            like = near(name, NAMES)
            raise InputError(
                f"--force {name}: no such stage." + (f" Did you mean {like}?" if like else ""),
                fix=f"The stages are {', '.join(NAMES)}.",
            )
    return tuple(stages or ())


@app.command(epilog=EPILOG)
def build(
    configs: Configs = None,
    task: TaskOption = None,
    model: ModelOption = None,
    revision: RevisionOption = None,
    save_mode: SaveModeOption = None,
    name: NameOption = None,
    settings: SetOption = None,
    out: OutOption = Path("build"),
    cache: CacheOption = None,
    offline: OfflineOption = False,
    locked: LockedOption = False,
    allow_unverified: UnverifiedOption = False,
    force: ForceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build archives: download, serialize, handler, archive, verify, model_store; what is cached is not done again."""
    forced, store = _forced(force), open_store(cache)
    loaded = _configs(store, offline, configs, task, model, revision, save_mode, name, settings)
    archives = session.run(loaded, store, out, offline, forced, locked, allow_unverified)
    if as_json:
        print(json.dumps({"archives": archives}))
        return
    for archive in archives:
        session.summary(archive)
    mar = console.command()
    place = shlex.quote(str(out))
    if not archives[-1]["verified"]:
        print(f"\nTry it on the chip, with the whole folder:  {mar} smoke --out {place}")
        return
    print(f"\nTry it:     {mar} run {shlex.quote(str(archives[-1]['path']))}")
    print(f"Serve it:   {mar} smoke --out {place}   or   {mar} serve --out {place}")


@app.command(epilog=EPILOG)
def plan(
    configs: Configs = None,
    task: TaskOption = None,
    model: ModelOption = None,
    revision: RevisionOption = None,
    save_mode: SaveModeOption = None,
    name: NameOption = None,
    settings: SetOption = None,
    out: OutOption = Path("build"),
    cache: CacheOption = None,
    offline: OfflineOption = False,
    locked: LockedOption = False,
    allow_unverified: UnverifiedOption = False,
    force: ForceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what `build` would run, what is cached, and why; do nothing."""
    from ..builder import runner as planning

    forced, store = _forced(force), open_store(cache, read_only=True)
    loaded = _configs(store, offline, configs, task, model, revision, save_mode, name, settings)
    archives: list[dict[str, Any]] = []
    # Nothing may be removed while it is looked at.
    with store.in_use():
        for one in session.builds(loaded, store, out, offline, locked, allow_unverified):
            found = planning.plan(one, forced)
            stages = [
                {"stage": s.stage, "cached": s.cached, "seconds": 0.0, "key": s.key, "reasons": list(s.reasons)}
                for s in found
            ]
            verified = next(s.cached for s in found if s.stage == "verify")
            archives.append({"name": one.config.archive.name, "verified": verified, "stages": stages})
    if as_json:
        print(json.dumps({"archives": archives}))
        return
    for archive in archives:
        print(archive["name"])
        rows = [
            [
                f"  {s['stage']}",
                "cached" if s["cached"] else "would run",
                (s["key"] or "-")[:12],
                "; ".join(s["reasons"]),
            ]
            for s in archive["stages"]
        ]
        print(table(["  stage", "", "key", "why"], rows))


@app.command(epilog=EPILOG)
def run(
    archive: Annotated[Path, typer.Argument(help="A .mar, a .tar.gz or a folder.", show_default=False)],
    request: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="JSON or text, @file, or - for standard input; the archive's samples if not given.",
        ),
    ] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer requests by the archive's own handler, in a process here: no Java, no server."""
    from ..answers import rehearsal
    from ..archive.reader import Archive

    requests = Archive(archive).json("samples.json") if request is None else [rehearsal.request(request)]
    if not requests:
        raise InputError(f"{archive} holds no samples.json.", fix='Give a request: --input \'{"text": "..."}\'')
    found = rehearsal.answers(open_store(cache), archive, requests)
    single = found["single"]
    if request is None:
        print(json.dumps(single, ensure_ascii=False, indent=None if as_json else 2))
    else:
        print(json.dumps(single[0], ensure_ascii=False, indent=None if as_json else 2))
    if bad := [status for status in found["statuses"] if status != 200]:
        raise InputError(f"The handler refused the request ({bad[0]}); its answer says why.")


@app.command(epilog=EPILOG)
def explain(
    archive: Annotated[Path, typer.Argument(help="A .mar, a .tar.gz or a folder.", show_default=False)],
    request: Annotated[str, typer.Option("--input", help="JSON or text, @file, or - for standard input.")],
    html: Annotated[Path | None, typer.Option("--html", help="Write a page of it to this file.")] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which words an answer comes from, in colours: green for, red against it."""
    from ..answers import rehearsal
    from . import explanation

    if html is not None:
        explanation.check_place(html)
    asked = rehearsal.request(request)
    found = rehearsal.answers(open_store(cache), archive, [asked], explain=True)
    reply = found["single"][0]
    if found["statuses"][0] != 200:
        raise InputError(f"{archive.name} gives no explanation: {visible(reply['error']['message'])}.")
    pairs = explanation.pairs(asked, reply)
    if html is not None:
        explanation.write(html, explanation.page(archive.stem, pairs))
    if as_json:
        print(explanation.as_json(reply))
    elif html is not None:
        print(f"Written to {html}")
    else:
        explanation.show(pairs)


@app.command(epilog=EPILOG)
def smoke(
    archives: Annotated[list[Path] | None, typer.Argument(help="Archives; all of --out if not given.")] = None,
    out: OutOption = Path("build"),
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a real TorchServe on free loopback ports, send the samples, compare with `mar run`, stop it."""
    from ..answers.rehearsal import answers
    from ..serving import smoke as smoking

    store = open_store(cache)
    paths = archives or _stored(out)
    unverified = {path: report for path in paths if (report := smoking.unverified(path))}

    def expected(path: Path, requests: list[Any]) -> list[Any]:
        if path in unverified:
            return [sample["expected"] for sample in unverified[path]["samples"]]
        return list(answers(store, path, requests)["single"])

    tolerances = {path: float(report["tolerance"]) for path, report in unverified.items()}
    results = smoking.smoke(paths, expected, _say, tolerances=tolerances)
    if as_json:
        from dataclasses import asdict

        print(json.dumps({"archives": [asdict(result) for result in results]}))
        return
    rows = [[r.name, str(r.requests), f"{r.median_ms:.1f} ms", f"{r.ready_seconds:.1f} s"] for r in results]
    print(table(["archive", "requests", "median", "ready after"], rows))
    alike = ["`mar run` does"] if len(unverified) < len(paths) else []
    alike += [f"the original model of {path.name} does" for path in unverified]
    print(f"TorchServe answers as {', and as '.join(alike)}.")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _stored(out: Path) -> list[Path]:
    from ..builder.stages.model_store import FOLDER
    from ..builder.stages.model_store import archives as stored

    found = [out / FOLDER / name for name in stored(out)]
    if not found:
        raise InputError(
            f"{out / FOLDER} holds no archive.", fix="Build one first: mar build --task seq_classification"
        )
    return found


@app.command(epilog=EPILOG)
def serve(out: OutOption = Path("build")) -> None:
    """Run TorchServe on the model store, in the foreground, until Ctrl-C."""
    from ..serving import serve as torchserve

    _stored(out)
    raise typer.Exit(torchserve.serve(out, _say))


@app.command(epilog=EPILOG)
def doctor(cache: CacheOption = None, out: OutOption = Path("build"), as_json: JsonOption = False) -> None:
    """Look at this machine: versions, Java, disk, compilers; and say how to mend what is missing."""
    from dataclasses import asdict

    from ..host.doctor import checks

    found = checks(cache=cache_place(cache), out=out)
    if as_json:
        print(json.dumps({"checks": [asdict(check) for check in found]}))
    else:
        print(table(["", "what", "found"], [[c.status, c.name, c.found] for c in found]))
        for check in found:
            if check.fix:
                print(f"\n{check.name}: {check.fix}")
    if any(check.status == "fail" for check in found):
        raise typer.Exit(InputError.exit_code)


for command in (inspect, diff, check, release, sign, lock):
    app.command(epilog=EPILOG)(command)
