"""An archive's tokenizer and its chat template give what transformers' AutoTokenizer gives, or there is no archive."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest

from mar_pipeline.answers import corpus, tokenization
from mar_pipeline.builder import runner, session
from mar_pipeline.builder.stages import serialize
from mar_pipeline.cache.store import Store
from mar_pipeline.config import build_config
from mar_pipeline.errors import MismatchError
from mar_pipeline.model.tokenizer import FLAGS, PARTS
from tests.support import ROOT, tiny
from tests.support.mar import MODES, Mar

OLDER = Path(sys.prefix) / "older"


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


# From here on: with transformers.


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def counts(
    folder: Path,
    lower: bool | None = None,
    max_length: int | None = None,
    broken: Callable[[Path], None] = lambda _: None,
) -> dict[str, Any]:
    """What is compared for the archive of a checkpoint, which is `broken` after it was built. Raises MismatchError."""
    from handlers.text.chat import Chat
    from handlers.text.tokenization import Tokenizer
    from mar_pipeline.model.tokenizer import set_lower_case
    from mar_pipeline.portable import emulator
    from mar_pipeline.workers import packed_tokenizer
    from mar_pipeline.workers import tokenization as original_tokens

    config = json.loads((folder / "config.json").read_text())
    writes = config["architectures"][0].endswith(("CausalLM", "LMHeadModel"))
    rows = SimpleNamespace(weight=SimpleNamespace(shape=[config["vocab_size"]]))
    with TemporaryDirectory() as place:
        packed = Path(place)
        for file in folder.glob("*.json"):
            shutil.copy(file, packed)
        packed_tokenizer.pack({"checkpoint": str(folder), "out": place}, lambda *_: None)
        if lower is not None:
            set_lower_case(packed, lower)
        broken(packed)
        asked = tokenization.asked((packed, folder), pairs=not writes, talks=writes, max_length=max_length)
        job = {"checkpoint": str(folder), "corpus": asked, "settings": {"do_lower_case": lower}}
        own = Tokenizer(packed)
        chat = Chat(own.settings["chat_template"], own.settings["special_tokens"])
        handler = SimpleNamespace(tokenizer=own, chat=chat, task=SimpleNamespace(generates=writes))
        model = SimpleNamespace(get_input_embeddings=lambda: rows)
        wanted = original_tokens.expected(job, model, original_tokens.tokenizer(job))
        return tokenization.compared("own", packed, asked, wanted, emulator.tokens(handler, asked))


def ids(folder: Path, text: str) -> tuple[list[int], list[int], list[int]]:
    """The tokens of a text by an archive of the checkpoint, by AutoTokenizer, and by tokenizer.json alone."""
    from tokenizers import Tokenizer as Plain
    from transformers import AutoTokenizer

    from handlers.text.tokenization import Tokenizer
    from mar_pipeline.workers.packed_tokenizer import pack

    with TemporaryDirectory() as place:
        pack({"checkpoint": str(folder), "out": place}, lambda *_: None)
        (ours,) = Tokenizer(Path(place)).encode([text], None)
    return ours.ids, AutoTokenizer.from_pretrained(folder)(text)["input_ids"], plain(Plain, folder).encode(text).ids


def plain(kind: Any, folder: Path) -> Any:
    """What tokenizer.json says alone."""
    reader = kind.from_file(str(folder / "tokenizer.json"))
    reader.no_truncation()
    return reader


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "deberta-v2", "gemma", "gpt2", "mistral", "qwen2", "roberta"])
def test_of_every_kind_of_tokenizer_the_archives_is_the_same(family: str, tmp_path: Path) -> None:
    task = next(task for task in tiny.AUTO if tiny.has(family, task))
    compared = counts(tiny.save(tmp_path / family, family, task))
    assert compared["texts"] >= 200
    assert compared["tokens"] >= 5000


BERT = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
GPT2 = {"tokenizer_class": "GPT2Tokenizer"}
X = {"content": "<x>", **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False), "special": True}
TAKE_EFFECT: dict[str, tuple[str, str, dict[str, Any], str]] = {
    # name: family, task, what only tokenizer_config.json says, a text that shows it
    "accents": ("bert", "seq_classification", {**BERT, "strip_accents": False}, "The Room was cléan"),
    "chinese": ("bert", "seq_classification", {**BERT, "tokenize_chinese_chars": False}, "a天b"),
    "case": ("bert", "seq_classification", {**BERT, "do_lower_case": False}, "The Room"),
    "prefix": ("gpt2", "text_generation", {**GPT2, "add_prefix_space": True}, "the room"),
    "more special tokens": ("gpt2", "text_generation", {"additional_special_tokens": ["ath"]}, "bathroom"),
    "added tokens": ("gpt2", "text_generation", {"added_tokens_decoder": {"400": X}}, "a<x>b"),
    "split special tokens": ("gpt2", "text_generation", {"split_special_tokens": True}, "a <|endoftext|> b"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TAKE_EFFECT)
def test_settings_that_only_transformers_heeds_take_effect(name: str, tmp_path: Path) -> None:
    family, task, settings, text = TAKE_EFFECT[name]
    folder = tiny.save(tmp_path / family, family, task)
    edit(folder / "tokenizer_config.json", **settings)
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    ours, theirs, stated = ids(folder, text)
    assert ours == theirs != stated
    assert counts(folder)["texts"] >= 200


@pytest.mark.slow
@pytest.mark.parametrize("setting", [None, False, True])
@pytest.mark.parametrize("insists", [False, True])
def test_spaces_before_punctuation_are_removed_where_transformers_removes_them(
    setting: bool | None, insists: bool, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    from handlers.text.tokenization import Tokenizer
    from mar_pipeline.workers.packed_tokenizer import pack

    name = "clean_up_tokenization_spaces"
    told = {f"{name}_for_bpe_even_though_it_will_corrupt_output": insists} | (
        {} if setting is None else {name: setting}
    )
    folder = tiny.save(tmp_path / "gpt2", "gpt2", "text_generation")
    edit(folder / "tokenizer_config.json", **told)
    assert counts(folder)["texts"] >= 200
    theirs = AutoTokenizer.from_pretrained(folder)
    pack({"checkpoint": str(folder), "out": str(folder)}, lambda *_: None)
    for text in ("it is n't good . is it ?", "a ' b  , c ! we 've 're 'm 's"):
        ids = theirs(text)["input_ids"]
        assert Tokenizer(folder).decode(ids) == theirs.decode(ids, skip_special_tokens=True)
        assert (theirs.decode(ids) != text) == (insists and setting is True)


@pytest.mark.slow
@pytest.mark.parametrize("left", [{"truncation_side": "left"}, {}])
def test_the_side_that_is_cut_may_stand_in_tokenizer_json_alone(left: dict[str, str], tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "bert", "bert", "seq_classification")
    words = json.loads((folder / "tokenizer.json").read_text())
    direction = "Right" if left else "Left"
    cut = {"direction": direction, "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps({**words, "truncation": cut}))
    edit(folder / "tokenizer_config.json", **left)
    assert counts(folder, max_length=16)["pairs"] >= 10


@pytest.mark.slow
def test_a_class_that_transformers_takes_whatever_the_files_say_is_followed(tmp_path: Path) -> None:
    import transformers

    if transformers.__version__.startswith("4."):
        pytest.skip("transformers 4 takes the class that tokenizer_config.json names")
    folder = tiny.save(tmp_path / "qwen2", "qwen2", "text_generation")
    tiny.save(tmp_path / "gpt2", "gpt2", "text_generation")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text((tmp_path / "gpt2" / name).read_text())
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    ours, theirs, stated = ids(folder, "cafe\u0301")
    assert ours == theirs != stated
    assert counts(folder)["texts"] >= 200


@pytest.mark.slow
def test_case_that_the_build_sets_counts_more_than_the_checkpoints(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "bert", "bert", "seq_classification")
    edit(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer", do_lower_case=False)
    assert counts(folder, lower=True)["texts"] >= 200


@pytest.mark.slow
def test_segments_that_only_the_class_gives_are_given(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "bert", "bert", "seq_classification")
    file = folder / "tokenizer.json"
    words = json.loads(file.read_text())
    for part in words["post_processor"]["pair"]:
        for told in part.values():
            told["type_id"] = 0
    file.write_text(json.dumps(words))
    for name in ("PreTrainedTokenizerFast", "BertTokenizer"):
        edit(folder / "tokenizer_config.json", tokenizer_class=name, do_lower_case=True)
        assert counts(folder)["pairs"] >= 10


@pytest.mark.slow
def test_a_tokenizer_whose_class_splits_digits_otherwise_is_followed_and_that_is_said(tmp_path: Path) -> None:
    import transformers
    from tokenizers import Regex, Tokenizer, pre_tokenizers

    from mar_pipeline.workers.packed_tokenizer import pack

    if transformers.__version__.startswith("4."):
        pytest.skip("transformers 4 takes tokenizer.json as it is")
    folder = tiny.save(tmp_path / "llama", "llama", "text_generation")
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    words = json.loads(own.to_str())
    words["model"]["vocab"] |= {"20": 400, "23": 401, "2023": 402}
    words["model"]["merges"] = [["2", "0"], ["2", "3"], ["20", "23"], *words["model"]["merges"]]
    own = Tokenizer.from_str(json.dumps(words))
    digits = pre_tokenizers.Split(Regex(r"\d"), "isolated")
    own.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    own.save(str(folder / "tokenizer.json"))
    edit(folder / "config.json", vocab_size=403)
    edit(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    ours, theirs, stated = ids(folder, "in 2023")
    assert ours == theirs != stated
    (tmp_path / "packed").mkdir()
    pack({"checkpoint": str(folder), "out": str(tmp_path / "packed")}, lambda *_: None)
    told, (note,) = tokenization.follows(tmp_path / "packed")
    version = f"transformers {transformers.__version__}"
    assert told == {"follows": version, "class": "GPT2Tokenizer", "rewritten": ["model", "pre_tokenizer"]}
    assert f"it tokenizes as {version} does: GPT2Tokenizer has another model and pre_tokenizer" in note


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "template",
    [
        "{% if tools is not none %}tools{% endif %}{{ messages[0].content }}",
        "{% if documents is none %}none{% endif %}{{ messages[-1].content }}{% if add_generation_prompt %}A{% endif %}",
        "{{ strftime_now('%H:%M:%S.%f') }}{% for m in messages %}{{ m.role }}: {{ m.content | trim }}{% endfor %}",
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ eos_token }}{{ messages }}",
        "{{ additional_special_tokens }}{{ image_token }}{{ messages[-1].content }}",
    ],
)
def test_chat_templates_write_what_transformers_has_them_write(template: str, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "gpt2", "gpt2", "text_generation")
    (folder / "chat_template.jinja").write_text(template)
    more = {"additional_special_tokens": ["room"], "image_token": "<image>"}
    edit(folder / "tokenizer_config.json", **more, extra_special_tokens={"image_token": "<image>"})
    assert counts(folder)["talks"] >= 9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "same"),
    [
        ({"default": "{{ messages[-1].content }}.", "tool_use": "no"}, len(corpus.TALKS)),
        ("", 0),
        ([{"name": "rag", "template": "x"}], 0),
    ],
)
def test_templates_by_name_and_empty_ones_are_what_transformers_makes_of_them(
    template: Any, same: int, tmp_path: Path
) -> None:
    folder = tiny.save(tmp_path / "gpt2", "gpt2", "text_generation")
    edit(folder / "tokenizer_config.json", chat_template=template)
    assert counts(folder)["talks"] == same


@pytest.mark.slow
def test_a_template_that_asks_for_more_than_a_handler_gives_is_noticed(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "gpt2", "gpt2", "text_generation")
    # transformers keeps templates from this attribute; jinja2 does not.
    (folder / "chat_template.jinja").write_text("{{ dict is mapping }}{{ messages[0].content }}{{ dict }}")
    with pytest.raises(MismatchError, match="talks differ"):
        counts(folder)


def under_older(code: str) -> subprocess.CompletedProcess[str]:
    """A program under transformers 4."""
    path = os.pathsep.join([str(OLDER), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
@pytest.mark.skipif(not OLDER.exists(), reason="make test installs the older transformers")
def test_settings_take_effect_on_the_older_line_too(tmp_path: Path) -> None:
    folders = []
    own = {"eos": ("mistral", "text_generation", {"tokenizer_class": "LlamaTokenizer", "add_eos_token": True}, "a")}
    for name in ("accents", "prefix", "added tokens", "split special tokens", "eos"):
        family, task, settings, text = {**TAKE_EFFECT, **own}[name]
        folders.append((str(tiny.save(tmp_path / name, family, task)), text))
        # The older line knows no TokenizersBackend.
        named = {"tokenizer_class": "PreTrainedTokenizerFast", **settings}
        edit(tmp_path / name / "tokenizer_config.json", **named)
        (tmp_path / name / "special_tokens_map.json").unlink(missing_ok=True)
    code = (
        "from tests.builds.test_same_tokens import *\n"
        f"for folder, text in {folders!r}:\n"
        "    ours, theirs, stated = ids(Path(folder), text)\n"
        "    print(ours == theirs != stated, counts(Path(folder)))\n"
    )
    done = under_older(code)
    assert done.stdout.count("True {'texts': ") == len(folders), done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not OLDER.exists(), reason="make test installs the older transformers")
def test_the_older_lines_spaces_are_those_of_its_pipeline_unless_a_setting_forbids_that(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "gpt2", "gpt2", "text_generation")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    named = {**settings, "tokenizer_class": "PreTrainedTokenizerFast"}
    code = (
        "from tests.builds.test_same_tokens import *\n"
        "from handlers.text.tokenization import Tokenizer\n"
        "from mar_pipeline.workers.packed_tokenizer import pack\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer, TextGenerationPipeline\n"
        f"folder = Path({str(folder)!r})\n"
        "for setting in ({}, {'clean_up_tokenization_spaces': None}, {'clean_up_tokenization_spaces': False}):\n"
        f"    (folder / 'tokenizer_config.json').write_text(json.dumps({{**{named!r}, **setting}}))\n"
        "    pack({'checkpoint': str(folder), 'out': str(folder)}, lambda *_: None)\n"
        "    own, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)\n"
        "    ids = own('it is n\\'t good .', return_tensors='pt')['input_ids']\n"
        "    given = {'generated_sequence': ids[None], 'input_ids': None, 'prompt_text': ''}\n"
        "    (written,) = TextGenerationPipeline(model, own).postprocess(given)\n"
        "    ours = Tokenizer(folder).decode(ids[0].tolist())\n"
        "    print(ours, ours == written['generated_text'], counts(folder)['texts'] >= 200)\n"
    )
    assert under_older(code).stdout.splitlines() == [
        "it isn't good. True True",
        "it isn't good. True True",
        "it is n't good . False True",
    ]


@pytest.mark.slow
@pytest.mark.skipif(not OLDER.exists(), reason="make test installs the older transformers")
def test_an_archive_of_a_checkpoint_that_the_newer_line_saved_is_served_by_the_older_one(tmp_path: Path) -> None:
    import transformers

    from tests.support.unpacked import Served, lay_out

    if transformers.__version__.startswith("4."):
        pytest.skip("this is the older line")
    task = "seq_classification"
    folder = lay_out(tmp_path / "archive", tiny.save(tmp_path / "bert", "bert", task), task, "pretrained")
    named = json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"]
    assert named == "TokenizersBackend"  # which transformers 4 does not have
    asked = {"text": "good room", "text_pair": "the staff was kind"}
    code = (
        "import json, transformers\n"
        "from pathlib import Path\n"
        "from tests.support.unpacked import Served\n"
        f"(answer,) = Served(Path({str(folder)!r}), {task!r})({asked!r})\n"
        "print(json.dumps([transformers.__version__[:2], answer]))\n"
    )
    done = under_older(code)
    (expected,) = Served(folder, task)(asked)
    answer = {**expected, "score": pytest.approx(expected["score"], abs=1e-5)}
    assert json.loads(done.stdout.splitlines()[-1]) == ["4.", answer], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_build_follows_a_setting_of_tokenizer_config_and_says_so(fresh_mar: Mar, mode: str) -> None:
    import transformers
    from transformers import pipeline

    family, task, settings, text = TAKE_EFFECT["accents"]
    folder = tiny.save(fresh_mar.folder / "own", family, task)
    edit(folder / "tokenizer_config.json", **settings)
    done = fresh_mar("build", "--task", task, "--model", folder, "--save-mode", mode, "--out", fresh_mar.out)
    assert done.returncode == 0, done.stderr
    version = f"transformers {transformers.__version__}"
    assert f"it tokenizes as {version} does: BertTokenizer has another decoder and normalizer" in done.stderr
    follows = {"follows": version, "class": "BertTokenizer", "rewritten": ["decoder", "normalizer"]}
    assert json.loads((fresh_mar.out / "reports" / "own.json").read_text())["tokenizer"] == follows
    (archive,) = (fresh_mar.out / "model-store").iterdir()
    assert json.loads(fresh_mar("inspect", archive, "--json").stdout)["provenance"]["tokenizer"] == follows
    assert version in fresh_mar("inspect", archive).stdout
    (expected,) = pipeline("text-classification", model=str(folder))(text)
    answer = json.loads(fresh_mar("run", archive, "--input", json.dumps({"text": text})).stdout)
    assert answer == {"label": expected["label"], "score": pytest.approx(expected["score"], abs=1e-5)}


@pytest.mark.slow
def test_the_report_says_how_many_texts_were_compared(built: dict[tuple[str, str], dict[str, Any]], mar: Mar) -> None:
    for (task, mode), archive in built.items():
        told = json.loads((mar.out / "reports" / f"{task}-{mode}.json").read_text())["tokenized"]
        assert told["texts"] >= 200
        assert told["tokens"] >= 4000
        assert told["results"][-5:] == ["ids", "segments", "special", "offsets", "decoded"]
        assert bool(told["pairs"]) == (task in ("seq_classification", "question_answering"))
        with zipfile.ZipFile(mar.folder / archive["path"]) as packed:
            template = any("chat_template" in name for name in packed.namelist())
        assert bool(told["talks"]) == template
