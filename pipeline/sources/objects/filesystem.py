"""Files in an object store, read by fsspec's file systems (s3fs, gcsfs, adlfs). These are imported late, and find
credentials, endpoints and proxies themselves. The texts of their errors are not shown: they can contain signed URLs."""

from __future__ import annotations

import base64
import binascii
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError, MarError
from ...model.selection import refuse_outside
from ..transfer.partial import Partial
from ..transfer.transfer import Object
from . import etag, services
from .ranges import Ranges

DEEPEST = 3
"""The depth to which folders are listed: a checkpoint's files are not deeper."""
MOST_FILES, MOST_FOLDERS = 10_000, 300
"""Limits of a listing: more is not a checkpoint."""


class Objects:
    """The files below an address; `options` go to the file system. (A `transfer.Reader`.)"""

    def __init__(self, url: str, **options: Any) -> None:
        self.url, self._options = url, options
        self._service = services.of(url)
        self._opened: tuple[Any, str] | None = None

    @property
    def _fs(self) -> tuple[Any, str]:
        """The file system, and its path of the address's folder. Raises InputError if its package is not installed."""
        if self._opened is None:
            from fsspec.core import url_to_fs

            for name in ("asyncio", "gcsfs", "azure"):  # they log errors that we report ourselves
                logging.getLogger(name).setLevel(logging.CRITICAL)
            # Otherwise gcsfs first requests the kind of the bucket by gRPC, which takes up to a minute.
            os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
            try:
                fs, root = url_to_fs(self.url, skip_instance_cache=True, **self._options)
            except ImportError:
                raise InputError(
                    f"{self.url} needs {self._service.library}, which is not installed or does not import.",
                    fix=f"Install it: pip install 'mar-pipeline[{self._service.extra}]'",
                ) from None
            if self._service is services.S3:
                fs.retries = 1  # `Ranges` retries itself, with shorter ranges
            self._opened = fs, root.rstrip("/")
        return self._opened

    def list(self) -> dict[str, Object]:
        """Every current file, by its path below the address. Raises InputError if there are too many, and what the
        file system raises."""
        fs, root = self._fs
        fs.invalidate_cache()
        objects: dict[str, Object] = {}
        folders, seen = [root], 0
        for _ in range(DEEPEST):
            below = []
            for folder in folders:
                seen += 1
                for info in fs.ls(folder, detail=True):
                    name = str(info["name"])
                    if info["type"] == "directory":
                        last = name.rstrip("/").rpartition("/")[2]
                        if last == "..":
                            refuse_outside(last, self.url)
                        if name.rstrip("/") != folder and not last.startswith("."):
                            below.append(name.rstrip("/"))
                    elif name == root:
                        raise InputError(f"{self.url} is a file.", fix="Name the folder with the model's config.json.")
                    elif name.startswith(f"{root}/") and not name.endswith("/"):
                        objects[name[len(root) + 1 :]] = _object(info)
                if len(objects) > MOST_FILES or seen + len(below) > MOST_FOLDERS:
                    raise InputError(
                        f"{self.url} has more than {MOST_FILES:,} files, or {MOST_FOLDERS} folders.",
                        "A checkpoint has some dozens of files: this is a folder of many models, or a whole bucket.",
                        "Name the folder with the model's config.json.",
                    )
            folders = below
        if not objects:
            raise FileNotFoundError(self.url)
        return objects

    def start(self, path: str, count: int) -> bytes:
        """The first `count` bytes of a file."""
        fs, root = self._fs
        return bytes(fs.cat_file(f"{root}/{path}", start=0, end=count)) if count else b""

    def puller(self, path: str, size: int) -> Callable[[Partial], None]:
        """A function that appends the missing bytes of a file."""
        fs, root = self._fs
        return Ranges(fs, f"{root}/{path}", size)

    def matches(self, path: str, thing: Object, file: Path) -> bool | None:
        """Whether the local `file` has the object's contents; None if the store cannot show it."""
        if self._service is not services.S3:
            return None if thing.md5 is None else etag.md5(file) == thing.md5
        fs, root = self._fs
        bucket, key, _ = fs.split_path(f"{root}/{path}")

        def head(part: int | None) -> Mapping[str, Any]:
            which = {"PartNumber": part} if part is not None else {}
            return dict(fs.call_s3("head_object", Bucket=bucket, Key=key, **which))

        try:
            return etag.matches(file, thing.mark, head)
        except Exception as error:
            if self.wait(error) is not None:
                raise
            return None  # not every S3-compatible store supports parts

    def wait(self, error: Exception) -> float | None:
        """0.0 (another attempt, soon) for an error of the network; None for an error that another would not fix."""
        return 0.0 if services.kind(error) == "network" else None

    def translate(self, error: Exception) -> MarError:
        """The error as a MarError."""
        return services.translate(error, self.url)


def _object(info: Mapping[str, Any]) -> Object:
    size = int(info.get("size") or 0)
    tag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    md5 = _md5(info)
    # Google's ETag changes with an object's metadata too, its MD5 does not; composite objects have no MD5, but a
    # generation.
    mark = (md5 or info.get("generation")) if "generation" in info else tag
    if not mark:
        names = ("LastModified", "last_modified", "mtime", "updated", "created")
        mark = f"{size} {next((info[name] for name in names if info.get(name)), '')}"
    return Object(size=size, mark=str(mark), md5=md5)


def _md5(info: Mapping[str, Any]) -> str | None:
    """The hexadecimal MD5 in Google's listing (there in base64) or in Azure's (in bytes); None if there is none."""
    value = info.get("md5Hash") or getattr(info.get("content_settings"), "content_md5", None)
    if isinstance(info.get("content_settings"), Mapping):
        value = info["content_settings"].get("content_md5")
    try:
        digest = base64.b64decode(value).hex() if isinstance(value, str) else bytes(value).hex() if value else ""
    except (binascii.Error, ValueError, TypeError):
        return None
    return digest if etag.PLAIN.fullmatch(digest) else None
