"""Calls of huggingface_hub: without its output, with retries, and with its errors translated."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ... import __version__
from ...errors import InputError, MarError, StageError, disk_is_full
from ..transfer import partial, plaintext
from ..transfer.partial import Partial

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Result = TypeVar("Result")

_LIBRARY = "mar-pipeline"

_NOT_THE_HUB = (ValueError, KeyError, TypeError, AttributeError, ImportError)
"""The client's errors for an answer that is not from the Hub, and for an address or a token that does not fit into a
request."""

_CUT_SHORT = "Consistency check failed"
"""The start of the client's error for a body that is shorter than announced."""


def offline(requested: bool) -> bool:
    """Whether the network is forbidden, by `--offline` (`requested`) or by the client's own variables."""
    values = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return requested or any(value.upper() in {"1", "ON", "YES", "TRUE"} for value in values)


def configure() -> None:
    """Turn off the client's progress bars and logs (which contain signed URLs), and make it write small chunks: the
    chunk in progress is lost when a transfer is interrupted."""
    import logging

    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for a contradicting environment variable
        disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    constants.DOWNLOAD_CHUNK_SIZE = 1 << 17
    # That transfer writes to a file name, not to our file object.
    constants.HF_HUB_ENABLE_HF_TRANSFER = False  # type: ignore[attr-defined]


def api() -> HfApi:
    """The client of the Hub's API."""
    from huggingface_hub import HfApi

    return HfApi(library_name=_LIBRARY, library_version=__version__)


def get(repo: str, commit: str, path: str, into: IO[bytes] | Partial, size: int, *, resume_at: int = 0) -> None:
    """Download a file of `size` bytes from byte `resume_at` on, and append it to an open file."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = hf_hub_url(repo, path, revision=commit)
    headers = build_hf_headers(library_name=_LIBRARY, library_version=__version__)
    http_get(url, into, resume_size=resume_at, headers=headers, expected_size=size)  # type: ignore[arg-type]


def with_retries(call: Callable[[], Result], repo: str, revision: str) -> Result:
    """The result of a call of the client, retried while the server is busy or the network fails. Raises InputError,
    StageError."""
    configure()
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
    """Translate the client's errors to MarErrors."""
    from huggingface_hub import errors as theirs

    try:
        yield
    except MarError:
        raise
    except theirs.GatedRepoError:
        raise InputError(
            f"{repo} is gated: its owner requires you to accept terms first.",
            fix="Accept them on the model's page, then set HF_TOKEN or run `hf auth login`.",
        ) from None
    except theirs.RepositoryNotFoundError as error:
        if _is_about_the_token(error):
            raise _bad_token(repo) from None
        raise InputError(
            f"{repo} does not exist on the Hub, or it is private and the token cannot read it.",
            fix="Check the name; write a local folder with ./ in front; set HF_TOKEN for a private model.",
        ) from None
    except theirs.RevisionNotFoundError:
        raise InputError(
            f"{repo} has no revision {revision!r}.",
            fix="Give an existing branch, tag or commit (--revision, or handler.revision).",
        ) from None
    except theirs.HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else "no"
        if code == 401:
            raise _bad_token(repo) from None
        if code == 403:
            raise InputError(
                f"Access to {repo} is denied (403), by the Hub or by a proxy.",
                "The token may lack the right to read it, or a proxy blocks its files.",
                "Check HF_TOKEN and HTTPS_PROXY.",
            ) from None
        raise StageError(
            f"The Hub answered {code} for {repo}{', repeatedly' if wait(error) is not None else ''}.",
            fix="Build again later: downloaded files are kept. The Hub may be busy (https://status.huggingface.co).",
        ) from None
    except Exception as error:
        if str(error).startswith(_CUT_SHORT):
            raise StageError(
                f"A file of {repo} is truncated, repeatedly.",
                "A proxy or a mirror ends the transfer too early.",
                "Try another network, or another HF_ENDPOINT.",
            ) from None
        if not isinstance(error, theirs.LocalEntryNotFoundError) and not _of_the_network(error):
            raise
        given = [name for name in ("HF_ENDPOINT", "HTTPS_PROXY", "https_proxy") if os.environ.get(name)]
        raise StageError(
            f"The Hub ({endpoint()}) cannot be reached for {repo}.",
            f"The network is down, or {' or '.join(given)}, which you have set, is wrong." if given else "",
            f"{'Correct it' if given else 'Set HF_ENDPOINT or HTTPS_PROXY'}, use --offline with a filled HF_HOME, or "
            "give a folder as the model.",
        ) from None


def endpoint() -> str:
    """The Hub's address, without its log-in."""
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    return address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()


def warn_of_plaintext(warn: Callable[[str], None]) -> None:
    """Warn if the user's token, or a log-in in HF_ENDPOINT, goes over the network unencrypted."""
    from huggingface_hub import get_token

    address = os.environ.get("HF_ENDPOINT") or ""
    secret = "Your Hugging Face token" if get_token() else "The log-in in HF_ENDPOINT" if "@" in address else None
    if secret and (text := plaintext.warning(address, secret, "HF_ENDPOINT")):
        warn(text)


def _not_the_hub(error: Exception) -> MarError:
    from huggingface_hub import errors as theirs

    if isinstance(error, theirs.HfHubHTTPError | theirs.LocalEntryNotFoundError):
        raise error
    # Only an ImportError's text: others can contain the request, with the token.
    cause = str(error).splitlines()[0] if isinstance(error, ImportError) and str(error) else type(error).__name__
    return StageError(
        f"{endpoint()} does not answer like the Hub, or the request is invalid ({cause}).",
        "The network's login page may answer in its place, or HF_ENDPOINT, HF_TOKEN or a proxy's address is wrong.",
        "Open the address in a browser, and check these variables.",
    )


def _bad_token(repo: str) -> InputError:
    return InputError(
        f"The Hub refuses the token for {repo}: it is wrong or expired, or may not read the model.",
        fix="Set HF_TOKEN to a valid token, or unset it, or run `hf auth login`.",
    )


def _is_about_the_token(error: Any) -> bool:
    return "credentials" in str(getattr(error, "server_message", "") or error).lower()


def wait(error: Exception) -> float | None:
    """The seconds to wait before another attempt, by the server's Retry-After or 0; None for an error that another
    attempt would not fix."""
    from huggingface_hub import errors as theirs

    if isinstance(error, theirs.HfHubHTTPError) and error.response is not None:
        code, retry_after = error.response.status_code, error.response.headers.get("Retry-After", "")
        if code in (408, 425, 429) or code >= 500:
            return float(retry_after) if re.fullmatch("[0-9]{1,9}", retry_after) else 0.0
        return None
    if _of_the_network(error) or str(error).startswith(_CUT_SHORT):
        return 0.0
    return None


def _of_the_network(error: BaseException) -> bool:
    # Releases of the client use different HTTP libraries (requests, httpx, ...), whose errors share these names.
    names = {base.__name__ for base in type(error).__mro__}
    ours = {"TransportError", "RequestError", "RequestException", "ConnectionError", "TimeoutError", "InvalidURL"}
    return bool(names & ours)


@contextmanager
def cache_errors() -> Iterator[None]:
    """Translate errors of writing to the Hugging Face cache to StageErrors."""
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
            fix="Make it writable, or set HF_HOME to a writable folder.",
        ) from None
