"""`mar run` and `mar explain`: run an archive's own handler, without a server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import InputError
from ...files.opening import read_text
from ...text import visible
from .. import console, sandbox, trust
from ..options import Archived, CacheOption, JsonOption, example, open_store


@example('mar run build/model-store/seq_classification.mar --input "What a lovely walk by the river!"')
def run(
    archive: Archived,
    request: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="JSON or text, @file, or - for standard input; the archive's samples if not given.",
        ),
    ] = None,
    key: trust.KeysOption = None,
    require_signed: trust.RequireSignedOption = None,
    not_before: trust.NotBeforeOption = None,
    name: trust.SignedNameOption = None,
    in_sandbox: sandbox.SandboxOption = False,
    memory: sandbox.MemoryOption = None,
    timeout: sandbox.TimeoutOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer requests with the archive's own handler, in a local process: no Java, no server. Archives of
    torch-model-archiver are answered too, as TorchServe's worker would.

    An archive is a program: its handler runs with your rights. --key accepts only archives that somebody you trust
    signed; --sandbox keeps the handler from your files and the network.
    """
    from ...answers import rehearsal
    from ...archive.reader import Archive

    box = sandbox.of(in_sandbox, memory, timeout)
    trust.note(trust.accept([archive], key, require_signed, not_before, name))
    requests = Archive(archive).json("samples.json") if request is None else [read_input(request)]
    if not requests:
        raise InputError(f"{archive} does not have a samples.json.", fix='Give a request: --input \'{"text": "..."}\'')
    replies = rehearsal.answers(open_store(cache), archive, requests, sandbox=box)
    single = replies["single"]
    if request is None:
        print(json.dumps(single, ensure_ascii=False, indent=None if as_json else 2))
    else:
        print(json.dumps(single[0], ensure_ascii=False, indent=None if as_json else 2))
    for hint in replies["hints"]:
        console.note(hint)
    if bad := [status for status in replies["statuses"] if status >= 300]:
        raise InputError(f"The handler refused the request ({bad[0]}); its answer above gives the reason.")


@example(
    'mar explain build/model-store/seq_classification.mar --input "A dull film, but well acted."',
    "mar explain model.mar --input @request.json --html explanation.html",
)
def explain(
    archive: Archived,
    request: Annotated[str, typer.Option("--input", help="JSON or text, @file, or - for standard input.")],
    html: Annotated[Path | None, typer.Option("--html", help="Write the explanation to this file, as HTML.")] = None,
    key: trust.KeysOption = None,
    require_signed: trust.RequireSignedOption = None,
    not_before: trust.NotBeforeOption = None,
    name: trust.SignedNameOption = None,
    in_sandbox: sandbox.SandboxOption = False,
    memory: sandbox.MemoryOption = None,
    timeout: sandbox.TimeoutOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which words an answer depends on: green words speak for it, red ones against it.

    An archive is a program: its handler runs with your rights. --key accepts only archives that somebody you trust
    signed; --sandbox keeps the handler from your files and the network.
    """
    from ...answers import rehearsal
    from .. import explanation

    if html is not None:
        explanation.check_writable(html)
    box = sandbox.of(in_sandbox, memory, timeout)
    trust.note(trust.accept([archive], key, require_signed, not_before, name))
    foreign = rehearsal.is_foreign(archive)
    if foreign and html is not None:
        raise InputError(
            f"{archive.name} was made by another tool: what its handler explains is shown as JSON only.",
            fix="Leave --html out.",
        )
    parsed = read_input(request)
    replies = rehearsal.answers(open_store(cache), archive, [parsed], explain=True, sandbox=box)
    reply = replies["single"][0]
    if replies["statuses"][0] >= 300:
        try:
            why = reply["error"]["message"]
        except (TypeError, KeyError):  # of another tool's handler, or a changed one
            why = json.dumps(reply, ensure_ascii=False)
        raise InputError(f"{archive.name} does not explain its answer: {visible(str(why))}.")
    if foreign:
        for hint in replies["hints"]:
            console.note(hint)
        print(json.dumps(reply, ensure_ascii=False, indent=None if as_json else 2))
        return
    try:
        pairs = explanation.pairs(parsed, reply)
        page = explanation.page(archive.stem, pairs)
    except (TypeError, KeyError, IndexError, AttributeError, ValueError):
        raise InputError(
            f"{archive.name} answered in another form than this program's handlers: its handler was changed.",
            fix="Get the archive again from where it was built.",
        ) from None
    if html is not None:
        explanation.write(html, page)
    if as_json:
        print(json.dumps(reply, ensure_ascii=False))
    elif html is not None:
        print(f"Written to {html}")
    else:
        explanation.show(pairs)


def read_input(text: str) -> Any:
    """The request in --input: `-` reads standard input, `@file` a file. The text is parsed as JSON; if it is not JSON,
    it is the request itself. Raises InputError if it cannot be read."""
    try:
        if text == "-":
            # UTF-8, as files and requests are, whatever the terminal's encoding.
            text = sys.stdin.buffer.read().decode() if hasattr(sys.stdin, "buffer") else sys.stdin.read()
        elif text.startswith("@"):
            text = read_text(Path(text[1:]))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--input {text} cannot be read: {getattr(error, 'strerror', None) or error}.",
            fix="Give the JSON or the text itself, @FILE, or - for standard input.",
        ) from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
