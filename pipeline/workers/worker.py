"""The worker, `python -m mar_pipeline.workers.worker JOB.json`. `mar` itself imports neither torch nor transformers.

It reads a JSON job, runs its operation, and reports as `portable.protocol` defines.
"""

from __future__ import annotations

import errno
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, MarError, StageError, disk_is_full
from ..portable import protocol

if TYPE_CHECKING:
    from ..portable.protocol import Report

OPERATIONS = {
    "tokenizer": "mar_pipeline.workers.packed_tokenizer:pack",
    "samples": "mar_pipeline.workers.samples:fitting",
    "finite": "mar_pipeline.workers.finite:check",
    "save": "mar_pipeline.workers.loading:save",
    "prepare": "mar_pipeline.workers.loading:prepare",
    "trace": "mar_pipeline.workers.trace:trace",
    "eager": "mar_pipeline.workers.reference:expected",
    "answer": "mar_pipeline.portable.emulator:answers",
}


def _do(job: dict[str, Any], report: Report) -> Any:
    """Import and run the job's operation."""
    module, name = OPERATIONS[job["op"]].split(":")
    return getattr(import_module(module), name)(job, report)


def _as_message(error: BaseException, job: dict[str, Any]) -> dict[str, Any]:
    """An error as a message to the parent."""
    handler = sys.modules.get("mar_pipeline.portable.handler")
    if handler is not None and isinstance(error, handler.NotOneClass):
        error = StageError(str(error))
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        error = StageError(
            "There is not enough memory for the model.",
            "Either the machine has too little, or a number in the model's files asks for too much.",
            "Free some memory, build on a larger machine, or restore the model's files from their source.",
        )
    if type(error).__module__.startswith("yaml.") and job["op"] == "answer":
        error = InputError(
            f"The archive's settings cannot be read: {protocol.message_of(error)}.",
            "The YAML file that its manifest names (configFile) is damaged.",
            "Make the archive again.",
        )
    if type(error).__name__ == "PanicException":  # of libraries in Rust: it is no Exception
        error = InputError(
            f"A library panicked at the model's files: {protocol.message_of(error)}",
            "A file of the tokenizer or of the weights is damaged, or was written by a newer release.",
            "Restore the model's files from their source, or save the model again.",
        )
    if isinstance(error, MarError):
        return {"code": error.exit_code, "what": error.what, "why": error.why, "fix": error.fix}
    # Libraries raise their own errors when the disk is full.
    return protocol.as_message(OSError(errno.ENOSPC, "") if disk_is_full(error) else error, job)


def main() -> None:
    """Run the job whose file is the first argument."""
    # If the system runs out of memory, it ends this process and not another one. (proc_pid_oom_score_adj(5))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    protocol.main(dict.fromkeys(OPERATIONS, _do), _as_message)


if __name__ == "__main__":
    main()
