"""A model's files where MLflow's own server has them. It tells their sizes, and nothing of what is in them; whether it
can go on with what broke off depends on the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import InputError, MarError
from ...files.tree import CHUNK, text_digest
from ..objects import services
from ..objects.filesystem import DEEPEST, MOST_FILES
from ..transfer.partial import Partial
from ..transfer.transfer import Object
from . import registry


class Artifacts:
    """The files at `place`, an http address, of the model that is called `where`. (A `transfer.Reader`.)"""

    def __init__(self, where: str, place: str) -> None:
        self.where, self.place = where, place
        self._opened: Any = None

    @property
    def _repository(self) -> Any:
        if self._opened is None:
            from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

            make: Callable[[str], Any] = HttpArtifactRepository
            self._opened = make(self.place)
        return self._opened

    def list(self) -> dict[str, Object]:
        found: dict[str, Object] = {}
        folders: list[str | None] = [None]
        for _ in range(DEEPEST):
            infos = [info for folder in folders for info in self._repository.list_artifacts(folder)]
            for info in infos:
                if not info.is_dir:
                    if info.file_size is None:
                        raise InputError(
                            f"{self.where} lies where sizes are not told.", fix="Download it, and name its folder."
                        )
                    # Nothing tells contents, but a version's stay what they are; a size alone is no address's.
                    mark = f"{text_digest(self.place)[:16]} {info.file_size}"
                    found[info.path] = Object(size=int(info.file_size), mark=mark)
            folders = [info.path for info in infos if info.is_dir]
            if len(found) + len(folders) > MOST_FILES:
                raise InputError(
                    f"{self.where} holds more than {MOST_FILES:,} files.", fix="Register the checkpoint's own folder."
                )
        if not found:
            raise FileNotFoundError(self.where)
        return found

    def start(self, path: str, count: int) -> bytes:
        with self._get(path, 0) as response:
            return bytes(response.raw.read(count, decode_content=True))

    def puller(self, path: str, size: int) -> Callable[[Partial], None]:
        def pull(into: Partial) -> None:
            self._stream(path, into)
            if into.size < size:
                raise ConnectionError("less than the whole")

        return pull

    def holds(self, _path: str, _thing: Object, _file: Path) -> bool | None:
        return None

    def wait(self, error: Exception) -> float | None:
        return 0.0 if services.kind(error) == "network" else None

    def told(self, error: Exception) -> MarError:
        return registry.told(error, self.where)

    def _stream(self, path: str, into: Partial) -> None:
        with self._get(path, into.size) as response:
            goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {into.size}-")
            if into.size and not goes_on:
                into.restart()
            for chunk in response.iter_content(CHUNK // 8):
                into.write(chunk)

    @contextmanager
    def _get(self, path: str, start: int) -> Iterator[Any]:
        """The server's answer to a request for a file from there on."""
        from mlflow.utils.rest_utils import http_request

        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        creds = self._repository._host_creds
        ask: Callable[..., Any] = http_request
        with ask(creds, f"/{path}", "GET", stream=True, extra_headers=headers) as response:
            if response.status_code in (401, 403):
                raise PermissionError(path)
            if response.status_code == 404:
                raise FileNotFoundError(path)
            if response.status_code >= 400:
                raise ConnectionError(str(response.status_code))
            yield response
