"""A tokenizer whose files take forever, take all memory or crash their reader is bad input, and soon."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.errors import InputError
from mar_pipeline.model.address import STARTERS
from tests.support.mar import Mar
from tests.support.workers import work

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

Replace = dict[str, Any]


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def replace(what: str, by: str, times: int) -> list[dict[str, Any]]:
    return [{"type": "Replace", "pattern": {"String": what}, "content": by}] * times


TOKENIZERS: dict[str, dict[str, Any]] = {
    "a pattern that tries forever": {"pre_tokenizer": split(r"^(([a-z ])+.)+[A-Z]([a-z])+$")},
    "a pattern of a normalizer": {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a|aa)+x"}, "content": "b"}},
    "a text that is doubled": {"normalizer": {"type": "Sequence", "normalizers": replace("a", "aa", 60)}},
    "a decoder that doubles": {"decoder": {"type": "Sequence", "decoders": replace("a", "aa", 60)}},
    "a damaged map": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA/////w=="}},
    "pieces of no length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
}
TEMPLATES = {
    "endless": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "wide": "{{ '%2000000000d' % 1 }}",
    "doubling": "{% set n = namespace(x='a') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "long": "{% for a in range(99999) %}{{ 'a' * 20 }}{% endfor %}",
}


def copy(folder: Path, task: str, **changes: Any) -> Path:
    """A starter whose tokenizer.json has these parts, and whose class changes none of them."""
    shutil.copytree(STARTERS / task, folder)
    for name, changed in (
        ("tokenizer.json", changes),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **changed}))
    return folder


def pack(model: Path, folder: Path) -> Any:
    (folder / "out").mkdir()
    return work("tokenizer", {"checkpoint": str(model), "out": str(folder / "out")}, scratch=folder / "scratch")


@pytest.mark.parametrize("parts", TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_tokenizer_that_cannot_be_used_is_refused(parts: dict[str, Any], tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        pack(copy(tmp_path / "model", "seq_classification", **parts), tmp_path)
    assert "model's files" in caught.value.what or "tokenizer" in caught.value.what
    assert caught.value.fix
    assert time.monotonic() - began < 110


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_chat_template_that_cannot_be_used_is_refused(template: str, tmp_path: Path) -> None:
    model = copy(tmp_path / "model", "text_generation")
    (model / "chat_template.jinja").write_text(template)
    began = time.monotonic()
    with pytest.raises(InputError, match="template"):
        pack(model, tmp_path)
    assert time.monotonic() - began < 110


def test_a_file_that_only_transformers_does_without_is_refused(tmp_path: Path) -> None:
    model = copy(tmp_path / "model", "seq_classification", model={"type": "BPE", "vocab": {"a": 0}, "merges": ["x y"]})
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "BertTokenizer"}))
    (model / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n")
    with pytest.raises(InputError, match="tokenizer"):
        pack(model, tmp_path)


def test_a_template_may_refuse_a_talk(tmp_path: Path) -> None:
    model = copy(tmp_path / "model", "text_generation")
    (model / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    assert pack(model, tmp_path)["chat_template"]


def test_a_tokenizer_that_gives_one_token_for_any_text_has_samples(tmp_path: Path) -> None:
    model = copy(tmp_path / "model", "seq_classification", pre_tokenizer=None, normalizer=None)
    job = {
        "samples": [{"text": "Where does the baker work?"}],
        "fields": ["text"],
        "limit": 8,
        "long": [20],
        "cut": True,
    }
    short, long = work("samples", {**job, "folder": str(model), "without_transformers": True}, scratch=tmp_path)
    assert short == {"text": "Where does the baker work?"}
    assert 2000 < len(long["text"]) < 4000


def test_a_missing_token_for_unknown_words_is_an_error_with_a_sentence(tmp_path: Path) -> None:
    content = json.loads((STARTERS / "seq_classification" / "tokenizer.json").read_text())
    model = copy(tmp_path / "model", "seq_classification", model={**content["model"], "vocab": {}})
    job = {"samples": [{"text": "Where"}], "fields": ["text"], "limit": 8, "long": [20], "cut": True}
    with pytest.raises(InputError, match=r"tokenizer\.json cannot be used: .*\[UNK\]"):
        work("samples", {**job, "folder": str(model), "without_transformers": True}, scratch=tmp_path)


def test_a_build_that_takes_longer_than_it_may_ends_and_leaves_nothing(fresh_mar: Mar) -> None:
    done = fresh_mar("build", "--task", "seq_classification", "--timeout", "0.01", "--out", fresh_mar.out)
    assert done.returncode == 3
    assert "error: The worker was ended after 0 s while " in done.stderr
    assert "--timeout SECONDS" in done.stderr
    assert not list((fresh_mar.cache / "tmp").glob("*/*"))
    assert not list(fresh_mar.out.rglob("*.mar"))
    assert fresh_mar("build", "--task", "seq_classification", "--timeout", "0", "--out", fresh_mar.out).returncode == 0
