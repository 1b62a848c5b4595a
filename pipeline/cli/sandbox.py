"""The options of commands that can run an archive's code in a sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .options import bytes_of

if TYPE_CHECKING:
    from ..host.sandbox import Sandbox

SandboxOption = Annotated[
    bool,
    typer.Option(
        "--sandbox",
        help="Run the archive's code in a sandbox (bubblewrap): no network, no files of yours, within limits.",
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="The sandbox's memory, as 4GB; three quarters of the machine's if not given.",
        show_default=False,
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", help="The sandbox's time limit; 600 if not given.", show_default=False
    ),
]


def of(wanted: bool, memory: str | None, timeout: float | None, option: str = "--sandbox") -> Sandbox | None:
    """The sandbox that the options ask for, None without `option`. Raises InputError if none can be made here."""
    if not wanted:
        if memory is not None or timeout is not None:
            limit = "--memory" if memory is not None else "--timeout"
            raise InputError(f"{limit} is a limit of the sandbox.", fix=f"Give {option} too, or leave it out.")
        return None
    from ..host import sandbox

    size = sandbox.default_memory() if memory is None else bytes_of("--memory", memory)
    seconds = sandbox.TIMEOUT if timeout is None else timeout
    if size < sandbox.LEAST:
        raise InputError(f"--memory {memory} is too little: Python and torch need some of it.", fix="Give 1GB or more.")
    if not 0 < seconds < 1e6:
        raise InputError(f"--timeout {timeout:g} is not a time limit.", fix="Give a number of seconds, as 60.")
    return sandbox.Sandbox(memory=min(size, sandbox.MOST), timeout=seconds)
