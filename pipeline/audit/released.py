"""The handlers' files of every released version, by SHA-256, so that any other Python code in an archive can be named.

Those of the running version are computed from the package itself; `released.json` has the versions before it. To add a
version, when it is released: python -m mar_pipeline.audit.released
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from .. import ROOT, __version__
from ..files.atomic import write_atomic
from ..tasks import TASKS

FILE = Path(__file__).with_suffix(".json")
"""Version -> path in an archive -> hexadecimal SHA-256."""


def running() -> dict[str, str]:
    """The SHA-256 of this version's handlers, by their path in an archive: a task's at the root, the others in
    `handlers/`."""
    folder, digests = ROOT / "handlers", {}
    for file in sorted(folder.rglob("*.py")):
        path = file.relative_to(folder).as_posix()
        name = path if path.removesuffix(".py") in TASKS else f"handlers/{path}"
        digests[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return digests


def recorded(file: Path = FILE) -> dict[str, dict[str, str]]:
    """The digests of the versions that were released."""
    versions: dict[str, dict[str, str]] = json.loads(file.read_text(encoding="utf-8"))
    return versions


@lru_cache
def _known() -> frozenset[tuple[str, str]]:
    return frozenset(pair for digests in (running(), *recorded().values()) for pair in digests.items())


def is_released(path: str, sha256: str) -> bool:
    """Whether a file of an archive is, byte for byte, a handler of a released version or of the running one."""
    return (path, sha256) in _known()


def add(file: Path = FILE) -> None:
    """Record the running version's handlers."""
    versions = {**recorded(file), __version__: running()}
    write_atomic(file, json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    add()
