"""Of a checkpoint that holds several forms of weights, those are taken that transformers' from_pretrained loads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.errors import InputError
from mar_pipeline.model import checkpoint, selection
from tests.support import ROOT, tiny

pytestmark = pytest.mark.slow

OLDER = Path(sys.prefix) / "older"

Weights = dict[str, Any]


def whole(name: str) -> Callable[[Path, Weights], None]:
    def write(folder: Path, weights: Weights) -> None:
        import torch
        from safetensors.torch import save_file

        if name.endswith(".safetensors"):
            save_file(weights, folder / name, metadata={"format": "pt"})
        else:
            torch.save(weights, folder / name)

    return write


def sharded(stem: str, end: str, index: str) -> Callable[[Path, Weights], None]:
    def write(folder: Path, weights: Weights) -> None:
        names, places = sorted(weights), {}
        for number in (1, 2):
            part = f"{stem}-0000{number}-of-00002.{end}"
            mine = names[number - 1 :: 2]
            whole(part)(folder, {name: weights[name] for name in mine})
            places |= dict.fromkeys(mine, part)
        (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))

    return write


FORMS: dict[str, Callable[[Path, Weights], None]] = {
    "single": whole("model.safetensors"),
    "shards": sharded("model", "safetensors", "model.safetensors.index.json"),
    "pickle": whole("pytorch_model.bin"),
    "pickled shards": sharded("pytorch_model", "bin", "pytorch_model.bin.index.json"),
    "variant": whole("model.fp16.safetensors"),
    "variant shards": sharded("model.fp16", "safetensors", "model.safetensors.index.fp16.json"),
    "consolidated": whole("consolidated.safetensors"),
}
TAKEN = [each for size in (1, 2, 3, 4) for each in combinations(list(FORMS)[:4], size)]
MIXES = [*TAKEN, *(("pickle", other) for other in list(FORMS)[4:]), tuple(FORMS), tuple(reversed(FORMS))]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Weights]:
    """A checkpoint without weights, and these."""
    from safetensors.torch import load_file

    folder = tiny.save(tmp_path_factory.mktemp("bare") / "bert", "bert", "seq_classification")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    return folder, weights


def mixed(bare: tuple[Path, Weights], forms: tuple[str, ...], folder: Path) -> Path:
    """The checkpoint with weights in each of these forms, told apart by the first label's bias."""
    shutil.copytree(bare[0], folder)
    for form in forms:
        weights = {name: tensor.clone() for name, tensor in bare[1].items()}
        weights["classifier.bias"][0] = list(FORMS).index(form)
        FORMS[form](folder, weights)
    return folder


def loaded(folder: Path) -> str:
    """The form whose weights transformers loads."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
    return list(FORMS)[round(model.classifier.bias[0].item())]


def selected(folder: Path) -> list[str]:
    present = [file.relative_to(folder).as_posix() for file in folder.rglob("*")]
    read = lambda path: (folder / path).read_text()  # noqa: E731
    return sorted(selection.select(present, "here", read, pickles=True).files)


@pytest.mark.parametrize("forms", MIXES, ids=" and ".join)
def test_of_several_forms_the_one_is_taken_that_transformers_loads(
    bare: tuple[Path, Weights], forms: tuple[str, ...], tmp_path: Path
) -> None:
    folder = mixed(bare, forms, tmp_path / "mixed")
    alone = mixed(bare, (loaded(folder),), tmp_path / "alone")
    assert selected(folder) == selected(alone)


@pytest.mark.long
@pytest.mark.skipif(not OLDER.exists(), reason="make test installs the older transformers")
def test_the_older_line_of_transformers_chooses_the_same(bare: tuple[Path, Weights], tmp_path: Path) -> None:
    folders = [mixed(bare, forms, tmp_path / str(number)) for number, forms in enumerate(TAKEN)]
    code = "import sys; from tests.builds.test_which_weights import *; print([loaded(Path(f)) for f in sys.argv[1:]])"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, folders)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(OLDER), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == str([loaded(folder) for folder in folders]), done.stderr


def test_a_stale_index_without_its_shards_is_in_nobodys_way(bare: tuple[Path, Weights], tmp_path: Path) -> None:
    folder = mixed(bare, ("single", "shards"), tmp_path / "mixed")
    for shard in folder.glob("model-*.safetensors"):
        shard.unlink()
    assert loaded(folder) == "single"
    assert selected(folder) == selected(mixed(bare, ("single",), tmp_path / "alone"))


@pytest.mark.parametrize("named", ["other.safetensors", "model.safetensors.index.json", 5])
def test_weights_that_the_config_names_and_that_are_not_taken_are_refused(named: Any) -> None:
    config = json.dumps({"model_type": "bert", "transformers_weights": named}).encode()
    with pytest.raises(InputError, match="transformers_weights"):
        checkpoint.refuse_other_weights(config, ["config.json", "model.safetensors"])


@pytest.mark.parametrize("config", [b"", b"[]", b"{}", b'{"transformers_weights": null}', b"\xff"])
def test_a_config_that_names_no_weights_is_left_to_others(config: bytes) -> None:
    checkpoint.refuse_other_weights(config, ["config.json", "model.safetensors"])


def test_weights_that_the_config_names_and_that_are_taken_are_fine() -> None:
    config = json.dumps({"transformers_weights": "model.safetensors"}).encode()
    checkpoint.refuse_other_weights(config, ["config.json", "model.safetensors"])
