"""do_lower_case, made to hold in tokenizer.json; the padding of an archive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from handlers.text.tokenization import Tokenizer as Served
from mar_pipeline.model.tokenizer import set_lower_case

WORDS = {"[UNK]": 0, "Hello": 1, "hello": 2, "É": 3, "é": 4, "e": 5}
NORMALIZERS: dict[str, Any] = {
    "bert": normalizers.BertNormalizer(lowercase=False),
    "bert lowered": normalizers.BertNormalizer(lowercase=True),
    "none": None,
    "lowered": normalizers.Lowercase(),
    "sequence": normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()]),
    "other": normalizers.NFC(),
}


def saved(folder: Path, normalizer: Any) -> Path:
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 8}')
    return folder


@pytest.mark.parametrize("name", NORMALIZERS)
@pytest.mark.parametrize("lower", [True, False])
def test_the_setting_takes_effect_whatever_the_normalizer_was(tmp_path: Path, name: str, lower: bool) -> None:
    set_lower_case(saved(tmp_path, NORMALIZERS[name]), lower)
    encoded = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("Hello")
    assert encoded.tokens == (["hello"] if lower else ["Hello"])
    stated = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert stated == {"model_max_length": 8, "do_lower_case": lower}


def test_other_steps_of_a_normalizer_stay(tmp_path: Path) -> None:
    set_lower_case(saved(tmp_path, NORMALIZERS["sequence"]), False)
    steps = json.loads((tmp_path / "tokenizer.json").read_text())["normalizer"]["normalizers"]
    assert [step["type"] for step in steps] == ["NFC"]


def test_a_file_that_is_right_already_is_left_as_it_is(tmp_path: Path) -> None:
    saved(tmp_path, NORMALIZERS["bert lowered"])
    before = (tmp_path / "tokenizer.json").read_bytes()
    set_lower_case(tmp_path, True)
    assert (tmp_path / "tokenizer.json").read_bytes() == before


def write(folder: Path, **files: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize(
    ("files", "pad"),
    [
        ({"config": {}}, 0),
        ({"config": {"eos_token_id": [4, 5]}}, 4),
        ({"config": {"eos_token_id": 3, "pad_token_id": -1}}, 3),
        ({"config": {"eos_token_id": 3, "pad_token_id": 2}}, 2),
        ({"config": {"eos_token_id": [4]}, "tokenization": {"eos_token": "e"}}, 5),
        ({"config": {"eos_token_id": [4]}, "tokenization": {"pad_token": "Hello"}}, 1),
    ],
)
def test_padding_falls_back_as_transformers_does(tmp_path: Path, files: dict[str, Any], pad: int) -> None:
    own = {"special_tokens": files.pop("tokenization", {}), "truncation_side": "right"}
    own |= {"split_special_tokens": False, "clean_up_tokenization_spaces": False}
    assert Served(write(saved(tmp_path, None), **files, tokenization=own)).pad == pad
