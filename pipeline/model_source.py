"""Which model a name means: a starter that ships with the package, a folder, or a Hub id."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from .tasks import TASKS

STARTERS = Path(__file__).parent / "starters"
PREFIX = "starter:"

# The Hub's own rule for repository names (huggingface_hub's validate_repo_id): letters and digits, with - _ .
# inside, no -- and no .., at most 96 characters.
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_.\-]{0,94}[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"{_PART}(?:/{_PART})?")
_LONGEST_PATH = 4096


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a checkpoint comes from: `path` of a starter or folder, `repo` of a Hub id; `name` as written."""

    kind: Literal["starter", "folder", "hub"]
    name: str
    path: Path | None = None
    repo: str | None = None

    @property
    def short_name(self) -> str:
        """The last part of the name: of the folder's, the repository's or the starter's."""
        return self.path.name if self.path is not None else (self.repo or self.name).rpartition("/")[2]


def find(name: str, folders: Sequence[Path]) -> ModelSource:
    """The model that `name` means, relative paths being looked up in `folders` in turn.

    Raises ValueError with a text that can follow "handler.model_name: ".
    """
    if not name.strip() or len(name) > _LONGEST_PATH or any(ord(letter) < 32 for letter in name):
        raise ValueError("no name of a model: give starter:NAME, a folder, or a Hub id")
    if name.startswith(PREFIX):
        return _starter(name)
    if "://" in name:
        hub = re.fullmatch(r"https?://(?:huggingface\.co|hf\.co)/([^/?#]+/[^/?#]+).*", name)
        instead = f"write its Hub id, {hub.group(1)}" if hub else "give a folder on this machine, or a Hub id"
        raise ValueError(f"{name} is an address: {instead}")
    try:
        path = Path(name).expanduser()
        candidates = [folder / path for folder in folders]
        found = next((candidate for candidate in candidates if candidate.exists()), None)
        if found is not None and found.is_dir():
            # Absolute, with links left as they are: a link's name is the model's name to the user.
            return ModelSource(kind="folder", name=name, path=Path(os.path.abspath(found)))  # noqa: PTH100
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be looked at: {getattr(error, 'strerror', None) or error}") from None
    if found is not None:
        raise ValueError(f"{name} is a file: name the folder that save_pretrained() wrote, with its config.json")
    if name[0] in "./~" or name.endswith("/") or "\\" in name:
        raise ValueError(f"no such folder: {name}{_near(candidates)}")
    if not _HUB_ID.fullmatch(name) or "--" in name or ".." in name or name.endswith(".git"):
        raise ValueError(f"{name} is neither a folder here nor a Hub id (NAME or ORGANISATION/NAME){_near(candidates)}")
    return ModelSource(kind="hub", name=name, repo=name)


def _starter(name: str) -> ModelSource:
    wanted = name.removeprefix(PREFIX)
    known = [
        *TASKS,
        *(sorted(folder.name for folder in STARTERS.iterdir() if folder.is_dir()) if STARTERS.is_dir() else []),
    ]
    if wanted not in known:
        near = get_close_matches(wanted, known, n=1, cutoff=0.5)
        hint = f"did you mean {PREFIX}{near[0]}?" if near else f"there are {', '.join(dict.fromkeys(known))}"
        raise ValueError(f"no such starter: {name}; {hint}")
    return ModelSource(kind="starter", name=name, path=STARTERS / wanted)


def _near(candidates: Sequence[Path]) -> str:
    """A hint at a folder beside one that is not there; empty if there is none like it."""
    for path in candidates:
        try:
            beside = [item.name for item in path.parent.iterdir() if item.is_dir()]
        except OSError:
            continue
        near = get_close_matches(path.name, beside, n=1)
        if near:
            return f"; did you mean {path.parent / near[0]}?"
    return ""
