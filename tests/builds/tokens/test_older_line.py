"""An archive's tokens and spaces on transformers 4."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, tiny
from tests.support.tokens import OLDER, TAKE_EFFECT, edit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(not OLDER.exists(), reason="make test installs the older transformers"),
]


def under_older(code: str) -> subprocess.CompletedProcess[str]:
    """A program under transformers 4."""
    path = os.pathsep.join([str(OLDER), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


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
        "from tests.support.tokens import *\n"
        f"for folder, text in {folders!r}:\n"
        "    ours, theirs, stated = ids(Path(folder), text)\n"
        "    print(ours == theirs != stated, counts(Path(folder)))\n"
    )
    done = under_older(code)
    assert done.stdout.count("True {'texts': ") == len(folders), done.stdout


def test_the_older_lines_spaces_are_those_of_its_pipeline_unless_a_setting_forbids_that(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "gpt2", "gpt2", "text_generation")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    named = {**settings, "tokenizer_class": "PreTrainedTokenizerFast"}
    code = (
        "from tests.support.tokens import *\n"
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
