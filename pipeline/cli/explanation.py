"""Explanations as coloured text: words for the target are green, words against it red; darker means more important."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..text import visible

Pair = tuple[dict[str, str], dict[str, Any]]
"""One input's texts by field, and its explanation (an object of `/explanations`, docs/reference/requests.md)."""


def pairs(request: Any, reply: Any) -> list[Pair]:
    """The inputs of a request, each with its explanation: a single input, a list, `instances` or tensors (v2)."""
    if isinstance(request, dict) and "instances" in request:
        request, reply = request["instances"], reply["predictions"]
    elif isinstance(reply, dict) and "outputs" in reply:
        request, reply = _unpacked(request, reply)
    many = isinstance(request, list)
    return [
        (_texts(one, explanation), explanation)
        for one, explanation in zip(request if many else [request], reply if many else [reply], strict=True)
    ]


def _unpacked(request: Any, reply: Any) -> tuple[list[Any], list[Any]]:
    """The rows of a v2 request's tensors, and the explanations in the reply's tensor of JSON texts."""
    from ..handlers.protocol import tensors

    explanations = [json.loads(text) for text in reply["outputs"][0]["data"]]
    fields = [word["field"] for one in explanations for word in one["words"]]
    # A single tensor is the task's only field, whatever the tensor's name.
    return tensors.rows(request, fields[0] if fields else None), explanations


def _texts(one: Any, explanation: dict[str, Any]) -> dict[str, str]:
    """The explained texts by field, in the order in which the model reads them."""
    fields = list(dict.fromkeys(word["field"] for word in explanation["words"]))
    if isinstance(one, str):
        return dict.fromkeys(fields, one)
    # A prompt may be sent as `text`.
    return {name: one.get(name, one.get("text")) for name in fields}


def parts(text: str, field: str, explanation: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The text in pieces, each with its share of the largest importance (-1 to 1); text between words has 0."""
    most = max((abs(word["importance"]) for word in explanation["words"]), default=0.0) or 1.0
    at = 0
    for word in explanation["words"]:
        if word["field"] != field:
            continue
        if word["start"] > at:
            yield text[at : word["start"]], 0.0
        yield text[max(at, word["start"]) : word["end"]], word["importance"] / most
        at = max(at, word["end"])
    yield text[at:], 0.0


def _colour(share: float) -> tuple[int, int, int]:
    """The RGB colour of a share: white at 0, green at 1, red at -1."""
    pale = round(255 * (1 - abs(share)))
    return (pale, 200 + pale * 55 // 255, pale) if share > 0 else (230 + pale * 25 // 255, pale, pale)


def _heading(explanation: dict[str, Any]) -> str:
    """An explanation's first line: its target, the model's share for it with and without the words, and the error."""
    value, baseline, delta = (explanation[name] for name in ("value", "baseline", "delta"))
    return f"{visible(explanation['target'])}: {value:.3f}, without the words {baseline:.3f} (off by {delta:.3f})"


def show(explanations: list[Pair]) -> None:
    """Print explanations, coloured on a terminal, each with its five most important words."""
    from rich.text import Text

    from . import styled

    console = styled.console()
    for texts, explanation in explanations:
        console.print(Text(_heading(explanation), style="bold"))
        for field, text in texts.items():
            line = Text(f"{field}: ")
            for part, share in parts(text, field, explanation):
                red, green, blue = _colour(share)
                line.append(visible(part), style=f"black on rgb({red},{green},{blue})" if share else "")
            console.print(line)
        for word in sorted(explanation["words"], key=lambda word: -abs(word["importance"]))[:5]:
            console.print(Text(f"  {word['importance']:+.3f}  {visible(word['text'])}"))


def page(title: str, explanations: list[Pair]) -> str:
    """Explanations as a self-contained HTML page."""
    body, title = [], visible(title)
    for texts, explanation in explanations:
        body.append(f"<h2>{escape(_heading(explanation))}</h2>")
        for field, text in texts.items():
            spans = "".join(
                f'<span style="background:rgb{_colour(share)}" title="{share:+.2f}">{escape(visible(part))}</span>'
                if share
                else escape(visible(part))
                for part, share in parts(text, field, explanation)
            )
            body.append(f"<p><b>{escape(field)}</b> {spans}</p>")
    style = "body{font:16px/1.6 sans-serif;max-width:50em;margin:2em auto;color:#000;background:#fff}h2{font-size:1em}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{style}</style>'
        f"<h1>{escape(title)}</h1>{''.join(body)}</html>\n"
    )


def check_writable(file: Path) -> None:
    """Raise InputError if `file` cannot be written."""
    try:
        if file.is_dir():
            raise _not_writable(file, "it is a folder")
        if not file.parent.is_dir():
            raise _not_writable(file, f"the folder {file.parent} does not exist")
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            raise _not_writable(file, "permission denied")
    except OSError as error:
        raise _not_writable(file, error.strerror or str(error)) from None


def write(file: Path, text: str) -> None:
    """Write a page. Raises InputError if the file cannot be written."""
    try:
        # O_NONBLOCK: opening a pipe that nobody reads would wait for ever.
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        with os.fdopen(number, "w", encoding="utf-8") as page:
            os.set_blocking(number, True)
            page.write(text)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise _not_writable(file, "it is a pipe that nobody reads") from None
        raise _not_writable(file, error.strerror or str(error)) from None


def _not_writable(file: Path, why: str) -> InputError:
    return InputError(f"--html {file} cannot be written: {why}.", fix="Name a file in a folder that you can write to.")
