"""The samples reach the model's limit, and the lengths at which it computes otherwise."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mar_pipeline.builder.stages import samples as stage
from mar_pipeline.tasks import TASKS
from mar_pipeline.workers.samples import fitting

WINDOW = {"sliding_window": 100}
LONGROPE = {"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 2000}}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each word and each sign is a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path_factory.mktemp("words") / "tokenizer.json"))
    return words


def sizes(
    tokenizer: Any, task: str, limit: int, config: dict[str, Any], patch: pytest.MonkeyPatch, folder: Path
) -> list[tuple[int, int]]:
    """The tokens of each sample's texts, and of what is written after them; the task's own samples left out."""
    tokenizer.save(str(folder / "tokenizer.json"))
    patch.setattr(stage.resolve, "max_length", lambda _: limit)
    inputs: Any = SimpleNamespace(
        config=SimpleNamespace(task=TASKS[task], verify=SimpleNamespace(samples=None)),
        read_json=lambda *_: config,
    )
    found = []
    made = fitting({**stage.fitting(inputs), "folder": str(folder)}, lambda *_: None)
    for sample in made[len(TASKS[task].samples) :]:
        texts = [sample[name] for name in TASKS[task].fields]
        found.append((len(tokenizer.encode(*texts)), sample.get("parameters", {}).get("max_new_tokens", 0)))
    return found


@pytest.mark.parametrize(
    ("limit", "config", "prompts"),
    [
        (512, {}, [512 - 16]),
        (512, WINDOW, [512 - 16, 100 - 8]),
        (4096, {}, [1024 - 16]),
        (4096, LONGROPE, [2000, 2000 - 8]),
        (1024, LONGROPE, [1024 - 16]),
    ],
)
def test_a_prompt_fills_the_model_and_a_text_crosses_the_length_at_which_it_changes(
    limit: int,
    config: dict[str, Any],
    prompts: list[int],
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    found = sizes(tokenizer, "text_generation", limit, config, monkeypatch, tmp_path)
    assert [new for _, new in found] == [16] * len(prompts)
    for (size, _), wanted in zip(found, prompts, strict=True):
        # Samples are cut at words, each of up to three tokens.
        assert wanted - 4 < size <= wanted


@pytest.mark.parametrize("task", ["seq_classification", "token_classification", "question_answering"])
@pytest.mark.parametrize(
    ("limit", "config", "least", "most"),
    [
        (512, WINDOW, 769, 1200),  # cut, or read in windows
        (4096, {}, 1020, 1024),
        (4096, LONGROPE, 2012, 2016),
        (2008, LONGROPE, 3013, 3600),
    ],
)
def test_a_text_is_longer_than_the_model_takes_or_than_where_it_changes(
    task: str,
    limit: int,
    config: dict[str, Any],
    least: int,
    most: int,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    ((size, _),) = sizes(tokenizer, task, limit, config, monkeypatch, tmp_path)
    assert least <= size <= most
