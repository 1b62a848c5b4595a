"""Labels: what transformers makes of config.json and the head's weights, or a refusal whose advice works."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mar_pipeline.builder import resolve
from mar_pipeline.errors import InputError
from mar_pipeline.model.checkpoint import read_json
from mar_pipeline.tasks import TASKS
from mar_pipeline.workers.loading import model
from tests.support import tiny
from tests.support.mar import Mar

pytestmark = pytest.mark.slow

THREE = {"0": "a", "1": "b", "2": "c"}
CONFIGS: dict[str, dict[str, Any]] = {
    "three names": {"id2label": THREE},
    "three names in another order": {"id2label": {"2": "c", "0": "a", "1": "b"}},
    "a name twice": {"id2label": {"0": "a", "1": "a", "2": "b"}},
    "numbers as names": {"id2label": {"0": 0, "1": 1.5, "2": True}},
    "leading zeros": {"id2label": {"00": "a", "01": "b", "02": "c"}},
    "another label2id": {"id2label": THREE, "label2id": {"x": 0}},
    "a list as label2id": {"id2label": THREE, "label2id": ["x"]},
    "num_labels 3": {"num_labels": 3},
    "num_labels 3 and two names": {"num_labels": 3, "id2label": {"0": "a", "1": "b"}},
    "num_labels 2 and three names": {"num_labels": 2, "id2label": THREE},
    "num_labels null and three names": {"num_labels": None, "id2label": THREE},
    "nothing": {},
    "two names": {"id2label": {"0": "a", "1": "b"}},
    "four names": {"id2label": {**THREE, "3": "d"}},
    "num_labels 2": {"num_labels": 2},
    "_num_labels 3": {"_num_labels": 3},
    "label2id alone": {"label2id": {"x": 0, "y": 1, "z": 2}},
    "empty names": {"id2label": {}},
    "num_labels null": {"num_labels": None},
    **{
        f"num_labels {json.dumps(odd)[:20]}": {"num_labels": odd}
        for odd in ("3", 3.0, True, False, 0, -1, 100_001, [3])
    },
    **{
        f"id2label {json.dumps(odd)}": {"id2label": odd}
        for odd in (
            ["a", "b", "c"],
            "a,b,c",
            3,
            {"1": "a", "2": "b", "3": "c"},
            {"0": "a", "1": "b", "3": "c"},
            {"a": "0", "b": "1", "c": "2"},
            {"0": "a", "00": "z", "1": "b"},
            {"0": None, "1": "b", "2": "c"},
            {"0": ["a"], "1": "b", "2": "c"},
            {"0": {"a": 1}, "1": "b", "2": "c"},
        )
    },
}

MENDED = ("num_labels 2 and three names",)
"""What transformers 5 does not load, since it takes num_labels, and 4.57 does."""


class Files:
    """A folder as the result of the download stage."""

    def __init__(self, folder: Path, **handler: Any) -> None:
        self.folder = folder
        settings = SimpleNamespace(**{"labels": None, "num_labels": None, "allow_untrained_head": False, **handler})
        name = SimpleNamespace(name="here")
        self.config = SimpleNamespace(handler=settings, task=TASKS["seq_classification"], model=name)

    def tree(self, _stage: str) -> list[Any]:
        return [SimpleNamespace(path=file.name) for file in self.folder.iterdir()]

    def find(self, _stage: str, path: str) -> Path | None:
        return self.folder / path if (self.folder / path).exists() else None

    def read_json(self, _stage: str, path: str) -> dict[str, Any]:
        return read_json(self.folder / path) if (self.folder / path).exists() else {}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head with three rows."""
    return tiny.save(tmp_path_factory.mktemp("three") / "bert", "bert", "seq_classification", num_labels=3)


def configured(three: Path, folder: Path, name: str, form: str = "one file") -> Path:
    shutil.copytree(three, folder)
    config = json.loads((folder / "config.json").read_text())
    for key in ("id2label", "label2id", "num_labels"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps({**config, **CONFIGS[name]}))
    if form != "one file":
        import torch
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        if form == "a pickle":
            torch.save(weights, folder / "pytorch_model.bin")
        else:
            places = {}
            for number, part in enumerate((sorted(weights)[:20], sorted(weights)[20:]), 1):
                file = f"model-0000{number}-of-00002.safetensors"
                save_file({each: weights[each] for each in part}, folder / file, metadata={"format": "pt"})
                places |= dict.fromkeys(part, file)
            (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def ours(folder: Path, **handler: Any) -> dict[int, str]:
    """The labels that an archive of the folder has. Raises InputError if there is none."""
    files: Any = Files(folder, **handler)
    names = resolve.labels(files)
    assert names
    settings = {"auto_class": "AutoModelForSequenceClassification", "allow_untrained_head": False}
    loaded = model({"checkpoint": str(folder), "labels": names, "num_labels": len(names), **settings})
    assert loaded.classifier.weight.shape[0] == len(names) == 3
    assert dict(loaded.config.id2label) == names
    return names


def theirs(folder: Path) -> dict[int, str] | None:
    """The labels of the model that transformers loads; None if it does not."""
    from transformers import AutoModelForSequenceClassification

    try:
        loaded = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
    except Exception:
        return None
    names = dict(sorted(loaded.config.id2label.items()))
    whole = list(names) == [0, 1, 2] and not any(
        name is None or isinstance(name, list | dict) for name in names.values()
    )
    return {index: str(name) for index, name in names.items()} if whole else None


@pytest.mark.parametrize("name", CONFIGS)
def test_labels_are_those_of_the_model_that_transformers_loads_or_there_is_a_refusal_that_can_be_followed(
    three: Path, name: str, tmp_path: Path
) -> None:
    folder = configured(three, tmp_path / "bert", name)
    wanted = theirs(folder)
    if wanted is not None:
        assert ours(folder) == wanted
        return
    with suppress(InputError) if name in MENDED else pytest.raises(InputError) as caught:
        assert ours(folder) == dict(enumerate("abc"))
    if caught:
        assert caught.value.fix
        if asked := re.search(r"handler\.num_labels: (\d+)", caught.value.fix):
            assert ours(folder, num_labels=int(asked[1])) == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
            assert ours(folder, labels={0: "x", 1: "y", 2: "z"}) == {0: "x", 1: "y", 2: "z"}


@pytest.mark.parametrize("form", ["shards", "a pickle"])
@pytest.mark.parametrize("name", ["nothing", "two names", "four names"])
def test_the_head_decides_in_every_form_of_weights(three: Path, name: str, form: str, tmp_path: Path) -> None:
    folder = configured(three, tmp_path / "bert", name, form)
    with pytest.raises(InputError, match="num_labels"):
        ours(folder)
    assert ours(folder, num_labels=3) == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    with pytest.raises(InputError):
        ours(folder, num_labels=5)


def test_an_archive_answers_with_the_labels_of_its_head_whatever_config_json_repeats(
    three: Path, tmp_path: Path
) -> None:
    folder = configured(three, tmp_path / "bert", "num_labels 2 and three names")
    mar = Mar(tmp_path)
    (archive,) = mar.build("--model", folder)
    done = mar("run", archive["path"], "--input", json.dumps({"text": "good", "top_k": 3}), "--json")
    assert {one["label"] for one in json.loads(done.stdout)} == {"a", "b", "c"}, done.stderr


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "distilbert", "electra", "albert", "gpt2", "deberta-v2", "llama"]
)
@pytest.mark.parametrize("task", ["seq_classification", "token_classification"])
def test_the_head_is_found_by_its_name_in_every_family(family: str, task: str, tmp_path: Path) -> None:
    from mar_pipeline.model import checkpoint, labels

    if not tiny.has(family, task):
        pytest.skip("no such class")
    folder = tiny.save(tmp_path / family, family, task, num_labels=5)
    found = labels.head(checkpoint.tensors(folder / "model.safetensors", "x"))
    assert found
    assert found[1] == 5
