"""Programs that the pipeline runs, and how they end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mar_pipeline.workers import client


def test_a_program_that_another_thread_waits_for_is_ended_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], text=True, start_new_session=True)
    process.wait()
    # What `poll` said before that other thread was quicker.
    monkeypatch.setattr(process, "poll", lambda: None)
    client._kill(process)
