"""Names of the Hugging Face cache where a checkpoint is expected: models--ORGANISATION--NAME/snapshots/COMMIT/..."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from ..errors import InputError
from ..text import some

_COMMIT = r"[0-9a-f]{40}"


def repository(name: str) -> str | None:
    """The Hub id of a repository's folder in the cache; None for another name."""
    kind, _, id_ = name.rstrip("/").rpartition("/")[2].partition("--")
    return id_.replace("--", "/", 1) if kind == "models" and id_ else None


def refuse_cache(present: Collection[str], where: str, text: Callable[[str], str]) -> None:
    """Raise InputError if a folder without a config.json is a part of the cache above a snapshot."""
    where = where.rstrip("/")
    found = [re.match(rf"((?:snapshots/)?{_COMMIT})/", path) for path in present]
    snapshots = sorted({match[1] for match in found if match})
    if snapshots:
        main = f"snapshots/{text('refs/main').strip()}" if "refs/main" in present else ""
        id_ = repository(where)
        raise InputError(
            f"{where} is a folder of the Hugging Face cache; the checkpoints are the folders of its snapshots.",
            f"It has {some(snapshots)}.",
            f"Point at {where}/{main if main in snapshots else snapshots[-1]}"
            + (f", or give the Hub id: {id_}" if id_ else ""),
        )
    ids = sorted({id_ for path in present if (id_ := repository(path.partition("/")[0])) and "/" in path})
    if ids:
        raise InputError(
            f"{where} is a Hugging Face cache, and not a checkpoint.",
            f"It has {some(ids)}.",
            "Give a model's Hub id, or point at one of its snapshots: models--ORGANISATION--NAME/snapshots/COMMIT",
        )
