"""The logs of a running TorchServe: whether a model's workers died, and why."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from ..errors import StageError
from ..files import private
from . import diagnosis

_SERVER, _MODEL = "ts_log.log", "model_log.log"


class WorkerDied(StageError):
    """A model did not load. `details` is the worker's traceback or the server's message, `log` the file that has it."""

    def __init__(self, what: str, why: str, fix: str, *, details: str, log: Path) -> None:
        super().__init__(what, why, fix)
        self.details = details
        self.log = log


class Logs:
    """The logs in `folder`, of a server whose workers run on `python`. If an error refers to them, they are copied to
    the folder `keep`, by default a new one in the temporary folder."""

    def __init__(self, folder: Path, *, keep: Path | None, python: str) -> None:
        self.folder, self._keep, self._python = folder, keep, python
        self._copy: private.Folder | None = None

    def deaths(self, name: str) -> int:
        """How often a worker of `name` has died."""
        return diagnosis.deaths(read(self.folder / _SERVER), name)

    def diagnose(self, name: str, log: str = "its log") -> diagnosis.Death:
        """Why a worker of `name` died last."""
        server_log, model_log = read(self.folder / _SERVER), read(self.folder / _MODEL)
        return diagnosis.explain(server_log, model_log, name, python=self._python, log=log)

    def death(self, name: str, what: str) -> WorkerDied:
        """The error for a dead worker of `name`; copies the logs. `what` is the predicate of the message."""
        log = self.keep() / _MODEL
        reason = self.diagnose(name, str(log))
        return WorkerDied(f"{name} {what}: {reason.line}", reason.why, reason.fix, details=reason.details, log=log)

    def refused(self, name: str, archive: str | None) -> WorkerDied:
        """The error for a model `name` that the server did not load; copies the logs. `archive` is its file or folder,
        None if it is not in the model store."""
        refusal = diagnosis.refusal(read(self.folder / _SERVER), archive) if archive is not None else None
        line, why, fix, details = (
            (refusal.line, refusal.why, refusal.fix, refusal.details)
            if refusal
            else ("no such model", "config.properties does not load it.", "Add it to load_models.", "")
        )
        return WorkerDied(f"TorchServe refused {name}: {line}", why, fix, details=details, log=self.keep() / _SERVER)

    def last_word(self, name: str) -> str:
        """A sentence with the last line that the workers of `name` printed; "" if there is none."""
        lines = diagnosis.printed(read(self.folder / _MODEL), name).strip().splitlines()
        return f"Its last output: {lines[-1][:200]}" if lines else ""

    def keep(self) -> Path:
        """A copy of the logs that outlives the server, for this user only: handlers may log what they are asked."""
        if self._keep is None:
            self._copy = private.in_temporary("logs")
            self._keep = self._copy.path
            private.write(self._keep / private.UNFINISHED, b"")
        self._keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in filter(Path.is_file, self.folder.iterdir()):
            copy = self._keep / file.name
            copy.unlink(missing_ok=True)
            private.write(copy, file.read_bytes())
        return self._keep

    def close(self) -> None:
        """Leave the copy to the user. If this process is killed instead, the next one removes it."""
        if self._copy is not None:
            self._copy.outlive()
            self._copy = None


def read(path: Path) -> str:
    """The text of a log; "" if it cannot be read. At midnight TorchServe begins it again, and compresses what it had
    (log4j2.xml: ts_log.29-Nov.log.gz)."""
    rolled = sorted(path.parent.glob(f"{path.stem}.*{path.suffix}.gz"), key=lambda file: file.stat().st_mtime)
    return "".join(map(_text, (*rolled, path)))


def _text(file: Path) -> str:
    """The text of one file of a log; "" if it cannot be read, or is being compressed just now."""
    try:
        data = file.read_bytes()
        return (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8", errors="replace")
    except (OSError, EOFError, zlib.error):
        return ""
