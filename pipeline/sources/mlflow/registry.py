"""A registered model of MLflow. MLflow's client resolves an alias or a stage to a version, and the version to the
address of its files. These are read as from any folder or object store, or from MLflow's own server."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from ...cache.store import Store
from ...errors import InputError, MarError, StageError
from ...model.address import REGISTERED, find, without_secrets
from ...model.lock import Locked
from ..source import Fetched, Progress, Source
from ..transfer import plaintext

_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


class Mlflow:
    """The version of a registered model that `name` (`models:/...`) stands for. (A `Source`.)"""

    def __init__(self, store: Store, name: str, *, no_network: bool, locked: Locked | None) -> None:
        self.store, self.where, self.no_network, self.locked = store, name, no_network, locked
        self.may_fetch = False
        match = REGISTERED.fullmatch(name)
        assert match is not None
        self._model, self._version, self._alias = match["model"], match["version"], match["alias"]
        self._inner: Source | None = None
        self._provenance: dict[str, Any] = {}

    # From the source of its files

    def sizes(self) -> Mapping[str, int]:
        return self._files().sizes()

    def text(self, path: str) -> str:
        return self._files().text(path)

    def license(self) -> str | None:
        return self._files().license()

    def identity(self, files: Mapping[str, str]) -> dict[str, Any]:
        inner = self._files().identity(files)
        return {"model": self._provenance["model"], "version": self._provenance["version"], **inner}

    def provenance(self) -> dict[str, Any]:
        self._files()
        return dict(self._provenance)

    def fetch(self, files: Mapping[str, str], progress: Progress) -> list[Fetched]:
        return self._files().fetch(files, progress)

    # The address of its files

    def _files(self) -> Source:
        if self._inner is None:
            version, place = self._locate()
            self._provenance = {"kind": "mlflow", "model": self._model, "version": version}
            self._inner = self._source(f"models:/{self._model}/{version}", place)
        self._inner.may_fetch = self.may_fetch
        return self._inner

    def _locate(self) -> tuple[str, str]:
        """The version's number, and the address of its files: with a lock the locked version, offline the last known
        one. Raises InputError, StageError."""
        version = self._version if str(self._version).isdigit() else None
        if self.locked is not None and self.locked.source.get("model") == self._model:
            version = str(self.locked.source["version"])
        if self.no_network:
            version = version or self.store.recall(f"mlflow:{self.where}")
        if version is not None and (self.no_network or self.locked is not None):
            place = self.store.recall(f"mlflow:{self._model}/{version}")
            if place is not None:
                return version, place
        if self.no_network:
            raise InputError(
                f"{self.where} is not in the cache, and --offline forbids the network.",
                fix="Build once without --offline.",
            )
        if any(os.environ.get(name) for name in _SECRETS):
            for uri in {_registry(), _tracking()}:
                if text := plaintext.warning(uri, "Your log-in to MLflow", "MLFLOW_TRACKING_URI"):
                    self.store.warn(text)
        with self._errors(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow deprecates stages
            client = _client()
            version = version or self._resolved(client)
            named = client.get_model_version_download_uri(self._model, version)
            place = _place(client, named)
        where = f"models:/{self._model}/{version}"
        # The tracking store resolves the address of a run's files.
        resolvers = {"registry": _registry(), **({"tracking store": _tracking()} if place != named else {})}
        servers = [name for name, uri in resolvers.items() if not _is_local(uri)]
        if servers and _address(where, place).scheme in ("", "file"):
            raise InputError(
                f"{where} is in a local folder, but the {servers[0]} is a server.",
                "Anyone who registers a version there could choose a folder of this machine to be read and packed.",
                "If you want that folder, name it as the model; or let the tracking server serve its files.",
            )
        self.store.remember(f"mlflow:{self.where}", version)
        if without_secrets(place) == place:
            self.store.remember(f"mlflow:{self._model}/{version}", place)
        return version, place

    def _resolved(self, client: Any) -> str:
        """The number of the version with the alias, or of the latest version, of all or in a stage."""
        if self._alias:
            return str(client.get_model_version_by_alias(self._model, self._alias).version)
        if self._version.lower() == "latest":
            versions = client.search_model_versions(f"name='{self._model}'")
        else:
            versions = client.get_latest_versions(self._model, stages=[self._version])
        if not versions:
            raise FileNotFoundError(self.where)
        return str(max(int(one.version) for one in versions))

    def _source(self, where: str, place: str) -> Source:
        from ..folder import Folder
        from ..objects.filesystem import Objects
        from ..objects.services import SERVICES
        from ..remote import Url
        from .artifacts import Artifacts

        address = _address(where, place)
        if address.scheme in ("", "file"):
            path = Path(unquote(address.path))
            if not path.is_dir():
                raise InputError(
                    f"{where} is at {path}, which is not a folder on this machine.",
                    fix="Build where it is, or register the model with a tracking server that serves its files.",
                )
            return Folder(self.store, path, where, self._provenance)
        if address.scheme in SERVICES:
            try:
                url = find(place, []).url
            except ValueError as error:
                raise InputError(
                    f"{where} is at an address that cannot be used: {error}.", fix="Register it again."
                ) from None
            # MLflow's own variable for AWS_ENDPOINT_URL.
            endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL") if address.scheme == "s3" else None
            reader: Any = Objects(str(url), **({"endpoint_url": endpoint} if endpoint else {}))
        elif address.scheme in ("mlflow-artifacts", "http", "https"):
            reader = Artifacts(where, _served(where, place))
        else:
            raise InputError(
                f"{where} is at an address that begins with {address.scheme}:, which is not supported.",
                "Supported are files on the tracking server, s3:, gs: and az:, and folders if the registry is one.",
                "Download it and name its folder as the model, or register it from one of these.",
            )
        return Url(self.store, where, reader, self._provenance, no_network=self.no_network, locked=self.locked)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except MarError:
            raise
        except Exception as error:
            raise translate(error, self.where) from None


def _address(where: str, place: str) -> SplitResult:
    try:
        return urlsplit(place)
    except ValueError:
        raise InputError(f"{where} is at an address that cannot be parsed.", fix="Register it again.") from None


def _registry() -> str:
    return os.environ.get("MLFLOW_REGISTRY_URI") or _tracking()


def _tracking() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI", "")


def _is_local(registry: str) -> bool:
    """Whether a registry is a folder or a database file on this machine."""
    return urlsplit(registry).scheme in ("", "file", "sqlite") and not registry.startswith("databricks")


_SERVICE = "/api/2.0/mlflow-artifacts/artifacts"
"""The path of the files on MLflow's server (mlflow.store.artifact.mlflow_artifacts_repo)."""


def _served(where: str, place: str) -> str:
    """The address of files on MLflow's own server, with the host as in the environment. Raises InputError for another
    server: MLflow's client would send it the user's name and password."""
    named = [os.environ.get(name, "") for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")]
    servers = [urlsplit(uri) for uri in named if urlsplit(uri).scheme in ("http", "https")]
    address = urlsplit(place)
    path = address.path
    for server in servers:
        bare = address.scheme == "mlflow-artifacts"
        scheme = server.scheme if bare else address.scheme
        if (bare and not address.netloc) or _origin(scheme, address) == _origin(server.scheme, server):
            if bare and _SERVICE not in path:
                path = f"{server.path.rstrip('/')}{_SERVICE}/{path.lstrip('/')}"
            if _SERVICE in path:
                return server._replace(path=path.rstrip("/"), query="", fragment="").geturl()
    at = without_secrets(f"{address.scheme}://{address.netloc}") if address.netloc else f"{address.scheme}:"
    raise InputError(
        f"{where} is at {at}, which is not the tracking server.",
        "Anyone who registers a version chooses its address; MLflow's password is sent to the tracking server only.",
        "Register it from the server in MLFLOW_TRACKING_URI, or download it and name its folder as the model.",
    )


def _origin(scheme: str, address: SplitResult) -> tuple[str, str | None, int | None]:
    try:
        return scheme, address.hostname, address.port or {"http": 80, "https": 443}.get(scheme)
    except ValueError:  # the port is not a number
        return scheme, None, None


def _client() -> Any:
    """MLflow's client for the registry in the environment. Raises InputError if none is set, or MLflow is missing."""
    if not _registry():
        # MLflow would create a new registry in the working folder.
        raise InputError(
            "The address of MLflow's registry is not set.",
            fix="Set MLFLOW_TRACKING_URI (or MLFLOW_REGISTRY_URI) to it.",
        )
    defaults = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # The default, 7 with doubling waits, takes four minutes for an unreachable server.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise InputError(
            "A registered model needs MLflow's client (mlflow-skinny), which is not installed.",
            fix="Install it: pip install 'mar-pipeline[mlflow]'",
        ) from None
    return MlflowClient()


def _place(client: Any, uri: str) -> str:
    """The address of the files that MLflow's `uri` stands for: a run's artifacts, a logged model, or an address."""
    scheme, _, rest = uri.partition(":")
    if scheme == "runs":
        run, _, path = rest.strip("/").partition("/")
        return f"{client.get_run(run).info.artifact_uri.rstrip('/')}/{path}"
    if scheme == "models" and "/" not in rest.strip("/"):
        return str(client.get_logged_model(rest.strip("/")).artifact_location)
    return uri


def translate(error: Exception, where: str) -> MarError:
    """An error of MLflow's as a MarError. Its text is not shown: it can contain an address with a password."""
    from ..objects.services import kind

    code, text = str(getattr(error, "error_code", "")), str(error)
    if "MLFLOW_ALLOW_FILE_STORE" in text:
        return InputError(
            "MLflow reads a registry in a folder only if MLFLOW_ALLOW_FILE_STORE is set.",
            fix="Set MLFLOW_ALLOW_FILE_STORE=true, or MLFLOW_TRACKING_URI to a server.",
        )
    if "unsupported URI" in text or isinstance(error, ImportError):
        return InputError(
            f"The installed MLflow cannot read the registry {without_secrets(_registry())} (MLFLOW_TRACKING_URI).",
            "A registry in a database needs the full package (pip install mlflow), or a server.",
            "Set it to a server (http://...).",
        )
    if any(refused in text for refused in ("error code 401", "error code 403")) or kind(error) == "denied":
        code = "PERMISSION_DENIED"
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        return InputError(
            f"MLflow denies access to {where}.",
            fix="Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
        )
    if code in _ABSENT or kind(error) == "absent":
        return InputError(
            f"{where} does not exist in MLflow: there is no such model, version or alias, or it has no files.",
            fix="Check the name, and that MLFLOW_TRACKING_URI is the right registry.",
        )
    return StageError(
        f"MLflow cannot be reached for {where}, or fails ({code or type(error).__name__}).",
        "Downloaded files are kept, and not downloaded again.",
        "Check MLFLOW_TRACKING_URI, or try again later; --offline uses the last known version.",
    )
