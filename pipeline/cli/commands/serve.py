"""`mar smoke` and `mar serve`: a real TorchServe."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import InputError
from ...text import table
from .. import trust
from ..options import CacheOption, JsonOption, OutOption, example, open_store


@example("mar smoke --out build")
def smoke(
    archives: Annotated[list[Path] | None, typer.Argument(help="Archives; all of --out if not given.")] = None,
    out: OutOption = Path("build"),
    key: trust.KeysOption = None,
    require_signed: trust.RequireSignedOption = None,
    not_before: trust.NotBeforeOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a real TorchServe on free loopback ports, send the samples, compare with `mar run`, and stop it.

    An archive is a program: its handler runs with your rights, here and in TorchServe. --key accepts only archives that
    somebody you trust signed; `mar run --sandbox` tries others.
    """
    from ...answers.rehearsal import answers
    from ...serving import smoke as smoking

    store = open_store(cache)
    paths = archives or _stored(out)
    trust.note(trust.accept(paths, key, require_signed, not_before))
    unverified = {path: original for path in paths if (original := smoking.unverified(path))}

    def expected(path: Path, requests: list[Any]) -> list[Any]:
        if path in unverified:
            return unverified[path].answers
        return list(answers(store, path, requests)["single"])

    tolerances = {path: original.tolerance for path, original in unverified.items()}
    results = smoking.smoke(paths, expected, _print, tolerances=tolerances)
    if as_json:
        from dataclasses import asdict

        print(json.dumps({"archives": [asdict(result) for result in results]}))
        return
    rows = [[r.name, str(r.requests), f"{r.median_ms:.1f} ms", f"{r.ready_seconds:.1f} s"] for r in results]
    print(table(["archive", "requests", "median", "ready after"], rows))
    references = ["`mar run`"] if len(unverified) < len(paths) else []
    references += [f"the original model of {path.name}" for path in unverified]
    print(f"TorchServe answers like {', and like '.join(references)}.")


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _stored(out: Path) -> list[Path]:
    from ...archive.model_store import FOLDER
    from ...archive.model_store import archives as stored

    if out.is_file():
        raise InputError(f"--out {out} is a file.", fix="Name the output folder of a build.")
    paths = [out / FOLDER / name for name in stored(out)]
    if not paths:
        raise InputError(
            f"{out / FOLDER} does not contain an archive.",
            fix=f"Build one into it: mar build --task seq_classification --out {shlex.quote(str(out))}",
        )
    return paths


@example("mar serve --out build")
def serve(
    out: OutOption = Path("build"),
    key: trust.KeysOption = None,
    require_signed: trust.RequireSignedOption = None,
    not_before: trust.NotBeforeOption = None,
) -> None:
    """Run TorchServe on the model store, in the foreground, until Ctrl-C.

    An archive is a program: its handler runs with your rights. --key accepts only archives that somebody you trust
    signed, and starts nothing if one in the model store is not; `mar run --sandbox` tries others.
    """
    from ...serving import serve as torchserve

    _stored(out)

    def accept(paths: Sequence[Path]) -> None:
        trust.note(trust.accept(paths, key, require_signed, not_before))

    raise typer.Exit(torchserve.serve(out, _print, accept=accept))
