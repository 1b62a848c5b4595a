"""What `mar check` says of an archive's settings, by TorchServe's rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.archiver import findings, make

Found = dict[str, Any]


YAML = "minWorkers: 1\nmaxWorkers: 1\n"


@pytest.mark.parametrize(
    ("text", "level", "said"),
    [
        ("batchsize: 4", "error", "batchsize is not a key of the server"),
        ("batchsize: 4", "error", "did you mean batchSize"),
        ("max_length: 4", "error", "did you mean handler.max_length?"),
        ("threshold: 0.5", "warning", "threshold"),
        ("TorchRun: {nnodes: 1}", "error", "TorchRun"),
        ("torchrun: {nnode: 1}", "error", "torchrun.nnode"),
        ("batchSize: '8'", "error", "expected a whole number"),
        ("batchSize: '8'", "error", "leave the quotes out"),
        ("batchSize: '8.5'", "error", 'got "8.5"; TorchServe'),
        ("batchSize: true", "error", "expected a whole number"),
        ("batchSize: 0", "error", "at least 1"),
        ("maxBatchDelay: -1", "error", "at least 0"),
        ("deviceType: tpu", "error", "not one of cpu or gpu"),
        ("deviceIds: [one]", "error", "deviceIds[0]"),
        ("responseTimeout: 3000000000", "error", "out of range"),
        ("useVenv: 1", "error", "true or false"),
        ("key: [", "error", "not valid YAML"),
    ],
)
def test_settings_that_the_server_drops_or_refuses_are_told(tmp_path: Path, text: str, level: str, said: str) -> None:
    archive = make(tmp_path, {"model-config.yaml": (YAML + text).encode()})
    (line,) = findings(archive)
    assert said in line
    assert findings(archive, level) == [line]


def test_every_problem_with_the_settings_is_told_at_once(tmp_path: Path) -> None:
    text = b"minWorkers: 2\nbatchsize: 4\nmaxBatchDelay: '10'\nuseVenv: 1\n"
    assert len(findings(make(tmp_path, {"model-config.yaml": text}))) == 4


def test_a_handlers_own_settings_are_none_of_the_servers(tmp_path: Path) -> None:
    text = YAML + "handler: {max_length: 4}\npt2: {compile: {enable: true}}\nmicro_batching: {size: 4}\n"
    assert findings(make(tmp_path, {"model-config.yaml": text.encode()})) == []


@pytest.mark.parametrize(
    ("text", "level"), [("minWorkers: 2", "warning"), ("minWorkers: 2\nmaxWorkers: 1", "error")], ids=["alone", "more"]
)
def test_workers_that_the_server_would_ignore_are_told(tmp_path: Path, text: str, level: str) -> None:
    (line,) = findings(make(tmp_path, {"model-config.yaml": text.encode()}), level)
    assert "ignores both" in line
