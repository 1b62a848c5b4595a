"""How an archive's tokens are compared with the original's, and what an error says of a difference."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mar_pipeline.answers import corpus, tokenization
from mar_pipeline.errors import MismatchError
from mar_pipeline.model.tokenizer import FLAGS, PARTS


def test_the_texts_are_of_every_kind_and_each_special_token_is_among_them() -> None:
    words = ["[CLS]", "<extra>", *(f"<unused{number}>" for number in range(200))]
    texts = corpus.texts(words)
    assert len(corpus.texts([])) >= 200
    assert len(set(texts)) == len(texts)
    assert not [word for word in words if not any(word in text for text in texts)]
    whole = "".join(texts)
    for kind in "7é中が한ع שअ😀\u200d\u0301İß\t\r\n\u00a0\u200b\0":
        assert kind in whole
    for text in texts:
        text.encode()  # what has no UTF-8 reaches no handler


def test_special_tokens_are_found_in_all_of_a_tokenizers_files(tmp_path: Path) -> None:
    files: dict[str, Any] = {
        "tokenizer.json": {"added_tokens": [{"id": 0, "content": "<a>"}]},
        "tokenizer_config.json": {
            "bos_token": "<b>",
            "add_bos_token": True,
            "added_tokens_decoder": {"1": {"content": "<c>"}},
            "extra_special_tokens": {"image_token": "<d>"},
        },
        "special_tokens_map.json": {"eos_token": {"content": "<e>"}, "additional_special_tokens": ["<f>"]},
        "added_tokens.json": {"<g>": 5},
    }
    for name, value in files.items():
        (tmp_path / name).write_text(json.dumps(value))
    assert sorted(corpus.special_tokens(tmp_path)) == [f"<{letter}>" for letter in "abcdefg"]


SETTINGS: dict[str, Any] = {
    "follows": "transformers 5.0.0",
    "class": "OwnTokenizer",
    "rewritten": [],
    "truncation_side": "right",
    "split_special_tokens": False,
    "model_input_names": ["input_ids"],
}


def words(folder: Path) -> Path:
    """An archive's tokenizer of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "good": 1, "bad": 2}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenization.json").write_text(json.dumps(SETTINGS))
    return folder


def row(*ids: int, **changes: Any) -> dict[str, Any]:
    """The result for a text of these tokens, two letters each."""
    places = [[2 * index, 2 * index + 2] for index in range(len(ids))]
    return {"ids": list(ids), "segments": None, "special": [0] * len(ids), "offsets": places, "decoded": "", **changes}


def told(*texts: Any, pairs: tuple[Any, ...] = (), talks: tuple[Any, ...] = ()) -> dict[str, Any]:
    parts = {**dict.fromkeys(PARTS), "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": {}}
    flags = {name: SETTINGS[name] for name in FLAGS}
    results = {"texts": list(texts), "pairs": list(pairs), "talks": list(talks)}
    return {**results, "class": "OwnTokenizer", "parts": parts, "flags": flags, "beyond": []}


def compared(folder: Path, asked: dict[str, Any], wanted: dict[str, Any], got: dict[str, Any]) -> dict[str, Any]:
    return tokenization.compared("own", folder, {"texts": [], "pairs": [], "talks": [], **asked}, wanted, got)


def refused(folder: Path, asked: dict[str, Any], wanted: dict[str, Any], got: dict[str, Any]) -> MismatchError:
    with pytest.raises(MismatchError) as caught:
        compared(folder, asked, wanted, got)
    assert len(str(caught.value).splitlines()) == 3
    assert str(caught.value).replace("\n", "").isprintable()
    assert caught.value.exit_code == 4
    return caught.value


def test_the_first_text_that_differs_is_named_with_both_results(tmp_path: Path) -> None:
    asked = {"texts": ["good", "a\u202eb\x1b"]}
    error = refused(words(tmp_path), asked, told(row(1), row(1, 2)), told(row(1), row(1, 0)))
    assert error.what == r"own does not tokenize like the original: 1 of 2 texts differ, first 'a\u202eb\x1b'"
    assert error.why == "AutoTokenizer (OwnTokenizer) gives 1 2 (good bad), and the archive gives 1 0 (good [UNK])."
    assert "OwnTokenizer does something in Python" in error.fix


def test_of_a_long_text_the_place_is_shown_where_it_differs(tmp_path: Path) -> None:
    ours = row(*[1] * 400, *[2] * 100)
    error = refused(words(tmp_path), {"texts": ["good " * 500]}, told(row(*[1] * 500)), told(ours))
    assert "the archive gives ... 1 1 2 2" in error.why
    assert len(str(error)) < 1000


def test_a_text_that_the_archive_refuses_differs_and_one_that_the_original_refuses_is_not_compared(
    tmp_path: Path,
) -> None:
    asked = {"texts": ["good", "bad"]}
    counts = compared(words(tmp_path), asked, told(row(1), None), told(row(1), "no"))
    results = ["ids", "segments", "special", "offsets", "decoded"]
    assert counts == {"texts": 1, "pairs": 0, "talks": 0, "tokens": 1, "results": results}
    error = refused(tmp_path, asked, told(row(1), row(2)), told(row(1), "no such"))
    assert "refuses it: 'no such'" in error.why


@pytest.mark.parametrize("ours", [row(1, prompt="You may call tools. Hello"), "the template refuses these messages"])
def test_a_prompt_that_differs_is_shown_as_both_write_it(tmp_path: Path, ours: Any) -> None:
    asked = {"talks": [[{"role": "user", "content": "Hello"}]]}
    wanted = told(talks=(row(1, prompt="No documents. Hello"),))
    error = refused(words(tmp_path), asked, wanted, told(talks=(ours,)))
    assert "1 of 1 talks differ" in error.what
    assert "'No documents. Hello'" in error.why
    assert (ours if isinstance(ours, str) else ours["prompt"]) in error.why


@pytest.mark.parametrize(
    ("what", "theirs", "ours", "said"),
    [
        ("segments", [0, 1], [0, 0], "gives 1 x 0, 1 x 1, and the archive gives 2 x 0"),
        ("segments", [0, 1], None, "and the archive gives none"),
        ("special", [1, 0], [0, 0], "gives 1 x 1, 1 x 0, and"),
        ("offsets", [[0, 4], [5, 8]], [[0, 4], [4, 8]], "gives 0-4 5-8, and the archive gives 0-4 4-8"),
        ("decoded", "good", "good bad", "gives 'good', and the archive gives 'good bad'"),
    ],
)
def test_more_than_ids_is_compared(tmp_path: Path, what: str, theirs: Any, ours: Any, said: str) -> None:
    asked = {"pairs": [("good", "bad")]}
    wanted, got = (told(pairs=(row(1, 2, **{what: one}),)) for one in (theirs, ours))
    error = refused(words(tmp_path), asked, wanted, got)
    assert "1 of 1 pairs differ, first ('good', 'bad')" in error.what
    assert said in error.why


def test_what_the_original_does_not_give_is_not_compared(tmp_path: Path) -> None:
    asked = {"pairs": [("good", "bad")]}
    assert compared(words(tmp_path), asked, told(pairs=(row(1, 2),)), told(pairs=(row(1, 2, segments=[0, 1]),)))[
        "pairs"
    ]


def test_tokens_without_an_embedding_are_named_and_none_are_where_the_model_does_not_tell() -> None:
    from mar_pipeline.workers import tokenization as original_tokens

    def none() -> None:
        raise NotImplementedError

    auto = SimpleNamespace(get_vocab=lambda: {"a": 0, "<x>": 2, "b": 1, "<y>": 3})
    rows = SimpleNamespace(weight=SimpleNamespace(shape=[2]))
    assert original_tokens._beyond(auto, SimpleNamespace(get_input_embeddings=lambda: rows)) == ["<x>", "<y>"]
    assert original_tokens._beyond(auto, SimpleNamespace(get_input_embeddings=none)) == []
    assert original_tokens._beyond(auto, SimpleNamespace(get_input_embeddings=lambda: None)) == []
    assert tokenization.beyond([]) == []
    (note,) = tokenization.beyond(["<x>", "<y>"])
    assert "2 tokens that the model has no embedding for ('<x>', '<y>')" in note
