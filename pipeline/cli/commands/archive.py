"""`mar inspect`, `mar diff` and `mar check`: they examine archives without loading a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ...errors import DIFFERENT, InputError
from .. import report, sandbox, trust
from ..options import Archived, CacheOption, JsonOption, example, open_store


@example("mar inspect build/model-store/seq_classification.mar")
def inspect(archive: Archived, as_json: JsonOption = False) -> None:
    """Show the contents of an archive: its files, settings and provenance."""
    from ...archive.contents import describe

    description = describe(archive)
    print(json.dumps(description, ensure_ascii=False) if as_json else report.tree(description))


@example("mar diff before/model.mar build/model-store/model.mar")
def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A .mar, a .tar.gz or a folder.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Show how two archives differ, and what each difference means; exit code 5 if they differ."""
    from ...audit.diff import compare, show

    differences = compare(first, second)
    print(json.dumps(differences, ensure_ascii=False) if as_json else show(differences))
    if not differences["same"]:
        raise typer.Exit(DIFFERENT)


@example(
    "mar check build/model-store/seq_classification.mar",
    "mar check model.mar --key public.pem --run   # the signature first; the handler too, in a sandbox",
)
def check(
    archive: Archived,
    key: trust.KeysOption = None,
    require_signed: trust.RequireSignedOption = None,
    not_before: trust.NotBeforeOption = None,
    name: trust.SignedNameOption = None,
    run: Annotated[
        bool, typer.Option("--run", help="Also load the handler and answer the samples, in a sandbox (bubblewrap).")
    ] = False,
    memory: sandbox.MemoryOption = None,
    timeout: sandbox.TimeoutOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check an archive against its own record and TorchServe's rules, and look for harmful contents. No code of the
    archive runs, but with --run."""
    from ...audit.check import check as examine
    from ...audit.check import show

    box = sandbox.of(run, memory, timeout, "--run")
    signed = trust.accept([archive], key, require_signed, not_before, name).get(archive)
    findings = examine(archive)
    if box is not None:
        from ...audit import trial

        findings = trial.added(findings, open_store(cache), archive, box)
    if signed and as_json:
        findings["signature"] = signed.as_json()
    elif signed:
        print(f"Signed {signed}.")
    print(json.dumps(findings, ensure_ascii=False) if as_json else show(findings))
    if not findings["ok"]:
        raise typer.Exit(InputError.exit_code)
