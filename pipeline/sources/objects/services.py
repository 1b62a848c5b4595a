"""The supported object stores, and their errors by class name. The errors' texts are not shown: they can contain signed
URLs."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import InputError, MarError, StageError

Kind = Literal["disk", "denied", "absent", "network", "wrong", "other"]


@dataclass(frozen=True, kw_only=True)
class Service:
    """An object store, for messages.

    library      the package that fsspec reads it with
    extra        the extra of this package that installs it
    settings     where credentials come from
    credentials  the environment variables that hold them
    public       the variable for access without credentials
    address      the variable for another server
    """

    name: str
    library: str
    extra: str
    settings: str
    public: str
    address: str
    credentials: tuple[str, ...]


S3 = Service(
    name="S3",
    library="s3fs",
    extra="s3",
    settings="AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    public="FSSPEC_S3_ANON=true",
    address="AWS_ENDPOINT_URL",
    credentials=(
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "FSSPEC_S3_KEY",
        "FSSPEC_S3_SECRET",
        "FSSPEC_S3_TOKEN",
    ),
)
_GOOGLE = Service(
    name="Google Cloud Storage",
    library="gcsfs",
    extra="gs",
    settings="GOOGLE_APPLICATION_CREDENTIALS",
    public="FSSPEC_GS_TOKEN=anon",
    address="STORAGE_EMULATOR_HOST",
    credentials=("GOOGLE_APPLICATION_CREDENTIALS", "FSSPEC_GS_TOKEN"),
)
_AZURE = Service(
    name="Azure Blob Storage",
    library="adlfs",
    extra="az",
    settings="AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING",
    public="AZURE_STORAGE_ANON=true",
    address="AZURE_STORAGE_CONNECTION_STRING",
    credentials=(
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_CLIENT_SECRET",
    ),
)
SERVICES = {"s3": S3, "gs": _GOOGLE, "gcs": _GOOGLE, "az": _AZURE, "abfs": _AZURE, "abfss": _AZURE}

_DENIED = {
    "PermissionError", "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound",
    "TokenRetrievalError", "SSOError", "ClientAuthenticationError", "GoogleAuthError",
}  # fmt: skip
_ABSENT = {"FileNotFoundError", "ResourceNotFoundError"}
_NETWORK = {
    "ConnectionError", "TimeoutError", "HTTPClientError", "ClientConnectionError", "ClientPayloadError",
    "IncompleteReadError", "IncompleteRead", "ResponseStreamingError", "ServiceRequestError", "ServiceResponseError",
    "RequestException", "TransportError", "ChecksumError", "gaierror", "ResponseParserError",
}  # fmt: skip
_WRONG = {"ValueError", "ParamValidationError", "NoRegionError", "InvalidRegionError"}
_BUSY = (errno.EBUSY, errno.EREMOTEIO)


def of(url: str) -> Service:
    """The store of an address."""
    return SERVICES.get(url.partition("://")[0], S3)


def kind(error: BaseException) -> Kind:
    """The kind of an error, by the names of its class and base classes: so no store's package has to be imported."""
    if isinstance(error, OSError) and isinstance(error.filename, str) and Path(error.filename).is_absolute():
        return "disk"
    names = {base.__name__ for base in type(error).__mro__}
    code = next((str(code) for name in ("code", "status_code", "status") if (code := getattr(error, name, None))), "")
    if names & _DENIED or code in ("401", "403"):
        return "denied"
    if names & _ABSENT or code == "404":
        return "absent"
    busy = code in ("408", "429") or (code.isdecimal() and int(code) >= 500)
    if names & _NETWORK or busy or (isinstance(error, OSError) and error.errno in _BUSY):
        return "network"
    return "wrong" if names & _WRONG else "other"


def translate(error: BaseException, url: str) -> MarError:
    """An error of the store at `url` as a MarError."""
    service, about = of(url), kind(error)
    if about == "denied":
        return InputError(
            f"{service.name} denies access to {url}, or no credentials are set.",
            f"Credentials are read from the environment: {service.settings}.",
            f"Set those of an account that may list and read it; for public files set {service.public}.",
        )
    if about == "absent":
        return InputError(
            f"{url} does not exist: there is no such bucket, or no such folder in it.",
            fix=f"Check the address, and {service.address} if it is on your own server.",
        )
    if about == "wrong":
        return InputError(
            f"{service.name} cannot be accessed at {url}: the address or its settings are wrong.",
            fix=f"Check the address, {service.settings}"
            + ("." if service.address in service.settings else f", and {service.address}."),
        )
    if about == "network":
        return StageError(
            f"{service.name} cannot be reached for {url}, or is too busy ({type(error).__name__}).",
            "Downloaded files are kept, and not downloaded again.",
            f"Try again later, or check the network and {service.address}; --offline uses the last known files.",
        )
    number = error.errno if isinstance(error, OSError) else None
    return StageError(
        f"{service.name} fails for {url} ({errno.errorcode.get(number or 0, type(error).__name__)}).",
        "The bucket may be in another region, or the server is not fully compatible.",
        f"Check {'AWS_REGION and ' if service is S3 else ''}{service.address}.",
    )
