"""`mar release` and `mar sign`: checksums, bills of materials and signatures for archives."""

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
    TimeoutOption,
    UnverifiedOption,
    example,
    open_store,
)


@example("mar release my-model.yaml --locked --out release")
def release(
    configs: Configs = None,
    out: OutOption = Path("build"),
    cache: CacheOption = None,
    offline: OfflineOption = False,
    locked: LockedOption = False,
    allow_unverified: UnverifiedOption = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build configs (all packaged ones if none is given), and write checksums and a CycloneDX bill of materials.

    SHA256SUMS and bom.cdx.json list every archive in the output folder; SHA256SUMS lists bom.cdx.json too.
    """
    from ...archive.model_store import SUMS
    from ...builder import session
    from ...config import build_config
    from ...sources.task import task_lookup
    from ...tasks import TASKS

    # First: a missing library or a bad date must fail before the build.
    bom = _bom()
    timestamp = bom.timestamp(os.environ)
    store = open_store(cache)
    overrides = build_config.Overrides(lookup=task_lookup(store, offline))
    loaded = build_config.load_all(configs or [build_config.packaged(task) for task in TASKS], overrides)
    options = session.Options(
        out=out, offline=offline, locked=locked, allow_unverified=allow_unverified, timeout=timeout
    )
    archives = session.run(loaded, store, options, note=console.note, events=progress.events())
    started = time.perf_counter()
    bill = bom.write(out, timestamp)
    # It reads every archive once more, which takes a while for large ones.
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


@example("mar sign build/model-store/seq_classification.mar --key private.pem")
def sign(
    archive: Archived,
    key: Annotated[Path, typer.Option("--key", help="The private key (PEM).", show_default=False)],
) -> None:
    """Sign an archive with OpenSSF model-signing. The signature is written beside it, as NAME.mar.sig.

    To make a key: openssl ecparam -name prime256v1 -genkey -noout -out private.pem. Others check the signature with
    its public half: openssl ec -in private.pem -pubout -out public.pem.
    """
    from ...archive import signing

    print(f"Signature: {signing.sign(archive, key)}")
    print(f"Check it:  {console.command()} check {shlex.quote(str(archive))} --key public.pem")


def _bom() -> ModuleType:
    """The module that writes bills of materials. Raises InputError if cyclonedx-python-lib is not installed."""
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
