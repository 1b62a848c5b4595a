"""Object stores without a server: what is asked of fsspec, by stand-ins that keep files in memory, and what errors and
marks mean."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from mar_pipeline import sources
from mar_pipeline.cache import housekeeping
from mar_pipeline.cache.store import Store
from mar_pipeline.errors import InputError, StageError
from mar_pipeline.model.address import find
from mar_pipeline.sources.hub.repository import Hub
from mar_pipeline.sources.objects import etag, filesystem, services
from mar_pipeline.sources.objects.ranges import Ranges
from mar_pipeline.sources.transfer.partial import Partial


class InMemory(MemoryFileSystem):
    """A stand-in for gcsfs and adlfs, which keeps files in memory and tells of them as those do."""

    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        scheme, _, rest = path.rpartition("://")
        return super()._strip_protocol(rest.replace("@account.dfs.core.windows.net", "") if scheme else path)

    def ls(self, path: str, detail: bool = True, **how: Any) -> Any:
        return [self.told(info) for info in super().ls(path, detail=detail, **how)]

    def told(self, info: dict[str, Any]) -> dict[str, Any]:
        return info

    def md5(self, info: dict[str, Any]) -> bytes:
        return hashlib.md5(self.store[info["name"]].getvalue()).digest()


class AsGoogle(InMemory):
    protocol = "gs"

    def told(self, info: dict[str, Any]) -> dict[str, Any]:
        if info["type"] == "directory":
            return info
        return {**info, "generation": "17", "etag": "CJ", "md5Hash": base64.b64encode(self.md5(info)).decode()}


class AsAzure(InMemory):
    protocol = ("az", "abfs")

    def told(self, info: dict[str, Any]) -> dict[str, Any]:
        if info["type"] == "directory":
            return {**info, "size": None}
        settings = SimpleNamespace(content_md5=bytearray(self.md5(info)))
        return {**info, "etag": '"0x8D"', "content_settings": settings}


@pytest.fixture(params=[("gs", AsGoogle), ("az", AsAzure), ("abfs", AsAzure)], ids=["gs", "az", "abfs"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    scheme, kind = request.param
    fsspec.register_implementation(scheme, kind, clobber=True)
    kind.store.clear()
    for path, data in {"config.json": b"{}", "sub/w": b"weights", "a/b/c/d": b"too deep", ".git/x": b"hidden"}.items():
        kind().pipe(f"/bucket/model/{path}", data)
    yield f"{scheme}://bucket{'@account.dfs.core.windows.net' if scheme == 'abfs' else ''}/model"
    _registry.pop(scheme)
    kind.store.clear()


def test_other_stores_are_read_by_what_every_file_system_of_fsspec_can(url: str, tmp_path: Path) -> None:
    found = sources.of(Store(tmp_path), False, find(url, []), None)
    found.may_fetch = True
    assert found.sizes() == {"config.json": 2, "sub/w": 7}
    assert found.text("config.json") == "{}"
    mark = "0x8D" if "gs://" not in url else hashlib.md5(b"weights").hexdigest()
    assert found.identity({"w": "sub/w"}) == {"url": url, "files": {"w": mark}}
    (got,) = found.fetch({"w": "sub/w"}, lambda *_: None)
    assert (got.entry.sha256, got.place) == (hashlib.sha256(b"weights").hexdigest(), None)
    assert Store(tmp_path).blob(got.entry.sha256).read_bytes() == b"weights"
    assert found.provenance() == {"kind": "url", "url": url}


def test_a_checksum_that_a_store_tells_has_to_be_that_of_the_bytes(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InMemory, "md5", lambda *_: b"0" * 16)
    found = sources.of(Store(tmp_path), False, find(url, []), None)
    with pytest.raises(StageError, match="does not have the digest"):
        found.fetch({"w": "sub/w"}, lambda *_: None)


def test_marks_are_of_contents_and_else_of_times() -> None:
    assert filesystem._object({"size": 3, "ETag": '"abc"'}).mark == "abc"
    assert filesystem._object({"size": 3, "generation": "9", "etag": "x"}).mark == "9"
    assert filesystem._object({"size": 3, "mtime": 17.0}).mark == "3 17.0"
    assert filesystem._object({"size": 3}).mark == "3 "
    assert filesystem._object({"size": 3, "md5Hash": "no base64", "generation": "9"}).md5 is None
    assert filesystem._object({"size": 3, "content_settings": {"content_md5": b"0" * 16}}).md5 == "30" * 16


class ClientError(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


class NoCredentialsError(Exception): ...


class HTTPClientError(Exception): ...


class ParamValidationError(Exception): ...


@pytest.mark.parametrize(
    ("error", "kind", "again", "code"),
    [
        (PermissionError("Forbidden"), "denied", False, 2),
        (NoCredentialsError(), "denied", False, 2),
        (ClientError(401), "denied", False, 2),
        (FileNotFoundError("x"), "absent", False, 2),
        (ClientError(404), "absent", False, 2),
        (TimeoutError(), "network", True, 3),
        (ConnectionResetError(), "network", True, 3),
        (HTTPClientError(), "network", True, 3),
        (ClientError(503), "network", True, 3),
        (OSError(errno.EBUSY, "Slow Down"), "network", True, 3),
        (OSError(errno.EINVAL, "a secret"), "other", False, 3),
        (RuntimeError("a secret"), "other", False, 3),
        (ParamValidationError("a secret"), "wrong", False, 2),
        (ValueError("a secret"), "wrong", False, 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
@pytest.mark.parametrize("url", ["s3://b/x", "gs://b/x", "az://b/x"])
def test_what_goes_wrong_in_a_store_is_said_in_three_lines(
    url: str, error: Exception, kind: str, again: bool, code: int
) -> None:
    assert services.kind(error) == kind
    assert filesystem.Objects(url).wait(error) == (0.0 if again else None)
    told = services.translate(error, url)
    assert told.exit_code == code
    assert url in told.what
    assert told.fix
    assert len(str(told).splitlines()) <= 3
    assert "secret" not in str(told)


def test_what_the_disk_says_is_no_matter_of_the_store() -> None:
    assert services.kind(OSError(errno.ENOSPC, "No space left on device", "/cache/partial/x")) == "disk"
    assert services.kind(PermissionError(errno.EACCES, "Permission denied", "/cache/partial/x")) == "disk"


# ETags


def etag_of(*parts: bytes) -> str:
    """As S3 makes it of an object in parts."""
    return f"{hashlib.md5(b''.join(hashlib.md5(part).digest() for part in parts)).hexdigest()}-{len(parts)}"


@pytest.mark.parametrize("sizes", [[5, 5, 5], [5, 5, 2], [5, 7, 2], [7, 5, 9], [5]])
def test_an_etag_of_parts_is_held_against_the_file(tmp_path: Path, sizes: list[int]) -> None:
    parts = [bytes([number]) * size for number, size in enumerate(sizes)]
    asked: list[int | None] = []

    def head(part: int | None) -> dict[str, Any]:
        asked.append(part)
        return {"ContentLength": sizes[(part or 1) - 1], "PartsCount": len(sizes)}

    file = tmp_path / "w"
    file.write_bytes(b"".join(parts))
    assert etag.matches(file, etag_of(*parts), head) is True
    assert len(asked) == 1 or len({*sizes[:-1]}) > 1 or sizes[-1] > sizes[0]
    file.write_bytes(b"x" + b"".join(parts)[1:])
    assert etag.matches(file, etag_of(*parts), head) is False


@pytest.mark.parametrize(
    ("tag", "answer"),
    [
        ("0" * 32, {"ServerSideEncryption": "aws:kms"}),
        ("0" * 32, {"SSECustomerAlgorithm": "AES256"}),
        (f"{'0' * 32}-2", {"ServerSideEncryption": "aws:kms:dsse", "PartsCount": 2, "ContentLength": 2}),
        (f"{'0' * 32}-2", {"ContentLength": 3}),  # a store that knows no parts
        ("an-etag-of-its-own", {}),
        ("", {}),
    ],
)
def test_an_etag_that_tells_nothing_refuses_nothing(tmp_path: Path, tag: str, answer: dict[str, Any]) -> None:
    (tmp_path / "w").write_bytes(b"abc")
    assert etag.matches(tmp_path / "w", tag, lambda _: answer) is None


def test_a_plain_etag_is_the_md5(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"abc")
    assert etag.matches(tmp_path / "w", hashlib.md5(b"abc").hexdigest(), lambda _: {}) is True
    assert (
        etag.matches(tmp_path / "w", hashlib.md5(b"abd").hexdigest(), lambda _: {"ServerSideEncryption": "AES256"})
        is False
    )


# Ranges


class Flaky:
    """A stand-in for a file system whose lines break."""

    def __init__(self, data: bytes, breaks: float) -> None:
        self.data, self.breaks, self.random, self.sent = data, breaks, random.Random(7), 0

    def cat_ranges(self, paths: list[str], starts: list[int], ends: list[int], on_error: str) -> list[Any]:
        assert len(paths) == len(starts) <= 4
        assert on_error == "return"
        return [self.piece(start, end) for start, end in zip(starts, ends, strict=True)]

    def piece(self, start: int, end: int) -> Any:
        self.sent += end - start
        if self.random.random() < self.breaks * (end - start):
            return ConnectionResetError()
        return self.data[start:end]


@pytest.mark.parametrize("breaks", [0.0, 1e-7, 1e-6])
def test_ranges_bring_every_byte_once_whatever_breaks(tmp_path: Path, breaks: float) -> None:
    data = random.Random(3).randbytes(20 << 20)
    flaky = Flaky(data, breaks)
    bring = Ranges(flaky, "w", len(data))
    with Partial(tmp_path / "w", lambda _: None) as into:
        while into.size < len(data):
            try:
                bring(into)
            except ConnectionResetError:
                continue
        assert into.entry("w").sha256 == hashlib.sha256(data).hexdigest()
    assert flaky.sent <= 1.3 * len(data)


def test_a_part_of_a_range_is_a_line_that_broke(tmp_path: Path) -> None:
    flaky = Flaky(b"x" * 100, 0)
    with Partial(tmp_path / "w", lambda _: None) as into, pytest.raises(ConnectionError):
        Ranges(flaky, "w", 200)(into)


def test_an_address_of_the_hub_goes_through_the_hubs_own_client(tmp_path: Path) -> None:
    found = sources.of(Store(tmp_path), True, find("hf://org/name@v1", []), None)
    assert isinstance(found, Hub)
    assert (found.repo, found.revision) == ("org/name", "v1")


# What is left


def test_parts_that_nobody_goes_on_with_are_removed_after_a_week(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    new = f"{'1' * 64}.incomplete"
    for name, age in ((f"{'0' * 64}.incomplete", 8), (new, 6)):
        part = store.root / "partial" / name
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(b"x" * 10)
        os.utime(part, (time.time() - age * 86_400,) * 2)
    assert housekeeping.collect(store, dry_run=True) == 10
    assert housekeeping.collect(store) == 10
    assert [part.name for part in store.root.glob("partial/*")] == [new]
    assert housekeeping.collect(store, older_than=86_400.0) == 10
    assert not list(store.root.glob("partial/*"))


def test_a_folder_of_many_models_is_not_listed_to_its_end(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "MOST_FILES", 1)
    with pytest.raises(InputError, match="has more than"):
        filesystem.Objects(url).list()
