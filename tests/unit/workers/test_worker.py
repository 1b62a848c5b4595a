"""What the worker says of an error."""

from __future__ import annotations

import errno

import pytest

from mar_pipeline.errors import InputError
from mar_pipeline.workers import worker


class SafetensorError(Exception):
    """As safetensors has it: no OSError, its cause in the text alone."""


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    SafetensorError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"),
]


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_full_disk_is_a_failed_stage_with_what_to_do(error: Exception) -> None:
    told = worker._as_message(error, {"op": "trace", "out": "/cache/tmp/1/out"})
    assert told["code"] == 3
    assert told["what"] == "The disk is full: trace could not write to /cache/tmp/1/out."
    assert "--cache" in told["fix"]


def test_other_errors_are_told_as_they_are() -> None:
    error = InputError("what", "why", "fix")
    assert worker._as_message(error, {"op": "trace"}) == {"code": 2, "what": "what", "why": "why", "fix": "fix"}
    for other in (OSError(errno.EIO, "Input/output error"), SafetensorError("I/O error (os error 5)")):
        told = worker._as_message(other, {"op": "trace"})
        assert told["code"] == 1
        assert str(other) in told["traceback"]
