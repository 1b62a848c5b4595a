"""Builds a recipe's checkpoint, and compares the archive's answers with transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mar_pipeline.answers import rehearsal
from mar_pipeline.archive.reader import Archive
from mar_pipeline.builder import session
from mar_pipeline.cache.store import Store
from mar_pipeline.config import build_config
from mar_pipeline.errors import MarError, MismatchError

from . import making, oracle
from .recipes import Recipe

SKIPPED, BUILT, REFUSED, DIFFERS, WRONG = "skipped", "built", "refused", "does not verify", "wrong"


def attempt(recipe: Recipe, folder: Path) -> tuple[str, str]:
    """What happened, and why: transformers cannot load it; it is built and agrees; it is refused; verify says that it
    differs; or it is built and answers otherwise. An unexpected error is raised."""
    try:
        checkpoint = making.make(recipe, folder)
        answers, _ = oracle.answers(recipe, checkpoint, 64)
    except Exception as error:  # whatever transformers raises for what it cannot load
        return SKIPPED, f"{type(error).__name__}: {str(error).splitlines()[:1]}"
    if all(answer is None for answer in answers):
        return SKIPPED, "transformers answers none of the requests"
    pickled = ("handler.allow_pickle=true",) if recipe.layout == "bin" else ()
    overrides = build_config.Overrides(model=str(checkpoint), save_mode=recipe.mode, settings=pickled)
    settings = build_config.load(build_config.packaged(recipe.task), overrides)
    store = Store(folder / "cache")
    try:
        (report,) = session.run([settings], store, session.Options(out=folder / "out", offline=True))
    except MismatchError as error:
        return DIFFERS, str(error)
    except MarError as error:
        return REFUSED, "\n".join(filter(None, (error.what, error.why, error.fix)))
    archive = Path(report["path"])
    packed = yaml.safe_load(Archive(archive).read("model-config.yaml"))
    wanted, dtype = oracle.answers(recipe, checkpoint, packed["handler"]["max_length"])
    got = rehearsal.answers(store, archive, list(recipe.requests))["single"]
    for request, theirs, ours in zip(recipe.requests, wanted, got, strict=True):
        if theirs is not None and not _agrees(recipe.task, theirs, ours, whole=dtype == "float32"):
            return WRONG, f"{request}: transformers {theirs}, the archive {ours}"
    return BUILT, ""


def _agrees(task: str, theirs: Any, ours: Any, *, whole: bool) -> bool:
    """Whether two answers agree; `whole` in float32. In 16 bits, rounding may change a label or a token."""
    tolerance = 1e-3 if whole else 5e-2
    if task == "seq_classification":
        # The archive gives the best label.
        best = max(theirs.values())
        score = theirs.get(ours["label"])
        return score is not None and best - score <= tolerance and abs(ours["score"] - score) <= tolerance
    if task == "question_answering":
        return abs(theirs - ours["score"]) <= tolerance
    if not whole:
        return True
    if task == "text_generation":
        return bool(ours["generated_text"] == theirs)
    return [(one["label"], one["start"], one["end"]) for one in ours] == [(a, c, d) for a, _, c, d in theirs] and all(
        abs(one["score"] - other[1]) <= tolerance for one, other in zip(ours, theirs, strict=True)
    )
