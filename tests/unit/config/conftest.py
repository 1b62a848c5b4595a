"""Configs written to a temporary folder, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from mar_pipeline.config.build_config import BuildConfig, Overrides, load
from mar_pipeline.errors import InputError

GOOD = """\
handler:
  mode: sequence_classification
  model_name: starter:seq_classification
"""

Write = Callable[[str], Path]
Problems = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, so that paths in messages are short and no folder here is taken for a model."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write() -> Write:
    def written(text: str, name: str = "c.yaml") -> Path:
        path = Path(name)
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return written


@pytest.fixture
def build(write: Write) -> Callable[..., BuildConfig]:
    """The config of a text, with command-line settings."""

    def built(text: str = GOOD, *settings: str, **options: str) -> BuildConfig:
        return load(write(text), Overrides(settings=settings, **options))

    return built


@pytest.fixture
def problems(write: Write) -> Problems:
    """The lines of the one error that a text and command-line settings give."""

    def found(text: str = GOOD, *settings: str, **options: str) -> list[str]:
        with pytest.raises(InputError) as caught:
            load(write(text), Overrides(settings=settings, **options))
        assert caught.value.exit_code == 2
        return str(caught.value).splitlines()

    return found
