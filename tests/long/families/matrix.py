"""Builds tiny models of every family, for every task that it has a class for, in both save modes."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mar_pipeline.audit.check import check
from mar_pipeline.builder import session
from mar_pipeline.cache.store import Store
from mar_pipeline.config import build_config
from mar_pipeline.errors import MarError
from mar_pipeline.workers.client import WorkerCrash
from tests.support import tiny
from tests.support.mar import MODES

LANES = 2
"""Builds at once; a verification is two workers."""


class Case(NamedTuple):
    """One build."""

    family: str
    task: str
    mode: str


Outcome = str | None
"""None if it was built and verified, else what the build said."""

Tell = Callable[[Case, Outcome], None]


def cases(families: Iterable[str] = tiny.FAMILIES) -> list[Case]:
    """Every build for which transformers has a class."""
    return [
        Case(family, task, mode)
        for family in families
        for task in tiny.AUTO
        if tiny.has(family, task)
        for mode in MODES
    ]


def build_all(folder: Path, asked: Sequence[Case], tell: Tell = lambda *_: None) -> dict[Case, Outcome]:
    """Build each of them below `folder`, by the whole line; `tell` is told of each that has ended."""
    checkpoints = Checkpoints(folder / "checkpoints")

    def build(case: Case) -> Outcome:
        outcome = _build(folder / "-".join(case), checkpoints.of(case), case)
        tell(case, outcome)
        return outcome

    with ThreadPoolExecutor(LANES) as lanes:
        return dict(zip(asked, lanes.map(build, asked), strict=True))


class Checkpoints:
    """Those of the cases, made once each."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()

    def of(self, case: Case) -> Path:
        folder = self._folder / f"{case.family}-{case.task}"
        # torch has one source of random numbers.
        with self._lock:
            return folder if folder.exists() else tiny.save(folder, case.family, case.task)


def _build(place: Path, checkpoint: Path, case: Case) -> Outcome:
    overrides = build_config.Overrides(model=str(checkpoint), save_mode=case.mode)
    settings = build_config.load(build_config.packaged(case.task), overrides)
    store = Store(place / "cache")
    try:
        session.run([settings], store, session.Options(out=place / "out", offline=True))
        _told_apart(place / "out", case)
        return None
    except MarError as error:
        return error.what.splitlines()[0]
    except WorkerCrash as crash:
        return f"a crash: {str(crash).splitlines()[-1]}"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _told_apart(out: Path, case: Case) -> None:
    """A model that answers all samples alike would agree with anything. `mar check` finds nothing in any archive."""
    (report,) = (out / "reports").iterdir()
    told = json.loads(report.read_text(encoding="utf-8"))
    answers = {json.dumps(one["expected"]) for one in told["samples"]}
    assert told["verified"], case
    (archive,) = (out / "model-store").glob("*.mar")
    assert check(archive)["findings"] == [], case
    assert len(answers) == len(told["samples"]), f"{case}: some samples have the same answer"
