"""An explanation as coloured text: words that speak for the target green, those against it red, the more the darker."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

Pair = tuple[dict[str, str], dict[str, Any]]
"""An input's fields with a text, and its explanation."""


def pairs(request: Any, reply: Any) -> list[Pair]:
    """Each input of a request with its explanation."""
    if isinstance(request, dict) and "instances" in request:
        request, reply = request["instances"], reply["predictions"]
    many = isinstance(request, list)
    return [
        (_texts(one, told), told)
        for one, told in zip(request if many else [request], reply if many else [reply], strict=True)
    ]


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
    return (
        f"{told['target']}: {told['value']:.3f}, without the words {told['baseline']:.3f} (off by {told['delta']:.3f})"
    )


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
                line.append(part, style=f"black on rgb({red},{green},{blue})" if share else "")
            console.print(line)
        for word in sorted(told["words"], key=lambda word: -abs(word["importance"]))[:5]:
            console.print(Text(f"  {word['importance']:+.3f}  {word['text']}"))


def page(title: str, found: list[Pair]) -> str:
    """Explanations as a page of HTML that needs nothing else."""
    body = []
    for texts, told in found:
        body.append(f"<h2>{escape(_heading(told))}</h2>")
        for field, text in texts.items():
            spans = "".join(
                f'<span style="background:rgb{_colour(share)}" title="{share:+.2f}">{escape(part)}</span>'
                if share
                else escape(part)
                for part, share in parts(text, field, told)
            )
            body.append(f"<p><b>{escape(field)}</b> {spans}</p>")
    style = "body{font:16px/1.6 sans-serif;max-width:50em;margin:2em auto;color:#000;background:#fff}h2{font-size:1em}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{style}</style>'
        f"<h1>{escape(title)}</h1>{''.join(body)}</html>\n"
    )
