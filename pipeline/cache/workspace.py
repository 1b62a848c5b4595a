"""A folder to work in, for commands that need no result of the cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..errors import of_the_disk
from ..files import private
from .store import Store


@contextmanager
def workspace(store: Store) -> Iterator[Path]:
    """A new folder that only this user can read, removed afterwards: in the cache, or in the temporary folder if the
    cache cannot be written to.

    Raises InputError if the cache cannot be there, StageError for errors of the disk, within the context too.
    """
    with ExitStack() as stack:
        try:
            if in_cache := _writable(store):
                stack.enter_context(store.in_use())
                folder = stack.enter_context(store.scratch())
            else:
                folder = stack.enter_context(private.in_temporary("run"))
        except OSError as error:
            raise of_the_disk(error) or error from None
        try:
            yield folder
        except OSError as error:
            raise of_the_disk(error, store.root if in_cache else folder.parent) or error from None


def _writable(store: Store) -> bool:
    """Whether folders can be created in the cache, or where it would be created."""
    place = next(path for path in (store.root / "tmp", store.root, *store.root.parents) if path.is_dir())
    return not store.read_only and os.access(place, os.W_OK | os.X_OK)
