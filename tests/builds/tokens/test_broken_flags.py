"""An archive whose tokenizer has one flag broken is refused, and the flag is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.builder import runner, session
from mar_pipeline.builder.stages import serialize
from mar_pipeline.cache.store import Store
from mar_pipeline.config import build_config
from mar_pipeline.errors import MismatchError
from tests.support import tiny
from tests.support.mar import MODES
from tests.support.tokens import counts, edit


def in_tokenizer(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def broken(folder: Path) -> None:
        file = folder / "tokenizer.json"
        words = json.loads(file.read_text())
        change(words)
        file.write_text(json.dumps(words))

    return broken


def in_settings(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "tokenization.json", **changes)


ROLES = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}"


def not_special(words: dict[str, Any]) -> None:
    words["added_tokens"][0]["special"] = False


def one_segment(words: dict[str, Any]) -> None:
    for part in words["post_processor"]["pair"]:
        for each in part.values():
            each["type_id"] = 0


BROKEN: dict[str, tuple[str, Callable[[Path], None], str]] = {
    # name: family, how the archive is broken, the flag that the error names
    "strip_accents": ("bert", in_tokenizer(lambda w: w["normalizer"].update(strip_accents=False)), "strip_accents"),
    "chinese": (
        "bert", in_tokenizer(lambda w: w["normalizer"].update(handle_chinese_chars=False)), "tokenize_chinese_chars"
    ),
    "case": ("bert", in_tokenizer(lambda w: w["normalizer"].update(lowercase=False)), "do_lower_case"),
    "control characters": ("bert", in_tokenizer(lambda w: w["normalizer"].update(clean_text=False)), "normalizer"),
    "segments": ("bert", in_tokenizer(one_segment), "add_bos_token"),
    "input names": ("bert", in_settings(model_input_names=["input_ids", "attention_mask"]), "model_input_names"),
    "truncation side": ("bert", in_settings(truncation_side="left"), "truncation_side"),
    "prefix": ("gpt2", in_tokenizer(lambda w: w["pre_tokenizer"].update(add_prefix_space=True)), "add_prefix_space"),
    "offsets": ("roberta", in_tokenizer(lambda w: w["post_processor"].update(trim_offsets=False)), "trim_offsets"),
    "special": ("gpt2", in_tokenizer(not_special), "added_tokens_decoder"),
    "split": ("gpt2", in_settings(split_special_tokens=True), "split_special_tokens"),
    "spaces": ("gpt2", in_settings(clean_up_tokenization_spaces=True), "clean_up_tokenization_spaces"),
    "decoder": ("gpt2", in_tokenizer(lambda w: w.update(decoder=None)), "decoder"),
    "template": ("gpt2", in_settings(chat_template=ROLES.replace("m.role", "m.role | upper")), "template"),
    "words of the template": ("gpt2", in_settings(special_tokens={"eos_token": "</s>"}), "template"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_an_archive_with_one_flag_broken_is_refused_and_the_flag_is_named(name: str, tmp_path: Path) -> None:
    family, broken, flag = BROKEN[name]
    task = "text_generation" if family == "gpt2" else "seq_classification"
    folder = tiny.save(tmp_path / family, family, task)
    edit(folder / "tokenizer_config.json", clean_up_tokenization_spaces=False)
    (folder / "chat_template.jinja").write_text(ROLES)
    assert counts(folder, max_length=32)["texts"] >= 200
    with pytest.raises(MismatchError) as caught:
        counts(folder, max_length=32, broken=broken)
    assert flag in f"{caught.value.fix}"


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["case", "input names"])
def test_a_build_with_a_broken_flag_ends_with_exit_code_4_and_leaves_no_archive(
    name: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, broken, flag = BROKEN[name]
    tiny.save(tmp_path / "own", family, "seq_classification")

    def run(job: Any) -> Any:
        kept = serialize.STAGE.run(job)
        broken(job.folder)
        return kept

    stages = tuple(replace(stage, run=run) if stage.name == "serialize" else stage for stage in runner.STAGES)
    monkeypatch.setattr(runner, "STAGES", stages)
    file = tmp_path / "own.yaml"
    file.write_text(f"handler: {{mode: sequence_classification, model_name: ./own, save_mode: {mode}}}\n")
    config, store = build_config.load(file), Store(tmp_path / "cache")
    with pytest.raises(MismatchError, match="does not") as caught:
        session.run([config], store, session.Options(out=tmp_path / "out"), note=lambda _: None)
    assert flag in caught.value.fix
    assert caught.value.exit_code == 4
    assert not list((tmp_path / "out").rglob("*.mar"))
