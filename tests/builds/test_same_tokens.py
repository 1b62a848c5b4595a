"""An archive's tokenizer and its chat template give the ids that transformers gives, or the build says where they do
not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mar_pipeline.answers import corpus, tokenization
from mar_pipeline.errors import MismatchError
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


def words(folder: Path) -> Path:
    """A tokenizer of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "good": 1, "bad": 2}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def told(**changes: Any) -> dict[str, Any]:
    plain = {"texts": [[1]], "pairs": [], "talks": [], "types": [], "decoded": [], "class": "OwnTokenizer"}
    return {**plain, "parts": dict.fromkeys(tokenization.PARTS), **changes}


def refused(folder: Path, asked: dict[str, Any], wanted: dict[str, Any], got: dict[str, Any]) -> MismatchError:
    with pytest.raises(MismatchError) as caught:
        tokenization.compared("own", folder, asked, wanted, got)
    assert len(str(caught.value).splitlines()) == 3
    assert str(caught.value).replace("\n", "").isprintable()
    return caught.value


def test_the_first_text_that_differs_is_named_with_both_results(tmp_path: Path) -> None:
    asked = {"texts": ["good", "a\u202eb\x1b"], "pairs": [], "talks": []}
    error = refused(words(tmp_path), asked, told(texts=[[1], [1, 2]]), told(texts=[[1], [1, 0]]))
    assert error.what.endswith(r"1 of 2 texts differ, first 'a\u202eb\x1b'")
    assert error.why == "AutoTokenizer (OwnTokenizer) gives 1 2 (good bad), and the archive 1 0 (good [UNK])."
    assert "PreTrainedTokenizerFast" in error.fix
    assert error.exit_code == 4


def test_of_a_long_text_the_place_is_shown_where_it_differs(tmp_path: Path) -> None:
    asked = {"texts": ["good " * 500], "pairs": [], "talks": []}
    error = refused(words(tmp_path), asked, told(texts=[[1] * 500]), told(texts=[[1] * 400 + [2] * 100]))
    assert "the archive ... 1 1 2 2" in error.why
    assert len(str(error)) < 1000


def test_a_text_that_the_archive_refuses_differs_and_one_that_the_original_refuses_is_not_compared(
    tmp_path: Path,
) -> None:
    asked = {"texts": ["good", "bad"], "pairs": [], "talks": []}
    assert tokenization.compared("own", words(tmp_path), asked, told(texts=[[1], None]), told(texts=[[1], "no"])) == {
        "texts": 1, "pairs": 0, "talks": 0,
    }  # fmt: skip
    error = refused(tmp_path, asked, told(texts=[[1], [2]]), told(texts=[[1], "no such"]))
    assert "refuses it: 'no such'" in error.why


@pytest.mark.parametrize("ours", [["You may call tools. Hello", [1]], "the template refuses these messages"])
def test_a_prompt_that_differs_is_shown_as_both_write_it(tmp_path: Path, ours: Any) -> None:
    asked = {"texts": [], "pairs": [], "talks": [[{"role": "user", "content": "Hello"}]]}
    wanted = told(texts=[], talks=[["No documents. Hello", [1]]])
    error = refused(words(tmp_path), asked, wanted, told(texts=[], talks=[ours]))
    assert "1 of 1 talks differ" in error.what
    assert "'No documents. Hello'" in error.why
    assert (ours if isinstance(ours, str) else ours[0]) in error.why


def test_token_types_of_a_pair_that_differ_are_told_unless_the_model_has_none(tmp_path: Path) -> None:
    asked = {"texts": [], "pairs": [("good", "bad")], "talks": []}
    wanted, got = told(texts=[], pairs=[[1, 2]], types=[[0, 1]]), told(texts=[], pairs=[[1, 2]], types=[[0, 0]])
    error = refused(words(tmp_path), asked, wanted, got)
    assert "1 of 1 pairs differ, first ('good', 'bad')" in error.what
    assert "gives 1 x 0 1 x 1, and the archive 2 x 0" in error.why
    assert tokenization.compared("own", tmp_path, asked, {**wanted, "types": [None]}, got)["pairs"] == 1


def test_ids_that_are_decoded_to_another_text_are_told(tmp_path: Path) -> None:
    asked = {"texts": ["good bad", "bad"], "pairs": [], "talks": []}
    wanted = told(texts=[[1, 2], None], decoded=["good", None])
    error = refused(words(tmp_path), asked, wanted, told(texts=[[1, 2], [2]], decoded=["good bad", "bad"]))
    assert "does not decode like the original: 1 of 2 texts differ, first 'good bad'" in error.what
    assert "decodes its ids to 'good', and the archive to 'good bad'" in error.why


def test_a_model_that_does_not_tell_its_embeddings_is_taken_at_its_tokenizers_word() -> None:
    from mar_pipeline.workers import tokenization as original_tokens

    def none() -> None:
        raise NotImplementedError

    assert original_tokens._rows(SimpleNamespace(get_input_embeddings=none)) is None
    assert original_tokens._rows(SimpleNamespace(get_input_embeddings=lambda: None)) is None


# From here on: with transformers.


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def counts(folder: Path, lower: bool | None = None, max_length: int | None = None) -> dict[str, int]:
    """What is compared for an archive that has a checkpoint's tokenizer as it is. Raises MismatchError."""
    from handlers.text.chat import Chat
    from handlers.text.tokenization import Tokenizer
    from mar_pipeline.portable import emulator
    from mar_pipeline.workers import tokenization as original_tokens

    config = json.loads((folder / "config.json").read_text())
    writes = config["architectures"][0].endswith(("CausalLM", "LMHeadModel"))
    asked = tokenization.asked(folder, pairs=not writes, talks=writes, max_length=max_length)
    size = config["vocab_size"]
    rows = SimpleNamespace(weight=SimpleNamespace(shape=[size]))
    model = SimpleNamespace(
        get_input_embeddings=lambda: rows,
        forward=lambda input_ids, attention_mask, token_type_ids: None,  # noqa: ARG005 (names are asked for)
        config=SimpleNamespace(type_vocab_size=2),
    )
    job = {"checkpoint": str(folder), "corpus": asked, "settings": {"do_lower_case": lower}}
    own = Tokenizer(folder)
    handler = SimpleNamespace(tokenizer=own, chat=Chat(folder, own.settings))
    wanted = original_tokens.expected(job, model, original_tokens.tokenizer(job))
    return tokenization.compared("own", folder, asked, wanted, emulator.tokens(handler, asked))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "deberta-v2", "gemma", "gpt2", "mistral", "qwen2", "roberta"])
def test_of_every_kind_of_tokenizer_the_archives_is_the_same(family: str, tmp_path: Path) -> None:
    task = next(task for task in tiny.AUTO if tiny.has(family, task))
    assert counts(tiny.save(tmp_path / family, family, task))["texts"] >= 200


OTHERS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    # name: family, task, what is in tokenizer_config.json, what the first difference is about
    "accents": ("bert", "seq_classification", {"tokenizer_class": "BertTokenizer", "do_lower_case": True,
        "strip_accents": False}, "normalizer"),
    "chinese": ("bert", "seq_classification", {"tokenizer_class": "BertTokenizer", "do_lower_case": True,
        "tokenize_chinese_chars": False}, "normalizer"),
    "prefix": ("gpt2", "text_generation", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True},
        "pre_tokenizer"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_settings_that_only_transformers_heeds_are_noticed_and_both_ways_out_help(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    family, task, settings, part = OTHERS[name]
    folder = tiny.save(tmp_path / family, family, task)
    edit(folder / "tokenizer_config.json", **settings)
    with pytest.raises(MismatchError) as caught:
        counts(folder)
    assert settings["tokenizer_class"] in caught.value.why
    assert part in caught.value.fix
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "config.json").write_text((folder / "config.json").read_text())
    assert counts(tmp_path / "saved")["texts"] >= 200
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert counts(folder)["texts"] >= 200


@pytest.mark.slow
def test_a_class_that_transformers_takes_whatever_the_files_say_is_noticed_and_the_way_out_helps(
    tmp_path: Path,
) -> None:
    import transformers

    if transformers.__version__.startswith("4."):
        pytest.skip("transformers 4 takes the class that tokenizer_config.json names")
    folder = tiny.save(tmp_path / "qwen2", "qwen2", "text_generation")
    tiny.save(tmp_path / "gpt2", "gpt2", "text_generation")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text((tmp_path / "gpt2" / name).read_text())
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    with pytest.raises(MismatchError) as caught:
        counts(folder)
    assert "Qwen2Tokenizer" in caught.value.why
    assert "save_pretrained(FOLDER)" in caught.value.fix
    assert "set tokenizer_class" not in caught.value.fix
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    assert counts(folder)["texts"] >= 200


@pytest.mark.slow
def test_where_case_alone_differs_the_setting_is_named_that_helps(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "bert", "bert", "seq_classification")
    edit(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer", do_lower_case=False)
    with pytest.raises(MismatchError) as caught:
        counts(folder)
    assert "Set handler.do_lower_case: false" in caught.value.fix
    from mar_pipeline.model.tokenizer import set_lower_case

    set_lower_case(folder, False)  # as the serialize stage does with that setting
    assert counts(folder, lower=False)["texts"] >= 200


@pytest.mark.slow
def test_token_types_that_only_the_class_gives_are_noticed(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "bert", "bert", "seq_classification")
    file = folder / "tokenizer.json"
    words = json.loads(file.read_text())
    for part in words["post_processor"]["pair"]:
        for told in part.values():
            told["type_id"] = 0
    file.write_text(json.dumps(words))
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert counts(folder)["pairs"] >= 10
    edit(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer", do_lower_case=True)
    with pytest.raises(MismatchError, match="token types of the original") as caught:
        counts(folder)
    assert "post_processor" in caught.value.fix


@pytest.mark.slow
def test_a_token_that_only_the_settings_call_special_is_noticed_and_the_way_out_helps(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = tiny.save(tmp_path / "gpt2", "gpt2", "text_generation")
    file = folder / "tokenizer.json"
    words = json.loads(file.read_text())
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    added = {"content": "<x>", **plain}
    file.write_text(json.dumps({**words, "added_tokens": [*words["added_tokens"], {"id": 400, **added}]}))
    edit(folder / "config.json", vocab_size=401)
    assert counts(folder)["texts"] >= 200
    edit(folder / "tokenizer_config.json", added_tokens_decoder={"400": {**added, "special": True}})
    with pytest.raises(MismatchError, match="does not decode like the original"):
        counts(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    assert counts(folder)["texts"] >= 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "way_out"),
    [
        ({"split_special_tokens": True}, "split_special_tokens"),
        ({"additional_special_tokens": ["room"]}, "remove those settings from tokenizer_config.json"),
    ],
)
def test_where_the_class_is_plain_the_settings_that_make_the_difference_are_named(
    settings: dict[str, Any], way_out: str, tmp_path: Path
) -> None:
    folder = tiny.save(tmp_path / "gpt2", "gpt2", "text_generation")
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", **settings)
    edit(folder / "config.json", vocab_size=500)
    with pytest.raises(MismatchError) as caught:
        counts(folder)
    assert way_out in caught.value.fix
    assert "whatever tokenizer_config.json says" not in caught.value.fix
    edit(folder / "tokenizer_config.json", **{name: type(value)() for name, value in settings.items()})
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    assert counts(folder)["texts"] >= 200


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"truncation_side": "right"}])
def test_the_side_that_is_cut_may_stand_in_tokenizer_json_alone(settings: dict[str, str], tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "bert", "bert", "seq_classification")
    words = json.loads((folder / "tokenizer.json").read_text())
    cut = {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps({**words, "truncation": cut}))
    edit(folder / "tokenizer_config.json", **settings)
    assert counts(folder, max_length=16)["pairs"] >= 10


@pytest.mark.slow
def test_a_tokenizer_whose_class_splits_digits_otherwise_is_noticed(tmp_path: Path) -> None:
    from tokenizers import Regex, Tokenizer, pre_tokenizers

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
    with pytest.raises(MismatchError, match="2023"):
        counts(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "template",
    [
        "{% if tools is not none %}tools{% endif %}{{ messages[0].content }}",
        "{{ strftime_now('%H:%M:%S.%f') }}{% for m in messages %}{{ m.role }}: {{ m.content | trim }}{% endfor %}",
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ eos_token }}{{ messages }}",
    ],
)
def test_chat_templates_write_what_transformers_has_them_write(template: str, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "gpt2", "gpt2", "text_generation")
    (folder / "chat_template.jinja").write_text(template)
    assert counts(folder)["talks"] >= 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "same"),
    [
        ({"default": "{{ messages[0].content }}.", "tool_use": "no"}, 14),
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


@pytest.mark.slow
@pytest.mark.skipif(not OLDER.exists(), reason="make test installs the older transformers")
def test_the_older_line_notices_it_too(tmp_path: Path) -> None:
    family, task, settings, _ = OTHERS["accents"]
    good = tiny.save(tmp_path / "good", family, task)
    bad = tiny.save(tmp_path / "bad", family, task)
    # The older line knows no TokenizersBackend.
    edit(good / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    edit(bad / "tokenizer_config.json", **settings)
    code = (
        f"from tests.builds.test_same_tokens import *; print(counts(Path({str(good)!r}))); counts(Path({str(bad)!r}))"
    )
    path = os.pathsep.join([str(OLDER), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("{'texts': ")
    assert "does not tokenize like the original" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_build_with_another_tokenizer_ends_with_exit_code_4_and_leaves_no_archive(fresh_mar: Mar, mode: str) -> None:
    family, task, settings, _ = OTHERS["accents"]
    folder = tiny.save(fresh_mar.folder / "own", family, task)
    edit(folder / "tokenizer_config.json", **settings)
    done = fresh_mar("build", "--task", task, "--model", folder, "--save-mode", mode, "--out", fresh_mar.out)
    assert done.returncode == 4, done.stderr
    assert "own does not tokenize like the original" in done.stderr
    assert not list(fresh_mar.out.rglob("*.mar"))


@pytest.mark.slow
def test_the_report_says_how_many_texts_were_compared(built: dict[tuple[str, str], dict[str, Any]], mar: Mar) -> None:
    for (task, mode), archive in built.items():
        told = json.loads((mar.out / "reports" / f"{task}-{mode}.json").read_text())["tokenized"]
        assert told["texts"] >= 200
        assert bool(told["pairs"]) == (task in ("seq_classification", "question_answering"))
        with zipfile.ZipFile(mar.folder / archive["path"]) as packed:
            template = any("chat_template" in name for name in packed.namelist())
        assert bool(told["talks"]) == template
