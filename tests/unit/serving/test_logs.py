"""Logs as TorchServe leaves them at midnight: compressed, and begun again."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from mar_pipeline.serving.logs import Logs, read

DEATH = (
    "2026-11-29T23:59:58,172 [DEBUG] W-9000-m_1.0 org.pytorch.serve.wlm.WorkerThread - "
    "W-9000-m_1.0 State change WORKER_STARTED -> WORKER_STOPPED\n"
)


def test_a_death_before_midnight_is_known_after_it(tmp_path: Path) -> None:
    (tmp_path / "ts_log.29-Nov.log.gz").write_bytes(gzip.compress(DEATH.encode()))
    (tmp_path / "ts_log.log").write_text(
        "2026-11-30T00:00:01,000 [INFO ] main org.pytorch.serve.ModelServer - a line\n"
    )
    assert Logs(tmp_path, keep=None, python="python").deaths("m") == 1


def test_rolled_logs_come_first_in_the_order_of_their_time(tmp_path: Path) -> None:
    for time, (name, text) in enumerate([("30-Nov", "one "), ("01-Dec", "two ")]):
        file = tmp_path / f"ts_log.{name}.log.gz"
        file.write_bytes(gzip.compress(text.encode()))
        os.utime(file, (time, time))
    (tmp_path / "ts_log.log").write_text("three")
    assert read(tmp_path / "ts_log.log") == "one two three"


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:12] + b"\xff" * 20, lambda _: b""])
def test_a_log_that_is_being_compressed_hides_no_other(tmp_path: Path, damage: object) -> None:
    data = gzip.compress(os.urandom(100))
    (tmp_path / "ts_log.29-Nov.log.gz").write_bytes(damage(data))  # type: ignore[operator]
    (tmp_path / "ts_log.log").write_text("now")
    assert read(tmp_path / "ts_log.log") == "now"


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path / "gone" / "ts_log.log") == ""
