"""`mar run` and `mar explain`: an archive's own handler answers, without a server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import InputError
from ...text import visible
from ..options import Archived, CacheOption, JsonOption, open_store


def run(
    archive: Archived,
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
    from ...answers import rehearsal
    from ...archive.reader import Archive

    requests = Archive(archive).json("samples.json") if request is None else [read_input(request)]
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


def explain(
    archive: Archived,
    request: Annotated[str, typer.Option("--input", help="JSON or text, @file, or - for standard input.")],
    html: Annotated[Path | None, typer.Option("--html", help="Write a page of it to this file.")] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which words an answer comes from, in colours: green for, red against it."""
    from ...answers import rehearsal
    from .. import explanation

    if html is not None:
        explanation.check_place(html)
    asked = read_input(request)
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


def read_input(text: str) -> Any:
    """What --input says: `-` is standard input, @file a file; JSON if it is JSON, else plain text."""
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--input {text}: {error}.", fix="Give JSON or text itself, @file, or - for standard input."
        ) from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
