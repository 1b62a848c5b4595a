"""do_lower_case, made to hold in tokenizer.json; special tokens that only a class knows, named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from handlers.text.tokenization import Tokenizer as Served
from mar_pipeline.model.tokenizer import add_special_tokens, leaves_tokens_out, set_lower_case

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


def test_tokens_that_are_not_named_are_taken_from_what_was_saved(tmp_path: Path) -> None:
    saved_as = write(
        tmp_path / "saved",
        tokenizer_config={"unk_token": {"content": "[UNK]"}, "cls_token": "[CLS]", "pad_token": "[PAD]"},
        special_tokens_map={"sep_token": "[SEP]", "mask_token": {"content": "[MASK]", "lstrip": True}},
    )
    folder = write(tmp_path / "old", tokenizer_config={"do_lower_case": True})
    assert leaves_tokens_out(folder)
    add_special_tokens(folder, saved_as)
    assert not leaves_tokens_out(folder)
    assert json.loads((folder / "tokenizer_config.json").read_text()) == {"do_lower_case": True}
    names = {"unk": "[UNK]", "cls": "[CLS]", "pad": "[PAD]", "sep": "[SEP]", "mask": "[MASK]"}
    wanted = {f"{name}_token": token for name, token in names.items()}
    assert json.loads((folder / "special_tokens_map.json").read_text()) == wanted


def test_what_a_checkpoint_says_of_its_tokens_stays(tmp_path: Path) -> None:
    saved_as = write(tmp_path / "saved", tokenizer_config={"unk_token": "u", "cls_token": "c", "pad_token": "p"})
    own = {"unk_token": {"content": "[UNK]"}, "additional_special_tokens": ["x"]}
    folder = write(tmp_path / "old", tokenizer_config={"pad_token": None}, special_tokens_map=own)
    add_special_tokens(folder, saved_as)
    assert json.loads((folder / "special_tokens_map.json").read_text()) == {**own, "cls_token": "c"}
    whole = write(tmp_path / "whole", tokenizer_config={"unk_token": "u", "cls_token": None, "pad_token": "p"})
    assert not leaves_tokens_out(whole)
    add_special_tokens(whole, saved_as)
    assert not (whole / "special_tokens_map.json").exists()


@pytest.mark.parametrize(
    ("files", "pad"),
    [
        ({"config": {}}, 0),
        ({"config": {"eos_token_id": [4, 5]}}, 4),
        ({"config": {"eos_token_id": 3, "pad_token_id": -1}}, 3),
        ({"config": {"eos_token_id": 3, "pad_token_id": 2}}, 2),
        ({"config": {"eos_token_id": [4]}, "special_tokens_map": {"eos_token": "e"}}, 5),
        ({"config": {"eos_token_id": [4]}, "special_tokens_map": {"pad_token": "Hello"}}, 1),
    ],
)
def test_padding_falls_back_as_transformers_does(tmp_path: Path, files: dict[str, Any], pad: int) -> None:
    assert Served(write(saved(tmp_path, None), **files)).pad == pad


def test_the_map_and_the_settings_count_in_transformers_order(tmp_path: Path) -> None:
    folder = saved(tmp_path, None)
    write(folder, tokenizer_config={"cls_token": "Hello"}, special_tokens_map={"cls_token": "hello", "unk_token": "e"})
    assert (Served(folder).cls, Served(folder).unknown) == (2, 5)
    write(folder, tokenizer_config={"cls_token": "Hello", "added_tokens_decoder": {}})
    assert (Served(folder).cls, Served(folder).unknown) == (1, 5)
