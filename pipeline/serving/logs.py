"""The logs of a running TorchServe: whether a model's workers died, and why."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ..errors import StageError
from . import diagnosis

_SERVER, _MODEL = "ts_log.log", "model_log.log"


class WorkerDied(StageError):
    """A model did not load. `details` is the worker's whole traceback or what the server said, `log` where it is."""

    def __init__(self, what: str, why: str, fix: str, *, details: str, log: Path) -> None:
        super().__init__(what, why, fix)
        self.details = details
        self.log = log


class Logs:
    """The logs in `folder`, of a server whose workers run on `python`. The folder `keep` gets a copy of them where an
    error names them; by default a new one in the temporary folder."""

    def __init__(self, folder: Path, *, keep: Path | None, python: str) -> None:
        self.folder, self._keep, self._python = folder, keep, python

    def deaths(self, name: str) -> int:
        """How often a worker of `name` has died."""
        return diagnosis.deaths(read(self.folder / _SERVER), name)

    def diagnose(self, name: str, log: str = "its log") -> diagnosis.Death:
        """Why the workers of `name` died last."""
        server_log, model_log = read(self.folder / _SERVER), read(self.folder / _MODEL)
        return diagnosis.explain(server_log, model_log, name, python=self._python, log=log)

    def death(self, name: str, what: str) -> WorkerDied:
        """The error that says why `name` does what it does, the logs kept."""
        log = self.keep() / _MODEL
        found = self.diagnose(name, str(log))
        return WorkerDied(f"{name} {what}: {found.line}", found.why, found.fix, details=found.details, log=log)

    def refused(self, name: str, archive: str | None) -> WorkerDied:
        """The error that says why the server does not have the model `name`, which is in the file or folder `archive`;
        None if it was not to load it. The logs are kept."""
        refusal = diagnosis.refusal(read(self.folder / _SERVER), archive) if archive is not None else None
        line, why, fix, details = (
            (refusal.line, refusal.why, refusal.fix, refusal.details)
            if refusal
            else ("no such model", "config.properties does not load it.", "Name it in load_models.", "")
        )
        return WorkerDied(f"TorchServe refused {name}: {line}", why, fix, details=details, log=self.keep() / _SERVER)

    def last_word(self, name: str) -> str:
        """A sentence with the last line that the workers of `name` printed; empty if there is none."""
        lines = diagnosis.printed(read(self.folder / _MODEL), name).strip().splitlines()
        return f"It last said: {lines[-1][:200]}" if lines else ""

    def keep(self) -> Path:
        """A copy of the logs that outlives the server."""
        self._keep = self._keep or Path(tempfile.mkdtemp(prefix="mar-logs-"))
        return Path(shutil.copytree(self.folder, self._keep, dirs_exist_ok=True))


def read(path: Path) -> str:
    """What a log holds; nothing, if it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
