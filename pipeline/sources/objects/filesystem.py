"""Files in an object store, as fsspec's file systems read them (s3fs, gcsfs, adlfs): they are imported late, and find
credentials, addresses and proxies where each of them looks for them. What they say in errors is not repeated: it can
hold addresses with signatures."""

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
"""Folders below which nothing of a checkpoint lies."""
MOST_FILES, MOST_FOLDERS = 10_000, 300


class Objects:
    """The files below an address; `options` go to the file system. (A `transfer.Reader`.)"""

    def __init__(self, url: str, **options: Any) -> None:
        self.url, self._options = url, options
        self._service = services.of(url)
        self._opened: tuple[Any, str] | None = None

    @property
    def _fs(self) -> tuple[Any, str]:
        """The file system, and where it has the address's folder. Raises InputError if its package is missing."""
        if self._opened is None:
            from fsspec.core import url_to_fs

            for name in ("asyncio", "gcsfs", "azure"):  # of what broke, which we tell
                logging.getLogger(name).setLevel(logging.CRITICAL)
            # Else gcsfs asks by another protocol first what kind of bucket it is, for up to a minute.
            os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
            try:
                fs, root = url_to_fs(self.url, skip_instance_cache=True, **self._options)
            except ImportError:
                raise InputError(
                    f"{self.url} needs a package that is not installed.",
                    fix=f"Install it: pip install 'mar-pipeline[{self._service.extra}]'",
                ) from None
            if self._service is services.S3:
                fs.retries = 1  # we try again ourselves, with less at once
            self._opened = fs, root.rstrip("/")
        return self._opened

    def list(self) -> dict[str, Object]:
        """Every file, by its path below the address, as the store has it now. Raises InputError too."""
        fs, root = self._fs
        fs.invalidate_cache()
        found: dict[str, Object] = {}
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
                        raise InputError(f"{self.url} is a file.", fix="Name the folder that holds its config.json.")
                    elif name.startswith(f"{root}/") and not name.endswith("/"):
                        found[name[len(root) + 1 :]] = _object(info)
                if len(found) > MOST_FILES or seen + len(below) > MOST_FOLDERS:
                    raise InputError(
                        f"{self.url} holds more than {MOST_FILES:,} files, or {MOST_FOLDERS} folders.",
                        "A checkpoint has some dozens of files: this is a folder of many models, or a whole bucket.",
                        "Name the folder that holds its config.json.",
                    )
            folders = below
        if not found:
            raise FileNotFoundError(self.url)
        return found

    def start(self, path: str, count: int) -> bytes:
        """The first bytes of a file."""
        fs, root = self._fs
        return bytes(fs.cat_file(f"{root}/{path}", start=0, end=count)) if count else b""

    def puller(self, path: str, size: int) -> Callable[[Partial], None]:
        fs, root = self._fs
        return Ranges(fs, f"{root}/{path}", size)

    def holds(self, path: str, thing: Object, file: Path) -> bool | None:
        """Whether a file's contents are the object's; None if the store does not tell."""
        if self._service is not services.S3:
            return None if thing.md5 is None else etag.md5(file) == thing.md5
        fs, root = self._fs
        bucket, key, _ = fs.split_path(f"{root}/{path}")

        def head(part: int | None) -> Mapping[str, Any]:
            which = {"PartNumber": part} if part is not None else {}
            return dict(fs.call_s3("head_object", Bucket=bucket, Key=key, **which))

        try:
            return etag.holds(file, thing.mark, head)
        except Exception as error:
            if self.wait(error) is not None:
                raise
            return None  # not every store that speaks S3 knows parts

    def wait(self, error: Exception) -> float | None:
        """Seconds to wait before another try, 0 for as short as may be; None if another try would do no better."""
        return 0.0 if services.kind(error) == "network" else None

    def told(self, error: Exception) -> MarError:
        """An error in our words."""
        return services.told(error, self.url)


def _object(info: Mapping[str, Any]) -> Object:
    size = int(info.get("size") or 0)
    tag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    md5 = _md5(info)
    # Google's ETag is another one when nothing but a note changed; its MD5 is not, and its generation is not there
    # for what was put together of parts.
    mark = (md5 or info.get("generation")) if "generation" in info else tag
    if not mark:
        names = ("LastModified", "last_modified", "mtime", "updated", "created")
        mark = f"{size} {next((info[name] for name in names if info.get(name)), '')}"
    return Object(size=size, mark=str(mark), md5=md5)


def _md5(info: Mapping[str, Any]) -> str | None:
    """MD5 as Google's listing has it, in base64, or Azure's, in bytes."""
    told = info.get("md5Hash") or getattr(info.get("content_settings"), "content_md5", None)
    if isinstance(info.get("content_settings"), Mapping):
        told = info["content_settings"].get("content_md5")
    try:
        found = base64.b64decode(told).hex() if isinstance(told, str) else bytes(told).hex() if told else ""
    except (binascii.Error, ValueError, TypeError):
        return None
    return found if etag.PLAIN.fullmatch(found) else None
