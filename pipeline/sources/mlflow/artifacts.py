"""A model's files on MLflow's own server. It lists their sizes, but no digests; whether an interrupted download can
resume depends on the server."""

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
    """The files at the HTTP address `place`, of the model that errors call `where`. (A `transfer.Reader`.)"""

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
        """Every file, by its path. Raises InputError if the server lists no sizes, or too many files."""
        objects: dict[str, Object] = {}
        folders: list[str | None] = [None]
        for _ in range(DEEPEST):
            infos = [info for folder in folders for info in self._repository.list_artifacts(folder)]
            for info in infos:
                if not info.is_dir:
                    if info.file_size is None:
                        raise InputError(
                            f"The server does not list the sizes of the files of {self.where}.",
                            fix="Download the model, and name its folder.",
                        )
                    # Without a digest: a version's files do not change, so its address and a file's size identify it.
                    mark = f"{text_digest(self.place)[:16]} {info.file_size}"
                    objects[info.path] = Object(size=int(info.file_size), mark=mark)
            folders = [info.path for info in infos if info.is_dir]
            if len(objects) + len(folders) > MOST_FILES:
                raise InputError(
                    f"{self.where} has more than {MOST_FILES:,} files.", fix="Register the checkpoint's own folder."
                )
        if not objects:
            raise FileNotFoundError(self.where)
        return objects

    def start(self, path: str, count: int) -> bytes:
        """The first `count` bytes of a file."""
        with self._get(path, 0) as response:
            return bytes(response.raw.read(count, decode_content=True))

    def puller(self, path: str, size: int) -> Callable[[Partial], None]:
        """A function that appends the missing bytes of a file."""

        def pull(into: Partial) -> None:
            self._stream(path, into)
            if into.size < size:
                raise ConnectionError("the file is incomplete")

        return pull

    def matches(self, _path: str, _thing: Object, _file: Path) -> bool | None:
        """None: the server has no digests."""
        return None

    def wait(self, error: Exception) -> float | None:
        """0.0 (another attempt, soon) for an error of the network; None for an error that another would not fix."""
        return 0.0 if services.kind(error) == "network" else None

    def translate(self, error: Exception) -> MarError:
        """The error as a MarError."""
        return registry.translate(error, self.where)

    def _stream(self, path: str, into: Partial) -> None:
        with self._get(path, into.size) as response:
            goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {into.size}-")
            if into.size and not goes_on:
                into.restart()
            for chunk in response.iter_content(CHUNK // 8):
                into.write(chunk)

    @contextmanager
    def _get(self, path: str, start: int) -> Iterator[Any]:
        """The response to a GET of a file, from the byte `start` on. Raises PermissionError, FileNotFoundError or
        ConnectionError for an error status."""
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
