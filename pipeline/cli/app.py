"""The command `mar`: registers every command."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .commands import archive, build, cache, doctor, lock, release, run, serve
from .options import EPILOG

app = typer.Typer(
    name="mar",
    help="From a Hugging Face transformer to a TorchServe archive that answers like the original.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_cache = typer.Typer(help="Look after the cache.", no_args_is_help=True, epilog=EPILOG, rich_markup_mode=None)
app.add_typer(_cache, name="cache")


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


# In the order that `mar --help` lists them.
for _command in (
    build.build,
    build.plan,
    run.run,
    run.explain,
    serve.smoke,
    serve.serve,
    doctor.doctor,
    archive.inspect,
    archive.diff,
    archive.check,
    release.release,
    release.sign,
    lock.lock,
):
    app.command(epilog=EPILOG)(_command)
_cache.command("list", epilog=EPILOG)(cache.show)
_cache.command("gc", epilog=EPILOG)(cache.collect)
_cache.command("verify", epilog=EPILOG)(cache.verify)
