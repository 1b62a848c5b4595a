"""A registered model of MLflow: its client tells which version an alias or a stage is, and where the files of that
version lie. Those are read as in any folder or object store; where only MLflow's own server has them, it is asked."""

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

_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


class Mlflow:
    """The version that `name` (`models:/...`) means."""

    def __init__(self, store: Store, name: str, *, no_network: bool, locked: Locked | None) -> None:
        self.store, self.where, self.no_network, self.locked = store, name, no_network, locked
        self.may_fetch = False
        found = REGISTERED.fullmatch(name)
        assert found is not None
        self._model, self._version, self._alias = found["model"], found["version"], found["alias"]
        self._inner: Source | None = None
        self._told: dict[str, Any] = {}

    # As its files' own source has it

    def sizes(self) -> Mapping[str, int]:
        return self._files().sizes()

    def text(self, path: str) -> str:
        return self._files().text(path)

    def license(self) -> str | None:
        return self._files().license()

    def identity(self, files: Mapping[str, str]) -> dict[str, Any]:
        inner = self._files().identity(files)
        return {"model": self._told["model"], "version": self._told["version"], **inner}

    def provenance(self) -> dict[str, Any]:
        self._files()
        return dict(self._told)

    def fetch(self, files: Mapping[str, str], progress: Progress) -> list[Fetched]:
        return self._files().fetch(files, progress)

    # Where its files are

    def _files(self) -> Source:
        if self._inner is None:
            version, place = self._found()
            self._told = {"kind": "mlflow", "model": self._model, "version": version}
            self._inner = self._source(f"models:/{self._model}/{version}", place)
        self._inner.may_fetch = self.may_fetch
        return self._inner

    def _found(self) -> tuple[str, str]:
        """The version's number, and where its files lie: with a lock the version that is locked, offline the one that
        was seen last."""
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
                f"{self.where} is not in the cache, and the network is not to be used.",
                fix="Build once without --offline.",
            )
        with self._errors(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # stages are on their way out
            client = _client()
            version = version or self._resolved(client)
            named = client.get_model_version_download_uri(self._model, version)
            place = _place(client, named)
        where = f"models:/{self._model}/{version}"
        # Where the files of a run are, the tracking store says.
        told_by = {"registry": _registry(), **({"tracking store": _tracking()} if place != named else {})}
        servers = [name for name, uri in told_by.items() if not _is_here(uri)]
        if servers and _address(where, place).scheme in ("", "file"):
            raise InputError(
                f"{where} lies in a folder, and the {servers[0]} is a server.",
                "Whoever registers a version there would choose which folder of this machine is read and packed.",
                "Name the folder itself for the model, if it is meant; or let the tracking server serve its files.",
            )
        self.store.remember(f"mlflow:{self.where}", version)
        if without_secrets(place) == place:
            self.store.remember(f"mlflow:{self._model}/{version}", place)
        return version, place

    def _resolved(self, client: Any) -> str:
        """The number of the version that has the alias, or is the latest of all, or of a stage."""
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
                    f"{where} lies at {path}, which is no folder of this machine.",
                    fix="Build where it is, or register the model with a tracking server that serves its files.",
                )
            return Folder(self.store, path, where, self._told)
        if address.scheme in SERVICES:
            try:
                url = find(place, []).url
            except ValueError as error:
                raise InputError(
                    f"{where} lies at an address that cannot be read: {error}.", fix="Register it again."
                ) from None
            # MLflow's own variable for what others read from AWS_ENDPOINT_URL.
            endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL") if address.scheme == "s3" else None
            reader: Any = Objects(str(url), **({"endpoint_url": endpoint} if endpoint else {}))
        elif address.scheme in ("mlflow-artifacts", "http", "https"):
            reader = Artifacts(where, _served(where, place))
        else:
            raise InputError(
                f"{where} lies at an address that begins with {address.scheme}:, which is not read.",
                "Read are the tracking server's own files, s3:, gs: and az:, and folders where the registry is one.",
                "Download it and name its folder for the model, or register it from one of these.",
            )
        return Url(self.store, where, reader, self._told, no_network=self.no_network, locked=self.locked)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except MarError:
            raise
        except Exception as error:
            raise told(error, self.where) from None


def _address(where: str, place: str) -> SplitResult:
    try:
        return urlsplit(place)
    except ValueError:
        raise InputError(f"{where} lies at an address that cannot be read.", fix="Register it again.") from None


def _registry() -> str:
    return os.environ.get("MLFLOW_REGISTRY_URI") or _tracking()


def _tracking() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI", "")


def _is_here(registry: str) -> bool:
    """Whether a registry is a folder, or a database file, of this machine."""
    return urlsplit(registry).scheme in ("", "file", "sqlite") and not registry.startswith("databricks")


_SERVICE = "/api/2.0/mlflow-artifacts/artifacts"
"""Where MLflow's server has the files that it serves (mlflow.store.artifact.mlflow_artifacts_repo)."""


def _served(where: str, place: str) -> str:
    """The address of files that lie at MLflow's own server, with the host as the environment writes it. Raises
    InputError for those of any other: MLflow's client would send it the user's name and password."""
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
        f"{where} lies at {at}, which is not where the tracking server has its files.",
        "Whoever registers a version chooses its address, and the name and password for MLflow go to its server alone.",
        "Register it from the server that MLFLOW_TRACKING_URI names, or download it and name its folder for the model.",
    )


def _origin(scheme: str, address: SplitResult) -> tuple[str, str | None, int | None]:
    try:
        return scheme, address.hostname, address.port or {"http": 80, "https": 443}.get(scheme)
    except ValueError:  # no port
        return scheme, None, None


def _client() -> Any:
    """MLflow's client, for the registry that the environment names. Raises InputError if there is none."""
    if not _registry():
        # By itself it would begin a new registry in the working folder.
        raise InputError(
            "MLflow is not told where its registry is.", fix="Set MLFLOW_TRACKING_URI (or MLFLOW_REGISTRY_URI) to it."
        )
    defaults = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # Seven, each after twice as long, would be four minutes for a server that is not there.
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
            "A registered model needs a package that is not installed.",
            fix="Install it: pip install 'mar-pipeline[mlflow]'",
        ) from None
    return MlflowClient()


def _place(client: Any, uri: str) -> str:
    """Where files lie, whatever MLflow calls that: the artifacts of a run, or a logged model's."""
    scheme, _, rest = uri.partition(":")
    if scheme == "runs":
        run, _, path = rest.strip("/").partition("/")
        return f"{client.get_run(run).info.artifact_uri.rstrip('/')}/{path}"
    if scheme == "models" and "/" not in rest.strip("/"):
        return str(client.get_logged_model(rest.strip("/")).artifact_location)
    return uri


def told(error: Exception, where: str) -> MarError:
    """An error of MLflow's in our words; its own can hold an address with a password."""
    from ..objects.services import kind

    code, text = str(getattr(error, "error_code", "")), str(error)
    if "MLFLOW_ALLOW_FILE_STORE" in text:
        return InputError(
            "MLflow reads a registry that is a folder only if it is told to.",
            fix="Set MLFLOW_ALLOW_FILE_STORE=true, or MLFLOW_TRACKING_URI to a server.",
        )
    if "unsupported URI" in text or isinstance(error, ImportError):
        return InputError(
            "MLFLOW_TRACKING_URI names a registry that the installed MLflow cannot read.",
            "What is in a database is read by the whole of MLflow (pip install mlflow), or through a server.",
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
            f"MLflow has no {where}: no such model, version or alias, or no files of it.",
            fix="Check the name, and that MLFLOW_TRACKING_URI is the registry that was meant.",
        )
    return StageError(
        f"MLflow cannot be reached for {where}, or fails ({code or type(error).__name__}).",
        "What was fetched already stays, and is not fetched again.",
        "Check MLFLOW_TRACKING_URI, or try again later; --offline takes what was seen last.",
    )
