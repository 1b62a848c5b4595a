"""Tokenizers that are a SentencePiece model without a tokenizer.json: they build, or the missing package is named."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.audit.check import check
from mar_pipeline.errors import InputError
from mar_pipeline.workers import vocabularies
from tests.support import tiny
from tests.support.mar import Mar, refused

BINARY = b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02\n\x08\n\x03<s>"
TIKTOKEN = b"IQ== 0\nIg== 1\n"


@pytest.mark.parametrize(
    ("content", "absent", "said"),
    [
        (
            BINARY,
            {"sentencepiece"},
            ("SentencePiece model (spm.model)", "the package sentencepiece,", "[sentencepiece]"),
        ),
        (BINARY, {"google.protobuf"}, ("the package protobuf,", "pip install 'mar-pipeline[sentencepiece]'")),
        (TIKTOKEN, {"tiktoken", "sentencepiece"}, ("the package tiktoken,", "pip install 'tiktoken'")),
    ],
)
def test_the_package_that_is_missing_is_named(
    content: bytes, absent: set[str], said: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spm.model").write_bytes(content)
    monkeypatch.setattr(vocabularies, "find_spec", lambda name: None if name in absent else name)
    with pytest.raises(InputError) as caught:
        vocabularies.refuse_without_package(tmp_path)
    assert all(part in str(caught.value) for part in said)
    (tmp_path / "tokenizer.json").write_text("{}")
    vocabularies.refuse_without_package(tmp_path)


def test_where_all_packages_are_there_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabularies, "find_spec", lambda name: name)
    for content in (BINARY, TIKTOKEN, b""):
        (tmp_path / "spm.model").write_bytes(content)
        vocabularies.refuse_without_package(tmp_path)


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b'{"model": ', b"\xff"])
def test_a_tokenizer_json_that_is_none_is_named(content: bytes, tmp_path: Path) -> None:
    vocabularies.refuse_damaged(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    vocabularies.refuse_damaged(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match=r"tokenizer\.json cannot be read: ") as caught:
        vocabularies.refuse_damaged(tmp_path)
    assert "LFS" in str(caught.value)


def alone(folder: Path, family: str, name: str, content: bytes, **settings: Any) -> Path:
    """A checkpoint with nothing of a tokenizer but its vocabulary's file."""
    tiny.save(folder, family, "seq_classification", vocab_size=600)
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / file).unlink(missing_ok=True)
    (folder / name).write_bytes(content)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.slow
@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="sentencepiece is installed")
@pytest.mark.parametrize(
    ("family", "name"),
    [("xlm-roberta", "sentencepiece.bpe.model"), ("albert", "spiece.model"), ("llama", "tokenizer.model")],
)
def test_a_build_without_sentencepiece_names_it(fresh_mar: Mar, family: str, name: str) -> None:
    folder = alone(fresh_mar.folder / "own", family, name, BINARY)
    words = ("--model", folder)
    refused(fresh_mar, fresh_mar.folder, words, f"({name})", "needs the package sentencepiece", "[sentencepiece]'")


KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # family: its vocabulary's file, how that is trained, tokenizer_config.json
    "xlm-roberta": ("sentencepiece.bpe.model", {"normalization_rule_name": "nmt_nfkc"}, {"model_max_length": 64}),
    "albert": (
        "spiece.model",
        {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "user_defined_symbols": ["[CLS]", "[SEP]", "[MASK]"]},
        {"do_lower_case": False, "keep_accents": True},
    ),
    "llama": (
        "tokenizer.model",
        {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "vocab_size": 420},
        {"tokenizer_class": "LlamaTokenizer", "legacy": False},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", KINDS)
def test_a_sentencepiece_model_alone_is_built_and_tokenizes_as_transformers_does(fresh_mar: Mar, family: str) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    from transformers import pipeline

    name, training, settings = KINDS[family]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(tiny.WORDS)] * 20),
        model_prefix=str(fresh_mar.folder / "spm"),
        hard_vocab_limit=False,
        minloglevel=2,
        **{"vocab_size": 180, **training},
    )
    folder = alone(fresh_mar.folder / "own", family, name, (fresh_mar.folder / "spm.model").read_bytes(), **settings)
    (archive,) = fresh_mar.build("--model", folder)
    assert check(Path(archive["path"]))["findings"] == []
    text = "The staff was kind, and Maria moved to Lisbon in 2023."
    (expected,) = pipeline("text-classification", model=str(folder))(text)
    answer = json.loads(fresh_mar("run", archive["path"], "--input", json.dumps({"text": text})).stdout)
    assert answer == {"label": expected["label"], "score": pytest.approx(expected["score"], abs=1e-5)}
