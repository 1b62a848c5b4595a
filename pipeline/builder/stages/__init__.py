"""The stages, in the order that they run in. A new stage is a module with a `STAGE`, a line here, and its name in
`build.StageName`."""

from __future__ import annotations

from ..stage import Placing, Stage
from . import archive, download, handler, model_store, serialize, verify

STAGES: tuple[Stage | Placing, ...] = (
    download.STAGE,
    serialize.STAGE,
    handler.STAGE,
    archive.STAGE,
    verify.STAGE,
    model_store.STAGE,
)
