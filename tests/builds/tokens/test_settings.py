"""An archive's tokenizer gives what transformers' AutoTokenizer gives, whatever its settings."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.answers import tokenization
from tests.support import tiny
from tests.support.mar import MODES, Mar
from tests.support.tokens import TAKE_EFFECT, counts, edit, ids


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "deberta-v2", "gemma", "gpt2", "mistral", "qwen2", "roberta"])
def test_of_every_kind_of_tokenizer_the_archives_is_the_same(family: str, tmp_path: Path) -> None:
    task = next(task for task in tiny.AUTO if tiny.has(family, task))
    compared = counts(tiny.save(tmp_path / family, family, task))
    assert compared["texts"] >= 200
    assert compared["tokens"] >= 5000


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
