"""The command `mar`: it registers every command."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .commands import archive, build, cache, doctor, lock, release, run, serve
from .options import EXIT_CODES, epilog

app = typer.Typer(
    name="mar",
    help="From a Hugging Face transformer to a TorchServe archive that answers like the original.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_cache = typer.Typer(
    help="List, clean or check the cache.", no_args_is_help=True, epilog=EXIT_CODES, rich_markup_mode=None
)
app.add_typer(_cache, name="cache")


def _version(requested: bool) -> None:
    if requested:
        print(f"mar-pipeline {__version__}")
        raise typer.Exit


@app.callback(epilog=EXIT_CODES)
def _main(
    _version_requested: Annotated[
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
    app.command(epilog=epilog(_command))(_command)
for _name, _command in (("list", cache.show), ("gc", cache.collect), ("verify", cache.verify)):
    _cache.command(_name, epilog=epilog(_command))(_command)
