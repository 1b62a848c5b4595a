"""`mar release` and `mar sign`: archives made ready to be handed on."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from ...errors import InputError
from .. import console, progress, report
from ..options import (
    Archived,
    CacheOption,
    Configs,
    JsonOption,
    LockedOption,
    OfflineOption,
    OutOption,
    UnverifiedOption,
    open_store,
)


def release(
    configs: Configs = None,
    out: OutOption = Path("build"),
    cache: CacheOption = None,
    offline: OfflineOption = False,
    locked: LockedOption = False,
    allow_unverified: UnverifiedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build configs (all packaged ones if none is given), with checksums and a CycloneDX bill of materials.

    SHA256SUMS and bom.cdx.json cover every archive in the output folder, and the first one the second.
    """
    from ...archive.model_store import SUMS
    from ...builder import session
    from ...config import build_config
    from ...sources.task import teller
    from ...tasks import TASKS

    # Before the work that it would be missed after.
    bom = _bom()
    dated = bom.timestamp(os.environ)
    store = open_store(cache)
    tell = build_config.Overrides(tell=teller(store, offline))
    loaded = build_config.load_all(configs or [build_config.packaged(task) for task in TASKS], tell)
    options = session.Options(out=out, offline=offline, locked=locked, allow_unverified=allow_unverified)
    archives = session.run(loaded, store, options, say=console.note, events=progress.events())
    started = time.perf_counter()
    bill = bom.write(out, dated)
    # Every archive is read for it once more, which takes its time where they are large.
    print(f"bill of materials: done in {time.perf_counter() - started:.1f} s", file=sys.stderr)
    if as_json:
        print(json.dumps({"archives": archives, "bom": str(bill), "sums": str(out / SUMS)}))
        return
    for archive in archives:
        report.summary(archive)
    place, mar = shlex.quote(str(out)), console.command()
    print(f"\nBill of materials:  {bill}")
    print(f"Checksums:          {out / SUMS}   (cd {place} && sha256sum --check {SUMS})")
    print(f"Sign an archive:    {mar} sign {shlex.quote(str(archives[-1]['path']))} --key private.pem")


def sign(
    archive: Archived,
    key: Annotated[Path, typer.Option("--key", help="The private key (PEM).", show_default=False)],
) -> None:
    """Sign an archive with OpenSSF model-signing; the signature lies beside it, as NAME.mar.sig.

    A key of your own: openssl ecparam -name prime256v1 -genkey -noout -out private.pem; what others check with is
    its public half: openssl ec -in private.pem -pubout -out public.pem.
    """
    from ...archive import signing

    print(f"Signature: {signing.sign(archive, key)}")
    print(f"Check it:  {console.command()} check {shlex.quote(str(archive))} --key public.pem")


def _bom() -> ModuleType:
    """The module that makes bills. Raises InputError if the library under it is not installed."""
    try:
        from ...archive import bom
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("cyclonedx", "packageurl"):
            raise
        raise InputError(
            f"A bill of materials needs cyclonedx-python-lib, which is not installed ({error.name} is missing).",
            fix="pip install 'mar-pipeline[release]'",
        ) from None
    return bom
