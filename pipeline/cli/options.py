"""What commands share: options, the examples in their help, and how they open the cache."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from ..cache import folder as cache_folder
from ..cache.store import Store
from ..errors import InputError
from . import console

EXIT_CODES = (
    "Exit codes: 0 done, 1 unexpected, 2 bad input or settings, 3 a stage failed, "
    "4 the archive does not answer like the model, 5 the archives differ."
)

Archived = Annotated[Path, typer.Argument(help="A .mar, a .tar.gz or a folder.", show_default=False)]
Configs = Annotated[list[Path] | None, typer.Argument(help="Config files (YAML).", show_default=False)]

TaskOption = Annotated[
    str | None, typer.Option("--task", help="The task; its packaged config is used if none is given.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="A Hub id, a folder, an address (s3://...), or starter:NAME.")
]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit on the Hub.")]
SaveModeOption = Annotated[str | None, typer.Option("--save-mode", help="pretrained or torchscript.")]
NameOption = Annotated[
    str | None, typer.Option("--name", help="The archive's name, as --set archive.name=NAME; of one config.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as handler.max_length=256."),
]
OutOption = Annotated[Path, typer.Option("--out", help="The output folder.")]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", envvar="MAR_CACHE", help="The cache folder.", show_default=False)
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Use cached files only, and no network.")]
LockedOption = Annotated[bool, typer.Option("--locked", help="Fail unless the model is the one in CONFIG.lock.")]
UnverifiedOption = Annotated[
    bool, typer.Option("--allow-unverified", help="Accept a graph for Inferentia that cannot run on this machine.")
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        min=0,
        metavar="SECONDS",
        help="How long a stage may work with the model: 1800, and 120 for each GB of it, if not given; 0 for no limit.",
        show_default=False,
    ),
]
ForceOption = Annotated[
    list[str] | None, typer.Option("--force", metavar="STAGE", help="Run a stage even if it is cached.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, and nothing else, on standard output.")
]

Options = TypeVar("Options")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """The options of `mar build` and `mar plan`, in the order in which their help lists them."""

    configs: Configs = None
    task: TaskOption = None
    model: ModelOption = None
    revision: RevisionOption = None
    save_mode: SaveModeOption = None
    name: NameOption = None
    settings: SetOption = None
    out: OutOption = Path("build")
    cache: CacheOption = None
    offline: OfflineOption = False
    locked: LockedOption = False
    allow_unverified: UnverifiedOption = False
    timeout: TimeoutOption = None
    force: ForceOption = None
    as_json: JsonOption = False


def taking(options: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Decorator: a function of one dataclass becomes a command with a parameter for each of its fields."""

    def decorated(command: Callable[[Options], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def call(**values: Any) -> None:
            command(options(**values))

        call.__signature__ = inspect.signature(options, eval_str=True)  # type: ignore[attr-defined]
        call.__annotations__ = get_type_hints(options)
        return call

    return decorated


Command = TypeVar("Command", bound=Callable[..., None])


def example(*lines: str) -> Callable[[Command], Command]:
    """Decorator: the command lines that a command's help shows as its example."""

    def decorated(command: Command) -> Command:
        command.example = lines  # type: ignore[attr-defined]
        return command

    return decorated


def epilog(command: Callable[..., None]) -> str:
    """The text below a command's options: its example, and the exit codes."""
    lines: tuple[str, ...] = command.example  # type: ignore[attr-defined]
    heading = "Example:" if len(lines) == 1 else "Examples:"
    # \b keeps the parser from joining the lines.
    return "\n".join(["\b", heading, *(f"  {line}" for line in lines), "", EXIT_CODES])


def bytes_of(option: str, text: str) -> int:
    """The number of bytes that an option's value means. Raises InputError if it is not a size."""
    match = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]+)?)\s*([kKMGT]?)i?[bB]?\s*", text)
    if not match:
        raise InputError(f"{option} {text} is not a size.", fix="Write it as 20GB or 500MB.")
    return int(float(match[1]) * 1000 ** " kMGT".index(match[2].replace("K", "k") or " "))


def cache_of(cache: Path | None) -> Path:
    """The cache folder: `cache`, or the user's own if it is None."""
    from platformdirs import user_cache_path

    return (cache or user_cache_path("mar-pipeline")).expanduser().absolute()


def open_store(cache: Path | None, *, read_only: bool = False) -> Store:
    """The store in `cache`, or in the user's own cache folder if it is None. A `read_only` one writes nothing. The
    folders of killed commands are removed from both. Raises InputError if the folder is not a cache and not empty."""
    root = cache_of(cache)
    cache_folder.check(root)
    store = Store(root, warn=console.warning, read_only=read_only)
    store.drop_texts()
    return store
