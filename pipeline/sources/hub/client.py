"""huggingface_hub itself: how it is kept quiet, when it is asked again, and its errors in our words."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ... import __version__
from ...errors import InputError, MarError, StageError, disk_is_full
from ..transfer import partial
from ..transfer.partial import Partial

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Found = TypeVar("Found")

_US = "mar-pipeline"

_NOT_THE_HUB = (ValueError, KeyError, TypeError, AttributeError, ImportError)
"""What the client raises where an answer is none of the Hub's, or an address or a token cannot be written into a
request."""

_CUT_SHORT = "Consistency check failed"
"""How the client's error begins that a body was shorter than it should be."""


def offline(asked: bool) -> bool:
    """Whether the network is not to be used: by `--offline`, or by the client's own variables."""
    told = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return asked or any(value.upper() in {"1", "ON", "YES", "TRUE"} for value in told)


def quiet() -> None:
    """Keep the client from drawing and telling (of addresses with signatures in them), and have it hand over what it
    gets as it comes: what it still holds when the line breaks is lost."""
    import logging

    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a variable that says otherwise
        disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    constants.DOWNLOAD_CHUNK_SIZE = 1 << 17
    # It writes files by their names, past us.
    constants.HF_HUB_ENABLE_HF_TRANSFER = False  # type: ignore[attr-defined]


def api() -> HfApi:
    """The client of the Hub's API."""
    from huggingface_hub import HfApi

    return HfApi(library_name=_US, library_version=__version__)


def get(repo: str, commit: str, path: str, into: IO[bytes] | Partial, size: int, *, resume_at: int = 0) -> None:
    """Write a file of `size` bytes into an open one, of which the first `resume_at` bytes are there already."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = hf_hub_url(repo, path, revision=commit)
    headers = build_hf_headers(library_name=_US, library_version=__version__)
    http_get(url, into, resume_size=resume_at, headers=headers, expected_size=size)  # type: ignore[arg-type]


def patiently(call: Callable[[], Found], repo: str, revision: str) -> Found:
    """What a call of the client returns, which is tried again where the server is busy or the line breaks."""
    quiet()
    with errors(repo, revision):
        for attempt in range(partial.TRIES):
            try:
                return call()
            except Exception as error:
                if isinstance(error, _NOT_THE_HUB) and not isinstance(error, OSError):
                    raise _not_the_hub(error) from None
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
        if code == 401:
            raise _bad_token(repo) from None
        if code == 403:
            raise InputError(
                f"Access to {repo} is denied (403), by the Hub or by what stands before it.",
                "The token may lack the right to read it, or a proxy does not let its files pass.",
                "Check HF_TOKEN, and HTTPS_PROXY.",
            ) from None
        raise StageError(
            f"The Hub answered {code} for {repo}{', again and again' if wait(error) is not None else ''}.",
            fix="Build again later: what was fetched stays. The Hub may be busy (https://status.huggingface.co).",
        ) from None
    except Exception as error:
        if str(error).startswith(_CUT_SHORT):
            raise StageError(
                f"A file of {repo} ends too early, again and again.",
                "A proxy or a mirror cuts it off.",
                "Try another network, or another HF_ENDPOINT.",
            ) from None
        if not isinstance(error, theirs.LocalEntryNotFoundError) and not _of_the_network(error):
            raise
        raise StageError(
            f"The Hub ({endpoint()}) cannot be reached for {repo}.",
            fix="Set HF_ENDPOINT or HTTPS_PROXY, use --offline with a filled HF_HOME, or MODEL=<local folder>.",
        ) from None


def endpoint() -> str:
    """Where the Hub is, without a password in its address."""
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    return address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()


def _not_the_hub(error: Exception) -> MarError:
    from huggingface_hub import errors as theirs

    if isinstance(error, theirs.HfHubHTTPError | theirs.LocalEntryNotFoundError):
        raise error
    # Of an ImportError alone what it says: others may say what was asked, with a token in it.
    said = str(error).splitlines()[0] if isinstance(error, ImportError) and str(error) else type(error).__name__
    return StageError(
        f"What answers at {endpoint()} does not speak as the Hub does, or cannot be asked ({said}).",
        "A login page of the network may stand before it, or HF_ENDPOINT, HF_TOKEN or a proxy is miswritten.",
        "Open the address in a browser, and check these variables.",
    )


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
    if _of_the_network(error) or str(error).startswith(_CUT_SHORT):
        return 0.0
    return None


def _of_the_network(error: BaseException) -> bool:
    # The client was built on requests, then on httpx, then on its successor: their errors share these names.
    names = {base.__name__ for base in type(error).__mro__}
    ours = {"TransportError", "RequestError", "RequestException", "ConnectionError", "TimeoutError", "InvalidURL"}
    return bool(names & ours)


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
