"""huggingface_hub itself: how it is kept quiet, when it is asked again, and its errors in our words."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from .. import partial
from ..errors import InputError, MarError, StageError, disk_is_full

Found = TypeVar("Found")


def offline(asked: bool) -> bool:
    """Whether the network is not to be used: by `--offline`, or by the client's own HF_HUB_OFFLINE."""
    return asked or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def quiet() -> None:
    """Keep the client from drawing and telling (of addresses with signatures in them), and have it hand over what it
    gets as it comes: what it still holds when the line breaks is lost."""
    import logging

    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    constants.DOWNLOAD_CHUNK_SIZE = 1 << 17
    # It writes files by their names, past us.
    constants.HF_HUB_ENABLE_HF_TRANSFER = False  # type: ignore[attr-defined]


def patiently(call: Callable[[], Found], repo: str, revision: str) -> Found:
    """What a call of the client returns, which is tried again where the server is busy or the line breaks."""
    quiet()
    with errors(repo, revision):
        for attempt in range(partial.TRIES):
            try:
                return call()
            except Exception as error:
                seconds = wait(error)
                if seconds is None or attempt == (partial.TRIES if seconds else 3) - 1:
                    raise
                time.sleep(min(seconds or 0.2 * 2**attempt, partial.LONGEST_WAIT))
    raise AssertionError


@contextmanager
def errors(repo: str, revision: str) -> Iterator[None]:
    """The client's errors, in our words."""
    from huggingface_hub import errors as theirs

    try:
        yield
    except MarError:
        raise
    except theirs.GatedRepoError:
        raise InputError(
            f"{repo} is gated: its owner asks you to accept terms first.",
            fix="Accept them on the model's page, then set HF_TOKEN or run `hf auth login`.",
        ) from None
    except theirs.RepositoryNotFoundError as error:
        if _is_about_the_token(error):
            raise _bad_token(repo) from None
        raise InputError(
            f"No such model: the Hub has no {repo}, or it is private and the token cannot see it.",
            fix="Check the name; a local folder is written with ./ in front; set HF_TOKEN for a private model.",
        ) from None
    except theirs.RevisionNotFoundError:
        raise InputError(
            f"{repo} has no revision {revision!r}.", fix="Give a branch, tag or commit that it has."
        ) from None
    except theirs.HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else "no"
        if code in (401, 403):
            raise _bad_token(repo) from None
        raise StageError(
            f"The Hub answered {code} for {repo}, and again when it was asked again.",
            fix="Build again later: what was fetched stays. The Hub may be busy (https://status.huggingface.co).",
        ) from None
    except Exception as error:
        if not isinstance(error, theirs.LocalEntryNotFoundError) and not _of_the_network(error):
            raise
        raise StageError(
            f"The Hub ({_endpoint()}) cannot be reached for {repo}.",
            fix="Set HF_ENDPOINT or HTTPS_PROXY, use --offline with a filled HF_HOME, or MODEL=<local folder>.",
        ) from None


def _endpoint() -> str:
    """Where the Hub is, without a password in its address."""
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    return address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()


def _bad_token(repo: str) -> InputError:
    return InputError(
        f"The Hub refuses the token for {repo}: it is wrong, expired, or without the right to read it.",
        fix="Set HF_TOKEN to a token that is valid, or unset it, or run `hf auth login`.",
    )


def _is_about_the_token(error: Any) -> bool:
    return "credentials" in str(getattr(error, "server_message", "") or error).lower()


def wait(error: Exception) -> float | None:
    """Seconds to wait before another try, 0 for as short as may be; None if another try would do no better."""
    from huggingface_hub import errors as theirs

    if isinstance(error, theirs.HfHubHTTPError) and error.response is not None:
        code, told = error.response.status_code, error.response.headers.get("Retry-After", "")
        if code in (408, 425, 429) or code >= 500:
            return float(told) if told.isdigit() else 0.0
        return None
    if _of_the_network(error) or str(error).startswith("Consistency check failed"):
        return 0.0
    return None


def _of_the_network(error: BaseException) -> bool:
    # The client was built on requests, then on httpx, then on its successor: their errors share these names.
    names = {base.__name__ for base in type(error).__mro__}
    return bool(names & {"TransportError", "RequestException", "ConnectionError", "TimeoutError"})


@contextmanager
def written() -> Iterator[None]:
    """What the disk says of the Hugging Face cache, in our words."""
    try:
        yield
    except OSError as error:
        if disk_is_full(error):
            raise StageError(
                f"The disk is full: {error.filename} could not be written.",
                fix="Free some space, or set HF_HOME to a folder on another disk; then build again.",
            ) from None
        if not partial.unwritable(error):
            raise
        raise StageError(
            f"The Hugging Face cache cannot be written to: {error.strerror} ({error.filename}).",
            fix="Make it writable, or set HF_HOME to a folder that is.",
        ) from None
