"""The console of colours and progress bars. It is imported late, since rich is."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from ..text import visible
from .console import unescaped


class Styled(Console):
    """A console that writes rich's own control sequences to the terminal, and escapes all texts that it shows."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)


def console(*, stderr: bool = False) -> Styled:
    """The console of standard output, or of standard error."""
    return Styled(file=unescaped(sys.stderr if stderr else sys.stdout), highlight=False)
