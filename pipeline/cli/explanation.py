"""An explanation as coloured text: words that speak for the target green, those against it red, the more the darker."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..text import UNSEEN, visible

Pair = tuple[dict[str, str], dict[str, Any]]
"""An input's fields with a text, and its explanation."""


def as_json(reply: Any) -> str:
    """The reply as JSON of the same value, with no control character in it as such."""
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(reply, ensure_ascii=False))


def pairs(request: Any, reply: Any) -> list[Pair]:
    """Each input of a request with its explanation."""
    if isinstance(request, dict) and "instances" in request:
        request, reply = request["instances"], reply["predictions"]
    elif isinstance(reply, dict) and "outputs" in reply:
        request, reply = _unpacked(request, reply)
    many = isinstance(request, list)
    return [
        (_texts(one, told), told)
        for one, told in zip(request if many else [request], reply if many else [reply], strict=True)
    ]


def _unpacked(request: Any, reply: Any) -> tuple[list[Any], list[Any]]:
    """The inputs of tensors, and the explanations out of the tensor of JSON that answers them."""
    from ..handlers.protocol import tensors

    told = [json.loads(text) for text in reply["outputs"][0]["data"]]
    fields = [word["field"] for one in told for word in one["words"]]
    # The handler takes a lone tensor for the one field that the task has, whatever the tensor's name.
    return tensors.rows(request, fields[0] if fields else None), told


def _texts(one: Any, told: dict[str, Any]) -> dict[str, str]:
    """The texts that an explanation is of, by field, in the order that the model reads them."""
    fields = list(dict.fromkeys(word["field"] for word in told["words"]))
    return dict.fromkeys(fields, one) if isinstance(one, str) else {name: one[name] for name in fields}


def parts(text: str, field: str, told: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The text in pieces with their shares, -1 to 1 of the largest importance; 0 is what lies between words."""
    most = max((abs(word["importance"]) for word in told["words"]), default=0.0) or 1.0
    at = 0
    for word in told["words"]:
        if word["field"] != field:
            continue
        if word["start"] > at:
            yield text[at : word["start"]], 0.0
        yield text[max(at, word["start"]) : word["end"]], word["importance"] / most
        at = max(at, word["end"])
    yield text[at:], 0.0


def _colour(share: float) -> tuple[int, int, int]:
    """White at 0, green at 1, red at -1."""
    pale = round(255 * (1 - abs(share)))
    return (pale, 200 + pale * 55 // 255, pale) if share > 0 else (230 + pale * 25 // 255, pale, pale)


def _heading(told: dict[str, Any]) -> str:
    shares = f"{told['value']:.3f}, without the words {told['baseline']:.3f} (off by {told['delta']:.3f})"
    return f"{visible(told['target'])}: {shares}"


def show(found: list[Pair]) -> None:
    """Print explanations, coloured on a terminal, with the five weightiest words of each."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for texts, told in found:
        console.print(Text(_heading(told), style="bold"))
        for field, text in texts.items():
            line = Text(f"{field}: ")
            for part, share in parts(text, field, told):
                red, green, blue = _colour(share)
                line.append(visible(part), style=f"black on rgb({red},{green},{blue})" if share else "")
            console.print(line)
        for word in sorted(told["words"], key=lambda word: -abs(word["importance"]))[:5]:
            console.print(Text(f"  {word['importance']:+.3f}  {visible(word['text'])}"))


def page(title: str, found: list[Pair]) -> str:
    """Explanations as a page of HTML that needs nothing else."""
    body, title = [], visible(title)
    for texts, told in found:
        body.append(f"<h2>{escape(_heading(told))}</h2>")
        for field, text in texts.items():
            spans = "".join(
                f'<span style="background:rgb{_colour(share)}" title="{share:+.2f}">{escape(visible(part))}</span>'
                if share
                else escape(visible(part))
                for part, share in parts(text, field, told)
            )
            body.append(f"<p><b>{escape(field)}</b> {spans}</p>")
    style = "body{font:16px/1.6 sans-serif;max-width:50em;margin:2em auto;color:#000;background:#fff}h2{font-size:1em}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{style}</style>'
        f"<h1>{escape(title)}</h1>{''.join(body)}</html>\n"
    )


def check_place(file: Path) -> None:
    """Raises InputError if a page cannot be written to this file."""
    try:
        if file.is_dir():
            raise _no_place(file, "that is a folder")
        if not file.parent.is_dir():
            raise _no_place(file, f"there is no folder {file.parent}")
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            raise _no_place(file, "there is no right to write there")
    except OSError as error:
        raise _no_place(file, error.strerror or str(error)) from None


def write(file: Path, text: str) -> None:
    """Write a page. Raises InputError if that fails."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _no_place(file, error.strerror or str(error)) from None


def _no_place(file: Path, why: str) -> InputError:
    return InputError(f"--html {file} cannot be written: {why}.", fix="Name a file in a folder of yours.")
