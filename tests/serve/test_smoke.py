"""Smoke: a real TorchServe's answers against those of the handler."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.errors import InputError, MismatchError
from mar_pipeline.serving import smoke as module
from mar_pipeline.serving.logs import WorkerDied
from mar_pipeline.serving.server import Server
from mar_pipeline.serving.smoke import samples, smoke, tolerance_of

from .conftest import ECHO, SAMPLES, pack


def echo(_archive: Path, requests: list[Any]) -> list[Any]:
    return [{"you": request, "half": 0.5} for request in requests]


@pytest.mark.parametrize("kind", ["zip-store", "tgz", "no-archive"])
def test_samples_are_read_from_every_format(tmp_path: Path, kind: str) -> None:
    assert samples(pack(tmp_path, "m", ECHO, kind)) == SAMPLES


def test_an_archive_without_samples_is_refused(tmp_path: Path) -> None:
    folder = pack(tmp_path, "m", ECHO, "no-archive")
    (folder / "samples.json").unlink()
    with pytest.raises(InputError, match=r"has no samples\.json"):
        samples(folder)
    (folder / "samples.json").write_text("[")
    with pytest.raises(InputError, match="not JSON"):
        samples(folder)


@pytest.mark.parametrize(
    ("handler", "config", "allowed"),
    [
        ({"dtype": "float32", "hardware": "cpu"}, {"dtype": "bfloat16"}, 1e-4),
        ({"dtype": "bfloat16", "hardware": "cpu"}, {}, 2e-2),
        ({"dtype": "auto", "hardware": "gpu"}, {"torch_dtype": "float16"}, 2e-2),
        ({"dtype": "auto", "hardware": "cpu"}, {}, 1e-4),
        ({"dtype": "float32", "hardware": "neuronx"}, {}, 1e-3),
        ({"dtype": "float32", "hardware": "something"}, {}, 1e-4),
        ({}, {}, 1e-4),
        ([], [], 1e-4),
        (None, None, 1e-4),
    ],
    ids=str,
)
def test_scores_may_differ_as_the_archives_weights_and_hardware_allow(
    tmp_path: Path, handler: Any, config: Any, allowed: float
) -> None:
    folder = pack(tmp_path, "m", ECHO, "no-archive")
    if handler is not None:
        (folder / "provenance.json").write_text(json.dumps({"settings": {"handler": {"handler": handler}}}))
        (folder / "config.json").write_text(json.dumps(config))
    assert tolerance_of(folder) == allowed


@pytest.mark.parametrize(("verify", "allowed"), [({"tolerance": 0.5}, 0.5), ({}, 1e-4), ({"tolerance": "x"}, 1e-4)])
def test_a_tolerance_that_is_recorded_is_the_one_that_counts(tmp_path: Path, verify: Any, allowed: float) -> None:
    folder = pack(tmp_path, "m", ECHO, "no-archive")
    (folder / "provenance.json").write_text(json.dumps({"settings": {"handler": {"handler": {}}, "verify": verify}}))
    assert tolerance_of(folder) == allowed


def test_nothing_to_try_is_an_error() -> None:
    with pytest.raises(InputError, match="no archive to try"):
        smoke([], echo)


@pytest.fixture
def shared(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Smoke on the server that runs already."""
    monkeypatch.setattr(module, "Server", lambda _archives, **_: nullcontext(server))
    return server


@pytest.mark.slow
def test_one_server_tries_several_archives(
    echoes: list[Path], light: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in light.items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    results = smoke(echoes[:2], echo, said.append)
    assert [result.name for result in results] == ["echo-zip-store", "echo-default"]
    # Each sample alone, as bytes, and three times with the others.
    assert {result.requests for result in results} == {5 * len(SAMPLES)}
    assert all(0 < result.median_ms < 5000 for result in results)
    assert all(result.ready_seconds > 0 for result in results)
    assert any("READY" in line for line in said)


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
def test_another_answer_than_the_handlers_is_an_error_that_shows_it(echoes: list[Path]) -> None:
    def wrong(archive: Path, requests: list[Any]) -> list[Any]:
        answers = echo(archive, requests)
        return [*answers[:1], {**answers[1], "half": 0.6}, *answers[2:]]

    with pytest.raises(MismatchError) as caught:
        smoke(echoes[:1], wrong)
    assert "sample 2 alone .half" in str(caught.value)
    assert "0.6" in str(caught.value)
    assert "sample 1" not in str(caught.value)


@pytest.mark.slow
def test_a_dead_workers_traceback_is_shown_before_its_error(shared: Server, broken: list[Path]) -> None:
    said: list[str] = []
    with pytest.raises(WorkerDied, match="wrong shape"):
        smoke([path for path in broken if path.stem == "raises"], echo, said.append)
    assert said[-1].startswith("Traceback (most recent call last)")
    assert shared.running
