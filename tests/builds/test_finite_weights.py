"""A checkpoint with weights that are not finite numbers is refused, and they are named."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.errors import InputError
from mar_pipeline.workers import finite
from mar_pipeline.workers.loading import model
from tests.support import tiny
from tests.support.mar import Mar

pytestmark = pytest.mark.slow

QUERY = "bert.encoder.layer.0.attention.self.query.weight"
WORDS = "bert.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("sound") / "bert", "bert", "seq_classification")


def damaged(sound: Path, folder: Path, change: Callable[[dict[str, Any]], None], name: str = "model") -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(sound, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / f"{name}.safetensors", metadata={"format": "pt"})
    return folder


def job(folder: Path, **changes: Any) -> dict[str, Any]:
    plain = {"auto_class": "AutoModelForSequenceClassification", "allow_untrained_head": False}
    return {"checkpoint": str(folder), "num_labels": None, "labels": None, **plain, **changes}


def put(value: float, *places: tuple[str, int]) -> Callable[[dict[str, Any]], None]:
    def change(weights: dict[str, Any]) -> None:
        for name, index in places:
            weights[name].view(-1)[index] = value

    return change


def cast(dtype: str) -> Callable[[dict[str, Any]], None]:
    def change(weights: dict[str, Any]) -> None:
        import torch

        for name in weights:
            weights[name] = weights[name].to(getattr(torch, dtype))
        weights[QUERY][0, :3] = math.nan

    return change


CASES = {
    "NaN in the head": (put(math.nan, ("classifier.weight", 3)), ["classifier.weight has 1 NaN of 64 values"]),
    "infinite": (put(math.inf, ("classifier.bias", 0)), ["classifier.bias has 1 infinite of 2 values"]),
    "minus infinity": (put(-math.inf, (QUERY, 5)), [f"{QUERY} has 1 infinite of 1,024 values"]),
    "both signs": (
        lambda weights: (put(math.inf, (QUERY, 5))(weights), put(-math.inf, (QUERY, 6), (QUERY, 7))(weights)),
        [f"{QUERY} has 3 infinite of 1,024 values"],
    ),
    "the row of a word that no sample has": (put(math.nan, (WORDS, 3200), (WORDS, 3201)), [f"{WORDS} has 2 NaN of"]),
    "NaN and infinity": (
        lambda weights: (put(math.nan, (QUERY, 5))(weights), put(math.inf, (QUERY, 6))(weights)),
        [f"{QUERY} has 1 NaN and 1 infinite of 1,024 values"],
    ),
    "many": (
        lambda weights: [weight.fill_(math.nan) for weight in weights.values() if weight.dim() > 1],
        ["has", "and 14 more weights have such values"],
    ),
    "16 bits": (cast("float16"), [f"{QUERY} has 3 NaN of 1,024 values"]),
    "bfloat16": (cast("bfloat16"), [f"{QUERY} has 3 NaN of 1,024 values"]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("start", [model, lambda job: finite.check(job, lambda *_: None)], ids=["loading", "reading"])
def test_weights_that_are_not_finite_are_named_and_counted(
    sound: Path, case: str, start: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    change, words = CASES[case]
    folder = damaged(sound, tmp_path / "bad", change)
    with pytest.raises(InputError, match="not all finite numbers") as caught:
        start(job(folder))
    assert all(word in caught.value.what for word in words), caught.value.what


def test_a_pickle_with_weights_that_are_not_finite_is_refused(sound: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = damaged(sound, tmp_path / "bad", put(math.nan, (QUERY, 5)))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=f"{QUERY} has 1 NaN"):
        model(job(folder))


def test_what_the_model_does_not_read_may_be_anything(sound: Path, tmp_path: Path) -> None:
    def change(weights: dict[str, Any]) -> None:
        weights["cls.predictions.bias"] = weights["classifier.bias"] * math.nan

    folder = damaged(sound, tmp_path / "fine", change)
    finite.check(job(folder), lambda *_: None)
    model(job(folder))


def test_large_numbers_whose_sum_overflows_are_fine(sound: Path, tmp_path: Path) -> None:
    folder = damaged(sound, tmp_path / "fine", put(3e38, *((QUERY, index) for index in range(9))))
    finite.check(job(folder), lambda *_: None)
    model(job(folder))


def test_weights_that_do_not_fit_into_the_setting_s_type_are_named_with_the_setting(
    sound: Path, tmp_path: Path
) -> None:
    folder = damaged(sound, tmp_path / "large", put(70_000.0, (QUERY, 5)))
    finite.check(job(folder), lambda *_: None)
    model(job(folder, dtype="bfloat16"))
    with pytest.raises(InputError, match=f"{QUERY} has 1 infinite of 1,024 values") as caught:
        model(job(folder, dtype="float16"))
    assert "handler.dtype: float16" in caught.value.what
    assert "float32 or bfloat16" in caught.value.fix


@pytest.mark.parametrize("mode", ["pretrained", "torchscript"])
def test_such_a_build_ends_at_serialize(sound: Path, mode: str, tmp_path: Path) -> None:
    folder = damaged(sound, tmp_path / "bad", put(math.nan, (WORDS, 3200)))
    done = Mar(tmp_path)("build", "--model", folder, "--save-mode", mode, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert f"{WORDS} has 1 NaN" in done.stderr
    assert "verify: not built" not in done.stderr
