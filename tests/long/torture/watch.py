"""Watches an output folder while builds come and go: under a final name there is never anything half done."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path

from . import caches

_FRESH = 0.05
"""Seconds for which a file is read again though its stat is the same: longer than a tick of the kernel's clock."""


class Watcher:
    """A thread that reads what lies under final names, again and again.

    `allowed` has the digests that each path may have; None among them: it may be absent. Any other path in
    model-store is a fault too, since TorchServe takes all that it finds there for archives.
    """

    def __init__(self, out: Path, allowed: Mapping[str, frozenset[str | None]]) -> None:
        self._out, self._allowed = out, allowed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._known: dict[str, tuple[tuple[int, ...], str]] = {}
        self.faults: list[str] = []
        self.looks = 0

    def __enter__(self) -> Watcher:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._known.clear()
        self._look()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._look()
            time.sleep(0.001)

    def _look(self) -> None:
        self.looks += 1
        for path, allowed in self._allowed.items():
            found = self._digest(path)
            if found not in allowed:
                self._fault(f"{path} was {'not there' if found is None else 'neither the old nor the new one'}")
        store = self._out / "model-store"
        for file in store.iterdir() if store.is_dir() else ():
            if f"model-store/{file.name}" not in self._allowed:
                self._fault(f"model-store held {file.name}")

    def _fault(self, text: str) -> None:
        if text not in self.faults:
            self.faults.append(text)

    def _digest(self, path: str) -> str | None:
        file = self._out / path
        try:
            stat = file.stat()
            stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            known = self._known.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
            found = caches.digest(file)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if time.time() - stat.st_ctime > _FRESH:
            self._known[path] = stamp, found
        return found


def allowed(old: Mapping[str, str] | None, new: Mapping[str, str]) -> dict[str, frozenset[str | None]]:
    """What an output folder may show on its way from `old` (None: nothing) to `new`: digests by path."""
    paths = {*new, *(old or {})}
    return {path: frozenset({(old or {}).get(path), new.get(path)}) for path in paths}
