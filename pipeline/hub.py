"""The Hugging Face Hub, through huggingface_hub: a revision's commit, and the needed files of a commit.

The user's own cache and token are used, and HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE hold, since the
genuine client reads them. It is imported late: a build from a folder, or of a pinned and cached commit, needs none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import checkpoint
from .errors import InputError, StageError

Progress = Callable[[int, int | None], None]

_COMMIT = re.compile(r"[0-9a-f]{40}")


def offline(asked: bool) -> bool:
    """Whether the network is not to be used: by `--offline`, or by the client's own HF_HUB_OFFLINE."""
    return asked or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def commit_of(repo: str, revision: str | None, *, no_network: bool, last_seen: str | None = None) -> str:
    """The commit (40 hexadecimal digits) that `revision` (branch, tag or commit; the main branch if None) is now.
    Offline it is the one that was `last_seen`, or the one in the Hugging Face cache. Raises InputError, StageError."""
    revision = revision or "main"
    if _COMMIT.fullmatch(revision):
        return revision
    if no_network:
        if last_seen:
            return last_seen
        reference = _cached(repo) / "refs" / revision
        try:
            return reference.read_text(encoding="utf-8").strip()
        except OSError:
            raise _not_cached(repo, revision) from None
    from huggingface_hub import HfApi

    with _errors(repo, revision):
        commit = HfApi().model_info(repo, revision=revision).sha
    if not commit:
        raise StageError(f"The Hub named no commit for {repo} at {revision}.", fix="Try again, or give a commit.")
    return commit


def fetch(repo: str, commit: str, *, no_network: bool, progress: Progress) -> tuple[Path, list[str]]:
    """Bring the needed files of a commit into the user's Hugging Face cache; the snapshot's folder and the files'
    names in it. Raises InputError if the repository cannot be used, StageError if the transfer fails."""
    where = f"{repo} at {commit[:12]}"
    if no_network:
        folder = _cached(repo) / "snapshots" / commit
        if not folder.is_dir():
            raise _not_cached(repo, commit)
        present = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        names = checkpoint.needed(present, where)
        if checkpoint.INDEX in names:
            names += checkpoint.shards((folder / checkpoint.INDEX).read_text(encoding="utf-8"), where)
        if set(names) - set(present):
            raise _not_cached(repo, commit)
        return folder, names

    from huggingface_hub import HfApi

    with _errors(repo, commit):
        info = HfApi().model_info(repo, revision=commit, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    names = checkpoint.needed(sizes, where)
    total = sum(sizes[name] for name in names)
    folder = _download(repo, commit, names, total, progress)
    if checkpoint.INDEX in names:
        parts = checkpoint.shards((folder / checkpoint.INDEX).read_text(encoding="utf-8"), where)
        absent = [name for name in parts if name not in sizes]
        if absent:
            raise InputError(
                f"{where} lacks {absent[0]}, which its index of weights names.", fix="Name another revision."
            )
        folder = _download(repo, commit, parts, sum(sizes[name] for name in parts), progress)
        names += parts
    return folder, names


def _download(repo: str, commit: str, names: list[str], total: int, progress: Progress) -> Path:
    from huggingface_hub import snapshot_download
    from tqdm.auto import tqdm

    done = 0

    class Bytes(tqdm):  # type: ignore[misc]
        """Draws nothing: hands the client's byte counts on."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.counts = kwargs.get("unit") == "B"
            kwargs["disable"] = True
            kwargs.pop("name", None)
            super().__init__(*args, **kwargs)

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal done
            if self.counts and n:
                done = min(total, done + int(n))
                progress(done, total)
            return bool(super().update(n))

    progress(0, total)
    with _errors(repo, commit):
        return Path(snapshot_download(repo, revision=commit, allow_patterns=names, tqdm_class=Bytes))


def _cached(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def _not_cached(repo: str, revision: str) -> InputError:
    return InputError(
        f"{repo} at {revision} is not in the Hugging Face cache, and the network is not to be used.",
        fix="Build once without --offline (and without HF_HUB_OFFLINE), or set HF_HOME to the cache that has it.",
    )


def _of_the_network(error: BaseException) -> bool:
    # The client was built on requests, then on httpx, then on its successor: their errors share these names.
    names = {base.__name__ for base in type(error).__mro__}
    return bool(names & {"TransportError", "RequestException", "ConnectionError", "TimeoutError"})


@contextmanager
def _errors(repo: str, revision: str) -> Iterator[None]:
    """The client's errors, in our words."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise InputError(
            f"{repo} is gated: its owner asks you to accept terms first.",
            fix="Accept them on the model's page, then set HF_TOKEN or run `hf auth login`.",
        ) from None
    except errors.RepositoryNotFoundError:
        raise InputError(
            f"No such model: the Hub has no {repo}, or it is private and the token cannot see it.",
            fix="Check the name; a local folder is written with ./ in front; set HF_TOKEN for a private model.",
        ) from None
    except errors.RevisionNotFoundError:
        raise InputError(
            f"{repo} has no revision {revision!r}.", fix="Give a branch, tag or commit that it has."
        ) from None
    except errors.HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else "no"
        fix = (
            "The token is wrong or expired: set HF_TOKEN, or run `hf auth login`."
            if code in (401, 403)
            else "Try again; the Hub may be busy (https://status.huggingface.co)."
        )
        raise StageError(f"The Hub answered {code} for {repo}.", fix=fix) from None
    except Exception as error:
        if not isinstance(error, errors.LocalEntryNotFoundError) and not _of_the_network(error):
            raise
        raise StageError(
            f"The Hub ({os.environ.get('HF_ENDPOINT', 'https://huggingface.co')}) cannot be reached for {repo}.",
            fix="Set HF_ENDPOINT or HTTPS_PROXY, use --offline with a filled HF_HOME, or MODEL=<local folder>.",
        ) from None
